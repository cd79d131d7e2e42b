"""The remote protocol by a plain socket: what a debugger asks, what a hostile one sends, and who may connect."""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbt import CaptureConsole, Machine
from dbt.gdb.packets import MAX_PACKET, framed
from dbt.vm.result import StopReason
from tests.assembler import assemble
from tests.gdb.counter import COUNTED, COUNTER, PLACES, RAM
from tests.gdb.remote import RemoteClient, Service, served
from tests.vm.programs import BASE, EXIT

FOREVER = "mov r0, #0 ; loop: add r0, r0, #1 ; b loop"


def machine_of(source: str = COUNTER + EXIT) -> Machine:
    machine = Machine(RAM, "threaded", console=CaptureConsole())
    machine.load_bytes(assemble(source), base=BASE)
    return machine


@pytest.fixture
def service() -> Iterator[Service]:
    with served(machine_of()) as made:
        yield made


@pytest.fixture
def client(service: Service) -> Iterator[RemoteClient]:
    with service.client() as made:
        yield made


def word(value: int) -> str:
    return value.to_bytes(4, "little").hex()


def test_a_debugger_learns_what_the_server_can(client: RemoteClient) -> None:
    features = client.ask("qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+").split(";")
    assert f"PacketSize={MAX_PACKET:x}" in features
    assert {"qXfer:features:read+", "QStartNoAckMode+", "ConditionalBreakpoints+"} <= set(features)
    assert not any(name.startswith(("ReverseStep", "ReverseContinue", "qXfer:memory-map")) for name in features)
    assert client.ask("vCont?") == "vCont;c;C;s;S;r"
    assert client.ask("vMustReplyEmpty") == ""
    assert client.ask("qAttached") == "1"
    assert client.ask("?") == "T05thread:1;"
    assert client.ask("qfThreadInfo") == "m1"
    assert client.ask("qsThreadInfo") == "l"
    assert bytes.fromhex(client.ask("qThreadExtraInfo,1")) == b"supervisor mode, stopped"


def test_the_target_description_numbers_each_register_once(client: RemoteClient) -> None:
    text, offset = "", 0
    while True:  # in small pieces
        part = client.ask(f"qXfer:features:read:target.xml:{offset:x},100")
        text += part[1:]
        offset += len(part) - 1
        if part[0] == "l":
            break
    root = ET.fromstring(re.sub("<!DOCTYPE[^>]*>", "", text))
    core, system = root.findall("feature")
    assert root.findtext("architecture") == "arm"
    assert core.attrib["name"] == "org.gnu.gdb.arm.core"
    assert [(reg.attrib["name"], reg.attrib["regnum"]) for reg in core][12:] == [
        ("r12", "12"), ("sp", "13"), ("lr", "14"), ("pc", "15"), ("cpsr", "25"),
    ]  # fmt: skip
    numbers = [int(reg.attrib["regnum"]) for reg in [*core, *system]]
    assert len(numbers) == len(set(numbers))
    assert min(int(reg.attrib["regnum"]) for reg in system) == 26
    assert all(re.fullmatch("[0-9a-f]{8}", client.ask(f"p{number:x}")) for number in numbers)
    assert client.ask("qXfer:threads:read::0,1000").startswith("l<?xml")


def test_registers_are_read_and_written(client: RemoteClient, service: Service) -> None:
    everything = client.ask("g")
    assert len(everything) == 17 * 8
    assert everything[15 * 8 : 16 * 8] == word(BASE)
    assert client.ask(f"P3={word(0x12345678)}") == "OK"
    assert client.ask("p3") == word(0x12345678)
    assert client.ask("G" + word(7) + everything[8:]) == "OK"
    assert client.ask("g") == word(7) + everything[8:]
    assert client.ask(f"Pf={word(BASE + 2)}").startswith("E.0x8002 is not the address of an A32 instruction")
    assert "no valid mode" in client.ask(f"P19={word(0)}")
    assert client.ask("p18").startswith("E.there is no register 24")
    assert client.ask("G00") == "E01"


