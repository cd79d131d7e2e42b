"""Mutated snapshot files: each must be refused by one paragraph, or be a snapshot.

    python -m tests.snapshot.fuzz --count 100000 --seed 1 --subject disk

Half of the mutations change bytes anywhere. The other half take the file apart, change what its fields say, and put it
together again under checksums and digests that are right, so that they reach what is behind the checksums.
"""

from __future__ import annotations

import argparse
import random
import resource
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from blake3 import blake3

from dbt import CaptureConsole, Machine
from dbt.devices.state import StateError
from dbt.inspector.symbols import SymbolTable
from dbt.memory.ram_image import RamImage
from dbt.snapshot.errors import SnapshotError
from dbt.snapshot.format import MAGIC
from dbt.snapshot.plain import encode
from dbt.snapshot.snapshots import read_snapshot, write_snapshot
from dbt.vm.machine import TierName
from dbt.vm.options import HostOptions
from dbt.vm.vm_state import VmState
from tests.snapshot.subjects import SUBJECTS, Subject

#: No mutated file may take longer, in seconds of the processor's time, or more memory than the first ones, in KiB.
MOST_SECONDS = 2.0
MOST_MEMORY = 256 << 10
_NUMBERS = (0, 1, 2, 15, 16, 17, 0x7F, 0xFF, 0x1000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 32, (1 << 63) - 1)


def pack(value: Any) -> bytes:
    """Return a value in MessagePack, with mappings in the order of the format."""
    return msgspec.msgpack.encode(_sorted(value))


def _sorted(value: Any) -> Any:
    if isinstance(value, list):
        return [_sorted(one) for one in value]
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=lambda key: (isinstance(key, str), key))}
    return value


class Parts:
    """A snapshot file taken apart: its fields, the encoding of its values, and its chunks as they are stored."""

    def __init__(self, data: bytes) -> None:
        (size,) = struct.unpack_from("<I", data, 12)
        self.version = 1
        self.header: Any = msgspec.msgpack.decode(data[48 : 48 + size])
        at = 48 + size
        length, stored, _ = self.header["values"]
        self.values: Any = msgspec.msgpack.decode(zstandard.decompress(data[at : at + stored], length))
        self.raw_values: bytes | None = None
        self.tail = b""
        self.chunks = []
        at += stored
        for stored, _ in struct.iter_unpack("<I32s", self.header["chunks"]):
            self.chunks.append(data[at : at + stored])
            at += stored

    def join(self, tidy: bool) -> bytes:
        """Return the file again, with every checksum and the digest. With ``tidy``, sizes are right as well."""
        encoded = pack(self.values) if self.raw_values is None else self.raw_values
        stored = zstandard.compress(encoded)
        if tidy and isinstance(self.header, dict):
            self.header["values"] = [len(encoded), len(stored), blake3(stored).digest()]
            table = (struct.pack("<I32s", len(chunk), blake3(chunk).digest()) for chunk in self.chunks)
            self.header["chunks"] = b"".join(table)
        header = pack(self.header)
        signed = struct.pack("<8sII", MAGIC, self.version, len(header))
        return signed + blake3(signed + header).digest() + header + stored + b"".join(self.chunks) + self.tail


# -- mutations of bytes ----------------------------------------------------------------------------


def mutate_bytes(data: bytes, made: random.Random) -> bytes:
    """Return the file with some bytes changed, taken out, put in or cut off."""
    wrong = bytearray(data)
    for _ in range(made.choice((1, 1, 1, 2, 8))):
        at = made.randrange(len(wrong) + 1) if made.random() < 0.5 else made.randrange(min(800, len(wrong)) + 1)
        match made.randrange(6):
            case 0:
                wrong[at : at + 1] = made.randbytes(1)
            case 1:
                del wrong[at : at + made.randrange(1, 100)]
            case 2:
                wrong[at:at] = made.randbytes(made.randrange(1, 100))
            case 3:
                del wrong[at:]
            case 4:
                wrong[at : at + 4] = struct.pack("<I", made.choice(_NUMBERS) & 0xFFFF_FFFF)
            case _:
                other = made.randrange(len(data))
                wrong[at : at + 64] = data[other : other + 64]
        if not wrong:
            break
    return bytes(wrong)


# -- mutations under digests that are right ----------------------------------------------------------


