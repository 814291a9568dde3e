"""Which addresses processes of this machine listen on, as the kernel tells: what `ss -ltnp` shows."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_LISTENING = "0A"  # TCP_LISTEN of include/net/tcp_states.h


@dataclass(frozen=True, order=True)
class Listener:
    """``title`` is the command line of the process."""

    port: int
    address: str
    pid: int
    title: str

    @property
    def is_loopback(self) -> bool:
        address = ipaddress.ip_address(self.address)
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address).is_loopback


def listeners(pids: Iterable[int]) -> list[Listener]:
    """What these processes listen on; each socket once, with one of the processes that hold it."""
    holders = {inode: pid for pid in pids for inode in _sockets_of(pid)}
    found = []
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state, *rest = row.split()
            inode = rest[5]
            if state == _LISTENING and inode in holders:
                address, port = local.split(":")
                pid = holders[inode]
                found.append(Listener(int(port, 16), _address(address), pid, _title(pid)))
    return sorted(found)


def descendants(pid: int) -> list[int]:
    """The process and all below it."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                status = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            parent = int(status.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def _sockets_of(pid: int) -> set[str]:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except (FileNotFoundError, ProcessLookupError):
        return set()
    found = set()
    for name in names:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            found.add(target[len("socket:[") : -1])
    return found


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _address(text: str) -> str:
    """The kernel writes addresses as words of the machine's byte order."""
    raw = bytes.fromhex(text)
    words = (raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    return str(ipaddress.ip_address(b"".join(words)))