def test_a_new_mode_has_its_own_registers(client: RemoteClient) -> None:
    before = client.ask("g")
    assert client.ask(f"P19={word(0x1D2)}") == "OK"  # IRQ mode
    assert client.ask(f"Pd={word(0x5000)}") == "OK"
    assert client.ask("G" + before) == "OK"  # the CPSR is the last register, and must be the first to be written
    assert client.ask("g") == before


def test_memory_is_read_and_written(client: RemoteClient, service: Service) -> None:
    assert client.ask("m20000,4") == "00000000"
    assert client.ask("M20000,4:01020304") == "OK"
    assert client.ask(b"X20004,4:}]\x00}\x03a") == "OK"
    assert client.ask("m20000,8") == "01020304" + b"}\x00#a".hex()
    assert client.ask("X20000,0:") == "OK"
    assert client.ask(f"m{RAM - 4:x},100") == "0" * 8  # no more than there is
    assert client.ask(f"m{RAM:x},4") == "E14"
    assert client.ask(f"M{RAM - 2:x},4:01020304") == "E14"
    assert client.ask("m101f1000,4") == "E14"  # a device: to read it may change it
    assert client.ask("mffffffffffff,4") == "E14"
    assert client.ask("M20000,4:0102") == "E01"
    assert client.ask("m20000,zz") == "E01"


def test_steps_breakpoints_and_watchpoints(client: RemoteClient, service: Service) -> None:
    client.ask("qSupported:swbreak+;hwbreak+")
    assert client.ask("vCont;s:1") == "T05thread:1;"
    assert client.ask("pf") == word(BASE + 4)
    assert client.ask(f"vCont;r{BASE:x},{BASE + 16:x}:1;c") == "T05thread:1;"
    assert client.ask("pf") == word(PLACES["count"])
    assert client.ask(f"Z0,{PLACES['store']:x},4") == "OK"
    assert client.ask("c") == "T05thread:1;swbreak:;"
    assert client.ask("pf") == word(PLACES["store"])
    assert client.ask(f"z0,{PLACES['store']:x},4") == "OK"
    assert client.ask(f"Z2,{COUNTED:x},4") == "OK"
    assert client.ask("c") == f"T05thread:1;watch:{COUNTED:x};"
    assert client.ask("pf") == word(PLACES["store"])
    assert client.ask(f"z2,{COUNTED:x},4") == "OK"
    assert client.ask(f"Z3,{COUNTED + 3:x},1") == "OK"
    assert client.ask("c") == f"T05thread:1;rwatch:{COUNTED + 3:x};"
    assert client.ask(f"z3,{COUNTED + 3:x},1") == "OK"
    assert client.ask("vCont;c") == "W07"
    assert client.is_closed()
    assert service.result().exit_code == 7


def condition(*code: int) -> str:
    return f"X{len(code):x},{bytes(code).hex()}"


def test_conditions_are_evaluated_beside_the_guest(client: RemoteClient, service: Service) -> None:
    at = PLACES["store"]
    # R4 == 1000: reg 4, zero_ext 32, const16 1000, equal, end
    is_1000 = condition(0x26, 0, 4, 0x2A, 32, 0x23, 1000 >> 8, 1000 & 255, 0x13, 0x27)
    assert client.ask(f"Z0,{at:x},4;{is_1000}") == "OK"
    assert client.ask("c") == "T05thread:1;"
    assert client.ask("p4") == word(1000)
    # The word at [R5] == 1999, or R4 == 1000: const32 0x20000, ref32, const16 1999, equal, end
    is_1999 = condition(0x24, 0, 2, 0, 0, 0x19, 0x23, 1999 >> 8, 1999 & 255, 0x13, 0x27)
    assert client.ask(f"Z0,{at:x},4;{is_1000}{is_1999}") == "OK"
    assert client.ask("s")[:3] == "T05"
    assert client.ask("c") == "T05thread:1;"
    assert client.ask("p4") == word(2000)


@pytest.mark.parametrize(
    "code",
    [
        (0x21, 0, 0),  # goto 0, for ever
        (0x22, 1, 0x21, 0, 0),  # fills the stack
        (0x13,),  # an empty stack
        (0x26,),  # ends in an operand
        (0xFF, 0x27),
        (0x22, 1, 0x22, 0, 0x05, 0x27),  # 1 / 0
        (0x24, 0xFF, 0xFF, 0xFF, 0xF0, 0x19, 0x27),  # no memory there
    ],
)
def test_a_condition_that_cannot_be_evaluated_stops(client: RemoteClient, code: tuple[int, ...]) -> None:
    assert client.ask(f"Z0,{PLACES['count']:x},4;{condition(*code)}") == "OK"
    assert client.ask("c") == "T05thread:1;"


