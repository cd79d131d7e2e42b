"""Regions to keep, which nobody runs; and a guest that runs for long enough to have some."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.backend.compiled import CompiledRegion
from dbt.codecache.contents import Entry, Kind, entries
from dbt.codecache.handlers import cached_image_name, load_image
from dbt.codecache.region_store import RegionStore
from dbt.frontend.context import TranslationContext
from dbt.host.console import CaptureConsole
from dbt.memory.ram import RamLayout

#: Image and arguments of a guest of which three regions become hot, in half a second with the compiler in line.
HOT_GUEST = (str(Path(__file__).resolve().parents[2] / "guests/images/vm-armv7-a-O2.elf"), "50")


#: What the sample regions were translated under.
CONTEXT = TranslationContext(ram=RamLayout.of(1 << 20))


@cache
def hot_output() -> bytes:
    """What HOT_GUEST prints, by a tier that makes no regions."""
    console = CaptureConsole()
    machine = Machine(tier="threaded", console=console)
    machine.load(HOT_GUEST[0], args=HOT_GUEST[1:])
    machine.run(timeout=60)
    assert console.output.endswith(b"vm: ok\n")
    return bytes(console.output)


def guest_bytes(entry: int) -> bytes:
    """What memory holds at ``entry``."""
    return entry.to_bytes(4, "little") * 8


def region(entry: int, size: int = 3000, version: int = 0) -> CompiledRegion:
    code = random.Random(entry * 100 + version).randbytes(size)
    runs = ((Gpa(entry), b"abcd"), (Gpa(entry + 64), b"efgh"))
    return CompiledRegion(Gpa(entry), 0, 1, runs, code, CONTEXT, (Gpa(entry + 64),))


def save(store: RegionStore, entry: int, size: int = 3000, version: int = 0) -> None:
    store.save(region(entry, size, version), guest_bytes(entry))


def load(store: RegionStore, entry: int, context: TranslationContext = CONTEXT) -> list[CompiledRegion]:
    return list(store.load(Gpa(entry), guest_bytes(entry), context))


def use_only_handlers(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make this the cache directory, with the handlers' image, which takes long to build, and nothing else."""
    image = load_image(lambda _: None).pack()
    directory.mkdir()
    (directory / cached_image_name()).write_bytes(image)
    monkeypatch.setenv("DBT_CACHE_DIR", str(directory))
    monkeypatch.delenv("DBT_CACHE_SIZE", raising=False)
    return directory


def kept(kind: Kind = Kind.REGIONS) -> list[Entry]:
    return sorted(entry for entry in entries() if entry.kind is kind)
