"""The machine at the destination of a migration, wherever it is to execute: who makes it, and one of this process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dbt.abi.layout import PAGE_SHIFT
from dbt.hypervisor.migration.errors import ProtocolError
from dbt.hypervisor.migration.messages import state_values
from dbt.hypervisor.migration.values import decode, encode
from dbt.memory.ram_image import HeldRam, RamImage
from dbt.snapshot.plain import NotPlain
from dbt.vm.machine import Machine

if TYPE_CHECKING:
    from dbt.host.drive import Drive
    from dbt.host.network import Handover
    from dbt.memory.ram import RamFile, RamLayout
    from dbt.vm.input import Arrival
    from dbt.vm.options import HostOptions


class Arriving(Protocol):
    """A machine that is made for a state that comes. Methods raise ValueError, OSError or RuntimeError if what is asked
    cannot be done, and MigrationError for a state that it cannot be in.
    """

    layout: RamLayout

    def hold(self, file: RamFile) -> None:
        """Have the content of a file in RAM, which knows the parts that are not zero. Nobody writes to it any more."""

    def put(self, pages: Mapping[int, bytes]) -> None:
        """Have other content in pages, by their numbers: now or at :meth:`settle`. Precondition: :meth:`hold`."""

    def settle(self) -> None:
        """Have what was put before. There is time for it, because the guest still runs elsewhere."""

    def take_over(
        self,
        values: bytes,
        pending: Sequence[Arrival],
        handed: Sequence[Handover | None],
        meanwhile: Callable[[], object],
    ) -> None:
        """Be in a state: encoded values, which are of the same machine as those before, and what was put into RAM.
        ``pending`` is on its way to the guest. Take disks and networks, or go on with those that were ``handed`` over,
        whose descriptors are the machine's from now on, or closed.

        ``meanwhile`` is called before this returns. What it raises is raised, and the machine must be closed then.
        """

    def keep(self, why: str) -> None:
        """Have disks and networks for certain. If this process ends from now on, the machine is kept and does not run,
        because of ``why``.
        """

    def permit(self) -> None:
        """Let the guest run, and tell the networks where it is now."""

    def doubt(self, why: str) -> None:
        """Give disks and networks back. The machine is kept, and does not run because of ``why``."""

    def close(self) -> None:
        """Close the machine."""


Arrived = TypeVar("Arrived", bound=Arriving)
Made_co = TypeVar("Made_co", bound=Arriving, covariant=True)


class Maker(Protocol[Made_co]):
    """Makes the machine of a destination.

    ``is_early``: it can be made while another machine has its disks. Otherwise it is made when they are given back.
    ``drives`` are those that it has.
    """

    is_early: bool
    drives: Sequence[Drive]

    def prepare(self, values: bytes) -> Made_co:
        """Return a machine for a state that is to come, of which these encoded values are an earlier one."""


class OwnMachines:
    """Makes a machine of this process. ``options`` are what it has of this host, as for
    :meth:`dbt.vm.machine.Machine.restore`.
    """

    def __init__(self, options: HostOptions) -> None:
        self._options = options
        self.is_early, self.drives = can_be_early(options), options.get("drives", ())

    def prepare(self, values: bytes) -> OwnArriving:
        found = decoded(values, "the offer")
        options = self._options.copy()
        options["claims"] = False
        return OwnArriving(Machine.prepared(found, **options), found.get("machine"))


class OwnArriving:
    """See :class:`Arriving`. ``model`` is what its values say of the machine itself."""

    def __init__(self, machine: Machine, model: object) -> None:
        self.machine, self.model = machine, model
        self.layout = machine.ram.layout

    def hold(self, file: RamFile) -> None:
        self.hold_image(RamImage.adopt(self.layout, file))

    def hold_image(self, image: RamImage) -> None:
        """Have the content of an image, which is closed."""
        with contextlib.closing(image):
            image.map_into(self.machine.ram)

    def put(self, pages: Mapping[int, bytes]) -> None:
        ram = self.machine.ram.bytes
        for page, data in pages.items():
            ram[page << PAGE_SHIFT : page + 1 << PAGE_SHIFT] = data

    def settle(self) -> None:
        """It has everything already."""

    def take_over(
        self,
        values: bytes,
        pending: Sequence[Arrival],
        handed: Sequence[Handover | None],
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        try:
            meanwhile()
            self.machine.take_over(decoded(values, "the state", self.model), HeldRam(self.layout), _are_same)
            self.machine.post_pending(pending)
        except BaseException:
            for one in handed:
                if one is not None:
                    os.close(one.descriptor)
            raise
        self.machine.claim(handed)

    def keep(self, why: str) -> None:
        """It ends with this process."""
        self.machine.claim()

    def permit(self) -> None:
        self.machine.claim()
        self.machine.permit()
        self.machine.announce()

    def doubt(self, why: str) -> None:
        self.machine.release(why)
        self.machine.leave_networks()

    def close(self) -> None:
        self.machine.close()


def _are_same(mine: object, theirs: object) -> bool:
    """Return True if two plain values have one encoding, sooner than :func:`dbt.vm.state.are_same`."""
    return encode(mine) == encode(theirs)  # type: ignore[arg-type]


def can_be_early(options: HostOptions) -> bool:
    """Return True unless something of a disk is kept in memory, which is read when the source has written all."""
    return all(drive.is_read_through for drive in options.get("drives", ()))


def decoded(values: bytes, what: str, model: object = None) -> dict[str, Any]:
    """Return encoded values. Raise ProtocolError if they are none, or not of the machine ``model``."""
    try:
        found = state_values(decode(values), what)
    except NotPlain as error:
        raise ProtocolError(f"{what} cannot be read: {error}") from None
    if model is not None and found.get("machine") != model:
        raise ProtocolError(f"{what} is of another machine than the offer")
    return found
