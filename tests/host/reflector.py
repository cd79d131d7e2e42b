"""A neighbour at a machine's network card: it answers every ARP request and ping of the guest's, and does nothing else.

It serves the socket of ``--net unix:PATH``, where each frame comes behind its length.
"""

from __future__ import annotations

import socket
import struct
from contextlib import closing
from pathlib import Path
from threading import Thread

_MAC = bytes.fromhex("525400000002")
_ARP, _IPV4, _ICMP = b"\x08\x06", b"\x08\x00", 1
_OFFSET = 0x1FFF


class Reflector:
    """Listens at a path for one machine. ``reflected`` is how many frames it has answered."""

    def __init__(self, path: Path) -> None:
        self.reflected = 0
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with closing(self._listener), self._listener.accept()[0] as machine, machine.makefile("rb") as frames:
            while head := frames.read(4):
                answer = reflected(frames.read(int.from_bytes(head, "big")))
                if answer:
                    self.reflected += 1
                    machine.sendall(len(answer).to_bytes(4, "big") + answer)


def reflected(frame: bytes) -> bytes:
    """Return the answer to a frame: to an ARP request, a ping or a further fragment of one. Others have none."""
    kind, data = frame[12:14], bytearray(frame[14:])
    if kind == _ARP and data[6:8] == b"\0\1":
        data[6:8] = b"\0\2"
        data[8:28] = _MAC + data[24:28] + data[8:18]
        return frame[6:12] + _MAC + kind + data
    if kind != _IPV4 or data[9] != _ICMP:
        return b""
    data[12:20] = data[16:20] + data[12:16]
    if not struct.unpack_from("!H", data, 6)[0] & _OFFSET:
        at = 4 * (data[0] & 15)
        if data[at] != 8:  # no echo request
            return b""
        data[at] = 0
        total = struct.unpack_from("!H", data, at + 2)[0] + 0x0800
        struct.pack_into("!H", data, at + 2, (total & 0xFFFF) + (total >> 16))
    return frame[6:12] + _MAC + kind + data