def test_wrong_points_are_refused_in_words(client: RemoteClient) -> None:
    assert "multiple of 4" in client.ask("Z0,8002,2")
    assert "cannot be watched" in client.ask("Z2,8000,0")
    assert "cannot be watched" in client.ask("Z2,8000,fffffff")
    assert "cannot be watched" in client.ask("Z2,ffffffff,2")
    assert client.ask("Z9,8000,4") == ""
    assert client.ask("Z0,8000") == "E01"
    assert client.ask("Z0,8000,4;X3,27") == "E01"
    assert client.ask("Z0,1ffffffff,4") == "E01"
    for number in range(32):
        assert client.ask(f"Z2,{0x30000 + 4 * number:x},4") == "OK"
    assert "32 watchpoints at most" in client.ask("Z2,40000,4")
    assert client.ask("z2,50000,4") == "OK"


def test_ctrl_c_stops_a_guest_that_runs() -> None:
    with served(machine_of(FOREVER)) as service, service.client() as client:
        client.send("c")
        time.sleep(0.05)
        client.socket.sendall(b"\x03")
        assert client.packet() == "T02thread:1;"
        assert client.ask("pf") in (word(BASE + 4), word(BASE + 8))


def test_ctrl_c_stops_what_was_asked_for_before_it() -> None:
    """Both may come in one piece. One that comes while the guest is stopped means nothing."""
    with served(machine_of(FOREVER)) as service, service.client() as client:
        client.socket.sendall(framed(b"c") + b"\x03")
        assert client.packet() == "T02thread:1;"
        client.socket.sendall(b"\x03")
        assert client.ask("?") == "T02thread:1;"
        client.send("c")
        time.sleep(0.1)
        client.socket.sendall(b"\x03" + framed(b"?"))
        assert client.packet() == client.packet() == "T02thread:1;"
        assert client.ask("p0") != word(0)


def test_the_guest_runs_without_a_debugger_and_after_one() -> None:
    with served(machine_of(FOREVER), wait=False) as service:
        time.sleep(0.05)
        counts = []
        for _ in range(2):
            with service.client() as client:
                assert client.ask("?") == "T05thread:1;"
                counts.append(int.from_bytes(bytes.fromhex(client.ask("p0")), "little"))
                assert client.ask(f"Z0,{BASE + 4:x},4") == "OK"
                assert client.ask("D") == "OK"
                assert client.is_closed()
            time.sleep(0.02)
        assert 0 < counts[0] < counts[1]


def test_a_client_that_vanishes_leaves_the_guest_running() -> None:
    with served(machine_of(FOREVER), wait=False) as service:
        with service.client() as client:
            assert client.ask(f"Z0,{BASE + 4:x},4") == "OK"
            assert client.ask("c") == "T05thread:1;"
            before = client.ask("p0")
        time.sleep(0.05)
        with service.client() as client:
            assert client.ask("p0") != before


def test_a_client_that_vanishes_leaves_a_guest_that_waits_stopped(service: Service) -> None:
    with service.client() as client:
        assert client.ask("s") == "T05thread:1;"
    with service.client() as client:
        assert client.ask("pf") == word(BASE + 4)
        assert client.ask("c") == "W07"


def test_a_client_that_vanishes_while_the_guest_runs() -> None:
    with served(machine_of(FOREVER)) as service:
        with service.client() as client:
            client.send("c")
            time.sleep(0.05)
        with service.client() as client:
            assert client.ask("?") == "T05thread:1;"
            assert client.ask("p0") != word(0)


def test_kill_ends_the_guest(client: RemoteClient, service: Service) -> None:
    assert client.ask("vKill;1") == "OK"
    result = service.result()
    assert result.reason is StopReason.INTERRUPTED
    assert "killed by the debugger" in result.message