def mutate_value(value: Any, made: random.Random) -> Any:
    """Return a plain value with one change somewhere in it: another type, size, number, key or element."""
    if isinstance(value, dict) and value and made.random() < 0.9:
        key = made.choice(sorted(value, key=repr))
        match made.randrange(8):
            case 0:
                return {name: held for name, held in value.items() if name != key}
            case 1:
                return {**value, made.choice([1, "more", key]): mutate_value(value[key], made)}
            case _:
                return {**value, key: mutate_value(value[key], made)}
    if isinstance(value, list) and value and made.random() < 0.9:
        at = made.randrange(len(value))
        match made.randrange(6):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value * made.choice((2, 2, 500))
            case 2:
                return made.sample(value, len(value))
            case _:
                return [*value[:at], mutate_value(value[at], made), *value[at + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and made.random() < 0.8:
        return made.choice([value + made.choice((-1, 1, 4096)), -value, made.choice(_NUMBERS), -made.choice(_NUMBERS)])
    if isinstance(value, bytes) and made.random() < 0.8:
        wrong = bytearray(value * made.choice((1, 1, 1, 2)))
        at = made.randrange(len(wrong) + 1)
        wrong[at : at + made.randrange(9)] = made.randbytes(made.choice((0, 1, 4, 4, 4, 8)))
        return bytes(wrong)
    return made.choice(
        [None, True, False, 0, -1, 1 << 63, "", "text", b"", b"bytes", [], {}, [[]], {1: 1}, {"a": []}, 1.5]
    )


def mutate_runs(data: bytes, made: random.Random) -> bytes:
    """Return a list of page runs with one of them changed."""
    runs = [list(run) for run in struct.iter_unpack("<II", data)] or [[0, 1]]
    run = made.choice(runs)
    match made.randrange(5):
        case 0:
            run[made.randrange(2)] = made.choice(_NUMBERS) & 0xFFFF_FFFF
        case 1:
            run[made.randrange(2)] = max(0, run[made.randrange(2)] + made.choice((-1, 1, 16)))
        case 2:
            runs.append(made.choice(runs))
        case 3:
            runs.remove(run)
        case _:
            made.shuffle(runs)
    return b"".join(struct.pack("<II", *run) for run in runs)


def bomb(made: random.Random) -> bytes:
    """Return a compressed chunk that is not what it should be: of another size, without a size, of several frames."""
    match made.randrange(7):
        case 0:
            return zstandard.compress(bytes(made.choice((4096, 65535, 65537, 1 << 20, 64 << 20))))
        case 1:
            return zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 20))
        case 2:
            return zstandard.compress(bytes(65536)) * 2
        case 3:
            return b"\x50\x2a\x4d\x18" + struct.pack("<I", 16) + bytes(16) + zstandard.compress(bytes(65536))
        case 4:  # a frame that states a size of 2^40, with 8 bytes for it
            return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 40) + b"\x01\x00\x00"
        case 5:  # a window of 2 TiB
            return b"\x28\xb5\x2f\xfd\xc0\xf8" + struct.pack("<Q", 65536) + zstandard.compress(bytes(65536))[6:]
        case _:
            return made.randbytes(made.randrange(1, 300))


def mutate_fields(parts: Parts, names: list[str], made: random.Random) -> bytes:
    """Return the file with something in it changed, under a digest that is right. ``names`` are of files beside it."""
    tidy = True
    match made.randrange(12):
        case 0:
            parts.header = mutate_value(parts.header, made)
            tidy = False
        case 1 | 2 | 3:
            parts.values = mutate_value(parts.values, made)
        case 4:
            parts.raw_values = mutate_bytes(pack(parts.values), made) if made.random() < 0.8 else b""
        case 5 | 6:
            field = made.choice(("pages", "pages", "cleared"))
            parts.header[field] = mutate_runs(parts.header[field], made)
        case 7:
            parts.chunks[made.randrange(len(parts.chunks))] = bomb(made)
        case 8:
            parent = [made.choice((made.randbytes(32), bytes(32))), made.choice(names).encode()]
            parts.header["parent"] = made.choice([parent, [*parent, 1], parent[:1], [b"", b""], None, [None, None]])
        case 9:
            parts.header["layout"] = mutate_value(parts.header["layout"], made)
        case 10:
            parts.version = made.choice((0, 2, 0xFFFF_FFFF))
        case _:
            parts.tail = made.randbytes(made.randrange(1, 40))
            tidy = made.random() < 0.5
            del parts.chunks[made.randrange(len(parts.chunks)) :]
    return parts.join(tidy)


