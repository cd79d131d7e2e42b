"""Machines in processes of their own: their ends, hosts that are killed, and processes that say what makes no sense."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from uuid import UUID, uuid4

import msgspec
import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.devices.state import StateError
from dbt.host.console import Console
from dbt.hypervisor import Clock, Domain, DomainState, Host, LifecycleError, ProcessCarrier, VmLost
from dbt.hypervisor.carrier import Conduct, Terms
from dbt.hypervisor.console_ring import ConsoleRing
from dbt.hypervisor.process import messages as say
from dbt.hypervisor.process.attaching import machine_of
from dbt.hypervisor.process.channel import Channel, ChannelEnded, Late
from dbt.hypervisor.process.lease import leases, read_lease
from dbt.hypervisor.process.leaving import LeavingProcess
from dbt.hypervisor.process.process_vm import ProcessVm
from dbt.hypervisor.process.state_files import received_state, state_files
from dbt.memory.ram import RamFile
from tests.domains.guests import boot

ROOT = Path(__file__).resolve().parents[2]
RATE = 10_000_000


def vm_of(domain: Domain) -> ProcessVm:
    assert isinstance(domain.vm, ProcessVm)
    return domain.vm


# -- a process that ends ----------------------------------------------------------------------------


@pytest.mark.parametrize("guest", ["memory", "sleeper"])
def test_a_process_that_is_killed_is_a_crash_of_its_domain_alone(processes: ProcessCarrier, guest: str) -> None:
    with Host(1, Clock.LOCKSTEP, RATE, carrier=processes) as host:
        victim, other = host.define("victim", boot(guest)), host.define("other", boot("memory"))
        victim.start()
        other.start()
        host.run(periods=3)
        pid = vm_of(victim).pid
        pidfd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        assert select.select([pidfd], [], [], 60)[
            0
        ]  # three periods of a guest that waits can be over before it is dead
        os.close(pidfd)
        host.run(periods=3)
        assert victim.state is DomainState.CRASHED
        assert "SIGKILL" in victim.reason
        assert other.state is DomainState.RUNNING
        assert host.reports[-1].domains["other"].instructions == RATE // 10
        with pytest.raises(VmLost, match="SIGKILL"):
            victim.registers()
        victim.destroy()
        victim.start()
        host.run(periods=1)
        assert victim.state in (DomainState.RUNNING, DomainState.BLOCKED)
        assert vm_of(victim).pid != pid


def test_processes_end_with_their_domains(processes: ProcessCarrier) -> None:
    with Host(1, Clock.LOCKSTEP, RATE, carrier=processes) as host:
        domain = host.define("a", boot("memory"))
        domain.start()
        pid = vm_of(domain).pid
        assert Path(f"/proc/{pid}").exists()
        domain.destroy()
        assert not Path(f"/proc/{pid}").exists()


def test_the_end_of_the_zygote_is_no_end_of_a_domain() -> None:
    """As when the host kills processes for their memory: domains end, and others begin."""
    with ProcessCarrier() as carrier, Host(1, Clock.LOCKSTEP, 1_000_000, carrier=carrier) as host:
        one, two = (host.define(name, boot("spinner")) for name in ("one", "two"))
        one.start()
        host.run(periods=1)
        pid = vm_of(one).pid
        assert carrier._zygote is not None
        os.kill(carrier._zygote.pid, signal.SIGKILL)
        two.start()
        host.run(periods=1)
        assert {one.state, two.state} == {DomainState.RUNNING}
        assert carrier._zygote is not None
        os.kill(carrier._zygote.pid, signal.SIGKILL)
        one.destroy()
        assert one.state is DomainState.DEFINED and not Path(f"/proc/{pid}/exe").exists()
        two.destroy()
        one.start()
        host.run(periods=1)
        assert one.usage.instructions > 0


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def test_the_process_of_the_next_machine_is_forked_ahead() -> None:
    with ProcessCarrier() as carrier, Host(1, Clock.LOCKSTEP, 1_000_000, carrier=carrier) as host:
        domains = [host.define(name, boot("memory")) for name in ("one", "two", "three", "four", "five")]
        for domain in domains[:2]:  # before the second one the zygote puts its memory in order
            domain.start()
            host.run(periods=1)
        carrier.fork_ahead(vm_of(domains[1]))
        assert carrier._zygote is not None
        zygote = carrier._zygote.pid
        known = children(zygote)

        def forked_ahead() -> int:
            end = monotonic() + 60
            while not (more := children(zygote) - known):
                assert monotonic() < end
                sleep(0.01)
            known.update(more)
            (pid,) = more
            return pid

        ahead = forked_ahead()
        domains[2].start()
        assert vm_of(domains[2]).pid == ahead
        killed = forked_ahead()
        os.kill(killed, signal.SIGKILL)
        domains[3].start()
        assert vm_of(domains[3]).pid not in (ahead, killed)
        known.add(vm_of(domains[3]).pid)
        assert not Path(f"/proc/{killed}").exists(), "nobody has waited for it"
        ahead = forked_ahead()
        host.run(periods=3)
        assert len({domain.state_hash() for domain in domains[2:4]}) == 1, "they have executed the same"
        pidfd = os.pidfd_open(ahead)
    assert select.select([pidfd], [], [], 60)[0], "it ends with the zygote"
    os.close(pidfd)


def test_a_function_that_cannot_be_sent_is_refused(processes: ProcessCarrier) -> None:
    def local(console: Console) -> Machine:
        return Machine(1 << 20, console=console)

    with Host(1, carrier=processes) as host:
        domain = host.define("a", local)
        with pytest.raises(ValueError, match="cannot be sent to a process"):
            domain.start()
        assert domain.state is DomainState.DEFINED


def test_the_state_of_a_process_is_that_of_a_machine_here(processes: ProcessCarrier) -> None:
    with Host(1, Clock.LOCKSTEP, RATE, carrier=processes) as host:
        domain = host.define("a", boot("memory"))
        domain.start()
        host.run(periods=2)
        with domain.vm.save() as state, Machine.restore(state) as machine:
            assert state.hash() == domain.state_hash()
            assert machine.icount == domain.icount


# -- a host that is killed ---------------------------------------------------------------------------


@contextmanager
def killed_host(directory: Path, guest: str, uuid: UUID, then: str = "real") -> Iterator[tuple[int, int, str]]:
    """Run a host in a process and kill it. Yield the PID of its domain's process, icount and state hash before."""
    command = [sys.executable, "-m", "tests.domains.hosts", str(directory), guest, str(uuid), then]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        pid, icount, state = host.stdout.readline().split()
        host.kill()
    try:
        yield int(pid), int(icount), state
    finally:
        pidfd = None
        try:
            pidfd = os.pidfd_open(int(pid))
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            if pidfd is not None:
                os.close(pidfd)