def test_a_second_client_is_refused_in_words(client: RemoteClient, service: Service) -> None:
    for _ in range(12):
        assert client.ask("?") == "T05thread:1;"
        with service.client() as other:
            other.send("qSupported")
            assert "another debugger is connected" in other.packet()
            assert other.is_closed()
    client.send("c")
    assert client.packet() == "W07"


def test_a_second_client_is_refused_while_the_guest_runs() -> None:
    with served(machine_of(FOREVER)) as service, service.client() as client:
        client.send("c")
        with service.client() as other:
            assert "another debugger is connected" in other.packet()
        client.socket.sendall(b"\x03")
        assert client.packet() == "T02thread:1;"


def test_a_fault_is_told_and_stays() -> None:
    with served(machine_of("ldr r0, =0x30000000 ; ldr r1, [r0]")) as service, service.client() as client:
        for _ in range(2):
            client.send("c")
            told = bytes.fromhex(client.packet().removeprefix("O")).decode()
            assert told.startswith("dbt: guest fault at 0x00008004")
            assert client.packet() == "T0bthread:1;"
        assert client.ask("D") == "OK"
        assert service.result().reason is StopReason.FAULT


def test_exceptions_are_caught_at_their_handlers() -> None:
    source = """
        ldr r0, =0x30000000 ; ldr r1, =0x20000 ; mcr p15, 0, r1, c12, c0, 0
        svc 5 ; .word 0xe7f000f0 ; ldr r2, [r0] ; b .
    """
    handlers = {0x04: "undefined instruction", 0x08: "supervisor call", 0x10: "data abort"}
    machine = machine_of(source)
    for offset in handlers:
        link = {0x04: 0xE1B0F00E, 0x08: 0xE1B0F00E, 0x10: 0xE25EF004}[offset]  # movs pc, lr; subs pc, lr, #4
        machine.write(0x20000 + offset, link.to_bytes(4, "little"))
    with served(machine) as service, service.client() as client:
        monitor = client.monitor

        assert monitor("catch") == "usage: monitor catch undef|abort|svc|irq|none ...\n"
        assert "data abort" in monitor("catch svc undef abort")
        for offset in (0x08, 0x04, 0x10):
            client.send("c")
            assert handlers[offset] in bytes.fromhex(client.packet().removeprefix("O")).decode()
            assert client.packet() == "T05thread:1;"
            assert client.ask("pf") == word(0x20000 + offset)
        assert monitor("catch none") == "caught: no exceptions\n"
        assert monitor("when").startswith("6 instructions")
        assert "there is no command dance" in monitor("dance")
        assert "monitor pages [ADDRESS]" in monitor("help")
        assert monitor("pages 0x8000") == "0x00008000 is at 0x00008000\n"
        assert monitor("xp 0x20004 4").split() == ["00020004", "0ef0b0e1"]
        assert monitor("physical on").startswith("memory is read and written by physical")
        assert "threaded" in monitor("info")


def test_restart_loads_the_guest_again(client: RemoteClient) -> None:
    assert client.ask("M8000,4:00000000") == "OK"
    assert client.ask("!") == "OK"
    client.send("R00")
    assert client.ask("m8000,4") != "00000000"
    assert client.ask("c") == "W07"


# -- what is no packet, or a bad one -----------------------------------------------------------------


def test_damaged_packets_are_asked_for_again(client: RemoteClient) -> None:
    client.socket.sendall(b"+junk+++$?#00")
    assert client.ask("?") == "T05thread:1;"
    assert client.raw.startswith(b"-+")
    client.socket.sendall(b"-")  # the last answer again
    assert client.packet() == "T05thread:1;"


def test_without_acknowledgements_there_are_none(client: RemoteClient) -> None:
    assert client.ask("QStartNoAckMode") == "OK"
    before = client.raw
    assert client.ask("?") == "T05thread:1;"
    assert client.raw == before + framed(b"T05thread:1;")
    client.socket.sendall(b"$?#00")
    assert client.is_closed()


def test_a_packet_may_come_in_pieces(client: RemoteClient) -> None:
    for byte in framed(b"m8000,4"):
        client.socket.sendall(bytes((byte,)))
    assert client.packet() == assemble(COUNTER + EXIT)[:4].hex()
    client.socket.sendall(b"$m80$?#3f")  # half a packet, and another one
    assert client.packet() == "T05thread:1;"


