"""The para-virtual devices of a domain of Xen, over what its machine has open of the host's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from dbt.host.disk_media import OpenDrive
from dbt.hypervisor.xen.back_ends.back_end import BackEnd, XenBus
from dbt.hypervisor.xen.back_ends.block import BlockBackEnd, disk_number
from dbt.hypervisor.xen.back_ends.net import NetBackEnd
from dbt.hypervisor.xen.back_ends.ninep import NinePBackEnd
from dbt.vm.shared_directory import SharedDirectory

#: Makes a back end of a domain, as it is at power-on.
Maker = Callable[[XenBus], BackEnd]


class DomainDevices:
    """What makes back ends.

    ``failed`` is told the number of a disk and its file, why the host could not do a request, and whether it was to
    read. ``send`` gets the number of a card, and the frames that its guest sends. ``made`` is told of the cards.
    """

    def __init__(
        self,
        failed: Callable[[int, str, OSError, bool], None],
        send: Callable[[int, Sequence[bytes]], None],
        made: Callable[[NetBackEnd], None],
    ) -> None:
        self._failed = failed
        self._send = send
        self._made = made

    def disks(self, drives: Sequence[OpenDrive]) -> Iterator[Maker]:
        """Yield what makes the disks xvda, xvdb and so on."""
        for number, one in enumerate(drives):
            failed = partial(self._failed, number, one.drive.path)
            yield partial(BlockBackEnd, number=disk_number(number), medium=one.medium, failed=failed)

    def cards(self, addresses: Sequence[bytes]) -> Iterator[Maker]:
        """Yield what makes network cards with these addresses."""
        for number, address in enumerate(addresses):
            yield partial(self._make_card, number=number, address=address)

    def _make_card(self, bus: XenBus, number: int, address: bytes) -> BackEnd:
        card = NetBackEnd(bus, number, send=partial(self._send, number), address=address)
        self._made(card)
        return card

    def shares(self, shares: Sequence[SharedDirectory]) -> Iterator[Maker]:
        """Yield what makes the directories that the guest can mount."""
        for number, one in enumerate(shares):
            yield partial(NinePBackEnd, number=number, session=one.make())