def attached(host: Host, guest: str, uuid: UUID) -> Domain:
    domain = host.define("a", boot(guest), uuid=uuid)
    assert domain.attach()
    return domain


def test_a_machine_that_may_be_elsewhere_waits_for_its_user(tmp_path: Path) -> None:
    """Its host was killed while it moved the machine, and nobody knows whether the other side has it."""
    uuid = uuid4()
    directory = tmp_path / "run"
    with (
        killed_host(directory, "memory", uuid, "released") as (pid, icount, state),
        ProcessCarrier(directory) as carrier,
        Host(1, Clock.REAL, RATE, carrier=carrier) as host,
    ):
        domain = attached(host, "memory", uuid)
        assert domain.state is DomainState.UNDECIDED and "may run at the destination" in domain.reason
        host.run(periods=1)
        assert (vm_of(domain).pid, domain.icount, domain.state_hash()) == (pid, icount, state)
        with pytest.raises(LifecycleError, match="undecided"):
            domain.resume()
        domain.resume(force=True)
        host.run(periods=2)
        assert domain.icount > icount
        domain.destroy()


def test_a_machine_whose_host_was_killed_while_it_sent_pages_goes_on(tmp_path: Path) -> None:
    uuid = uuid4()
    directory = tmp_path / "run"
    with (
        killed_host(directory, "memory", uuid, "leaving") as (_, icount, _),
        ProcessCarrier(directory) as carrier,
        Host(1, Clock.REAL, RATE, carrier=carrier) as host,
    ):
        domain = attached(host, "memory", uuid)
        host.run(periods=2)
        assert domain.state is DomainState.RUNNING and domain.icount > icount
        domain.destroy()


