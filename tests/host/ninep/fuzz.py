"""Mutated messages of 9P: whatever a client sends, the server answers, and nothing happens outside the directory.

    python -m tests.host.ninep.fuzz --count 1000000 --seed 1

A round is a client with a new directory, beside which is another one that must not change. It sends messages as a
client would, with names, fids and numbers that are often wrong, and some bytes of which are changed. Nothing may be
raised, each answer has to be a message that fits, and in the end only the directory may have changed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from random import Random

from dbt.devices.virtio.ninep import MOST_BYTES, Outcome
from dbt.host.ninep import messages as m
from dbt.host.ninep.fids import Fid
from dbt.host.ninep.messages import HEADER, RLERROR
from tests.host.ninep.client import NOFID, Client, long, text, words

MESSAGES_IN_A_ROUND = 50
#: No message may take longer, in seconds of host time.
MOST_SECONDS = 2.0
_NAMES = (
    b"a",
    b"b",
    b"sub",
    b"deep",
    b"link",
    b"out",
    b"fifo",
    b"new",
    b"..",
    b".",
    b"",
    b"a/b",
    b"../secret",
    b"/etc",
)
_LONG_NAMES = (b"x" * 255, b"x" * 256, b"\xff\xfe", b"nul\0", b"z" * 70000)
_NUMBERS = (0, 1, 2, 7, 8, 255, 256, 4096, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 62, (1 << 63) - 1, (1 << 64) - 1)
_FLAGS = (0, 0, 1, 2, os.O_TRUNC | 2, os.O_APPEND | 1, os.O_EXCL | 2, os.O_DIRECTORY, 0o20000002, 0xFFFFFFFF)
_MODES = (0o644, 0o755, 0o4755, stat.S_IFREG | 0o600, stat.S_IFCHR | 0o600, stat.S_IFIFO | 0o600, 0xFFFFFFFF)


def make_tree(place: Path) -> Path:
    """Return a directory with something of each kind, and something beside it."""
    share = place / "share"
    (share / "sub" / "deep").mkdir(parents=True)
    (share / "a").write_bytes(b"hello" * 100)
    (share / "sub" / "b").write_bytes(b"b")
    (share / "link").symlink_to("a")
    (share / "out").symlink_to("..")
    os.mkfifo(share / "fifo")
    (place / "secret").write_bytes(b"secret")
    return share


def outside(place: Path) -> list[tuple[object, ...]]:
    """What is known of everything beside the directory."""
    found: list[tuple[object, ...]] = [(sorted(os.listdir(place)),)]
    for path in (place, place / "secret"):
        known = path.lstat()
        found.append((known.st_mode, known.st_uid, known.st_nlink if path.is_file() else 0, known.st_mtime_ns))
    return [*found, ((place / "secret").read_bytes(),)]


class Messages:
    """Messages that a client could send, nearly."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def _name(self) -> bytes:
        return text(self._random.choice(_NAMES if self._random.random() < 0.9 else _LONG_NAMES)[:65535])

    def _fid(self) -> bytes:
        return words(self._random.choice((0, 0, *range(1, 9), NOFID)))

    def _long(self) -> bytes:
        return long(self._random.choice(_NUMBERS))

    def _word(self) -> bytes:
        return words(self._random.choice(_NUMBERS) & 0xFFFFFFFF)

    def _flags(self) -> bytes:
        return words(self._random.choice(_FLAGS))

    def _mode(self) -> bytes:
        return words(self._random.choice(_MODES))

    def _count(self) -> bytes:
        return words(self._random.choice((0, 1, 20, 100, 4096, 8192, 0xFFFFFFFF)))

    def _walk(self) -> bytes:
        names = [self._name() for _ in range(self._random.choice((0, 1, 1, 2, 3, 17)))]
        return self._fid() + self._fid() + len(names).to_bytes(2, "little") + b"".join(names)

    def _write(self) -> bytes:
        data = self._random.randbytes(self._random.choice((0, 1, 100)))
        size = words(len(data)) if self._random.random() < 0.9 else self._count()
        return self._fid() + long(self._random.choice((0, 1, 100, 1 << 62, 1 << 63))) + size + data

    def _setattr(self) -> bytes:
        numbers = [self._random.choice((0, 1, 100, 10**9, *_NUMBERS)) for _ in range(5)]
        return (
            self._fid()
            + words(self._random.getrandbits(9))
            + self._mode()
            + self._word() * 2
            + b"".join(map(long, numbers))
        )

    def _body(self, kind: int) -> bytes:
        fid, name, word = self._fid, self._name, self._word
        match kind:
            case m.TVERSION:
                return self._count() + text(self._random.choice((b"9P2000.L", b"9P2000.L", b"9P2000")))
            case m.TATTACH:
                return fid() + fid() + name() + name() + word()
            case m.TWALK:
                return self._walk()
            case m.TLOPEN:
                return fid() + self._flags()
            case m.TLCREATE:
                return fid() + name() + self._flags() + self._mode() + word()
            case m.TREAD | m.TREADDIR:
                return fid() + self._long() + self._count()
            case m.TWRITE:
                return self._write()
            case m.TSETATTR:
                return self._setattr()
            case m.TMKDIR:
                return fid() + name() + self._mode() + word()
            case m.TMKNOD:
                return fid() + name() + self._mode() + word() + word() + word()
            case m.TSYMLINK:
                return fid() + name() + name() + word()
            case m.TLINK | m.TRENAME:
                return fid() + fid() + name()
            case m.TRENAMEAT:
                return fid() + name() + fid() + name()
            case m.TUNLINKAT:
                return fid() + name() + words(self._random.choice((0, 0x200, 1, 0xFFFFFFFF)))
            case m.TLOCK | m.TGETLOCK:
                return fid() + bytes([1]) + word() + self._long() + self._long() + word() + name()
            case _:
                return fid() + self._long()

    def next(self) -> bytes:
        """Return a message, which has a whole header that states its size."""
        random = self._random
        kind = random.choice(_KINDS) if random.random() < 0.97 else random.randrange(256)
        body = bytearray(self._body(kind))
        for _ in range(random.choice((0, 0, 0, 0, 1, 1, 3))):
            match random.randrange(4):
                case 0 if body:
                    body[random.randrange(len(body))] ^= 1 << random.randrange(8)
                case 1:
                    del body[random.randrange(len(body) + 1) :]
                case 2:
                    body += random.randbytes(random.randrange(20))
                case _ if body:
                    at = random.randrange(len(body))
                    body[at : at + 4] = random.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", random.randbytes(4)))
        return m.message(kind, random.getrandbits(16), bytes(body))


