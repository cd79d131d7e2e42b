"""gdb-multiarch runs guests backwards, and the packets of the remote protocol by which it does."""

from __future__ import annotations

import re
import time

import pytest

from dbt import CaptureConsole, Machine, StopReason
from dbt.abi.addresses import Gva
from dbt.vm.debugger import Debugger
from dbt.vm.machine import TierName
from tests.assembler import assemble
from tests.gdb.counter import COUNTED, RAM, TIMED
from tests.gdb.remote import RemoteClient, Service, served
from tests.gdb.sessions import debugged, gdb_says, needs_gdb, values
from tests.guests import GUESTS
from tests.vm.programs import BASE, EXIT
from tests.waiting import wait_until

MINIOS = str(GUESTS / "images" / "minios-armv5te-O2.elf")

#: Counts to 1,000 in memory and exits.
COUNTER = """
    ldr r1, =0x20000 ; ldr r2, =1000 ; mov r0, #0
again: add r0, r0, #1 ; str r0, [r1] ; subs r2, r2, #1 ; bne again
    mov r0, #0x18 ; ldr r1, =0x20026 ; svc 0x123456
    .ltorg
"""


def counter() -> Machine:
    machine = Machine(1 << 20, console=CaptureConsole())
    machine.load_bytes(assemble(COUNTER, 0x8000), base=0x8000)
    return machine


def pc_of(registers: str) -> int:
    return int.from_bytes(bytes.fromhex(registers[15 * 8 : 16 * 8]), "little")


def test_packets() -> None:
    """What is announced, and the ends of the history in stop replies."""
    with served(counter(), history=True) as service, service.client() as client:
        assert "ReverseStep+;ReverseContinue+" in client.ask("qSupported:swbreak+;hwbreak+")
        assert client.ask("bs") == "T05thread:1;replaylog:begin;"
        client.ask("Z0,8018,4")
        for _ in range(3):
            assert client.ask("c") == "T05thread:1;swbreak:;"
        assert client.ask("bs") == "T05thread:1;" and pc_of(client.ask("g")) == 0x8014
        assert client.ask("bc") == "T05thread:1;swbreak:;" and client.ask("m20000,4") == "02000000"
        assert client.ask("bc") == "T05thread:1;swbreak:;" and client.ask("m20000,4") == "01000000"
        assert client.ask("M20000,1:05") == "E14"
        assert client.ask("P0=05000000").startswith("E.the guest is 8 instructions before the newest point")
        assert client.ask("bc") == "T05thread:1;replaylog:begin;" and pc_of(client.ask("g")) == 0x8000
        client.ask("z0,8018,4")
        assert client.ask("c") == "T05thread:1;replaylog:end;" and client.ask("m20000,4") == "03000000"
        client.ask("Z2,20000,4")
        assert client.ask("bc") == "T05thread:1;watch:20000;" and pc_of(client.ask("g")) == 0x8014
        assert client.ask("bc") == "T05thread:1;watch:20000;" and client.ask("m20000,4") == "02000000"
        client.ask("z2,20000,4")
        assert client.ask("bx") == ""
        assert client.ask("c") == "T05thread:1;replaylog:end;"
        client.send("c")
        assert "the guest has ended with 0" in bytes.fromhex(client.packet()[1:]).decode()
        assert client.packet() == "T05thread:1;replaylog:end;"
        assert client.ask("bs") == "T05thread:1;" and client.ask("m20000,4") == "e8030000"
        assert client.ask("c").startswith("O") and client.packet() == "T05thread:1;replaylog:end;"
        assert client.ask("c") == "W00"
        assert service.result().exit_code == 0


def test_without_a_history_there_is_no_way_back() -> None:
    with served(counter()) as service, service.client() as client:
        assert "Reverse" not in client.ask("qSupported:swbreak+")
        assert client.ask("bs") == client.ask("bc") == ""
        client.ask("qRcmd," + b"branch".hex())


def test_a_debugger_that_leaves_in_the_past_leaves_the_guest_running() -> None:
    with served(counter(), history=True) as service:
        with service.client() as client:
            client.ask("Z0,8018,4")
            client.ask("c")
            client.ask("bs")
            assert client.ask("D") == "OK"
        assert service.result().exit_code == 0