def test_a_machine_whose_host_was_killed_goes_on_and_is_taken_over(tmp_path: Path) -> None:
    directory, uuid = tmp_path / "run", uuid4()
    with killed_host(directory, "memory", uuid) as (pid, icount, _):
        (lease,) = leases(str(directory))
        assert (lease.pid, lease.uuid, lease.name) == (pid, uuid, "a")
        with ProcessCarrier(directory) as carrier, Host(1, Clock.REAL, RATE, carrier=carrier) as host:
            domain = attached(host, "memory", uuid)
            assert vm_of(domain).pid == pid
            assert domain.state is DomainState.RUNNING
            before = domain.icount
            assert before >= icount
            host.run(periods=2)
            assert domain.icount > before
            with pytest.raises(BlockingIOError), open(directory / f"{uuid}.lease", "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            domain.destroy()
            assert not list(directory.glob("*.lease"))
            assert not domain.attach()


def test_a_machine_alone_keeps_its_cap(tmp_path: Path) -> None:
    """Half of ten million instructions a second, counted in whole periods, one of which has begun at each end."""
    uuid = uuid4()
    began = monotonic()
    with killed_host(tmp_path / "run", "memory", uuid) as (_, icount, _), ProcessCarrier(tmp_path / "run") as carrier:
        sleep(1)
        with Host(1, Clock.REAL, RATE, carrier=carrier) as host:
            domain = attached(host, "memory", uuid)
            took = monotonic() - began
            assert icount < domain.icount <= icount + (took * 10 + 2) * RATE // 20


def test_a_machine_alone_keeps_its_part_of_a_core(tmp_path: Path) -> None:
    """A quarter of the CPU time, and not of the instructions of a core at its nominal rate."""

    def cpu_s(pid: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    uuid = uuid4()
    with killed_host(tmp_path / "run", "memory", uuid, "core time") as (pid, icount, _):
        used, began = cpu_s(pid), monotonic()
        sleep(2)
        used, took = cpu_s(pid) - used, monotonic() - began
        with ProcessCarrier(tmp_path / "run") as carrier, Host(1, Clock.REAL, RATE, carrier=carrier) as host:
            assert attached(host, "memory", uuid).icount > icount
        assert 0 < used < (took / 0.1 + 2) * 0.025 * 1.2


@pytest.mark.parametrize(("how", "clock"), [("pause", Clock.REAL), ("lockstep", Clock.LOCKSTEP)])
def test_a_machine_that_is_paused_or_in_lockstep_waits_for_a_host(tmp_path: Path, how: str, clock: Clock) -> None:
    uuid = uuid4()
    with (
        killed_host(tmp_path / "run", "memory", uuid, how) as (_, icount, state),
        ProcessCarrier(tmp_path / "run") as carrier,
        Host(1, clock, RATE, carrier=carrier) as host,
    ):
        domain = attached(host, "memory", uuid)
        assert (domain.icount, domain.state_hash()) == (icount, state)


def test_a_guest_that_waits_answers_the_new_host(tmp_path: Path) -> None:
    uuid = uuid4()
    with (
        killed_host(tmp_path / "run", "echo", uuid),
        ProcessCarrier(tmp_path / "run") as carrier,
        Host(1, Clock.REAL, RATE, carrier=carrier) as host,
    ):
        domain = attached(host, "echo", uuid)
        runner = Thread(target=host.run)
        runner.start()
        try:
            domain.console.send(b"hello")
            assert domain.console.wait_for(b"hello", 60)
        finally:
            host.stop()
            runner.join(60)


def test_a_domain_that_runs_elsewhere_is_not_started_twice(tmp_path: Path) -> None:
    uuid = uuid4()
    with (
        killed_host(tmp_path / "run", "memory", uuid),
        ProcessCarrier(tmp_path / "run") as carrier,
        Host(1, Clock.REAL, RATE, carrier=carrier) as host,
    ):
        domain = host.define("a", boot("memory"), uuid=uuid)
        with pytest.raises(OSError, match="another process has the machine"):
            domain.start()
        assert domain.state is DomainState.DEFINED
        assert domain.attach()


def test_without_a_directory_a_machine_ends_with_its_host() -> None:
    carrier = ProcessCarrier()
    host = Host(1, carrier=carrier)
    domain = host.define("a", boot("memory"))
    domain.start()
    pidfd = os.pidfd_open(vm_of(domain).pid)
    vm_of(domain)._channel.close()  # as the kernel does when the host is killed
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(60_000)
    os.close(pidfd)
    carrier.close()


def test_a_stale_lease_is_removed(tmp_path: Path) -> None:
    path = tmp_path / f"{uuid4()}.lease"
    path.write_bytes(b"{}")
    assert read_lease(str(path)) is None
    assert not path.exists()


def test_what_is_no_lease_keeps_nobody_from_its_machine(tmp_path: Path) -> None:
    uuid, directory = uuid4(), tmp_path / "run"
    with killed_host(directory, "memory", uuid, "pause"):
        (directory / "0.lease").symlink_to("/etc/passwd")
        (directory / "1.lease").mkdir()
        os.mkfifo(directory / "2.lease")
        assert [lease.uuid for lease in leases(str(directory))] == [uuid]
        with ProcessCarrier(directory) as carrier, Host(1, Clock.REAL, RATE, carrier=carrier) as host:
            assert attached(host, "memory", uuid).state is DomainState.RUNNING


def test_a_directory_that_others_can_use_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(PermissionError, match="chmod 700"):
        ProcessCarrier(tmp_path)


# -- what makes no sense -----------------------------------------------------------------------------


class _Maker:
    """A carrier whose process is this test."""

    def reap(self, pid: int) -> int | None:
        return None

    def forget_lease(self, uuid: UUID) -> None:
        pass

    def forget(self, descriptor: int) -> None:
        pass

    def notice(self, line: str) -> None:
        raise AssertionError

    def forked(self, *_: object) -> ProcessVm:
        raise AssertionError


@pytest.fixture
def liar() -> Iterator[tuple[ProcessVm, socket.socket]]:
    """A machine, and the other end of its channel, at which the test says what it likes."""
    with subprocess.Popen(["sleep", "1000"]) as child:
        ours, theirs = socket.socketpair()
        channel: Channel[say.FromVm] = Channel(ours, say.FromVm)
        vm = ProcessVm(_Maker(), uuid4(), child.pid, os.pidfd_open(child.pid), channel, ConsoleRing())
        with theirs:
            yield vm, theirs
        assert child.wait(60) == -signal.SIGKILL  # who lies is ended
        vm.close()


def framed(message: object) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(4, "big") + body


def test_what_comes_right_behind_an_answer_is_heard() -> None:
    """A process says its answer, and then that something has come for its guest. One read may take both."""
    with subprocess.Popen(["sleep", "1000"]) as child:
        ours, theirs = socket.socketpair()
        channel: Channel[say.FromVm] = Channel(ours, say.FromVm)
        vm = ProcessVm(_Maker(), uuid4(), child.pid, os.pidfd_open(child.pid), channel, ConsoleRing())
        with theirs:
            theirs.sendall(framed(["Words", [0] * 16, 1]))
            assert vm.icount() == 1 and not vm.has_arrivals
            theirs.sendall(framed(["Words", [0] * 16, 2]) + framed(["Arrived"]))
            assert vm.icount() == 2 and vm.has_arrivals
        child.kill()
        vm.close()


def test_an_answer_to_what_nobody_has_asked_is_a_lie(liar: tuple[ProcessVm, socket.socket]) -> None:
    vm, theirs = liar
    theirs.sendall(framed(["Words", [0] * 16, 1]) * 2)
    with pytest.raises(VmLost, match="nobody has asked"):
        vm.icount()


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\1\xc1",
        framed(["Nonsense", 1]),
        framed(["Words", [0] * 15, 1]),
        framed(["Words", [1 << 32] * 16, 1]),
        framed(["Words", [0] * 16, -1]),
        framed(["Words", [0] * 16, 1 << 63]),
        framed(["Value", b"x"]),
        framed(["Ready"]),
        framed(["Saved"]),
        b"\0\0\0\x7f" + b"\x91" * 127,
        b"",
    ],
    ids=str,
)
def test_an_answer_that_makes_no_sense_ends_the_process(liar: tuple[ProcessVm, socket.socket], answer: bytes) -> None:
    vm, theirs = liar
    theirs.sendall(answer)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(VmLost):
        vm.registers()
    with pytest.raises(VmLost):
        vm.state_hash()


