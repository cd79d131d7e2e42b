"""The monitor: what clients see and do, what hostile ones cannot do, and that the guest does not notice."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dbt import CaptureConsole, Machine, QmpMonitor, read_snapshot
from dbt.abi.version import VERSION
from dbt.board.boards import BOARDS
from dbt.host.drive import Drive
from dbt.qmp.clients import MOST_CLIENTS
from dbt.qmp.messages import MAX_DEPTH, MAX_MESSAGE
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.devices.virtio.guest import ORIGIN, SECTOR, Guest
from tests.host.qcow2_images import small_image
from tests.qmp.client import FOREVER, SHORT, Monitored, QmpClient, machine_of, monitored
from tests.vm.programs import BASE, EXIT, MODES
from tests.waiting import BOUND_S, wait_until

GENERIC, NOT_FOUND = "GenericError", "CommandNotFound"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "monitor")


@pytest.fixture
def endless(path: str) -> Iterator[Monitored]:
    with machine_of(FOREVER) as machine, monitored(machine, path) as made:
        yield made


@pytest.fixture
def client(endless: Monitored) -> Iterator[QmpClient]:
    with endless.client() as made:
        yield made


# -- what clients see ------------------------------------------------------------------------------


def test_a_client_is_greeted_and_negotiates(endless: Monitored) -> None:
    with endless.client(negotiates=False) as client:
        assert client.greeting is not None
        greeting = client.greeting["QMP"]
        assert greeting["capabilities"] == [] and greeting["version"]["package"].startswith("dbt ")
        assert client.ask("query-version")[0] == NOT_FOUND
        assert client.ask("qmp_capabilities", enable=["oob"])[0] == GENERIC
        assert client.ask("qmp_capabilities", enable=[]) == {}
        assert client.ask("query-version") == greeting["version"]


def test_the_guest_stops_and_goes_on(client: QmpClient) -> None:
    assert client.ask("query-status") == {"status": "running", "singlestep": False, "running": True}
    assert client.ask("stop") == client.ask("stop") == {} and client.take_events() == ["STOP"]
    assert client.ask("query-status")["status"] == "paused"
    first = client.ask("x-dbt-info")
    time.sleep(0.05)
    assert client.ask("x-dbt-info") == first and first["icount"] > 0
    assert client.ask("cont") == client.ask("cont") == {} and client.take_events() == ["RESUME"]
    wait_until(lambda: client.ask("x-dbt-info")["icount"] > first["icount"], "instructions")


def test_the_info_is_that_of_the_machine(client: QmpClient, endless: Monitored) -> None:
    client.ask("stop")
    info, machine = client.ask("x-dbt-info"), endless.machine
    assert info["virtual-time-ns"] == 10 * info["icount"] == 10 * machine.icount
    assert info["pc"] in range(BASE, BASE + 12) and info["location"] == hex(info["pc"])
    assert (info["cpu"], info["board"], info["tier"], info["waiting"]) == ("any", "versatile", "threaded", False)
    assert info["memory"] == 1 << 20


def test_the_commands_are_those_that_are_listed(client: QmpClient) -> None:
    names = [command["name"] for command in client.ask("query-commands")]
    assert {"qmp_capabilities", "query-commands", "stop", "cont", "quit", "x-dbt-save"} <= set(names)
    for name in set(names) - {"quit"}:
        answer = client.ask(name, no_such_argument=1)
        assert isinstance(answer, tuple) and answer[0] == (NOT_FOUND if name == "qmp_capabilities" else GENERIC)


def test_quit_ends_the_run_in_an_orderly_way(client: QmpClient, endless: Monitored, path: str) -> None:
    assert client.ask("quit") == {}
    assert client.events == [{"event": "SHUTDOWN", "data": {"guest": False, "reason": "host-qmp-quit"}}]
    assert client.receive() is None
    result = endless.result
    assert result.reason is StopReason.INTERRUPTED and result.exit_code is None and result.icount
    assert not os.path.lexists(path)


def test_quit_of_a_paused_guest(client: QmpClient, endless: Monitored) -> None:
    client.ask("stop")
    client.ask("quit")
    assert endless.result.reason is StopReason.INTERRUPTED


@pytest.mark.parametrize(
    ("source", "guest", "reason", "code"),
    [
        (SHORT, True, "guest-shutdown", 5),
        ("mov r0, #1 ; bx r0", True, "guest-panic", None),
        ("ldr r0, =0x10000000 ; ldr r1, =0xa05f ; str r1, [r0, #0x20] ; mov r1, #0x104 ; str r1, [r0, #0x40]\nl: b l",
         True, "guest-reset", 0),
    ],
)  # fmt: skip
def test_clients_hear_how_the_guest_ends(path: str, source: str, guest: bool, reason: str, code: int | None) -> None:
    with machine_of(source) as machine, monitored(machine, path, paused=True) as service, service.client() as client:
        assert client.ask("query-status")["status"] == "prelaunch"
        client.ask("cont")
        assert client.receive() is None
        assert client.events[-1] == {"event": "SHUTDOWN", "data": {"guest": guest, "reason": reason}}
        assert service.result.exit_code == code


def test_clients_hear_that_the_user_ends_the_run(client: QmpClient, endless: Monitored) -> None:
    endless.machine.interrupt()
    assert client.receive() is None
    assert client.events == [{"event": "SHUTDOWN", "data": {"guest": False, "reason": "host-signal"}}]


def test_fuel_counts_what_the_guest_executes(path: str) -> None:
    options = {"fuel": 2_000_000, "paused": True}
    with machine_of(FOREVER) as machine, monitored(machine, path, **options) as service, service.client() as client:
        client.send(b'{"execute": "cont"}{"execute": "stop"}{"execute": "cont"}')
        assert (service.result.reason, service.result.icount) == (StopReason.FUEL, 2_000_000)


# -- several clients -------------------------------------------------------------------------------


def test_all_clients_hear_what_one_does(endless: Monitored) -> None:
    with endless.client() as first, endless.client() as second, endless.client(negotiates=False) as third:
        first.ask("stop")
        assert second.ask("query-status")["status"] == "paused" and second.take_events() == ["STOP"]
        second.ask("cont")
        first.ask("query-status")
        assert first.take_events() == ["STOP", "RESUME"]
        assert third.ask("query-status")[0] == NOT_FOUND and third.take_events() == []
    with endless.client() as fourth:
        assert fourth.ask("query-status")["running"]


def test_silent_clients_do_not_keep_others_out(endless: Monitored) -> None:
    silent = [endless.client(negotiates=False) for _ in range(MOST_CLIENTS)]
    time.sleep(1.1)
    talking = [endless.client() for _ in range(MOST_CLIENTS)]
    refused = endless.client(negotiates=False)
    assert refused.greeting is not None and "8 clients" in refused.greeting["error"]["desc"]
    assert all(client.ask("query-status")["running"] for client in talking)
    for client in (*silent, *talking, refused):
        client.close()
    with endless.client() as later:
        assert later.ask("query-status")["running"]


def test_what_a_client_has_sent_before_it_left_is_done(endless: Monitored) -> None:
    with endless.client() as client:
        client.send(b'{"execute": "stop"}{"execute": "query-status", "id": 7}')
        client.end()
        assert client.receive() == {"return": {}}
        answer = client.receive()
        assert answer is not None and answer["id"] == 7 and answer["return"]["status"] == "paused"
        assert client.receive() is None
    with endless.client() as client:
        client.send(b'{"execute": "cont"}')
    with endless.client() as client:
        wait_until(lambda: client.ask("query-status")["running"], "the guest to go on")


# -- hostile clients -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b'{"execute": "query-status", "arguments": 5}', b'{"execute": 5}', b"[]", b'"stop"', b"{}", b'{"id": 1}',
        b'{"execute": "stop", "zork": 1}', b'{"exec-oob": "stop"}', b'{"execute": "x-dbt-save"}',
        b'{"execute": "x-dbt-save", "arguments": {"path": 5}}', b'{"execute": "x-dbt-save", "arguments": {"path": ""}}',
        b'{"execute": "x-dbt-save", "arguments": {"path": "a\\u0000b"}}',
        b'{"execute": "x-dbt-save", "arguments": {"path": "/dev/null"}}',
        b'{"execute": "x-dbt-save", "arguments": {"path": "\\ud800"}}',
        b'{"execute": "x-dbt-save", "arguments": {"path": "/nowhere/x"}}',
        b'{"execute": ', b"\x00\n", b"[" * (MAX_DEPTH + 1) + b"\n", b'{"x": "' + b"y" * MAX_MESSAGE + b"\n",
    ],
)  # fmt: skip
def test_a_wrong_command_is_an_error_and_nothing_else(client: QmpClient, data: bytes) -> None:
    client.send(data + (b"}\n" if data == b'{"execute": ' else b""))
    answer = client.receive()
    assert answer is not None and answer["error"]["class"] == GENERIC and len(answer["error"]["desc"]) < 300
    assert client.ask("query-status")["running"]


def test_a_command_in_pieces_waits_for_its_end(client: QmpClient) -> None:
    for byte in b'{"execute": "query-status", "id": "':
        client.send(bytes([byte]))
        time.sleep(0.001)
    answer = client.tell(b'slow"}')
    assert answer is not None and answer["id"] == "slow"


def test_a_client_that_does_not_read_holds_nobody_up(endless: Monitored) -> None:
    with endless.client() as deaf, endless.client() as other:
        before = endless.machine.icount
        try:
            for _ in range(100_000):
                deaf.send_at_once(b'{"execute": "query-commands"}' * 100)
        except BlockingIOError:
            pass  # the monitor takes no more, because its answers are not taken
        else:
            pytest.fail("everything was taken, though no answer was read")
        assert other.ask("query-status")["running"]
        wait_until(lambda: endless.machine.icount > before, "instructions")
        other.ask("stop")
        for _ in range(2500):
            other.ask("system_reset")  # each of them is an event for the other one, which is sent away in the end
        deaf.drain()


def test_no_bytes_break_the_monitor(endless: Monitored) -> None:
    rng = random.Random(16)
    words = [
        b'{"execute": ', b'"query-status"', b'"stop"', b'"cont"', b'"x-dbt-info"', b', "arguments": ', b"{", b"}", b"[",
        b"]", b'"', b"'", b"\\", b"\xff", b"\n", b', "id": ', b"1e9", b"null", b":",
    ]  # fmt: skip
    for _ in range(150):
        negotiates = rng.random() < 0.7
        with endless.client(negotiates) as client:
            client.send(b"".join(rng.choices(words, k=rng.randrange(60))) + rng.randbytes(rng.randrange(20)))
            if rng.random() < 0.5:
                client.end()
    with endless.client() as client:
        client.ask("cont")
        assert client.ask("query-status")["running"]


# -- the socket ------------------------------------------------------------------------------------


def test_the_socket_is_this_users_and_one_in_use_is_left_alone(endless: Monitored, path: str) -> None:
    wait_until(lambda: os.path.lexists(path), "the socket")
    assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
    with pytest.raises(OSError):
        QmpMonitor(endless.machine, f"unix:{path}")
    with endless.client() as client:
        assert client.ask("query-status")["running"]


@pytest.mark.parametrize("endpoint", ["4444", "tcp:localhost:4444", "unix:", ""])
def test_a_monitor_is_at_a_unix_socket(endpoint: str) -> None:
    with machine_of(FOREVER) as machine, pytest.raises(ValueError, match="unix"):
        QmpMonitor(machine, endpoint)


# -- the guest does not notice ---------------------------------------------------------------------


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_the_guest_does_the_same_with_a_monitor(tier: Any, jit: Any, path: str, tmp_path: Path) -> None:
    count = {"reference": 20_000, "threaded": 3_000_000}.get(tier, 300_000_000)
    code = assemble(f"ldr r0, ={count} ; l: subs r0, r0, #1 ; bne l ; mov r2, #5 ; {EXIT}".replace("; l:", "\nl:"))
    alone = Machine(1 << 20, tier, jit=jit, console=CaptureConsole())
    alone.load_bytes(code, base=BASE)
    expected = alone.run()
    machine = Machine(1 << 20, tier, jit=jit, console=CaptureConsole())
    machine.load_bytes(code, base=BASE)
    saved = []
    with monitored(machine, path, paused=True) as service, service.client() as client:
        client.ask("cont")
        for number in range(6):
            name = str(tmp_path / f"{number}.snapshot")
            try:
                client.ask("stop")
                saved.append((name, client.ask("x-dbt-save", path=name)))
                client.ask("cont")
            except (OSError, EOFError):
                break  # the guest has ended
        result = service.result
    assert (result.exit_code, result.icount) == (expected.exit_code, expected.icount)
    assert state_hash(machine) == state_hash(alone)
    assert saved
    for name, answer in saved:
        with read_snapshot(name) as state, Machine.restore(state, console=CaptureConsole()) as later:
            assert later.icount == answer["icount"] and answer["path"] == name and len(answer["digest"]) == 64
            assert later.run().icount == expected.icount and state_hash(later) == state_hash(alone)


def test_a_guest_whose_exceptions_never_end_is_found_after_as_many_whoever_stops_it(path: str) -> None:
    def storm() -> Machine:
        machine = machine_of("mov r0, #0 ; udf #0")
        # The handler of undefined instructions counts to a large number again and again, so the cycle is long.
        machine.write(4, assemble("add r0, r0, #1 ; cmp r0, #0x2000 ; moveq r0, #0 ; subs pc, lr, #4", 4))
        return machine

    with storm() as machine:
        expected = machine.run(timeout=60)
        assert expected.reason is StopReason.FAULT
    stops = 0
    with storm() as machine, monitored(machine, path, paused=True) as service, service.client() as client:
        client.ask("cont")
        with suppress(EOFError, OSError):
            while client.ask("stop") == client.ask("cont") == {}:
                stops += 1
        assert service.result.reason is StopReason.FAULT and service.result.icount == expected.icount
    assert stops > 3


def test_reset_begins_the_program_again(path: str) -> None:
    counts = "ldr r1, =0x80000 ; ldr r0, [r1] ; add r0, r0, #1 ; str r0, [r1]"
    source = f"{counts}\nl: cmp r0, #2 ; bne l ; mov r2, r0 ; {EXIT}"
    with machine_of(source) as machine, monitored(machine, path, fuel=1 << 40) as service, service.client() as client:
        wait_until(lambda: client.ask("x-dbt-info")["icount"] > 1000, "instructions")
        client.send(b'{"execute": "system_reset"}')
        assert client.receive() == {"return": {}}  # RAM keeps what it holds, so now the guest ends
        assert client.receive() is None
        assert client.events[0] == {"event": "RESET", "data": {"guest": False, "reason": "host-qmp-system-reset"}}
        assert service.result.exit_code == 2 and service.result.icount < 100


def test_the_power_key(path: str, endless: Monitored, client: QmpClient) -> None:
    kind, text = client.ask("system_powerdown")
    assert kind == GENERIC and text == "the board versatile has no power key"
    code = f"ldr r4, =0x09030000 ; 1: ldr r0, [r4, #0x20] ; cmp r0, #8 ; bne 1b ; mov r2, #5 ; {EXIT}"
    machine = Machine(1 << 20, "threaded", console=CaptureConsole(), board="virt")
    machine.load_bytes(assemble(code, 0x40008000), 0x40008000)
    other = f"{path}-2"
    with machine, monitored(machine, other, paused=True) as service, service.client() as keys:
        assert keys.ask("system_powerdown") == {} and keys.take_events() == ["POWERDOWN"]
        keys.send(b'{"execute": "cont"}')
        assert service.result.exit_code == 5


def test_the_balloon(path: str, endless: Monitored, client: QmpClient) -> None:
    """A guest without a driver: when it is asked for 16 pages, it says that it has given 3, and waits."""
    for command in ("query-balloon", "balloon"):
        arguments = {"value": 1} if command == "balloon" else {}
        assert client.ask(command, **arguments) == ("DeviceNotActive", "No balloon device has been activated")
    code = f"""
        ldr r4, =0x0a003f00 ; mov r0, #3
        1: ldr r1, [r4] ; cmp r1, #16 ; bne 1b ; str r0, [r4, #4]
        2: ldr r1, [r4] ; cmp r1, #0 ; bne 2b ; mov r2, #5 ; {EXIT}
    """
    machine = Machine(1 << 20, "threaded", console=CaptureConsole(), board="virt", devices=["balloon"])
    machine.load_bytes(assemble(code, 0x40008000), 0x40008000)
    other = f"{path}-2"
    with machine, monitored(machine, other) as service, service.client() as keys:
        assert keys.ask("query-balloon") == {"actual": 1 << 20}
        assert keys.ask("balloon", value=0) == (GENERIC, "Parameter 'target' expects a size")
        assert keys.ask("balloon", value="x") == (GENERIC, "Invalid parameter type for 'value', expected: integer")
        assert keys.ask("balloon", value=(1 << 20) - (16 << 12) - 5) == {}
        actual = {"actual": (1 << 20) - (3 << 12)}
        wait_until(lambda: keys.ask("query-balloon") == actual, "a smaller guest")
        wait_until(lambda: keys.ask("query-balloon") and keys.events, "an event")
        assert keys.events == [{"event": "BALLOON_CHANGE", "data": actual}]
        assert keys.ask("balloon", value=1 << 62) == {}
        assert service.result.exit_code == 5


def test_a_disk_that_fails(path: str, tmp_path: Path) -> None:
    image, guest = tmp_path / "image", Guest()
    data = bytearray(small_image())
    data[1024:1032] = (1 << 63 | 0xFFFE00).to_bytes(8, "big")  # where there is no file any more
    image.write_bytes(data)
    guest.read(0, SECTOR)
    drive = Drive(str(image), snapshot=True, format="qcow2")
    with Machine(32 << 20, "threaded", console=CaptureConsole(), board="virt", drives=[drive]) as machine:
        machine.load_bytes(guest.image(), ORIGIN)
        with monitored(machine, path, paused=True) as service, service.client() as client:
            client.send(b'{"execute": "cont"}')
            assert client.receive() == {"return": {}} and client.receive() is None
            assert service.result.exit_code == 1  # the status that the disk gave
            event = next(event for event in client.events if event["event"] == "BLOCK_IO_ERROR")
    assert "is damaged: cluster 0 is at 0xfffe00" in event["data"].pop("reason")
    name = {"device": "virtio0", "node-name": "virtio0"}
    assert event["data"] == {**name, "operation": "read", "action": "report", "nospace": False}


def test_a_recorded_run_cannot_be_reset_and_stops_leave_no_trace(path: str, tmp_path: Path) -> None:
    name = str(tmp_path / "recording")
    with machine_of(SHORT) as machine:
        recorder = Recorder(machine.input_source, name, identify(machine, ""))
        machine.attach_input(recorder)
        with monitored(machine, path, paused=True) as service, service.client() as client:
            kind, text = client.ask("system_reset")
            assert kind == GENERIC and "recorded" in text
            for _ in range(3):
                client.send(b'{"execute": "cont"}{"execute": "stop"}')
                client.receive(), client.receive()
            client.send(b'{"execute": "cont"}')
            result = service.result
        recorder.end(machine, result)
    with machine_of(SHORT, "stitched") as machine:
        replay = Replay(read_recording(name), identify(machine, ""))
        machine.attach_input(replay)
        with monitored(machine, path, paused=True) as service, service.client() as client:
            assert client.ask("system_reset")[0] == GENERIC
            client.send(b'{"execute": "cont"}')
            result = service.result
        assert replay.compare(machine, result, pytest.fail).exit_code == 5


def test_a_restored_machine_has_nothing_to_begin_again_with(path: str) -> None:
    with machine_of(FOREVER) as first:
        first.run(fuel=1000)
        state = first.save()
    with state, Machine.restore(state, console=CaptureConsole()) as machine, monitored(machine, path) as service:
        client = service.client()
        kind, text = client.ask("system_reset")
        assert kind == GENERIC and "restored" in text
        client.close()


def test_time_stands_still_while_the_guest_is_paused(path: str) -> None:
    machine = Machine(1 << 20, "threaded", console=CaptureConsole(), realtime=True)
    machine.load_bytes(assemble(FOREVER), base=BASE)
    with machine, monitored(machine, path) as service, service.client() as client:
        client.ask("stop")
        before = client.ask("x-dbt-info")["virtual-time-ns"]
        time.sleep(0.5)
        client.send(b'{"execute": "cont"}{"execute": "stop"}{"execute": "x-dbt-info"}')
        client.receive(), client.receive()
        answer = client.receive()
        assert answer is not None and answer["return"]["virtual-time-ns"] - before < 400_000_000


# -- what clients look at --------------------------------------------------------------------------


def test_disks_boards_and_registers(path: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    drives = [Drive(str(disk), snapshot=True), Drive(str(disk), read_only=True)]
    with (
        Machine(1 << 20, "threaded", console=CaptureConsole(), drives=drives) as machine,
        monitored(machine, path, paused=True) as service,
        service.client() as client,
    ):
        first, second = client.ask("query-block")
        assert (first["device"], first["inserted"]["ro"], second["device"], second["inserted"]["ro"]) == (
            *("virtio0", False),
            *("virtio1", True),
        )
        assert first["inserted"]["image"]["virtual-size"] == 1 << 20 and first["inserted"]["file"] == str(disk)
        names = [board["name"] for board in client.ask("query-machines")]
        assert names[:2] == ["versatile", "virt"] and names == list(BOARDS)
        assert client.ask("query-memory-size-summary") == {"base-memory": 1 << 20, "plugged-memory": 0}

        def says(line: str) -> str:
            text = client.ask("human-monitor-command", **{"command-line": line})
            assert isinstance(text, str) and text.replace("\r\n", "").isprintable()
            return text.replace("\r\n", "\n")

        assert says("info status") == "VM status: paused (prelaunch)\n"
        assert says("info block").splitlines()[0] == f"virtio0: {disk} (raw)"
        assert "read-only" in says("info block")
        words = says("info registers").split()
        assert words[0] == "CPU#0" and f"R15={machine.cpu.pc:08x}" in words and words[-2:] == ["A", "svc32"]
        assert says("info version").endswith(f"dbt {VERSION}\n")
        assert "info block  -- " in says("info") and "stop|s  -- " in says("help")
        assert says("system_powerdown").startswith("Error: ")
        client.ask("human-monitor-command", **{"command-line": "quit"})
    assert service.result.reason is StopReason.INTERRUPTED


def test_a_machine_without_disks_has_none(client: QmpClient) -> None:
    assert client.ask("query-block") == []
    assert client.ask("human-monitor-command", **{"command-line": "info block"}) == ""
    assert client.ask("human-monitor-command", **{"command-line": 5})[0] == GENERIC


# -- QEMU and its tools ----------------------------------------------------------------------------

#: What is sent, one after the other, and not compared: the greeting and the version.
_CONVERSATION = [
    b'{"execute": "query-status"}', b'{"execute": "zork"}', b"[1]\n", b"{}", b'{"arguments": {}}', b'{"execute": 5}',
    b'{"execute": "qmp_capabilities", "id": {"a": [1, null]}}', b'{"execute": "qmp_capabilities", "id": 2}',
    b'{"execute": "query-status", "id": "text"}', b"{'execute': 'query-status'}", b'{"execute": "zork", "id": 3}',
    b'{"execute": "stop", "arguments": 5}', b'{"execute": "stop", "arguments": {"x": 1}}', b'"stop"\n', b"5\n",
    b'{"execute": "stop", "zork": 5, "id": 7}', b'{"execute": "cont"}', b'{"execute": "cont"}',
    b'{"execute": "query-status"}', b'{"execute": "stop"}', b'{"execute": "stop"}', b'{"execute": "query-status"}',
    b'{"execute": "system_reset"}', b'{"execute": "query-status"}', b'{"execute": "cont"}', b'{"execute": }\n',
    b'{"execute": "query-name"}', b'{"execute": "query-uuid"}', b'{"execute": "query-target"}',
    b'{"execute": "query-kvm"}', b'{"execute": "human-monitor-command"}',
    *(
        b'{"execute": "human-monitor-command", "arguments": {"command-line": "%s"}}' % line
        for line in (
            *(b"", b"stop", b"info status", b"c", b"info status", b"info  name", b"info uuid", b"info kvm", b"zork"),
            *(b"info zork", b"info status now", b"system_reset now", b"zork now", b"help stop", b"help info status"),
            b"system_reset",
        )
    ),
    b'{"execute": "system_reset", "id": 4}', b'{"a": 1, "a": 2}\n', b"}\n", b'{"execute": "query-status", "id": 5}\n',
    b'{"execute": "quit", "id": "q"}',
]  # fmt: skip


def _converse(client: QmpClient) -> list[Any]:
    heard = []
    for data in _CONVERSATION:
        heard.append((data, client.tell(data), [*client.events]))
        client.events.clear()
    assert client.receive() is None
    return heard


def test_qemu_answers_the_same(path: str, tmp_path: Path) -> None:
    qemu = shutil.which("qemu-system-arm")
    if qemu is None:
        pytest.skip("qemu-system-arm is not installed")
    with machine_of(FOREVER) as machine, monitored(machine, path, paused=True) as service:
        client = service.client(negotiates=False)
        ours = _converse(client)
        client.close()
    command = [qemu, "-M", "versatilepb", "-audiodev", "none,id=none", "-display", "none", "-serial", "null", "-S"]
    process = subprocess.Popen([*command, "-qmp", f"unix:{tmp_path}/qemu,server,nowait"])
    try:
        with QmpClient(f"{tmp_path}/qemu", negotiates=False) as client:
            assert _converse(client) == ours
        assert process.wait(BOUND_S) == 0
    finally:
        process.kill()
        process.wait()


_TOOL = """
import asyncio, sys
from qemu.qmp import ExecuteError, QMPClient

async def main(path):
    client = QMPClient("test")
    await client.connect(path)
    print(await client.execute("query-status"))
    with client.listener(["STOP", "RESUME"]) as events:
        await client.execute("stop")
        await client.execute("cont")
        print([(await events.get())["event"] for _ in range(2)])
    try:
        await client.execute("zork")
    except ExecuteError as error:
        print(error)
    await client.execute("quit")
    try:
        await client.disconnect()
    except EOFError:
        pass  # the monitor has gone first

asyncio.run(main(sys.argv[1]))
"""


def test_qemus_own_client_understands_the_monitor(endless: Monitored, path: str) -> None:
    pytest.importorskip("qemu.qmp", reason="QEMU's client is missing: pip install qemu.qmp")
    wait_until(lambda: os.path.lexists(path), "the socket")
    done = subprocess.run([sys.executable, "-c", _TOOL, path], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    status, events, error = done.stdout.splitlines()
    assert "'running': True" in status and events == "['STOP', 'RESUME']"
    assert error == "The command zork has not been found"
    assert endless.result.reason is StopReason.INTERRUPTED