_COMMON = (m.TWALK, m.TLOPEN, m.TLCREATE, m.TATTACH, m.TREADDIR, m.TRENAMEAT)
_KINDS = tuple(
    value
    for name, value in sorted(vars(m).items())
    if name.startswith("T") and isinstance(value, int) and value != m.TVERSION
) + (_COMMON * 3)


#: Paths of the fids from 1 on with which a round begins, and whether they are open.
_BEGIN = (
    ((b"a",), True),
    ((b"sub",), False),
    ((b"sub", b"b"), False),
    ((b"sub",), True),
    ((b"link",), False),
    ((), True),
)


def check(reply: bytes, sent: bytes, room: int) -> None:
    """Raise AssertionError unless this is an answer to a message."""
    size, kind, tag = HEADER.unpack_from(reply)
    assert size == len(reply) <= room
    assert kind == RLERROR or kind == sent[4] + 1
    assert tag == int.from_bytes(sent[5:7], "little")
    if kind == RLERROR:
        assert len(reply) == 11
        assert 0 < int.from_bytes(reply[7:], "little") < 200


def run(seed: int, place: Path) -> int:
    """Do the round of a seed in an empty directory, and return how many messages were answered without an error."""
    random = Random(seed)
    share = make_tree(place)
    before = outside(place)
    client = Client(share, read_only=random.random() < 0.1)
    for number, (path, is_open) in enumerate(_BEGIN, 1):
        client.fids[number] = Fid(path, 10**6 + number if is_open else 0).pack()
    done, messages = 0, Messages(random)
    try:
        for _ in range(MESSAGES_IN_A_ROUND):
            sent = messages.next()
            client.room = random.choice((MOST_BYTES, 4096, 100, 11))
            began = time.perf_counter()
            reply = client.send(sent)
            assert time.perf_counter() - began < MOST_SECONDS
            check(reply, sent, client.room)
            done += reply[4] != RLERROR
            for fid in client.fids.values():
                assert Fid.unpack(fid).pack() == fid
            if random.random() < 0.05:
                client.server.forget()
    finally:
        client.server.close()
    assert outside(place) == before
    return done


def damage_outcome(random: Random) -> None:
    """Read an outcome as a damaged recording could have it: it is refused, or is one."""
    data = bytearray(Outcome(random.randbytes(20), 8192, {1: b"x" * 14, 2: None}).pack())
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    try:
        outcome = Outcome.unpack(bytes(data))
    except ValueError:
        return
    assert outcome.pack() == data or outcome.msize <= MOST_BYTES


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.host.ninep.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="messages [100000]")
    parser.add_argument("--seed", type=int, default=1, help="of the first round [1]")
    options = parser.parse_args()
    done, rounds = 0, -(-options.count // MESSAGES_IN_A_ROUND)
    with tempfile.TemporaryDirectory() as directory:
        for seed in range(options.seed, options.seed + rounds):
            place = Path(directory) / "round"
            place.mkdir()
            try:
                done += run(seed, place)
            except BaseException:
                print(f"seed {seed}")
                raise
            make_removable(place)
            shutil.rmtree(place)
    print(f"{rounds * MESSAGES_IN_A_ROUND} messages in {rounds} rounds; {done} were answered without an error")


def make_removable(place: Path) -> None:
    """Give back the permissions that a client has taken from directories."""
    for folder, _, _ in os.walk(place):
        os.chmod(folder, 0o700)


if __name__ == "__main__":
    main()