# -- the run ---------------------------------------------------------------------------------------

#: Every so many machines that are restored execute some instructions.
_RUNS_EVERY, _FUEL = 20, 2000


def write_states(folder: Path, subject: Subject) -> None:
    """Write a snapshot ``base`` and an increment ``child`` of the subject, with some pages of its RAM."""
    parent = None
    with subject.start(folder) as machine:
        machine.run(fuel=subject.first)
        for name, count in (("base", 40), ("child", 45)):
            with machine.save() as state:
                pages = list(state.ram.nonzero_pages())[:count]
                with VmState(state.values, RamImage(state.ram.layout, pages)) as small:
                    write_snapshot(small, folder / name, parent, durable=False)
            machine.run(fuel=subject.second - subject.first)
            parent = folder / "base"


class Fuzzer:
    """Mutates a snapshot and an increment in a directory, and restores a machine from each result.

    A machine that is restored must have the very state that is in the file.
    """

    def __init__(self, folder: Path, subject: Subject) -> None:
        self._folder = folder
        self._host = subject.host(folder)
        write_states(folder, subject)
        self._files = [(folder / name).read_bytes() for name in ("base", "child")]
        self.accepted = self.refused = 0

    def run(self, numbers: Iterator[int] | range) -> None:
        """Read the mutations with these numbers. AssertionError names one that does not do what it must."""
        for number in numbers:
            started = time.process_time()
            self._try(number)
            seconds = time.process_time() - started
            assert seconds < MOST_SECONDS, f"mutation {number} took {seconds:.1f} s"

    def mutation(self, number: int) -> bytes:
        """Return the mutated file of a number, always the same."""
        made = random.Random(number)
        data = made.choice(self._files)
        if number % 2:
            return mutate_bytes(data, made)
        return mutate_fields(Parts(data), ["base", "child", "wrong", "../wrong", "missing", ".", "", "x" * 300], made)

    def _try(self, number: int) -> None:
        wrong = self._folder / "wrong"
        data = self.mutation(number)
        wrong.write_bytes(data)
        try:
            self._restore(wrong)
        except (SnapshotError, StateError) as error:
            self.refused += 1
            assert "\n" not in str(error), f"mutation {number}: {error}"
            assert str(error), f"mutation {number}: no text"
        except Exception as error:
            raise AssertionError(f"mutation {number}: {type(error).__name__}: {error}") from error
        else:
            self.accepted += 1
            assert number % 2 == 0 or data in self._files, f"mutation {number} has a digest that does not fit"

    def _restore(self, path: Path) -> None:
        with read_snapshot(path) as state:
            runs = not self.accepted % _RUNS_EVERY
            tier: TierName = "threaded" if runs else "reference"
            host: HostOptions = {**self._host, "tier": tier, "console": CaptureConsole()}
            with Machine.restore(state, **host) as machine:
                with machine.save() as again:
                    if _values(again) != _values(state) or again.ram.pages != state.ram.pages:
                        raise WrongMachine(f"{path}")
                if runs:
                    machine.run(fuel=_FUEL)


def _values(state: VmState) -> bytes:
    """Return the values of a state as bytes. Symbols count as they are understood, with what is damaged left out."""
    values: dict[str, Any] = state.values
    symbols = SymbolTable(values["guest"]["symbols"]).symbols
    return encode({**values, "guest": {**values["guest"], "symbols": repr(symbols)}})


class WrongMachine(Exception):
    """Raised if a machine is in another state than the file that it was restored from."""


def memory() -> int:
    """Return the most memory that this process has had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="the number of the first mutation")
    parser.add_argument("--subject", choices=sorted(SUBJECTS), default="minios", help="what the snapshot is of")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder), SUBJECTS[options.subject])
        fuzzer.run(range(options.seed, options.seed + 100))
        before, started = memory(), time.perf_counter()
        fuzzer.run(range(options.seed + 100, options.seed + options.count))
        seconds = time.perf_counter() - started
    print(f"{fuzzer.refused} refused, {fuzzer.accepted} accepted, {seconds:.0f} s, {memory() - before} KiB more memory")
    assert memory() - before < MOST_MEMORY


if __name__ == "__main__":
    main()
