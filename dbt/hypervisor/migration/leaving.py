"""The machine at the source of a migration, wherever it executes: what is asked of it, and one of this process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SHIFT
from dbt.host.net_option import USER
from dbt.hypervisor.migration.errors import MigrationError
from dbt.hypervisor.migration.messages import MOST_PENDING, MOST_PENDING_BYTES
from dbt.hypervisor.migration.values import encode
from dbt.memory.contents import touched
from dbt.snapshot.format import Runs

if TYPE_CHECKING:
    from dbt.host.disk import RawFile
    from dbt.host.net_option import Net
    from dbt.host.network import Handover
    from dbt.memory.epochs import Epoch
    from dbt.memory.ram import RamLayout
    from dbt.vm.input import Arrival
    from dbt.vm.machine import Machine

#: Why a machine does not run whose migration has come so far.
IS_ELSEWHERE: Final = "this machine is being migrated, and may run at the destination"


class HandedOver(NamedTuple):
    """What a machine gives away that stands still: the ``content`` of pages that were asked for, one behind the other;
    all of the state but RAM, encoded; and what a process of this host goes on with of its networks.
    """

    content: bytes
    values: bytes
    networks: list[Handover | None]


class Leaving(Protocol):
    """A machine that is to leave. Its methods are called while its guest is held, but for :meth:`sync_disks`.

    They raise RuntimeError if the machine is gone (:class:`dbt.hypervisor.carrier.VmLost`).
    """

    layout: RamLayout
    #: What has come from outside for the guest, and was not given to it before :meth:`release`: receivers and data.
    pending: Sequence[Arrival]

    def check(self, is_local: bool) -> None:
        """Raise MigrationError if the machine has something that no other host can have, or no other process of this
        host if that is where it goes (``is_local``).
        """

    def values(self) -> bytes:
        """Return all of the state but RAM: the plain values by name, encoded (:mod:`dbt.snapshot.plain`)."""

    def begin_epoch(self) -> list[int]:
        """Begin to note which pages change. Return the pages that may have something other than zeros."""

    def dirty_pages(self, renews: bool) -> list[int]:
        """Return the pages that have changed since the epoch began. If it ``renews`` the epoch, that begins now."""

    def end_epoch(self) -> None:
        """Note no changes any more, of pages and of disks. A second call does nothing."""

    def content(self, pages: Sequence[int]) -> bytes:
        """Return a copy of pages, one behind the other."""

    def begin_storage(self) -> tuple[list[int], list[int]]:
        """Begin to note what the guest writes to the files of its disks. Return for each disk how many files it is on
        (:attr:`dbt.host.drive.Drive.files`), and a descriptor of each file, which the caller closes.
        """

    def changed_blocks(self) -> list[list[int]]:
        """Return for each file of disks the pieces (:data:`dbt.host.disk.PIECE_SHIFT`) that were written since this was
        asked the last time.
        """

    def sync_disks(self) -> None:
        """See :meth:`dbt.vm.controlled_machine.ControlledMachine.sync_disks`. The guest may run."""

    def release(self, pages: Sequence[int], keeps_networks: bool, keeps_disks: bool = False) -> HandedOver:
        """Give disks and networks back; the guest does not run any more before :meth:`permit`. Return the content of
        ``pages``, as many as a message has at most, and the rest of the state: all in one step, because somebody waits.
        The caller closes the descriptors of networks. Unless it ``keeps_networks``, there are none, and connections are
        closed. If it ``keeps_disks``, nobody else can have them. Raise OSError if a disk cannot be written.
        """

    def claim(self) -> None:
        """Take disks and networks back. Raise ValueError if somebody else has them."""

    def permit(self) -> None:
        """Let the guest run, and have what is pending."""


class OwnLeaving:
    """A machine of this process. See :class:`Leaving`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.layout = machine.ram.layout
        self.pending: Sequence[Arrival] = ()
        self._epoch: Epoch | None = None
        self._copied: list[RawFile] = []

    def check(self, is_local: bool) -> None:
        from dbt.vm.input import PositionedInput
        from dbt.vm.logged_input import LoggedInput

        check_networks(self.machine.options.nets, is_local)
        source = self.machine.input_source
        if isinstance(source.inner if isinstance(source, LoggedInput) else source, PositionedInput):
            raise MigrationError("the input of this run is recorded or replayed, and a recording stays on its host")

    def values(self) -> bytes:
        return encode(self.machine.values())

    def begin_epoch(self) -> list[int]:
        self._epoch = self.machine.memory.begin_epoch()
        return [
            page
            for gpa, size in touched(self.machine.ram)
            for page in range(gpa >> PAGE_SHIFT, Gpa(gpa + size) >> PAGE_SHIFT)
        ]

    def dirty_pages(self, renews: bool) -> list[int]:
        assert self._epoch is not None
        pages = self._epoch.dirty_pages()
        if renews:
            self._epoch.renew()
        return pages

    def end_epoch(self) -> None:
        if self._epoch is not None:
            self._epoch.close()
            self._epoch = None
        for file in self._copied:
            file.changed = None
        self._copied = []

    def content(self, pages: Sequence[int]) -> bytes:
        ram = self.machine.ram.bytes
        return b"".join(ram[page << PAGE_SHIFT : page + count << PAGE_SHIFT] for page, count in Runs.of(pages).runs())

    def begin_storage(self) -> tuple[list[int], list[int]]:
        self.machine.flush_tables()
        disks = self.machine.attachments.disk_files()
        self._copied = [file for files in disks for file in files]
        for file in self._copied:
            file.changed = set()
        return [len(files) for files in disks], [os.dup(file.handle) for file in self._copied]

    def changed_blocks(self) -> list[list[int]]:
        self.machine.flush_tables()
        changed = [sorted(file.changed or ()) for file in self._copied]
        for file in self._copied:
            file.changed = set()
        return changed

    def sync_disks(self) -> None:
        self.machine.sync_disks()

    def release(self, pages: Sequence[int], keeps_networks: bool, keeps_disks: bool = False) -> HandedOver:
        content = self.content(pages)
        self.pending = _bounded(self.machine.take_pending())
        reads_elsewhere = not keeps_networks and not keeps_disks
        handed = self.machine.release(IS_ELSEWHERE, keeps_disks, reads_elsewhere)
        if not keeps_networks:
            self.machine.leave_networks()
        values = self.values()
        networks = [
            end._replace(descriptor=os.dup(end.descriptor)) if keeps_networks and end is not None else None
            for end in handed
        ]
        return HandedOver(content, values, networks)

    def claim(self) -> None:
        self.machine.claim()

    def permit(self) -> None:
        self.machine.permit()
        self.machine.post_pending(self.pending)
        self.pending = ()


def _bounded(arrivals: Sequence[Arrival]) -> list[Arrival]:
    """Return what a message can carry. Frames that are too many are lost, as at a card whose queue is full."""
    kept: list[Arrival] = []
    room = MOST_PENDING_BYTES
    for one in arrivals:
        room -= len(one.data)
        if room >= 0 and len(kept) < MOST_PENDING:
            kept.append(one)
    return kept


def check_networks(nets: Sequence[Net], is_local: bool) -> None:
    """Raise MigrationError if one of these networks cannot be had where a machine is to go."""
    if not is_local and any(net.end == USER for net in nets):
        raise MigrationError(
            "the machine's network is passt (user), whose connections are of a process of this host: only to another "
            "process of this host, by a unix socket, can they be handed over"
        )
