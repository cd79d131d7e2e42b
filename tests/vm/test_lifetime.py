"""Who may use a machine, and what is left of it when it is closed."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dbt import CaptureConsole, Machine, StopReason
from dbt.engine.observer import Observer
from dbt.engine.tier import JitMode
from dbt.vm.machine import TierName
from tests.assembler import assemble
from tests.vm.programs import BASE, MODES

RAM = 1 << 20
#: Counts in R0 and in the word at 0x40000.
COUNT = assemble("ldr r1, =0x40000 ; loop: ldr r0, [r1] ; add r0, r0, #1 ; str r0, [r1] ; b loop ; .ltorg")
_PLACE = re.compile(r"\S+ \S+ \S+ \S+ \S+ *(.*)")


def counting(tier: TierName, jit: JitMode, **arguments: object) -> Machine:
    machine = Machine(RAM, tier, jit=jit, console=CaptureConsole(), **arguments)  # type: ignore[arg-type]
    machine.load_bytes(COUNT, base=BASE)
    return machine


def resources() -> tuple[set[str], int, int, set[int]]:
    """File descriptors; mappings that are shared or executable and bytes of anonymous memory; child processes."""
    descriptors = {f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}" for fd in os.listdir("/proc/self/fd") if _is_open(fd)}
    shared, anonymous = 0, 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights = line.split()[:2]
        low, high = (int(text, 16) for text in span.split("-"))
        name = _PLACE.sub(r"\1", line)
        if "memfd:dbt" in name or (rights[3] == "s" and "dbt" in name):
            shared += 1
        elif not name:
            anonymous += high - low
    children = {int(text) for text in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}
    return descriptors, shared, anonymous, children


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_nothing_is_left_of_a_closed_machine(tier: TierName, jit: JitMode, tmp_path: Path) -> None:
    with counting(tier, jit) as machine:  # what is imported and kept once stays
        machine.run(fuel=1_000_000 if tier == "auto" else 1000)
    gc.collect()
    gc.disable()
    try:
        before = resources()
        for _ in range(3):
            machine = counting(tier, jit, files=str(tmp_path))
            registers = machine.r
            result = machine.run(fuel=1_000_000 if tier == "auto" else 1000)
            assert result.reason is StopReason.FUEL
            machine.close()
        after = resources()
        assert after[0] == before[0] and after[1] == before[1] and after[3] == before[3]
        assert after[2] - before[2] < 8 << 20  # Python's own; a machine has 400 MiB of tables
        assert machine.icount == result.icount
        for use in uses(machine):
            with pytest.raises(RuntimeError, match="closed"):
                use()
        with pytest.raises(RuntimeError, match="closed"):
            registers[0] = 1
        machine.close()
    finally:
        gc.enable()


def uses(machine: Machine) -> list[Callable[[], object]]:
    return [
        lambda: machine.r[0],
        lambda: list(machine.r),
        lambda: machine.pc,
        lambda: machine.cpsr,
        lambda: machine.read(0, 4),
        lambda: machine.write(0, b"data"),
        lambda: machine.peek_word(0),
        lambda: machine.peek_code(0),
        lambda: machine.describe_pc(0),
        lambda: machine.run(fuel=1),
        machine.step,
        machine.reset,
        lambda: machine.load_bytes(COUNT, base=BASE),
        lambda: machine.load_kernel("/dev/null"),
        lambda: machine.tier,
        lambda: machine.cpu,
        lambda: machine.ram,
        lambda: machine.memory,
        lambda: machine.inspector,
        lambda: setattr(machine, "pc", 0),
        lambda: setattr(machine, "cpsr", 0xD3),
    ]


def test_a_block_closes_its_machine_whatever_happens() -> None:
    with pytest.raises(ZeroDivisionError), counting("reference", "off") as machine:
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="closed"), machine:
        pass


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_a_forked_process_cannot_touch_the_machine(tier: TierName, jit: JitMode) -> None:
    with counting(tier, jit) as machine:
        machine.run(fuel=41)
        before = machine.read(0x40000, 4), list(machine.r), machine.icount, machine.cpsr
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            refused = 0
            try:
                for use in uses(machine):
                    try:
                        use()
                    except RuntimeError as error:
                        refused += "forked" in str(error)
                os.write(writable, bytes([refused]))
                del use
                del machine
                gc.collect()  # which must not end the parent's worker
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert os.read(readable, 1) == bytes([len(uses(machine))])
        os.close(readable)
        os.close(writable)
        assert (machine.read(0x40000, 4), list(machine.r), machine.icount, machine.cpsr) == before
        machine.run(fuel=400)
        assert machine.r[0] == 110


def test_two_threads_cannot_run_one_machine() -> None:
    errors: list[str] = []

    def run(machine: Machine) -> None:
        for _ in range(10):
            try:
                machine.run(fuel=1_000_000)
            except RuntimeError as error:
                errors.append(str(error))

    with counting("threaded", "off") as machine:
        _ = machine.tier
        threads = [threading.Thread(target=run, args=(machine,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done = 30 - len(errors)
        assert errors and all("another thread" in error for error in errors)
        assert machine.icount == done * 1_000_000 and machine.r[0] == (machine.icount + 2) // 4


def test_another_thread_may_look_and_interrupt_but_not_write() -> None:
    refused: list[bool] = []
    with counting("threaded", "off") as machine:
        _ = machine.tier

        def meddle() -> None:
            while not machine.icount:
                pass
            for use in (lambda: machine.write(0, b"x"), lambda: machine.r[0], machine.reset, machine.close):
                try:
                    use()
                except RuntimeError:
                    refused.append(True)
            machine.interrupt()

        thread = threading.Thread(target=meddle)
        thread.start()
        assert machine.run(timeout=30).reason is StopReason.INTERRUPTED
        thread.join()
    assert len(refused) == 4


class Reentrant(Observer):
    def __init__(self) -> None:
        self.uses: list[Callable[[], object]] = []
        self.errors: list[str] = []

    def left_guest(self, exit_: object) -> None:
        for use in self.uses:
            with pytest.raises(RuntimeError, match="running") as caught:
                use()
            self.errors.append(str(caught.value))


def test_a_callback_cannot_run_the_machine() -> None:
    observer = Reentrant()
    with counting("reference", "off", observer=observer) as machine:
        observer.uses = [machine.run, machine.step, machine.reset, machine.close, lambda: machine.load("x")]
        before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
        handler = signal.getsignal(signal.SIGUSR1)
        machine.run(fuel=1)
        assert machine.icount == 1 and signal.getsignal(signal.SIGUSR1) is handler
        signal.signal(signal.SIGUSR1, before)
    assert len(observer.errors) == 5


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        (8 << 30, "too large"),
        (1 << 32, "too large"),
        (0, "too small"),
        (-4096, "too small"),
        (5000, "multiple of 4096"),
        (1.5, "number of bytes"),
        (True, "number of bytes"),
    ],
)
def test_memory_is_validated(memory: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Machine(memory)


_AFTER_CLOSE = """
import sys
from dbt import CaptureConsole, Machine
from dbt.abi.addresses import Gpa, Gva
from dbt.memory.contents import nonzero_pages

