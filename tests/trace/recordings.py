"""Runs that are recorded in this process, so that a test can look at the machine beside what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dbt import Machine
from dbt.cli.run_options import RunOptions
from dbt.cli.statistics import statistics
from dbt.engine.region_tier import RegionTier
from dbt.host.console import CaptureConsole
from dbt.trace.model import Trace
from dbt.trace.recorder import TraceRecorder
from dbt.vm.result import RunResult
from tests.assembler import assemble
from tests.vm.programs import BASE, EXIT, make_elf

#: A loop over a call and a store, whose regions are found within some ten thousand instructions.
CODE = f"""
    movw r4, #40000
    sub r6, sp, #64
    loop: bl callee
    ldr r0, word
    str r1, [r6, #4]
    subs r4, r4, #1
    bne loop
    mov r2, #0
    {EXIT}
    callee: add r1, r1, #1
    bx lr
    word: .word 0x12345
"""
SYMBOLS = {"main": (BASE, 8), "loop": (BASE + 8, 20), "callee": (BASE + 60, 8)}
LOOP = BASE + 8


def program(code: str = CODE, symbols: dict[str, tuple[int, int]] | None = None) -> bytes:
    return make_elf(assemble(code), symbols=SYMBOLS if symbols is None else symbols)


def record(
    path: Path, image: bytes | Path, block_counters: bool = False, **options: Any
) -> tuple[Machine, RunResult, Trace]:
    """A recorded run, over, and the trace of it."""
    fuel = options.pop("fuel", None)
    recorder = TraceRecorder(str(path), block_counters)
    machine = Machine(8 << 20, console=CaptureConsole(), observer=recorder, **{"jit": "sync", **options})
    files: dict[str, str] = {}
    if isinstance(image, Path):
        machine.load(str(image))
        files[str(image)] = ""
    else:
        machine.load_bytes(image)
    _ = machine.tier
    recorder.begin(machine, "test", RunOptions(program="guest.elf")._asdict(), files)
    result = machine.run(fuel=fuel, timeout=100)
    recorder.end(result, 1.0, statistics(machine))
    assert not recorder.error
    return machine, result, Trace(str(path))


def region_tier(machine: Machine) -> RegionTier:
    """The tier of a machine whose tier is ``auto``."""
    assert isinstance(machine.tier, RegionTier)
    return machine.tier
