"""A machine in a process of its own at the source of a migration: what is sent of it is what its process says, and only
as far as it can be of a machine like that one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from dbt.abi.layout import PAGE_SHIFT
from dbt.devices.state import StateError
from dbt.host.network import Handover
from dbt.hypervisor.migration.errors import ProtocolError
from dbt.hypervisor.migration.leaving import HandedOver, check_networks
from dbt.hypervisor.migration.messages import layout_of
from dbt.hypervisor.process import messages as say
from dbt.hypervisor.process.network_ends import opened
from dbt.hypervisor.process.state_files import uncarried
from dbt.snapshot.format import FormatError, Runs
from dbt.vm.input import Arrival

if TYPE_CHECKING:
    from dbt.hypervisor.process.process_vm import ProcessVm


#: The pieces of a disk that can have changed in a round: 256 GiB.
_MOST_CHANGED: Final = 1 << 22


class LeavingProcess:
    """See :class:`dbt.hypervisor.migration.leaving.Leaving`.

    A process whose guest has taken it over can give its own memory and state away, and nothing else: pages are copied
    from what it answers, and a descriptor that it passes is a network of its own, or one to be flushed.
    """

    def __init__(self, vm: ProcessVm) -> None:
        self._vm = vm
        vm.settle()
        found = vm.ask(say.Leave(), say.Layout)
        try:
            self.layout = layout_of([list(region) for region in found.regions])
        except ProtocolError:
            vm.fail("it says that it has RAM where no machine has any")
        self._is_connected = found.is_connected
        self.pending: Sequence[Arrival] = ()
        self._copied = 0  # files of disks
        self._disks = vm.files(vm.ask(say.DiskFiles(), say.Files).count)

    def check(self, is_local: bool) -> None:
        check_networks(self._vm.facts.nets, is_local)

    def values(self) -> bytes:
        self._vm.settle()
        self._vm.ask(say.Values(), say.Files)
        return self._values_in(b"", self._vm.files(1))

    def _values_in(self, values: bytes, files: list[int]) -> bytes:
        """Return the values of an answer. If they are in a file, that is the first one, which is taken."""
        try:
            return uncarried(values, files)
        except (StateError, OSError) as error:
            self._vm.fail(f"its state is none: {error}")

    def _pages(self, message: say.Epoch | say.DirtyPages) -> list[int]:
        data = self._vm.ask(message, say.Value).data
        try:
            return list(Runs.unpack(data, self.layout, "pages"))
        except FormatError as error:
            self._vm.fail(f"its list of pages {error}")

    def begin_epoch(self) -> list[int]:
        return self._pages(say.Epoch(ends=False))

    def dirty_pages(self, renews: bool) -> list[int]:
        return self._pages(say.DirtyPages(renews))

    def end_epoch(self) -> None:
        self._close_disks()
        self._vm.ask(say.Epoch(ends=True), say.Ready)

    def content(self, pages: Sequence[int]) -> bytes:
        return self._content_in(self._vm.ask(say.Content(Runs.of(pages).pack()), say.Value).data, pages)

    def _content_in(self, data: bytes, pages: Sequence[int]) -> bytes:
        if len(data) != len(pages) << PAGE_SHIFT:
            self._vm.fail(f"it returns {len(data)} bytes of {len(pages)} pages")
        return data

    def sync_disks(self) -> None:
        for file in self._disks:
            with contextlib.suppress(OSError):  # which the guest's own flush, or release(), meets again
                os.fdatasync(file)

    def begin_storage(self) -> tuple[list[int], list[int]]:
        counts = self._vm.ask(say.CopyDisks(), say.DisksToCopy).counts
        self._copied = sum(counts)
        return counts, self._vm.files(self._copied)

    def changed_blocks(self) -> list[list[int]]:
        found = list[list[int]]()
        for words in self._vm.ask(say.ChangedBlocks(), say.Changed).files:
            runs = Runs(words[::2], words[1::2])
            if len(words) % 2 or runs.total > _MOST_CHANGED:
                self._vm.fail("it says of its disks what none can be")
            found.append(list(runs))
        if len(found) != self._copied:
            self._vm.fail("it does not say what has changed of each disk")
        return found

    def _close_disks(self) -> None:
        """Close the disks' files, whose locks would stay as long as somebody has them."""
        while self._disks:
            os.close(self._disks.pop())

    def release(self, pages: Sequence[int], keeps_networks: bool, keeps_disks: bool = False) -> HandedOver:
        self._close_disks()
        self._is_connected = keeps_networks
        self._vm.settle()
        released = self._vm.ask(say.Release(Runs.of(pages).pack(), keeps_networks, keeps_disks), say.Released)
        self.pending, ends = [Arrival(*one) for one in released.pending], released.ends
        content = self._content_in(released.content, pages)
        files = self._vm.files((not released.values) + sum(end is not None for end in ends))
        try:
            values = self._values_in(released.values, files)
            networks = [None if end is None else Handover(files.pop(0), end.received, end.waiting) for end in ends]
        except BaseException:
            for file in files:
                os.close(file)
            raise
        return HandedOver(content, values, networks)

    def claim(self) -> None:
        nets = () if self._is_connected else self._vm.facts.nets
        with opened(nets, ()) as (ends, files):
            self._vm.ask(say.Claim(ends), say.Ready, files)

    def permit(self) -> None:
        self._vm.ask(say.Permit(announces=not self._is_connected), say.Ready)
