"""A Linux that computes, writes its disk and talks over the network is moved: the connection lives, nothing is lost."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread

from dbt import Forward, Machine, Net
from dbt.host.console import Console
from dbt.host.drive import Drive
from dbt.hypervisor import Clock, Domain, DomainState, Host
from dbt.hypervisor.migration import Place, Progress, Status
from dbt.vm.options import HostOptions
from tests.host.passt import free_port, need_passt
from tests.linux.debian import DISK, KERNEL, NEEDS_DEBIAN, TIMEOUT
from tests.waiting import BOUND_S, wait_until

pytestmark = NEEDS_DEBIAN
_APPEND = "console=ttyAMA0 rdinit=/init-virt nowait quiet"
_SECTORS = 300
_SETUP = (
    b"ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2; (while :; do nc -l -p 80 -e cat; done) &\n"
    b"(while :; do i=$((i+1)); echo $i | dd of=/dev/vda bs=512 seek=$i conv=notrunc 2>/dev/null; [ $i -lt 300 ] || "
    b"break; done; sync; echo all ''written) & echo serv''ing\n"
)


class Talk:
    """Sends a line to the guest's echo server again and again, by one connection, and reads it back."""

    def __init__(self, port: int) -> None:
        self.lines, self.error = 0, ""
        self._connection = socket.create_connection(("127.0.0.1", port), BOUND_S)
        self._ends = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._connection as connection, connection.makefile("rb") as answers:
            while not self._ends.is_set():
                line = b"line %d\n" % self.lines
                connection.sendall(line)
                if (answer := answers.readline()) != line:
                    self.error = f"{line!r} came back as {answer!r}"
                    return
                self.lines += 1

    def await_more(self) -> None:
        """Return when ten more lines have come back."""
        before = self.lines
        wait_until(lambda: self.error or self.lines >= before + 10, "an answer by the connection")
        assert not self.error

    def end(self) -> None:
        self._ends.set()
        self._thread.join(BOUND_S)


def running_host(opened: ExitStack) -> Host:
    """A host whose domains run in a thread, while something can run."""
    host = opened.enter_context(Host(1, Clock.REAL))
    ends = Event()

    def run() -> None:
        while not ends.is_set():
            host.run(timeout=1.0)
            ends.wait(0.01)

    thread = Thread(target=run, daemon=True)
    thread.start()

    def stop() -> None:
        ends.set()
        host.stop()
        thread.join(BOUND_S)

    opened.callback(stop)
    return host


def move(source: Domain, target: Domain, place: str, options: HostOptions) -> Progress:
    progress, errors, listening = Progress(), list[BaseException](), Event()

    def receive() -> None:
        try:
            target.receive(Place.parse(place), BOUND_S, options, listening=lambda where: listening.set())
        except BaseException as error:  # which the test wants to see
            errors.append(error)
            listening.set()

    thread = Thread(target=receive, daemon=True)
    thread.start()
    assert listening.wait(BOUND_S) and not errors, errors
    source.migrate(Place.parse(place), None, progress)
    thread.join(BOUND_S)
    assert not errors, errors
    return progress


def test_a_connection_lives_on_and_the_disk_is_complete(tmp_path: Path) -> None:
    need_passt()
    disk, port = tmp_path / "disk", free_port()
    disk.write_bytes(bytes(4 << 20))
    drives = [Drive(str(disk))]
    nets = [Net("user", forwards=(Forward("tcp", "127.0.0.1", port, 80),))]

    def boot(console: Console) -> Machine:
        machine = Machine(128 << 20, console=console, board="virt", cpu="cortex-a15", drives=drives, nets=nets)
        machine.load_kernel(KERNEL, initrd=DISK, append=_APPEND)
        return machine

    with ExitStack() as opened:
        here, there = running_host(opened), running_host(opened)
        source, target = here.define("linux", boot), there.define("linux", boot)
        source.start()
        assert source.console.wait_for(b" DONE ===", TIMEOUT), source.console.output[-2000:]
        source.console.send(_SETUP)
        assert source.console.wait_for(b"serving\r\n", TIMEOUT), source.console.output[-2000:]
        talk = Talk(port)
        talk.await_more()
        for number in range(3):
            progress = move(source, target, f"unix:{tmp_path}/door{number}", {"drives": drives, "nets": nets})
            assert progress.status is Status.COMPLETED
            assert source.state is DomainState.DEFINED
            talk.await_more()
            source, target = target, source
        talk.end()
        console = source.console
        assert console.wait_for(b"all written\r\n", TIMEOUT), console.output[-2000:]
        source.destroy()
    content = disk.read_bytes()
    for number in range(1, _SECTORS + 1):
        assert content[512 * number :].startswith(b"%d\n" % number), number
