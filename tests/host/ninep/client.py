"""A client of 9P2000.L as a test: it makes messages, and keeps the fids as the device does."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from dbt.devices.virtio.ninep import MOST_BYTES, Outcome, Request
from dbt.host.ninep import messages as m
from dbt.host.ninep.server import Server

ROOT = 0
NOFID = 0xFFFFFFFF


def text(name: bytes | str) -> bytes:
    name = os.fsencode(name)
    return struct.pack("<H", len(name)) + name


def words(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in numbers)


def long(number: int) -> bytes:
    return (number & (1 << 64) - 1).to_bytes(8, "little")


class Refused(Exception):
    """An answer that is Rlerror."""

    def __init__(self, code: int) -> None:
        super().__init__(os.strerror(code))
        self.errno = code


class Client:
    """A client of a server for ``root``, whose fid 0 is the root."""

    def __init__(self, root: Path | str, read_only: bool = False, msize: int = 8192, is_file: bool = False) -> None:
        self.server = Server(str(root), read_only, is_file)
        self.fids: dict[int, bytes] = {}
        self.msize = self.serial = 0
        self.room = MOST_BYTES
        self._next = 100
        self.call(m.TVERSION, words(msize) + text("9P2000.L"))
        self.call(m.TATTACH, words(ROOT, NOFID) + text("user") + text("") + words(0))

    def send(self, message: bytes) -> bytes:
        """Return the answer to any message, and take over what becomes of the fids."""
        self.serial += 1
        room = min(self.room, self.msize or MOST_BYTES)
        packed = self.server.answer(Request(message, room, self.msize, self.fids, self.serial)).pack()
        outcome = Outcome.unpack(packed)
        self.msize = outcome.msize
        for number, fid in outcome.fids.items():
            if fid is None:
                self.fids.pop(number, None)
            else:
                self.fids[number] = fid
        size, kind, tag = m.HEADER.unpack_from(outcome.reply)
        assert size == len(outcome.reply) <= room
        assert kind in (m.RLERROR, message[4] + 1)
        assert tag == int.from_bytes(message[5:7], "little")
        return bytes(outcome.reply)

    def call(self, kind: int, body: bytes) -> bytes:
        """Return the body of the answer. Raise Refused for an Rlerror."""
        reply = self.send(m.message(kind, 7, body))
        if reply[4] == m.RLERROR:
            raise Refused(int.from_bytes(reply[7:11], "little"))
        return reply[7:]

    # -- what a client does --------------------------------------------------------------------

    def walk(self, path: str, start: int = ROOT) -> int:
        """Return a new fid for a path. Raise Refused if it does not get there."""
        number, self._next = self._next, self._next + 1
        names = [part for part in path.split("/") if part]
        body = words(start, number) + struct.pack("<H", len(names)) + b"".join(map(text, names))
        reply = self.call(m.TWALK, body)
        if int.from_bytes(reply[:2], "little") < len(names):
            raise Refused(2)
        return number

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        fid = self.walk(path)
        self.call(m.TLOPEN, words(fid, flags))
        return fid

    def create(self, directory: str, name: str, flags: int = os.O_RDWR, mode: int = 0o644) -> int:
        fid = self.walk(directory)
        self.call(m.TLCREATE, words(fid) + text(name) + words(flags, mode, 0))
        return fid

    def read(self, fid: int, offset: int = 0, count: int = 4096) -> bytes:
        reply = self.call(m.TREAD, words(fid) + long(offset) + words(count))
        assert int.from_bytes(reply[:4], "little") == len(reply) - 4 <= count
        return reply[4:]

    def write(self, fid: int, data: bytes, offset: int = 0) -> int:
        return int.from_bytes(self.call(m.TWRITE, words(fid) + long(offset) + words(len(data)) + data), "little")

    def clunk(self, fid: int) -> None:
        self.call(m.TCLUNK, words(fid))

    def getattr(self, fid: int) -> tuple[int, ...]:
        """Return mode, uid, gid, nlink, rdev, size, and so on."""
        reply = self.call(m.TGETATTR, words(fid) + long(0x7FF))
        return struct.unpack_from("<IIIQQQQQQQQQQQ", reply, 21)

    def setattr(
        self, fid: int, valid: int, mode: int = 0, uid: int = 0, gid: int = 0, size: int = 0, *times: int
    ) -> None:
        body = words(fid, valid, mode, uid, gid) + long(size) + b"".join(map(long, times or (0, 0, 0, 0)))
        self.call(m.TSETATTR, body)

    def list(self, fid: int, count: int = 4096) -> list[tuple[bytes, int, int]]:
        """Return name, kind and inode's number of each entry."""
        found, offset = [], 0
        while data := self.call(m.TREADDIR, words(fid) + long(offset) + words(count))[4:]:
            at = 0
            while at < len(data):
                _, _, inode, offset, kind, size = struct.unpack_from("<BIQQBH", data, at)
                at += 24
                found.append((data[at : at + size], kind, inode))
                at += size
        return found
