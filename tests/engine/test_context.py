"""The translation context: no option changes what a guest does by way of code that was made under another one."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.backend.compiled import CompiledRegion, WrongRegion
from dbt.codecache.region_store import RegionStore
from dbt.engine.observer import Observer
from dbt.frontend.context import TranslationContext, WrongContext
from dbt.frontend.optimizations import Optimizations
from dbt.host.console import CaptureConsole
from dbt.memory.ram import RamLayout, RamRegion
from dbt.vm.options import TIERS
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from isa.arm.cpus import CPUS
from tests.assembler import assemble
from tests.codecache.samples import CONTEXT, guest_bytes, load, region, save, use_only_handlers
from tests.vm.programs import BASE, EXIT, make_elf

#: Loads that are not aligned, an instruction that came with ARMv7 (MOVW) once every 256 passes, and a semihosting call.
PROGRAM = assemble(f"""
    ldr r5, =60000
    mov r4, #0
    adr r6, data
    add r6, r6, #1
    loop: ldr r0, [r6]
    add r4, r4, r0
    tst r5, #0xff
    bne odd
    movw r1, #0x1234
    add r4, r4, r1
    odd: subs r5, r5, #1
    bne loop
    mov r2, #3
    {EXIT}
    .align 3
    data: .word 0x11223344, 0x55667788
""")
MOVW = BASE + 8 * 4


class Counting(Observer):
    """Somebody who wants to know all."""

    wants_compile_records = True
    wants_block_counters = True


#: Every option of a machine that code could depend on, by name, with values that are not what is usual.
VARIANTS: dict[str, dict[str, Any]] = {
    "as usual": {},
    **{f"cpu {name}": {"cpu": name} for name in CPUS},
    "more memory": {"memory": 8 << 20},
    "reference": {"tier": "reference"},
    "threaded": {"tier": "threaded"},
    "stitched": {"tier": "stitched"},
    "uncompiled": {"jit": "off"},
    "async": {"jit": "async"},
    "no semihosting": {"semihosting": False},
    "realtime": {"realtime": True},
    "epoch": {"epoch": 1},
    "observed": {"observer": Counting()},
    **{f"without {name}": {"optimizations": Optimizations.without(name)} for name in Optimizations.names()},
}


def run(options: dict[str, Any]) -> tuple[Any, ...]:
    console = CaptureConsole()
    defaults: dict[str, Any] = {"board": "versatile", "memory": 4 << 20, "jit": "sync", "console": console}
    machine = Machine(**(defaults | options))
    machine.load_bytes(make_elf(PROGRAM))
    result = machine.run(fuel=3_000_000)
    # In real time the clock of a slow guest is raised to the host's, and the clock is part of the state.
    state = tuple(machine.cpu.r) if options.get("realtime") else state_hash(machine)
    return result.reason, result.exit_code, result.icount, result.pc, state, bytes(console.output)


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, ...]]:
    """What each variant does with a cache of its own."""
    found = {}
    for name, options in VARIANTS.items():
        with pytest.MonkeyPatch.context() as patch:
            use_only_handlers(tmp_path_factory.mktemp("cold") / "cache", patch)
            found[name] = run(options)
    return found


def test_every_option_over_one_warm_cache_is_as_over_a_cold_one(
    only_handlers: Path, cold: dict[str, tuple[Any, ...]]
) -> None:
    for _ in range(2):  # the second time around, every other variant has filled the cache
        for name, options in VARIANTS.items():
            assert run(options) == cold[name], name


def test_what_the_processor_has_not_is_undefined_in_every_variant(cold: dict[str, tuple[Any, ...]]) -> None:
    for name, (reason, _, _, pc, *_) in cold.items():
        lacks = name in ("cpu arm926", "cpu arm1176")
        assert (reason, pc) == (StopReason.FAULT, MOVW) if lacks else reason is StopReason.EXITED or "no semi" in name


@pytest.mark.parametrize("tier", TIERS)
def test_another_processor_forgets_what_was_decoded_for_the_first(
    only_handlers: Path, tmp_path: Path, tier: Any
) -> None:
    """A program has the processor "any", and a kernel the board's, which lacks MOVW."""
    (tmp_path / "kernel.elf").write_bytes(make_elf(PROGRAM))
    machine = Machine(4 << 20, tier=tier, jit="sync", console=CaptureConsole())
    machine.load_bytes(make_elf(PROGRAM))
    assert machine.run(fuel=3_000_000).reason is StopReason.EXITED
    machine.load_kernel(str(tmp_path / "kernel.elf"))
    result = machine.run(fuel=3_000_000)
    assert (result.reason, result.pc) == (StopReason.FAULT, MOVW)
    machine.load_bytes(make_elf(PROGRAM))
    assert machine.run(fuel=3_000_000).reason is StopReason.EXITED


