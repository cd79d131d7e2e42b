"""Guests in every mode: after each of many numbers of instructions the state is the same, whatever executes them.

Ops become hot early, so that the short runs of the manifest have regions. ``make long`` (DBT_LONG_TESTS=1) does it
with every image, has the reference tier run to the end, and makes ops hot at once.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dbt import Machine
from dbt.debug.instruction_log import InstructionTrace
from dbt.engine.region_tier import RegionTier
from dbt.engine.tier import Tier
from dbt.host.console import CaptureConsole
from dbt.vm.options import TierFactory
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.codecache.samples import use_only_handlers
from tests.guests import GUESTS, MANIFEST
from tests.long import LONG
from tests.oracle.programs import SoonHotTier

#: How many arrivals make an op hot.
SOON = 10 if LONG else 1200
PLACES = 100 if LONG else 6  # in a run, around which it is looked at
#: Guests with so much code that all their regions take half a minute to compile.
_LARGE = ("json", "printf_formats")
#: How many instructions the reference tier executes.
REFERENCE = 1 << 40 if LONG else 15_000
#: Instructions traced at the beginning of each piece of a run.
TRACED = 200
RAM = 8 << 20


def images() -> Iterator[tuple[str, str]]:
    for number, (name, guest) in enumerate(MANIFEST.items()):
        if not guest.get("files") and (LONG or (number % 2 and name not in _LARGE)):
            one = next((image for image in guest["images"] if "armv7-a-O2" in image), guest["images"][0])
            yield from ((name, image) for image in (guest["images"] if LONG else [one]))


def early(jit: Any) -> TierFactory:
    """Makes a tier whose ops become hot early."""
    return lambda cpu, memory, allowance: SoonHotTier(cpu, memory, jit, SOON, keep=True, allowance=allowance)


def pieces(name: str) -> Iterator[int]:
    """Instructions from one look to the next: long ones, and a few short ones behind each."""
    random = Random(name)
    for _ in range(PLACES):
        yield random.randrange(1, random.choice((2_000, 10_000, 60_000)))
        yield from (1, 1, 2, random.randrange(1, 60))
    yield 50_000_000


def history(
    name: str, image: str, tier: Any, jit: Any = "async", traced: bool = False, end: int = 1 << 40
) -> tuple[list[str], Tier, str]:
    """What can be seen of the guest after each piece; the tier that it ran in; and the trace."""
    guest = MANIFEST[name]
    console, text = CaptureConsole(), io.StringIO()
    machine = Machine(RAM, tier=early(jit) if tier == "auto" else tier, console=console)
    machine.load(str(GUESTS / image), base=guest.get("base"), args=guest["arguments"])
    trace = InstructionTrace(text) if traced else None
    seen = []
    for fuel in pieces(name):
        if machine.icount + fuel > end:
            break
        first = min(fuel, TRACED) if traced else 0
        result = machine.run(fuel=first, trace=trace, timeout=120)
        if result.reason is StopReason.FUEL:
            result = machine.run(fuel=fuel - first, timeout=120)
        output = hashlib.sha256(console.output).hexdigest()
        place = f"{machine.icount} {machine.pc:#x}"
        seen.append(f"{result.reason.name} {result.exit_code} {place} {output} {state_hash(machine)}")
        if result.reason is not StopReason.FUEL:
            break
    if isinstance(machine.tier, RegionTier):
        machine.tier.close()
    return seen, machine.tier, text.getvalue()


def first_difference(expected: list[str], got: list[str]) -> str | None:
    for number, (mine, theirs) in enumerate(zip_longest(expected, got)):
        if mine != theirs:
            return f"look {number}: {mine}, {theirs}; the one before: {expected[number - 1] if number else 'none'}"
    return None


@pytest.mark.parametrize(("name", "image"), list(images()), ids=lambda text: Path(text).stem)
def test_every_mode_has_one_history(name: str, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _, _ = history(name, image, "threaded")
    assert not expected[-1].startswith("FUEL")
    seen, _, _ = history(name, image, "reference", end=REFERENCE)
    assert first_difference(expected[: len(seen)], seen) is None, f"reference: {first_difference(expected, seen)}"
    _, _, trace = history(name, image, "threaded", traced=True)
    use_only_handlers(tmp_path / "first", monkeypatch)
    compiled = 0
    for label, jit in (("off", "off"), ("cold", "sync"), ("warm", "sync"), ("warm, traced", "sync"), ("warm", "async")):
        seen, tier, its_trace = history(name, image, "auto", jit, "traced" in label)
        assert first_difference(expected, seen) is None, f"{label}, {jit}: {first_difference(expected, seen)}"
        assert isinstance(tier, RegionTier)
        if label == "cold":
            compiled = tier.regions.counts.compiled
        # Of code that is written over there are more versions than are kept for one place, and it may come too late.
        counts = tier.regions.counts
        if label == "warm" and jit == "sync" and not counts.dropped:
            assert counts.compiled <= compiled * 0.3, f"{counts.compiled} again, of {compiled}"
            assert counts.loaded or not compiled
        assert its_trace in ("", trace)
    use_only_handlers(tmp_path / "second", monkeypatch)
    seen, _, _ = history(name, image, "auto", "async")
    assert first_difference(expected, seen) is None, f"cold, async: {first_difference(expected, seen)}"
