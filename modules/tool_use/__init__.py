"""tool_use: tools outside the platform, called so that nothing is lost, overrun or given away by it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .chains import ChainResult, ChainStep, StepResult, ToolChain
from .definition import ToolDefinition
from .errors import (
    AddressRefused,
    CircuitOpen,
    ParametersInvalid,
    ToolAnswerInvalid,
    ToolBusy,
    ToolError,
    ToolFailed,
    ToolTimedOut,
    ToolUnavailable,
)
from .imports import Listed
from .mcp_servers import HttpServer, StdioServer
from .output import ToolResult
from .registering import ToolErasure, ToolStatus
from .settings import ToolUseSettings
from .tool_use import ToolUseModule

__all__ = [
    "AddressRefused",
    "ChainResult",
    "ChainStep",
    "CircuitOpen",
    "HttpServer",
    "Listed",
    "ParametersInvalid",
    "StdioServer",
    "StepResult",
    "ToolAnswerInvalid",
    "ToolBusy",
    "ToolChain",
    "ToolDefinition",
    "ToolErasure",
    "ToolError",
    "ToolFailed",
    "ToolResult",
    "ToolStatus",
    "ToolTimedOut",
    "ToolUnavailable",
    "ToolUseModule",
    "ToolUseSettings",
    "create",
]


def create(settings: Mapping[str, Any]) -> ToolUseModule:
    """The module for a loader."""
    return ToolUseModule(settings, environ=os.environ)
