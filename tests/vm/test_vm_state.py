"""Saved states: a machine that is restored from one goes on exactly as the machine that was saved."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa, Gva
from dbt.devices.state import StateError
from dbt.host.console import CaptureConsole
from dbt.memory.ram import RamRegion
from dbt.memory.ram_image import RamImage
from dbt.memory.virtual import BadAddress
from dbt.vm.machine import TIERS
from dbt.vm.result import RunResult, StopReason
from dbt.vm.state import state_hash
from dbt.vm.vm_state import VmState
from tests.assembler import assemble
from tests.guests import GUESTS, MANIFEST
from tests.long import LONG
from tests.vm.programs import EXIT

NATIVE: tuple[tuple[Any, Any], ...] = (("threaded", "off"), ("stitched", "off"), ("auto", "sync"), ("auto", "async"))
MINIOS = GUESTS / "images" / "minios-armv5te-O2.elf"
#: As many instructions as the reference tier executes after a restore.
SHORT = 5_000


def remaining(machine: Machine) -> CaptureConsole:
    """A console with the input that the machine has not got yet."""
    assert isinstance(machine.console, CaptureConsole)
    return CaptureConsole(machine.console.input)


def outcome(machine: Machine, fuel: int) -> tuple[object, ...]:
    """Run on, close the machine, and return all that can be compared."""
    result = machine.run(fuel=fuel, timeout=60)
    assert isinstance(machine.console, CaptureConsole)
    found = (result.reason, result.exit_code, result.icount, result.message, state_hash(machine))
    output = bytes(machine.console.output)
    machine.close()
    return (*found, output)


def check_restored(machine: Machine, ahead: int, **host: Any) -> None:
    """Save a machine, and compare what restored ones do in the next ``ahead`` instructions with what it does."""
    with machine.save() as state:
        assert state.hash() == state_hash(machine) and state.icount == machine.icount
        assert isinstance(machine.console, CaptureConsole)
        machine.console.output.clear()
        short = Machine.restore(state, tier="threaded", console=remaining(machine), **host)
        assert state_hash(short) == state.hash()
        expected = outcome(short, SHORT)
        assert outcome(Machine.restore(state, tier="reference", console=remaining(machine), **host), SHORT) == expected
        there = [Machine.restore(state, tier=tier, jit=jit, console=remaining(machine), **host) for tier, jit in NATIVE]
        expected = outcome(machine, ahead)
        for one, (tier, jit) in zip(there, NATIVE, strict=True):
            assert outcome(one, ahead) == expected, f"{tier} {jit} after {state.icount}"


# -- guests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["threaded", "auto"])
@pytest.mark.parametrize("icount", sorted(random.Random(4).sample(range(1, 1_550_000), 6 if LONG else 3)))
def test_an_operating_system_with_processes(tier: Any, icount: int) -> None:
    machine = Machine(16 << 20, tier=tier, jit="sync", console=CaptureConsole(b"help\nps\nmem\n"))
    machine.load(str(MINIOS))
    assert machine.run(fuel=icount).reason is StopReason.FUEL
    check_restored(machine, 2_000_000)


GUEST_IMAGES = [
    image for guest in MANIFEST.values() for image in guest["images"] if "armv5te-O2" in image or ".bin" in image
]


@pytest.mark.parametrize("image", GUEST_IMAGES, ids=lambda image: Path(image).stem)
def test_the_guests(image: str, tmp_path: Path) -> None:
    guest = next(guest for guest in MANIFEST.values() if image in guest["images"])
    files = str(tmp_path) if guest.get("files") else None

    def start() -> Machine:
        machine = Machine(tier="threaded", files=files, console=CaptureConsole())
        machine.load(str(GUESTS / image), base=guest.get("base"), args=guest["arguments"])
        return machine

    with start() as whole:
        end = whole.run(timeout=60).icount
    for icount in sorted(random.Random(image).sample(range(1, end), min(3, end - 1))):
        machine = start()
        machine.run(fuel=icount)
        if files is None:
            check_restored(machine, 20_000_000)
            continue
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}  # which several machines write
        times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        state = machine.save()
        expected = outcome(machine, 20_000_000)
        for path in list(tmp_path.iterdir()):
            path.unlink()
        for name, content in before.items():
            (tmp_path / name).write_bytes(content)
        for path, time in times.items():
            os.utime(path, ns=(time, time))
        assert outcome(Machine.restore(state, files=files, console=CaptureConsole()), 20_000_000)[:3] == expected[:3]


@pytest.mark.parametrize(("tier", "jit"), NATIVE)
def test_in_another_process(tier: Any, jit: Any) -> None:
    """A forked one, beside the compile worker of this one; and what it forks itself."""
    machine = Machine(16 << 20, tier=tier, jit=jit, console=CaptureConsole(b"help\n"))
    machine.load(str(MINIOS))
    machine.run(fuel=700_001)
    state = machine.save()
    machine.console.output.clear()  # type: ignore[attr-defined]
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            there = Machine.restore(state, tier=tier, jit=jit, console=remaining(machine))
            also = there.fork(console=remaining(there))
            os.write(writing, repr([outcome(one, 300_000) for one in (there, also)]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        found = pipe.read()
    os.waitpid(child, 0)
    assert found == repr([outcome(machine, 300_000)] * 2)


# -- where a machine stands ----------------------------------------------------------------------


def made(code: str, **options: Any) -> Machine:
    machine = Machine(**{"memory": 1 << 20, "tier": "threaded", "console": CaptureConsole(), **options})
    machine.load_bytes(assemble(code, 0x8000), 0x8000)
    return machine


def test_in_the_middle_of_a_wait() -> None:
    """The WFI has begun, and its timer has not rung yet."""
    machine = made(f"""
        ldr r0, =0x101E2000 ; mov r1, #0x10000 ; str r1, [r0] ; mov r1, #0xA2 ; str r1, [r0, #8]
        ldr r2, =0x10140000 ; mov r1, #0x10 ; str r1, [r2, #0x10]
        mov r5, #7 ; mcr p15, 0, r0, c7, c0, 4 ; mov r6, #9 ; {EXIT}
    """)
    machine.run(fuel=9)
    machine.wait_until(machine.timeline.now + 100)
    check_restored(machine, 100)


def test_in_an_exception_whose_handler_raises_it_again() -> None:
    machine = made("ldr r0, =0x40000000 ; mov r1, #0 ; ldr r2, =0xe5903000 ; str r2, [r1, #16] ; ldr r3, [r0]")
    assert machine.run(fuel=5).reason is StopReason.FAULT and machine.icount == 4
    check_restored(machine, 10)


def test_at_the_first_instruction_of_an_aborts_handler() -> None:
    """Which aborts too: that is refused, and no native code takes it, although it has taken none before."""
    machine = made("""
        mov r1, #0 ; ldr r2, =0xe5903000 ; str r2, [r1, #16]
        mrc p15, 0, r4, c1, c0, 0 ; orr r4, r4, #2 ; mcr p15, 0, r4, c1, c0, 0 ; mov r0, #1 ; ldr r3, [r0]
    """)

    class Interrupter:
        def before_step(self, machine: Machine) -> None:
            pass

        def after_step(self, machine: Machine, event: str) -> None:
            if event == "data abort":
                machine.interrupt()

    assert machine.run(trace=Interrupter()).reason is StopReason.INTERRUPTED and machine.pc == 0x10
    check_restored(machine, 10)


def test_ram_in_several_regions_and_everything_else_that_belongs_to_it() -> None:
    memory = [RamRegion(Gpa(0), 1 << 20), RamRegion(Gpa(0x20000000), 1 << 20), RamRegion(Gpa(0x30000000), 4096, True)]
    machine = made("1: add r0, r0, #1 ; b 1b", memory=memory, cpu="cortex-a8", epoch=77, insn_ns=10, semihosting=False)
    machine.write(0x30000000, b"rom")
    machine.run(fuel=101)
    with Machine.restore(machine.save(), tier="reference", console=CaptureConsole()) as other:
        assert other.ram.layout == machine.ram.layout and other.read(0x30000000, 3) == b"rom"
        assert (other.cpu_model, other.semihosting_enabled, other.options.epoch) == ("cortex-a8", False, 77)
        assert other.timeline.insn_ns == 10 and other.image is not None and other.image.entry == 0x8000
        assert other.program_identity == machine.program_identity
        other.reset()
        assert other.pc == 0x8000 and other.icount == 0


def test_symbols_are_known() -> None:
    machine = Machine(tier="threaded", console=CaptureConsole())
    machine.load(str(MINIOS))
    address = next(symbol.address for symbol in machine.symbols.symbols if symbol.size)
    other = Machine.restore(machine.save(), console=CaptureConsole())
    again = Machine.restore(other.save(), console=CaptureConsole())
    for one in (other, again):
        assert one.symbols.symbols == machine.symbols.symbols
        assert one.symbolize(address + 4) == machine.symbolize(address + 4) != f"{address + 4:#x}"


def test_to_save_changes_nothing() -> None:
    saved, other = made("1: add r0, r0, #1 ; b 1b"), made("1: add r0, r0, #1 ; b 1b")
    for _ in range(20):
        saved.run(fuel=33)
        saved.save().close()
    other.run(fuel=660)
    assert state_hash(saved) == state_hash(other)


def test_a_running_machine_is_not_saved() -> None:
    machine = made("b .")

    class Stepper:
        def before_step(self, machine: Machine) -> None:
            with pytest.raises(RuntimeError, match="running"):
                machine.save()

        def after_step(self, machine: Machine, event: str) -> None:
            pass

    machine.run(fuel=1, trace=Stepper())
    machine.close()
    with pytest.raises(RuntimeError, match="closed"):
        machine.save()


# -- files ---------------------------------------------------------------------------------------

READS_A_FILE = f"""
    adr r1, open ; mov r0, #1 ; svc #0x123456 ; mov r4, r0 ; adr r5, read ; str r4, [r5]