def test_the_past_by_number_and_by_exceptions() -> None:
    machine = Machine(16 << 20, console=CaptureConsole())
    machine.load_kernel(MINIOS)
    with served(machine, history=True) as service, service.client() as client:
        monitor = client.monitor
        monitor("catch svc")
        places = []
        for _ in range(4):
            assert client.ask("c").startswith("O") and client.packet() == "T05thread:1;"
            places.append((monitor("when").split()[0], client.ask("g")))
        for icount, registers in places[2::-1]:
            assert "supervisor call" in bytes.fromhex(client.ask("bc")[1:]).decode()
            assert client.packet() == "T05thread:1;"
            assert (monitor("when").split()[0], client.ask("g")) == (icount, registers)
        middle = (int(places[0][0]) + int(places[1][0])) // 2
        assert f"here {middle} instructions" in monitor(f"seek {middle}")
        assert monitor("when").startswith(f"{middle} instructions")
        assert client.ask("c").startswith("O") and client.packet() == "T05thread:1;"
        assert client.ask("g") == places[1][1]
        assert "the history goes from 0 to" in monitor("seek 99999999999")
        assert "usage: monitor seek" in monitor("seek")
        client.send("k")
        assert service.result().reason is StopReason.INTERRUPTED


@pytest.mark.parametrize("tier", ["reference", "threaded", "auto"])
def test_steps_back_lead_through_the_handlers_of_interrupts(tier: TierName) -> None:
    """With ``monitor stepirq on``, steps back lead to each place at which steps forward have stopped. Without, steps
    forward leave the handlers out, and steps back do not.
    """
    visited: dict[bool, list[tuple[int, bytes]]] = {}
    for into in (True, False):
        with Machine(RAM, tier, jit="off", console=CaptureConsole()) as machine:
            machine.load_bytes(assemble(TIMED + EXIT), base=BASE)
            debugger = Debugger(machine, history=machine.begin_history())
            debugger.steps_into_interrupts = into

            def here(machine: Machine = machine) -> tuple[int, bytes]:
                return machine.progress, machine.cpu.snapshot()

            while not machine.r[7]:  # the guest sets up the stack of the mode for interrupts
                debugger.step(Gva(0), Gva(0), lambda: False)
            forward = [here()]
            while machine.read(COUNTED, 4)[0] < 2:
                debugger.step(Gva(0), Gva(0), lambda: False)
                forward.append(here())
            visited[into] = forward
            back = [here()]
            while back[-1] != forward[0]:
                assert debugger.step_back().log_end is None
                back.append(here())
            assert back[::-1][: len(visited[True])] == visited[True]
    assert len(set(visited[False]) & set(visited[True])) > 100 and len(set(visited[True]) - set(visited[False])) > 10


#: Counts for ever in a register.
ENDLESS = "mov r0, #0 ; again: add r0, r0, #1 ; b again"
#: Instructions of a history that takes seconds to search.
LONG = 600_000_000
#: A search that has been so far before the newest point does not come to it again. (The first stretch ends there.)
FAR = LONG // 10


def long_history() -> Machine:
    machine = Machine(1 << 20, tier="threaded", console=CaptureConsole())  # compiled, it would take 0.1 s
    machine.load_bytes(assemble(ENDLESS, 0x8000), base=0x8000)
    return machine


def far_in(client: RemoteClient, service: Service) -> None:
    """Let the guest run until the history is long."""
    client.send("c")
    while service.machine.icount < LONG:
        time.sleep(0.02)
    client.socket.sendall(b"\x03")
    assert client.packet() == "T02thread:1;"


