"""Both sides of a migration in one process, for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from dbt import CaptureConsole, Machine
from dbt.hypervisor.migration import Outgoing, OwnMachine, OwnMachines, Place, Point, Progress, Receiver, Settings
from dbt.hypervisor.migration.arriving import OwnArriving
from dbt.hypervisor.migration.points import ignore
from dbt.vm.options import HostOptions
from tests.domains.guests import boot
from tests.waiting import BOUND_S

#: The ways from one side to the other: the place, and whether memory is passed as a descriptor.
WAYS = {"unix": ("unix", False), "descriptor": ("unix", True), "tcp": ("tcp", False)}


def place_of(way: str, folder: Path) -> Place:
    """Return a place to listen at, in this folder or at any port."""
    return Place.parse(f"unix:{folder / 'door'}" if WAYS[way][0] == "unix" else "tcp:127.0.0.1:0")


def running(guest: str = "memory", fuel: int = 10_000) -> Machine:
    """A machine that has executed some instructions of a guest of domains."""
    machine = boot(guest, "threaded")(CaptureConsole())
    machine.run(fuel=fuel)
    return machine


def write_disk(machine: Machine, offset: int, data: bytes) -> None:
    """Write to the first disk of a machine, as its guest does."""
    machine.attachments._open[0].medium.write(offset, data)


class Receiving:
    """A destination in a thread. ``result`` has the machine or the error that has come of it."""

    def __init__(self, receiver: Receiver[OwnArriving]) -> None:
        self.receiver = receiver
        self._results: SimpleQueue[Machine | BaseException] = SimpleQueue()
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._results.put(self.receiver.receive(BOUND_S).machine)
        except BaseException as error:  # which the test wants to see
            self._results.put(error)

    def result(self) -> Machine | BaseException:
        self._thread.join(BOUND_S)
        return self._results.get(timeout=BOUND_S)

    def machine(self) -> Machine:
        result = self.result()
        assert isinstance(result, Machine), result
        return result


@contextmanager
def receiving(
    place: Place,
    options: HostOptions | None = None,
    reached: Callable[[Point], None] = ignore,
    decision_s: float = 0.2,
) -> Iterator[Receiving]:
    """Receive a machine in a thread while the block runs."""
    wanted: HostOptions = {"console": CaptureConsole(), "tier": "threaded", **(options or {})}
    with Receiver(place, OwnMachines(wanted), reached, decision_s) as receiver:
        yield Receiving(receiver)


def outgoing(
    machine: Machine,
    there: Receiving,
    way: str = "unix",
    settings: Settings = Settings(),  # noqa: B008 - a frozen value
    reached: Callable[[Point], None] = ignore,
) -> Outgoing:
    """A migration of a machine that nobody runs meanwhile."""
    place = Place.parse(there.receiver.address)
    wanted = settings._replace(by_descriptor=WAYS[way][1])
    return Outgoing(OwnMachine(machine), place.connect, wanted, reached, Progress())