1:  mov r1, r5 ; mov r0, #6 ; svc #0x123456 ; add r6, r6, #1 ; cmp r6, #3 ; blo 1b ; {EXIT}
open: .word name, 0, 4
read: .word 0, 0x9000, 3
name: .asciz "file"
"""


def test_files_stay_open_where_they_were(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcdefghi")
    machine = made(READS_A_FILE, files=str(tmp_path))
    machine.run(fuel=13)
    assert machine.read(0x9000, 3) == b"abc"
    check_restored(machine, 1000, files=str(tmp_path))


def opened_in(folder: Path) -> list[int]:
    """Return the descriptors of what this process has open in a folder. Those of other tests' machines may be closed
    at any time, when they are collected.
    """
    return sorted(number for number in map(int, os.listdir("/proc/self/fd")) if _target(number).startswith(str(folder)))


def _target(number: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except FileNotFoundError:  # it was that of the listing itself
        return ""


def test_files_that_are_gone_or_have_changed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcdefghi")
    machine = made(READS_A_FILE, files=str(tmp_path))
    machine.run(fuel=13)
    state = machine.save()
    before = opened_in(tmp_path.parent)
    assert before
    for files in (None, str(tmp_path / "..")):
        with pytest.raises(StateError, match=r"'file' open, and it cannot be opened: .*--files DIR"):
            Machine.restore(state, files=files, console=CaptureConsole())
    (tmp_path / "file").write_bytes(b"abcdefgh")
    with pytest.raises(StateError, match=r"'file' open, and the file has changed since"):
        Machine.restore(state, files=str(tmp_path), console=CaptureConsole())
    (tmp_path / "file").unlink()
    with pytest.raises(StateError, match="No such file"):
        Machine.restore(state, files=str(tmp_path), console=CaptureConsole())
    assert not list(tmp_path.iterdir()) and opened_in(tmp_path.parent) == before


# -- values that somebody else made --------------------------------------------------------------


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _paths(value[key], (*path, key))


def _changed(values: Any, path: tuple[Any, ...], new: Any) -> Any:
    values = copy.deepcopy(values)
    place = values
    for key in path[:-1]:
        place = place[key]
    if new is _changed:
        del place[path[-1]]
    else:
        place[path[-1]] = new
    return values


ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        1,
        2,
        3,
        0x7F,
        0xFF,
        1 << 31,
        1 << 32,
        (1 << 61) - 1,
        1 << 63,
        1 << 80,
        "",
        "x",
        b"",
        b"\xff" * 400,
    ),
    *([], [1], [[]], {}, {"a": 1}, {3: {}}, 1.5, _changed),
)


def _busy() -> Machine:
    """A machine in which as much as possible is going on."""
    machine = Machine(16 << 20, tier="threaded", console=CaptureConsole(b"help\nps\n"))
    machine.load(str(MINIOS))
    machine.run(fuel=800_123)
    return machine


def test_values_that_no_machine_can_have() -> None:
    """Each is refused with one error, or is a state that the machine has then and goes on from."""
    machine = _busy()
    state, refused = machine.save(), 0
    before = len(os.listdir("/proc/self/fd"))
    for path in list(_paths(state.values))[1:]:
        for new in random.Random(str(path)).sample(ODD, 8):
            hostile = VmState(_changed(state.values, path, new), state.ram)
            try:
                other = Machine.restore(hostile, tier="threaded", console=CaptureConsole())
            except ValueError as error:
                assert str(error) and "\n" not in str(error)
                refused += 1
                continue
            assert state_hash(other) == hostile.hash()
            result = other.run(fuel=2000, timeout=10)
            assert isinstance(result, RunResult)
            other.close()
    assert refused > 500
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_ram_of_another_machine() -> None:
    state = made("b .").save()
    other = RamImage(Machine(2 << 20, console=CaptureConsole()).ram.layout, [])
    with pytest.raises(StateError, match="RAM is that of another machine"):
        Machine.restore(VmState(state.values, other), console=CaptureConsole())


def test_nothing_is_left() -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(Path("/proc/self/maps").read_text().splitlines())

    machine = _busy()
    for count in range(60):
        with machine.save() as state, Machine.restore(state, tier="threaded", console=CaptureConsole()) as other:
            other.run(fuel=1000)
        if count == 5:
            before = held()
    after = held()
    assert after[0] <= before[0] and after[1] <= before[1] + 3


# -- forks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tier", "jit"), NATIVE)
def test_both_sides_of_a_fork_go_on_alike(tier: Any, jit: Any) -> None:
    """Also those of a fork's fork, and after any of them is closed."""

    def start() -> Machine:
        machine = Machine(16 << 20, tier=tier, jit=jit, console=CaptureConsole(b"help\nps\nmem\n"))
        machine.load(str(MINIOS))
        machine.run(fuel=600_001)
        return machine

    whole, parent = start(), start()
    child = parent.fork(console=remaining(parent))
    parent.run(fuel=100_003)
    child.run(fuel=100_003)
    assert state_hash(child) == state_hash(parent)
    grandchild = child.fork(console=remaining(child))
    child.close()
    parent.run(fuel=50_000)
    again = parent.fork(console=remaining(parent))
    parent.close()
    grandchild.run(fuel=50_000)
    whole.run(fuel=150_003)
    assert state_hash(grandchild) == state_hash(again) == state_hash(whole)
    again.run(fuel=400_000)
    grandchild.run(fuel=400_000)
    whole.run(fuel=400_000)
    assert state_hash(grandchild) == state_hash(again) == state_hash(whole)


