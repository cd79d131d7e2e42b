"""Whole machines: programs run, stop and fail as they should, in every tier alike."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbt import CaptureConsole, ImageError, Machine, StopReason
from dbt.abi import exits
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.programs import BASE, EXIT, TIERS, exiting, make_elf
from tests.waiting import BOUND_S

MakeMachine = Callable[..., Machine]
RAM = 1 << 20


@pytest.fixture(params=TIERS)
def make(request: pytest.FixtureRequest) -> MakeMachine:
    """A machine of 1 MiB with a program in it: assembly text at :data:`BASE`, or the bytes of a file."""

    def make_machine(program: str | bytes, input_: bytes = b"", **arguments: Any) -> Machine:
        console = CaptureConsole(input_)
        machine = Machine(RAM, request.param, console=console, **arguments)
        if isinstance(program, str):
            machine.load_bytes(assemble(program), base=BASE)
        else:
            machine.load_bytes(program)
        return machine

    return make_machine


def output(machine: Machine) -> bytes:
    assert isinstance(machine.console, CaptureConsole)
    return bytes(machine.console.output)


# -- ordinary ends -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_a_guest_exits_with_its_code(make: MakeMachine, code: int) -> None:
    result = make(make_elf(exiting(code))).run(timeout=10)
    assert (result.reason, result.exit_code, result.icount) == (StopReason.EXITED, code, 7)
    assert result.message == "" and result.exit is None
    assert result.pc == BASE + 7 * 4


def test_an_abnormal_exit_says_why(make: MakeMachine) -> None:
    result = make("mov r0, #0x18; ldr r1, =0x20023; svc 0x123456").run(timeout=10)
    assert (result.reason, result.exit_code) == (StopReason.EXITED, 1)
    assert "run-time error" in result.message


def test_both_consoles_are_one_stream(make: MakeMachine) -> None:
    machine = make(
        f"""
        ldr r5, =0x101f1000
        mov r0, #'A' ; str r0, [r5]
        adr r1, text ; mov r0, #4 ; svc 0x123456
        mov r0, #'Z' ; strb r0, [r5]
        mov r2, #0
        {EXIT}
        b .
        text: .asciz "hosted"
        """
    )
    assert machine.run(timeout=10).exit_code == 0
    assert output(machine) == b"AhostedZ"


def test_the_state_after_a_reset(make: MakeMachine) -> None:
    machine = make(exiting_elf())
    assert list(machine.r) == [0] * 13 + [RAM, 0, BASE]
    assert machine.cpsr == 0x1D3 and machine.icount == 0


def exiting_elf() -> bytes:
    return make_elf(exiting(0))


def test_a_program_can_be_run_again_and_replaced(make: MakeMachine) -> None:
    machine = make(make_elf(exiting(1)))
    first = machine.run(timeout=10)
    machine.reset()
    assert machine.run(timeout=10) == first
    machine.load_bytes(make_elf(exiting(2)))  # over code that has been executed
    assert machine.run(timeout=10).exit_code == 2


# -- fuel, time and interruption -----------------------------------------------------------------

COUNTING = "mov r4, #0; loop: add r4, r4, #1; b loop"


@pytest.mark.parametrize("fuel", [0, 1, 2, 1000, 1023, 1024, 1025, 12345])
def test_fuel_is_exact(make: MakeMachine, fuel: int) -> None:
    machine = make(COUNTING)
    result = machine.run(fuel=fuel)
    assert (result.reason, result.icount, machine.icount) == (StopReason.FUEL, fuel, fuel)
    assert machine.r[4] == fuel // 2
    assert result.pc == BASE + (4 * (2 - fuel % 2) if fuel else 0)


def test_fuel_counts_calls_of_the_host(make: MakeMachine) -> None:
    machine = make("loop: mov r0, #0x13; svc 0x123456; b loop")
    for fuel in (1, 2, 3, 100):
        machine.reset()
        assert machine.run(fuel=fuel).icount == fuel
        assert machine.pc == BASE + fuel % 3 * 4


def test_a_run_in_pieces_is_the_run(make: MakeMachine) -> None:
    whole, pieces = make(COUNTING), make(COUNTING)
    whole.run(fuel=1000)
    for fuel in (1, 9, 90, 900):
        pieces.run(fuel=fuel)
    assert state_hash(pieces) == state_hash(whole)


def test_steps(make: MakeMachine) -> None:
    machine = make(exiting_elf())
    places = []
    while True:
        places.append(machine.pc)
        result = machine.step()
        if result.reason is not StopReason.FUEL:
            break
    assert places == [BASE + 4 * n for n in range(7)] and result.exit_code == 0


@pytest.mark.parametrize("program", ["b .", "loop: mov r0, #0x13; svc 0x123456; b loop"])
def test_an_endless_loop_ends_at_the_time_limit(make: MakeMachine, program: str) -> None:
    machine = make(program)
    _ = machine.tier
    result = machine.run(timeout=0.1)
    assert result.reason is StopReason.TIMEOUT and result.icount > 0


def test_a_loop_over_a_device_ends_at_the_time_limit(make: MakeMachine) -> None:
    machine = make("ldr r5, =0x101f1000; loop: ldr r0, [r5, #0x18]; b loop")
    _ = machine.tier
    assert machine.run(timeout=0.1).reason is StopReason.TIMEOUT


def test_waiting_for_input_ends_at_the_time_limit(make: MakeMachine) -> None:
    machine = make("mov r0, #7; svc 0x123456; b .")
    machine.console.read = silence  # type: ignore[method-assign]
    result = machine.run(timeout=0.1)
    assert result.reason is StopReason.TIMEOUT
    assert (result.icount, result.pc) == (1, BASE + 4)  # the call is not over
    machine.console.read = lambda size: b"x"  # type: ignore[method-assign]
    machine.run(fuel=1)
    assert machine.r[0] == ord("x")


def silence(size: int) -> bytes | None:
    time.sleep(0.01)
    return None


def test_an_interrupt_stops_the_run_between_two_instructions(make: MakeMachine) -> None:
    machine = make(COUNTING)
    _ = machine.tier
    threading.Timer(0.2, machine.interrupt).start()
    result = machine.run(timeout=BOUND_S)
    assert result.reason is StopReason.INTERRUPTED
    assert machine.r[4] == machine.icount // 2
    assert machine.run(fuel=2).reason is StopReason.FUEL  # it goes on from there


# -- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "offset", "kind", "words"),
    [
        ("ldr r0, =0xdeadbee0; ldr r1, [r0]", 4, exits.DataAbort, ["read of 4 bytes at 0xdeadbee0", "ldr r1, [r0]"]),
        ("ldr r0, =0x180000; strb r1, [r0]", 4, exits.DataAbort, ["write of 1 byte at 0x00180000", "--memory"]),
        ("mov r0, #1; ldrex r1, [r0]", 4, exits.DataAbort, ["multiple of 4"]),
        (".word 0xe7f000f0", 0, exits.Undefined, ["undefined instruction"]),
        (".word 0xf7ffffff", 0, exits.Undefined, ["undefined instruction", ".word 0xf7ffffff"]),
        ("svc 42", 0, exits.SupervisorCall, ["supervisor call 0x2a"]),
        ("mov r7, #4; svc 0", 4, exits.SupervisorCall, ["Linux's system call 4", "rdimon"]),
        ("bkpt 7", 0, exits.Breakpoint, ["breakpoint 0x7"]),
        ("add r0, pc, #1; bx r0", 4, exits.ThumbEntry, ["Thumb", "-marm"]),
    ],
)
def test_what_nobody_handles_ends_the_run(
    make: MakeMachine, program: str, offset: int, kind: type[exits.VmExit], words: list[str]
) -> None:
    machine = make(program)
    result = machine.run(timeout=10)
    assert result.reason is StopReason.FAULT and result.exit_code is None
    assert type(result.exit) is kind
    assert (result.pc, result.icount) == (BASE + offset, offset // 4)
    for word in [f"{BASE + offset:#010x}", *words]:
        assert word in result.message
    assert "\n" not in result.message and result.message.endswith(".")


@pytest.mark.parametrize("target", [0x40000000, 0xFFFFFFFC, RAM])
def test_a_jump_to_nowhere(make: MakeMachine, target: int) -> None:
    result = make(f"ldr r0, ={target:#x}; bx r0").run(timeout=10)
    assert type(result.exit) is exits.PrefetchAbort
    assert (result.pc, result.icount) == (target, 2)
    assert f"jump to {target:#010x}" in result.message


def test_running_off_the_end_of_ram(make: MakeMachine) -> None:
    result = make(f"ldr pc, ={RAM - 8:#x}").run(timeout=10)
    assert type(result.exit) is exits.PrefetchAbort
    assert (result.pc, result.icount) == (RAM, 3)


def test_a_fault_names_the_symbol(make: MakeMachine) -> None:
    code = assemble("nop; svc 1")
    machine = make(make_elf(code, symbols={"main": (BASE, len(code))}))
    assert "(main+0x4: svc #1)" in machine.run(timeout=10).message
    assert machine.symbolize(BASE + 4) == "main+0x4"


def test_waiting_for_an_interrupt_halts(make: MakeMachine) -> None:
    machine = make("mov r0, #1; wfi; mov r0, #2; b .")
    result = machine.run(timeout=10)
    assert (result.reason, result.pc, result.icount) == (StopReason.HALTED, BASE + 4, 1)
    assert "interrupt" in result.message


# -- exceptions that the guest handles -----------------------------------------------------------

VECTORS = """
    .org 0
    b .
    b undefined
    b call
    b prefetch
    b data
    nop
    nop
    nop
