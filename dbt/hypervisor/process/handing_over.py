"""What the process of a machine does when that is moved: at the source, and at the destination."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from dbt.abi.layout import PAGE_SHIFT
from dbt.host.network import Handover
from dbt.hypervisor.migration.arriving import OwnArriving, OwnMachines, decoded
from dbt.hypervisor.migration.leaving import IS_ELSEWHERE, OwnLeaving
from dbt.hypervisor.port_ring import PortRing
from dbt.hypervisor.process import messages as say
from dbt.hypervisor.process.state_files import carried, content_of, memory_file, uncarried
from dbt.memory.ram_image import RamImage
from dbt.snapshot.format import Runs
from dbt.vm.input import Arrival
from dbt.vm.vm_state import machine_options

if TYPE_CHECKING:
    from dbt.devices.state import State
    from dbt.hypervisor.console_ring import ConsoleRing
    from dbt.hypervisor.process.channel import Channel
    from dbt.vm.machine import Machine
    from dbt.vm.options import HostOptions

#: An answer, and the files that come with it, which are closed when it has been sent.
Answer = tuple[say.FromVm, Sequence[int]]


class HandingOver:
    """The part of a machine's process that is about migrations.

    ``doubt`` is why the guest must not be executed, if that is so. ``is_kept``: the machine is this process's, and not
    one that is only about to come.
    """

    def __init__(self) -> None:
        self.doubt = ""
        self.is_kept = True
        self._leaving: OwnLeaving | None = None
        self._arriving: OwnArriving | None = None

    @property
    def has_ends_elsewhere(self) -> bool:
        """True while what comes from networks may be another machine's."""
        return bool(self.doubt) or not self.is_kept

    def prepare(self, message: say.Prepare, file: int, console: ConsoleRing) -> tuple[Machine, ConsoleRing]:
        """Make a machine for a state that is to come, of which a file has earlier values. Return it with its console:
        ``console``, unless it has a port.
        """
        values = content_of(file)
        if "port" in machine_options(cast("State", decoded(values, "the offer")))["devices"]:
            console = PortRing()
        options: HostOptions = pickle.loads(message.arguments)
        options["console"] = console
        self._arriving = OwnMachines(options).prepare(values)
        self.is_kept = False
        return self._arriving.machine, console

    def forget(self) -> None:
        """Hear that the host is gone, with what it wanted of a machine that leaves."""
        if self._leaving is not None:
            self._leaving.end_epoch()
            if not self.doubt:
                self._leaving = None

    def answer(self, message: say.ToVm, machine: Machine, channel: Channel[say.ToVm]) -> Answer | None:
        """Return the answer to a message about a migration, and None to another one."""
        leaving = self._leaving or OwnLeaving(machine)
        match message:
            case say.Leave():
                self.forget()
                self._leaving = leaving if self.doubt else OwnLeaving(machine)
                leaving = self._leaving
                regions = [(int(one.base), one.size, one.read_only) for one in leaving.layout.regions]
                return say.Layout(machine.attachments.is_connected, regions), ()
            case say.DiskFiles():
                files = [os.dup(file) for file in machine.attachments.written_handles()[: say.MOST_FILES]]
                return say.Files(len(files)), files
            case say.Values():
                return say.Files(1), [memory_file(leaving.values())]
            case say.Epoch(ends):
                if not ends:
                    return _runs(leaving.begin_epoch()), ()
                leaving.end_epoch()
            case say.DirtyPages(renews):
                return _runs(leaving.dirty_pages(renews)), ()
            case say.Content(runs):
                return say.Value(leaving.content(list(Runs.unpack(runs, leaving.layout, "pages")))), ()
            case say.CopyDisks():
                counts, files = leaving.begin_storage()
                return say.DisksToCopy(counts), files
            case say.ChangedBlocks():
                return say.Changed([_words(pieces) for pieces in leaving.changed_blocks()]), ()
            case say.Release():
                return self._release(leaving, message)
            case say.Claim(ends):
                machine.claim(_handed(ends, channel.take_files(_count(ends))))
            case say.Permit(announces):
                self._permit(machine, announces)
            case say.Doubt(why, releases):
                self._be_doubted(machine, why, releases)
            case say.HoldMemory(parts):
                (ram,) = channel.take_files(1)
                self._there.hold_image(RamImage.received(self._there.layout, ram, parts))
            case say.PutPages():
                self._put(message)
            case say.TakeOver(values, late, pending, ends):
                files = channel.take_files((not values) + _count(ends))
                values = uncarried(values, files)
                handed = _handed(ends, files)
                self._put(late)
                self._there.take_over(values, [Arrival(*one) for one in pending], handed)
            case _:
                return None
        return say.Ready(), ()

    @property
    def _there(self) -> OwnArriving:
        """The machine that comes."""
        assert self._arriving is not None
        return self._arriving

    def _put(self, message: say.PutPages) -> None:
        content = message.content
        places = enumerate(message.pages)
        self._there.put({page: content[at << PAGE_SHIFT : at + 1 << PAGE_SHIFT] for at, page in places})

    def _release(self, leaving: OwnLeaving, message: say.Release) -> Answer:
        """Give disks and networks back. From now on this process does not execute the guest, whatever becomes of the
        host.
        """
        self.doubt = f"{IS_ELSEWHERE}: the host that moved it has ended before it was known"
        pages = list(Runs.unpack(message.pages, leaving.layout, "pages"))
        found = leaving.release(pages, message.keeps_networks, message.keeps_disks)
        ends = [None if end is None else say.NetworkEnd(end.received, end.waiting) for end in found.networks]
        pending = [(one.receiver, one.data) for one in leaving.pending]
        values, files = carried(found.values)
        files += [end.descriptor for end in found.networks if end is not None]
        return say.Released(found.content, values, pending, ends), files

    def _permit(self, machine: Machine, announces: bool) -> None:
        machine.claim()
        if self._leaving is None:
            machine.permit()
        else:
            self._leaving.permit()
        if announces:
            machine.announce()
        self.doubt, self.is_kept = "", True
        self._leaving = self._arriving = None

    def _be_doubted(self, machine: Machine, why: str, releases: bool) -> None:
        if releases:
            machine.release(why)
            machine.leave_networks()
        else:
            machine.claim()
        self.doubt, self.is_kept = why, True


def _count(ends: Sequence[say.NetworkEnd | None]) -> int:
    return sum(end is not None for end in ends)


def _handed(ends: Sequence[say.NetworkEnd | None], files: list[int]) -> list[Handover | None]:
    return [None if end is None else Handover(files.pop(0), end.received, end.waiting) for end in ends]


def _words(numbers: Sequence[int]) -> list[int]:
    return [word for run in Runs.of(numbers).runs() for word in run]


def _runs(pages: Sequence[int]) -> say.Value:
    return say.Value(Runs.of(pages).pack())