def test_a_packet_that_is_too_long_is_not_taken(client: RemoteClient) -> None:
    client.socket.sendall(framed(b"m" * (20 * MAX_PACKET)))
    assert client.ask("?") == "T05thread:1;"
    assert client.raw.startswith(b"-+")


@pytest.mark.parametrize(
    "request_", [b"POST / HTTP/1.1\r\nHost: x\r\n\r\n$k#6b", b"GET /$k#6b HTTP/1.1\r\n\r\n", b"junk$k#6b"]
)
def test_what_is_no_debugger_is_not_served(service: Service, request_: bytes) -> None:
    with service.client() as other:
        other.socket.sendall(request_)
        assert other.is_closed()
    with service.client() as client:
        assert client.ask("c") == "W07"


def test_the_machines_user_can_end_a_run_that_waits() -> None:
    for connect in (False, True):
        with served(machine_of()) as service:
            client = service.client() if connect else None
            service.machine.interrupt()
            assert service.result().reason is StopReason.INTERRUPTED
            if client is not None:
                assert client.packet() == "X02"
                client.socket.close()


def test_a_client_that_takes_its_answers_slowly_does_not_keep_the_user_from_ending_the_run() -> None:
    with served(machine_of()) as service, service.client() as client:
        asked = 1000
        for _ in range(asked):  # answers of 16 MB, more than sockets hold
            client.send("m8000,1fe0")
        service.machine.interrupt()
        answers = 0
        with contextlib.suppress(EOFError, ConnectionError):  # what has not been answered may be lost with a reset
            while client.packet() != "X02":
                answers += 1
        assert answers < asked
        assert service.result().reason is StopReason.INTERRUPTED


def test_what_is_asked_for_again_and_again_is_sent_once(client: RemoteClient) -> None:
    answer = client.ask("m8000,1fe0")
    client.socket.sendall(b"-" * 2000)
    assert client.packet() == answer
    client.send("qC")
    found = [client.packet()]
    while found[-1] == answer:  # there may be some, where the bytes have come in pieces
        found.append(client.packet())
    assert len(found) < 20
    assert found[-1] == "QC1"


def test_random_bytes_do_no_harm(client: RemoteClient, service: Service) -> None:
    chance = random.Random(3)
    commands = b"?!gGpPmMXZzsHTvqQ"
    for _ in range(400):
        body = bytes((chance.choice(commands),)) + bytes(chance.randrange(256) for _ in range(chance.randrange(24)))
        body = bytes(byte for byte in body if byte not in b"$#}")
        if not body.startswith((b"s", b"QStart", b"vKill")):
            client.ask(body)
    assert client.ask("?").startswith("T05")


def test_a_unix_socket_is_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    abandoned = socket.socket(socket.AF_UNIX)
    abandoned.bind(str(path))
    abandoned.close()
    with served(machine_of(), f"unix:{path}") as service:
        assert service.place == str(path)
        assert os.stat(path).st_mode & 0o777 == 0o600
        with pytest.raises(OSError, match="in use"):
            machine_of().serve_gdb(f"unix:{path}")
        with service.client() as client:
            assert client.ask("c") == "W07"
        service.result()
    assert not path.exists()


def test_a_file_is_not_replaced_by_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("mine")
    with machine_of() as machine, pytest.raises(FileExistsError, match="which is no socket"):
        machine.serve_gdb(f"unix:{path}")
    assert path.read_text() == "mine"


def test_only_this_host_can_connect_unless_told_otherwise() -> None:
    with served(machine_of()) as service:
        assert service.place.startswith("127.0.0.1:")
    with served(machine_of(), "localhost:0") as service:
        assert service.place.startswith("127.0.0.1:")


@pytest.mark.parametrize(
    "text", ["", "x", "1:2:3", "65536", "host:", "unix:", "-1", "1.5", ":::1", "unix:" + "x" * 200]
)
def test_wrong_endpoints_are_refused(text: str) -> None:
    with machine_of() as machine, pytest.raises(ValueError, match=r"unix:PATH|unix socket|in brackets"):
        machine.serve_gdb(text)
