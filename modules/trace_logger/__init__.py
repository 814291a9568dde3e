"""trace_logger: what was done on the platform, how long it took, and who is answerable for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .alerts import Alert
from .audit_chain import AuditEntry, Head
from .audit_check import AuditFinding, AuditReport, verify
from .open_traces import StartedTrace
from .performance import OperationTimes, PerformanceReport
from .queries import TraceList, TraceSummary
from .settings import TraceSettings
from .trace_logger import TraceCounts, TraceErasure, TraceLoggerModule
from .trace_tree import SpanNode, Trace

__all__ = [
    "Alert",
    "AuditEntry",
    "AuditFinding",
    "AuditReport",
    "Head",
    "OperationTimes",
    "PerformanceReport",
    "SpanNode",
    "StartedTrace",
    "Trace",
    "TraceCounts",
    "TraceErasure",
    "TraceList",
    "TraceLoggerModule",
    "TraceSettings",
    "TraceSummary",
    "create",
    "verify",
]


def create(settings: Mapping[str, Any]) -> TraceLoggerModule:
    """The module for a loader."""
    return TraceLoggerModule(settings)