def test_what_one_side_writes_the_other_does_not_see() -> None:
    parent = made("1: ldr r0, [r1] ; add r2, r2, #1 ; b 1b")
    parent.run(fuel=300)
    child = parent.fork(console=CaptureConsole())
    code = parent.read(0x8004, 4)
    child.write(0x8004, assemble("add r2, r2, #2", 0x8004))
    parent.write(0x20000, b"parent")
    parent.run(fuel=300)
    child.run(fuel=300)
    assert (parent.r[2], child.r[2]) == (200, 300)
    assert parent.read(0x8004, 4) == code and child.read(0x20000, 6) == bytes(6)
    assert isinstance(parent.options.tier, str) and child.tier_name == "threaded"


def test_many_forks_of_one_machine() -> None:
    parent = made("1: add r0, r0, #1 ; str r0, [r1, r0, lsl #2] ; b 1b")
    parent.run(fuel=300)
    children = [parent.fork(console=CaptureConsole()) for _ in range(50)]
    for number, child in enumerate(children):
        child.run(fuel=3 * number)
    assert [child.r[0] for child in children] == [100 + number for number in range(50)]
    for child in children:
        child.close()


def test_addresses_of_a_restored_machine_are_found_before_it_has_a_tier() -> None:
    """By its page tables, as of one that runs."""
    first = Machine(16 << 20, console=CaptureConsole())
    first.load_kernel(str(GUESTS / "images" / "minios-armv5te-O2.elf"))
    first.run(fuel=3_000_000)
    pc, word = Gva(first.pc), first.peek_code(first.pc)
    gpa = first.inspector.locate(pc)
    assert int(gpa) != pc and word is not None
    with first.save() as state:
        for tier in TIERS:
            with Machine.restore(state, console=CaptureConsole(), tier=tier) as second:
                assert second.inspector.locate(pc) == gpa and second.peek_code(pc) == word
                with pytest.raises(BadAddress):
                    second.inspector.locate(Gva(0x40000000))
                second.run(fuel=1)
                assert second.inspector.locate(pc) == gpa
    first.close()
