"""The runtime: hosts modules, hands out references to them, carries events between them.

`Platform` starts, finds and stops everything; `LocalRuntime` keeps it in this process. The runtime on Ray is
`actors.ray_runtime.RayRuntime`, which alone imports Ray.
"""

from .errors import ModuleFailed, TimedOut, Unreachable
from .local import LocalRuntime
from .ref import Ref
from .system import PartHealth, Platform, PlatformHealth

__all__ = [
    "LocalRuntime",
    "ModuleFailed",
    "PartHealth",
    "Platform",
    "PlatformHealth",
    "Ref",
    "TimedOut",
    "Unreachable",
]