#: Its handler of undefined instructions goes on behind them.
SKIPPING = assemble("""
    b start ; movs pc, lr
    .space 24
    start: mov r1, #0 ; nop
    loop: movw r1, #0x1234 ; add r4, r4, r1 ; subs r5, r5, #1 ; bne loop
    b .
""")
SKIPPING_LOOP = 40


@pytest.mark.parametrize("tier", TIERS)
def test_a_region_has_no_instruction_that_the_processor_has_not(only_handlers: Path, tier: Any) -> None:
    """The MOVW was executed, in its way, so regions are formed over it."""
    machine = Machine(1 << 20, tier=tier, jit="sync", console=CaptureConsole(), cpu="arm926")
    machine.write(0, SKIPPING)
    machine.pc, machine.r[5] = SKIPPING_LOOP, 20_000
    machine.run(fuel=200_000)
    assert (machine.r[1], machine.r[4]) == (0, 0)
    assert machine.event_counts["undefined"] == 20_000


# -- the value -----------------------------------------------------------------------------------------


def variants_of(context: TranslationContext) -> list[TranslationContext]:
    """Contexts that differ from this one in one field each."""
    changes: dict[str, Any] = {
        "ram": RamLayout.of([RamRegion(Gpa(0), 1 << 20), RamRegion(Gpa(0x40000000), 4096, read_only=True)]),
        "architecture": 5,
        "checks_alignment": True,
        "has_mmu": True,
        "compile_records": True,
        "block_counters": True,
        "optimizations": Optimizations.without("calls", "sroa"),
    }
    fields = set(context._fields)
    assert changes.keys() == fields - {"instruction_set"}, "a new field belongs here too"  # there is one value of it
    return [context._replace(**{name: value}) for name, value in changes.items()]


def test_each_field_is_part_of_the_text_and_comes_back_from_it() -> None:
    contexts = [CONTEXT, *variants_of(CONTEXT)]
    assert len({context.describe() for context in contexts}) == len(set(contexts)) == len(contexts)
    assert [TranslationContext.parse(context.describe()) for context in contexts] == contexts


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a32", "t99"), ("architecture 8", "architecture x"), ("ram 0+", "ram 0"), ("ram 0+", "ram +"),
        ("ram 0+", "ram 1+"), ("mmu 0", "mmu 2"), ("without ", "without no_such"), ("a32 ", ""),
        ("records 0", "records 0 records 0"),
        ("without ", "without \n"),
    ],
)  # fmt: skip
def test_other_text_is_no_context(old: str, new: str) -> None:
    text = CONTEXT.describe()
    assert old in text
    with pytest.raises(WrongContext):
        TranslationContext.parse(text.replace(old, new))


def test_a_region_is_found_under_its_own_context_only(empty_cache: Path) -> None:
    store = RegionStore("key")
    save(store, 0x8000)
    assert load(store, 0x8000) == [region(0x8000)]
    for context in variants_of(CONTEXT):
        assert load(store, 0x8000, context) == []


def test_a_record_of_another_context_in_the_right_file_is_refused(empty_cache: Path) -> None:
    store = RegionStore("key")
    save(store, 0x8000)
    (path,) = (file for file in empty_cache.rglob("*") if file.is_file())
    for context in variants_of(CONTEXT):
        renamed = path.with_name(store._name(Gpa(0x8000), guest_bytes(0x8000), context))
        renamed.write_bytes(path.read_bytes())
        assert load(store, 0x8000, context) == []


def test_bytes_that_are_no_region_are_refused() -> None:
    good = region(0x8000, 50).pack()
    assert CompiledRegion.unpack(good) == region(0x8000, 50)
    for size in range(len(good)):
        with pytest.raises(WrongRegion):
            CompiledRegion.unpack(good[:size])
    with pytest.raises(WrongRegion):
        CompiledRegion.unpack(good + b"\0")
    for place in range(len(good)):  # whatever is changed, it is refused, or a region, but nothing else happens
        for bit in (1, 0x80):
            with contextlib.suppress(WrongRegion):
                CompiledRegion.unpack(good[:place] + bytes([good[place] ^ bit]) + good[place + 1 :])
