"""How parent and child talk: frames of msgpack over a Unix socket, a file's descriptor along with the first.

The child reads hostile files, so the parent takes nothing from it but plain values of bounded length, and gives it
open files and no names.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgpack

_LENGTH = struct.Struct("!I")


class Broken(Exception):
    """The other side is gone, or sent what is no frame."""


def send(channel: socket.socket, value: Any, fd: int | None = None) -> None:
    """Raises OSError when the other side is gone, TimeoutError when it does not take it."""
    packed = msgpack.packb(value, use_bin_type=True)
    header = _LENGTH.pack(len(packed))
    if fd is None:
        channel.sendall(header)
    else:
        socket.send_fds(channel, [header], [fd])
    channel.sendall(packed)


def receive(channel: socket.socket, *, most_bytes: int) -> tuple[Any, int | None]:
    """The next value, and the descriptor that came with it; the caller closes that. Raises Broken, TimeoutError."""
    header, fds, _, _ = socket.recv_fds(channel, _LENGTH.size, 1)
    if len(header) < _LENGTH.size:
        header += _exactly(channel, _LENGTH.size - len(header))
    (length,) = _LENGTH.unpack(header)
    if length > most_bytes:
        raise Broken(f"a frame of {length} bytes, {most_bytes} at most are taken")
    try:
        return msgpack.unpackb(_exactly(channel, length), raw=False, strict_map_key=False), (fds[0] if fds else None)
    except (ValueError, msgpack.UnpackException) as error:
        raise Broken(f"a frame that is no msgpack: {error}") from error


def _exactly(channel: socket.socket, length: int) -> bytes:
    received = bytearray()
    while len(received) < length:
        piece = channel.recv(min(1 << 20, length - len(received)))
        if not piece:
            raise Broken("the other side closed")
        received += piece
    return bytes(received)