def test_a_turn_that_ends_with_nonsense_is_a_failure(liar: tuple[ProcessVm, socket.socket]) -> None:
    vm, theirs = liar
    done: list[object] = ["Done", "no such reason", "", None, 1, 0, 0, None, 1, False, None, b"", 0, 0, {}, []]
    theirs.sendall(framed(done))
    outcome = vm.execute(Terms(100, 1.0, True))
    assert outcome.reason is None
    assert "no end of one" in outcome.message


def test_what_an_attached_machine_is_nobody_learns_from_its_guest(tmp_path: Path) -> None:
    """A guest may have taken its process over meanwhile: it could say that it is at another hub, or have the next
    process unpickle what it likes.
    """
    uuid = uuid4()
    with (
        killed_host(tmp_path / "run", "memory", uuid, "pause"),
        ProcessCarrier(tmp_path / "run") as carrier,
        Host(1, Clock.REAL, RATE, carrier=carrier) as host,
    ):
        known = machine_of(str(tmp_path / "run"), uuid)
        assert known is not None
        assert vm_of(attached(host, "memory", uuid)).arguments == known.arguments
    assert "Booted" not in str(say.Attached.__annotations__)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_process_whose_machine_nobody_knows_is_not_attached_to(liar: tuple[ProcessVm, socket.socket]) -> None:
    vm, theirs = liar
    theirs.sendall(framed(["Attached", str(uuid4()), None, "", b"", 0]))
    with pytest.raises(VmLost, match="nobody knows"):
        vm.take_over(Conduct(0, 0, None, 0, False, False), None)