machine = Machine(1 << 20, sys.argv[1], jit="off", console=CaptureConsole())
machine.load_bytes(bytes.fromhex("010080e2fdffffea"), 0x8000)
machine.run(fuel=1000)
ram, cpu, memory, tier, inspector, vcpu = (
    machine.ram, machine.cpu, machine.memory, machine.tier, machine.inspector, machine.vcpu
)
whole, part, cast = ram.bytes, ram.bytes[0x8000:0x9000], ram.bytes.cast("I")
flags, words, some, buffer = ram.page_flags[:16], cpu.words, cpu.words[:4], memoryview(cpu.r)
other = memoryview(ram.bytes)
assert part[0] == 1
counts = machine.icount, machine.retired, machine.event_counts
machine.close()
assert counts == (machine.icount, machine.retired, machine.event_counts) and sum(counts[1].values()) == 1000
assert part[0] == 0 and cast[0x2000] == 0 and not any(part) and not any(flags)
part[0], cast[0], other[5], some[0] = 7, 8, 9, 10
refused = 0
uses = (
    lambda: whole[0x8000], lambda: words[0], lambda: ram.bytes[0], lambda: cpu.r[0], lambda: cpu.snapshot(),
    lambda: memory.load(Gva(0x8000), 4, Gva(0)), lambda: memory.store(Gva(0x8000), 4, 1, Gva(0)),
    lambda: memory.write_ram(Gpa(0), b"x"), lambda: memory.read_ram(Gpa(0), 4), lambda: list(nonzero_pages(ram)),
    lambda: inspector.read(Gpa(0x8000), 4), lambda: inspector.peek_code(Gva(0x8000)), lambda: Gpa(0) in ram,
    lambda: list(ram.pages_with_code()), lambda: tier.run(10), lambda: tier.call_routine("vector_base"),
    lambda: tier.is_decoded(Gpa(0x8000)), lambda: list(tier.branch_targets()), lambda: tier.callout_places,
    lambda: [list(pages) for _, pages in tier.shadow_pages()], lambda: list(tier.native_symbols()), tier.reset_counts,
    lambda: vcpu.run(10), lambda: vcpu.situation(), lambda: vcpu.set_line(0x80, True), lambda: vcpu.reset(),
    lambda: machine.board.bus.write(Gpa(0x101E2000), 4, 5),
)
for use in uses:
    try:
        use()
    except (RuntimeError, ValueError):
        refused += 1
print(refused)
"""


@pytest.mark.parametrize("tier", ["reference", "threaded", "stitched", "auto"])
def test_whatever_a_user_keeps_of_a_closed_machine_is_safe_to_touch(tier: str) -> None:
    done = subprocess.run([sys.executable, "-c", _AFTER_CLOSE, tier], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 15
