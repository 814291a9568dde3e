"""What the figures were measured on, and how much memory processes took."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.tables import Table


@dataclass(frozen=True, slots=True)
class Machine:
    """*load* is the load average of the minute before the first measurement: figures mean little unless it is low."""

    cores: int
    processor: str
    memory_bytes: int
    kernel: str
    python: str
    ray: str
    file_system: str
    load: float

    @classmethod
    def here(cls, directory: str) -> Machine:
        """This machine; *directory* is where the trees will stand."""
        return cls(
            cores=len(os.sched_getaffinity(0)),
            processor=_field(Path("/proc/cpuinfo").read_text(encoding="utf-8"), "model name") or platform.machine(),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            kernel=platform.release(),
            python=platform.python_version(),
            ray=version("ray"),
            file_system=file_system_of(directory, Path("/proc/mounts").read_text(encoding="utf-8")),
            load=os.getloadavg()[0],
        )

    def table(self) -> Table:
        return Table(
            "machine",
            "Machine",
            ("what", "found"),
            (
                ("cores", self.cores),
                ("processor", self.processor),
                ("memory", f"{self.memory_bytes / 2**30:.1f} GiB"),
                ("kernel", self.kernel),
                ("Python", self.python),
                ("Ray", self.ray),
                ("file system", self.file_system),
                ("load before the first run", f"{self.load:.2f}"),
            ),
        )


def file_system_of(path: str, mounts: str) -> str:
    """The type of the file system that *path* is on, by the text of ``/proc/mounts``; the last of equal mounts is the
    one that is seen."""
    real = os.path.realpath(path)
    found, kind = "", "unknown"
    for line in mounts.splitlines():
        _, point, here, *_ = line.split()
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)
        is_above = point == "/" or real == point or real.startswith(point + "/")
        if is_above and len(point) >= len(found):
            found, kind = point, here
    return kind


def free_room(path: str) -> tuple[int, int | None]:
    """Bytes and inodes that may still be written below *path*; None where inodes are not numbered in advance. A file
    system in memory has no more room than memory has."""
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    if file_system_of(path, Path("/proc/mounts").read_text(encoding="utf-8")) in ("tmpfs", "ramfs"):
        available = _kilobytes(Path("/proc/meminfo").read_text(encoding="utf-8"), "MemAvailable")
        free = available if free == 0 else min(free, available)  # ramfs counts nothing
    return free, status.f_favail if status.f_files else None


def peak_rss(_: object = None) -> int:
    """The most bytes of memory that this process ever held at once, as exact as the kernel counts it (to some hundred
    pages). Takes an argument so that an actor can be asked
    to call it with itself."""
    return _kilobytes(Path("/proc/self/status").read_text(encoding="utf-8"), "VmHWM")


def highest_peak(actors: Iterable[object]) -> int:
    """The highest `peak_rss` among the processes of Ray actors. Raises what Ray raises for one that is dead."""
    asked = [actor.__ray_call__.remote(peak_rss) for actor in actors]  # type: ignore[attr-defined]
    return max(int(reference.future().result(timeout=30)) for reference in asked)


def _kilobytes(text: str, name: str) -> int:
    field = _field(text, name)
    if field is None or not field.endswith(" kB"):
        raise ValueError(f"the kernel does not tell {name}")
    return int(field.removesuffix(" kB")) * 1024


def _field(text: str, name: str) -> str | None:
    """The value of the first ``name: value`` line."""
    found = re.search(rf"^{re.escape(name)}\s*:\s*(.+?)\s*$", text, re.MULTILINE)
    return found[1] if found else None