"""


def with_vectors(body: str) -> bytes:
    """An image at 0 with a vector table; execution begins at 0x20."""
    handlers = "".join(
        f"{name}: b {name}\n" for name in ("undefined", "call", "prefetch", "data") if name + ":" not in body
    )
    table = VECTORS.replace(".org 0", "").replace("b .", "nop", 1)
    return make_elf(assemble(table + body + handlers, base=0), base=0, entry=0x20)


def test_a_supervisor_call_is_handled_and_counted(make: MakeMachine) -> None:
    machine = make(with_vectors("svc 42; mov r4, #1; b .\ncall: ldr r5, [lr, #-4]; movs pc, lr\n"))
    for icount, pc in ((1, 0x08), (2, 0x2C), (3, 0x30), (4, 0x24), (5, 0x28)):
        machine.step()
        assert (machine.icount, machine.pc) == (icount, pc)
    assert machine.r[4] == 1 and machine.r[5] == 0xEF00002A


def test_a_data_abort_is_handled_and_not_counted(make: MakeMachine) -> None:
    machine = make(
        with_vectors(
            """
            ldr r0, =0xdeadbee0 ; mov r6, #0 ; strh r1, [r0] ; mov r4, #1 ; b .
            data: mov r6, lr ; mrc p15, 0, r7, c5, c0, 0 ; mrc p15, 0, r8, c6, c0, 0 ; subs pc, lr, #4
            """
        )
    )
    result = machine.run(fuel=2 + 5 + 1)
    assert result.reason is StopReason.FUEL and machine.r[4] == 1
    assert machine.r[6] == 0x28 + 8
    assert machine.r[7] == 0x808  # a write, synchronous external abort
    assert machine.r[8] == 0xDEADBEE0


@pytest.mark.parametrize(
    ("instruction", "handler", "back"), [(".word 0xe7f000f0", "undefined", 4), ("bkpt 1", "prefetch", 4)]
)
def test_other_exceptions_are_handled(make: MakeMachine, instruction: str, handler: str, back: int) -> None:
    machine = make(with_vectors(f"nop; {instruction}; mov r4, #1; b .\n{handler}: mov r6, lr; movs pc, lr\n"))
    machine.run(fuel=1 + 3 + 1)
    assert machine.r[4] == 1 and machine.r[6] == 0x24 + back


def test_a_handler_that_faults_at_its_vector_ends_the_run(make: MakeMachine) -> None:
    table = "nop; .word 0xe7f000f0; nop; nop; nop; nop; nop; nop; .word 0xe7f000f0"
    machine = make(make_elf(assemble(table, base=0), base=0, entry=0x20))
    result = machine.run(timeout=10)
    assert (result.reason, result.pc, result.icount) == (StopReason.FAULT, 4, 0)
    assert "the same exception again" in result.message


def test_two_vectors_that_raise_each_other_end_the_run(make: MakeMachine) -> None:
    table = "nop; bkpt 1; nop; .word 0xe7f000f0; nop; nop; nop; nop; bkpt 2"
    machine = make(make_elf(assemble(table, base=0), base=0, entry=0x20))
    result = machine.run(timeout=10)
    assert (result.reason, result.icount) == (StopReason.FAULT, 0)


# -- semihosting in a guest ----------------------------------------------------------------------


def test_bad_pointers_do_not_disturb_the_host(make: MakeMachine) -> None:
    machine = make("mov r0, #5; mvn r1, #0; svc 0x123456; mov r4, r0; mov r0, #0x13; svc 0x123456; b .")
    machine.run(fuel=6)
    assert machine.r[4] == 0xFFFFFFFF and machine.r[0] == 14


def test_code_that_the_host_wrote_is_executed(make: MakeMachine) -> None:
    """SYS_READ puts an instruction over one that has been executed already."""
    new = assemble("mov r6, #2")
    machine = make(
        f"""
            mov r7, #0
        again:
        patch: mov r6, #1
            add r7, r7, r6
            cmp r7, #2
            bhs done
            adr r1, name ; mov r0, #1 ; svc 0x123456
            adr r1, block ; str r0, [r1] ; mov r0, #6 ; svc 0x123456
            b again
        done: mov r2, r7
            {EXIT}
            b .
            .align 2
        name: .word text, 0, 3
        block: .word 0, patch, 4
        text: .asciz ":tt"
        """,
        input_=new,
    )
    assert machine.run(timeout=10).exit_code == 3


# -- the public interface ------------------------------------------------------------------------


def test_registers_and_memory(make: MakeMachine) -> None:
    machine = make("add r0, r0, r1; b .")
    machine.r[0], machine.r[1] = 2, 0xFFFFFFFF
    machine.step()
    assert machine.r[0] == 1 and machine.pc == BASE + 4
    machine.write(BASE + 4, assemble("mov r0, #7"))
    machine.step()
    assert machine.r[0] == 7 and machine.read(BASE + 4, 4) == assemble("mov r0, #7")
    machine.pc = BASE
    machine.cpsr = 0x600001D3
    assert machine.pc == BASE and machine.cpsr == 0x600001D3


def test_wrong_arguments_are_refused(make: MakeMachine) -> None:
    machine = make(exiting_elf())
    for wrong in (2, -4, 1 << 32):
        with pytest.raises(ValueError):
            machine.pc = wrong
    with pytest.raises(ValueError):
        machine.read(RAM - 1, 2)
    with pytest.raises(ValueError):
        machine.write(-1, b"x")
    with pytest.raises(ValueError):
        Machine(RAM + 1)
    with pytest.raises(ValueError, match="no tier"):
        Machine(RAM, "fast")  # type: ignore[arg-type]
    with pytest.raises(ImageError):
        machine.load("/nonexistent")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("semihosting", "off"),
        ("semihosting", 0),
        ("realtime", "no"),
        ("epoch", "now"),
        ("epoch", 1.5),
        ("epoch", -1),
        ("epoch", 1 << 32),
        ("insn_ns", 0),
        ("insn_ns", 3),
        ("insn_ns", 2000),
        ("insn_ns", True),
        ("insn_ns", 10.0),
        ("optimizations", ["literals"]),
        ("optimizations", None),
        ("notice", None),
        ("console", 3),
        ("console", object()),
        ("observer", None),
        ("tier", None),
        ("tier", ["auto"]),
        ("jit", True),
        ("cpu", ["any"]),
        ("memory", "128M"),
        ("memory", None),
    ],
)
def test_a_wrong_option_is_refused_before_there_is_a_machine(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"(?i){name}"):
        Machine(**{"memory": RAM, name: value})


@pytest.mark.parametrize("name", ["files", "dump"])
def test_what_is_no_path_is_refused(name: str) -> None:
    wrong: dict[str, Any] = {name: 3.5}
    with pytest.raises(TypeError, match=name):
        Machine(RAM, **wrong)


@pytest.mark.parametrize("fuel", [-1, 1.5, "1", True])
def test_a_wrong_fuel_is_refused(make: MakeMachine, fuel: Any) -> None:
    machine = make(exiting_elf())
    with pytest.raises(ValueError, match="fuel is a number of instructions"):
        machine.run(fuel=fuel)
    assert machine.icount == 0 and machine.run(fuel=1).icount == 1


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", True])
def test_a_wrong_timeout_is_refused(make: MakeMachine, timeout: Any) -> None:
    machine = make(exiting_elf())
    with pytest.raises(ValueError, match="timeout is a number of seconds"):
        machine.run(timeout=timeout)
    assert machine.icount == 0 and machine.run(timeout=float("inf")).exit_code == 0


def test_paths_are_text_or_objects(tmp_path: Path) -> None:
    program = tmp_path / "program.elf"
    program.write_bytes(exiting_elf())
    with Machine(RAM, "threaded", files=tmp_path, dump=tmp_path / "dump", console=CaptureConsole()) as machine:
        machine.load(program)
        assert machine.run(timeout=BOUND_S).exit_code == 0
        with pytest.raises(TypeError, match="path"):
            machine.load(3)  # type: ignore[arg-type]
        with pytest.raises(ImageError, match="nothing-here"):
            machine.load_kernel(program, initrd=tmp_path / "nothing-here")
        with pytest.raises(ImageError, match="nothing-here"):
            machine.load_kernel(program, dtb=tmp_path / "nothing-here")


@pytest.mark.parametrize(
    ("cpsr", "words"), [(0x30, "Thumb"), (0xF3, "Thumb"), (0x2D3, "big-endian"), (0xC5, "mode"), (0, "mode")]
)
def test_a_cpsr_that_this_machine_cannot_have(make: MakeMachine, cpsr: int, words: str) -> None:
    machine = make("add r0, r0, #1 ; b .")
    before = machine.cpsr
    with pytest.raises(ValueError, match=words):
        machine.cpsr = cpsr
    assert machine.cpsr == before
    machine.cpsr = 0x010000D3  # choice: no-jazelle
    assert machine.cpsr == 0xD3
    machine.step()
    assert machine.r[0] == 1


def test_registers_are_a_sequence(make: MakeMachine) -> None:
    registers = make(exiting_elf()).r
    registers[3] = 0xFFFFFFFF
    assert (len(registers), registers[3], registers[-13], registers[2:4]) == (
        16,
        0xFFFFFFFF,
        0xFFFFFFFF,
        [0, 0xFFFFFFFF],
    )
    assert registers == [0, 0, 0, 0xFFFFFFFF, *[0] * 9, RAM, 0, BASE] and 0xFFFFFFFF in registers
    for index, value in ((16, 0), (0, -1), (0, 1 << 32)):
        with pytest.raises((ValueError, IndexError)):
            registers[index] = value


def test_help_shows_the_classes() -> None:
    import pydoc

    import dbt

    text = pydoc.plain(pydoc.render_doc(dbt))
    for name in ("class Machine", "class RunResult", "class CaptureConsole", "class ImageError"):
        assert name in text


def test_the_package_exports_what_it_says() -> None:
    import dbt

    for name in dbt.__all__:
        assert getattr(dbt, name) is not None
    with pytest.raises(AttributeError):
        _ = dbt.nothing