@pytest.mark.parametrize(("count", "why"), [(1, "nobody has asked for"), (100, "more files")])
def test_files_that_nobody_has_asked_for_are_refused(
    liar: tuple[ProcessVm, socket.socket], count: int, why: str
) -> None:
    vm, theirs = liar
    with open(os.devnull, "rb") as file:
        socket.send_fds(theirs, [framed(["Ready"])], [file.fileno()] * count)
    with pytest.raises(VmLost, match=why):
        vm.press_power_key()


@contextmanager
def answering(theirs: socket.socket, *answers: tuple[object, int]) -> Iterator[None]:
    """Answer one request after the other: with a message, and so many files."""

    def answer() -> None:
        with open(os.devnull, "rb") as file:
            for message, files in answers:
                theirs.recv(1 << 16)
                socket.send_fds(theirs, [framed(message)], [file.fileno()] * files)

    thread = Thread(target=answer)
    thread.start()
    yield
    thread.join(60)


#: What a process says that has 1 MiB of RAM and a disk, when it is to leave.
_LEAVES = ((["Layout", True, [[0, 1 << 20, False]]], 0), (["Files", 1], 1))


def runs(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


@pytest.mark.parametrize(
    ("ask", "answer", "why"),
    [
        (lambda one: one.begin_epoch(), ["Value", runs(0, 257)], "not all in its RAM"),
        (lambda one: one.begin_epoch(), ["Value", runs(3, 1, 2, 1)], "not sorted"),
        (lambda one: one.dirty_pages(True), ["Value", runs(0xFFFFFFFF, 1)], "not all in its RAM"),
        (lambda one: one.dirty_pages(True), ["Value", b"xyz"], "within a run"),
        (lambda one: one.content([1, 2]), ["Value", bytes(4096)], "4096 bytes of 2 pages"),
        (lambda one: one.content([1]), ["Value", bytes(8192)], "8192 bytes of 1 pages"),
        (lambda one: one.values(), ["Files", 1], "0 files with a message that has 1"),
        (lambda one: one.release((), True), ["Released", b"", b"", [], []], "0 files with a message that has 1"),
        (
            lambda one: one.release((), True),
            ["Released", b"", b"", [], [["NetworkEnd", b"", b""]]],
            "0 files with a message that has 2",
        ),
        (
            lambda one: one.release((), True),
            ["Released", b"", b"values", [], [["NetworkEnd", b"", b""]]],
            "0 files with a message that has 1",
        ),
        (lambda one: one.release((), True), ["Released", b"", b"", [], [["NetworkEnd", b"", bytes(3 << 20)]]], "none"),
        (lambda one: one.release((1, 2), True), ["Released", bytes(4096), b"", [], []], "4096 bytes of 2 pages"),
        (lambda one: one.release((), True), ["Released", bytes(4096), b"", [], []], "4096 bytes of 0 pages"),
    ],
)
def test_a_process_cannot_have_anything_sent_that_is_not_its_machine(
    liar: tuple[ProcessVm, socket.socket], ask: Callable[[LeavingProcess], object], answer: object, why: str
) -> None:
    with answering(liar[1], *_LEAVES, (answer, 0)):
        found = liar[0].leaving()
        with pytest.raises(VmLost, match=why):
            ask(found)


def test_values_in_a_file_that_is_none_are_refused(liar: tuple[ProcessVm, socket.socket]) -> None:
    with answering(liar[1], *_LEAVES, (["Files", 1], 1)):
        found = liar[0].leaving()
        with pytest.raises(VmLost, match="its state is none"):
            found.values()


def test_values_that_are_none_are_refused_with_what_is_handed_over(liar: tuple[ProcessVm, socket.socket]) -> None:
    """The descriptor of a network that has come with them is closed."""
    before = set(os.listdir("/proc/self/fd"))
    with answering(liar[1], *_LEAVES, (["Released", b"", b"", [], [["NetworkEnd", b"", b""]]], 2)):
        found = liar[0].leaving()
        with pytest.raises(VmLost, match="its state is none"):
            found.release((), True)
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_process_that_has_ram_where_no_machine_has_any(liar: tuple[ProcessVm, socket.socket]) -> None:
    answer = (["Layout", True, [[0, 4097, False]]], 0)
    with answering(liar[1], answer), pytest.raises(VmLost, match="RAM where no machine has any"):
        liar[0].leaving()


def test_a_channel_carries_large_messages_and_says_when_nothing_comes() -> None:
    ours, theirs = socket.socketpair()
    sender: Channel[say.FromVm] = Channel(ours, say.FromVm)
    receiver: Channel[say.FromVm] = Channel(theirs, say.FromVm)
    with pytest.raises(Late):
        receiver.receive(monotonic())
    message = say.Value(bytes(4 << 20))
    thread = Thread(target=sender.send, args=(message,))
    thread.start()
    assert receiver.receive(monotonic() + 60) == message
    thread.join(60)
    with pytest.raises(ValueError, match="the longest has"):
        sender.send(say.Value(bytes(say.LONGEST)))
    sender.close()
    with pytest.raises(ChannelEnded):
        receiver.receive()
    receiver.close()


@pytest.mark.parametrize("kind", ["values", "unsealed", "size", "no memory file"])
def test_a_state_that_is_none_is_refused(kind: str, tmp_path: Path) -> None:
    with Machine(1 << 20, "reference") as machine:
        machine.load_bytes(bytes(4), base=0)
        state = machine.save()
        values, ram = state_files(state)
        match kind:
            case "values":
                os.close(values)
                values = os.memfd_create("wrong")
                os.write(values, b"\x81\xa3abc\x01")
            case "unsealed":
                os.close(ram)
                ram = os.memfd_create("wrong", os.MFD_ALLOW_SEALING)
                os.ftruncate(ram, 1 << 20)
            case "size":
                os.close(ram)
                file = RamFile(2 << 20)
                file.write(Gpa(0), bytes(4096))
                file.seal()
                ram = os.dup(file.handle)
            case _:
                os.close(ram)
                path = tmp_path / "ram"
                path.write_bytes(bytes(1 << 20))
                ram = os.open(path, os.O_RDWR)
        with pytest.raises(StateError):
            received_state(values, ram)
        for file_number in (values, ram):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(file_number)