def test_a_search_is_interrupted() -> None:
    """By an interrupt from the client, and by that of the machine's own user. Without one it finds nothing."""
    with served(long_history(), history=True) as service, service.client() as client:
        far_in(client, service)
        newest = service.machine.icount
        last_write = "qRcmd," + b"last-write 0x30000".hex()
        for is_of_client in (True, False):
            client.send(last_write)
            wait_until(lambda: service.machine.icount < newest, "the search begins")
            if is_of_client:
                client.socket.sendall(b"\x03")
            else:
                service.machine.interrupt()
            assert "interrupted after" in bytes.fromhex(client.packet()[1:]).decode()
            assert client.packet() == "OK" and service.machine.icount <= newest
            assert f"here {newest}" in client.monitor(f"seek {newest}")
        assert "nothing has written to 0x30000 since 0" in client.monitor("last-write 0x30000")
        assert service.machine.icount == newest
        client.send("bc")
        wait_until(lambda: service.machine.icount < newest - FAR, "the machine goes back")
        client.socket.sendall(b"\x03")
        assert client.packet() == "T02thread:1;" and service.machine.icount < newest


def test_a_client_that_leaves_ends_its_search() -> None:
    with served(long_history(), history=True) as service:
        with service.client() as client:
            far_in(client, service)
            newest = service.machine.icount
            assert client.ask("Z0,8004,4;X3,220027") == "OK"  # a condition that is false, 300 million times
            client.send("bc")
            wait_until(lambda: service.machine.icount < newest, "the search begins")
        with service.client() as client:
            assert client.ask("?") == "T05thread:1;" and service.machine.icount < newest


@needs_gdb
def test_back_to_breakpoints_and_writes(guest: str) -> None:
    with debugged("--history", guest) as (process, place):
        text = gdb_says(
            place,
            [
                *("reverse-stepi", "stepi", "stepi", "reverse-stepi", "p $pc"),
                *("break main", "continue", "continue", "watch total", "continue", "continue", "p total"),
                *("reverse-continue", "p total", "reverse-continue", "p total", "reverse-continue"),
                *("delete 2", "break far_away if value == 2560", "continue", "continue"),
                *("reverse-finish", "p $pc", "reverse-step", 'eval "monitor last-write %#x", &total', "p total = 1"),
                *("monitor branch", "p total = 1", "monitor when", "kill"),
            ],
            guest,
        )
        assert process.wait(20) == 130
    assert text.index("No more reverse-execution history") < text.index("$1 =")
    shown = values(text)
    assert shown[1:4] == [141, 140, 0], text
    forward, back = text.split("$2 = 141")
    assert re.findall(r"Old value = (\d+)\nNew value = (\d+)", forward) == [("0", "140"), ("140", "141")]
    assert re.findall(r"Old value = (\d+)\nNew value = (\d+)", back) == [("141", "140"), ("140", "0")]
    assert re.search(r"\$4 = 0\n\nBreakpoint 1, main", back)
    assert re.search(r"Breakpoint 3, far_away \(value=value@entry=2560\)", back)
    assert re.search(r"last written after \d+ instructions, \d+ ago, at 0x0001105\w \(fill\+", back)
    assert re.search(r"Cannot access memory at .*\n.* is forgotten: the guest goes on from here\n\$6 = 1\n", back)
    assert re.search(r"in a history from (\d+) to \1 instructions", back)


@needs_gdb
def test_a_kernel_goes_back_to_its_first_instructions() -> None:
    """Back over interrupts and processes, with the MMU on, and forward again to the same place."""
    with debugged("--history", "--kernel", MINIOS) as (_, place):
        text = gdb_says(
            place,
            [
                *("break kernel_main", "continue", "p $pc", "monitor when", "delete", "stepi 3000"),
                *("p $pc", "monitor when", "reverse-stepi 500", "stepi 500", "p $pc", "monitor when"),
                *("break *kernel_main", "reverse-continue", "p $pc", "monitor when", "kill"),
            ],
            MINIOS,
        )
    first, later, again, back = values(text)[:4]
    assert (again, back) == (later, first), text
    times = re.findall(r"^(\d+) instructions, \S+ s", text, re.M)
    assert times[0] == times[3] and times[1] == times[2]


@needs_gdb
@pytest.mark.parametrize("tier", ["reference", "threaded"])
def test_tiers(guest: str, tier: str) -> None:
    with debugged("--history", "--tier", tier, guest) as (_, place):
        commands = ["break fill", "continue", "continue", "p total > 0", "p round", "reverse-continue", "p round"]
        text = gdb_says(place, commands, guest)
    assert values(text)[1:] == [2, 1]
