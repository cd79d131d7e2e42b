"""The virtio devices of a machine, the files that its disks are on, and the directories that it shares.

A device is made anew for each board, so a reset of the guest makes it as it is at power-on. What is on a disk stays:
the file, and the blocks that have changed.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dbt.board.boards import STORE_REQUEST
from dbt.devices.state import StateError
from dbt.host.guest_notices import GuestNotices
from dbt.vm.input import Arrival

if TYPE_CHECKING:
    from typing import Protocol

    from dbt.devices.state import State
    from dbt.devices.virtio.attached import Attached
    from dbt.devices.virtio.balloon import Balloon
    from dbt.devices.virtio.console import Console
    from dbt.devices.virtio.device import VirtioDevice
    from dbt.host.disk import RawFile
    from dbt.host.disk_media import OpenDrive
    from dbt.host.drive import Drive
    from dbt.host.journal import HostJournal
    from dbt.host.net_option import Net
    from dbt.host.network import Handover, NetworkEnd
    from dbt.host.ninep.share import Share
    from dbt.host.output_queue import OutputQueue
    from dbt.host.store_socket import StoreSocket
    from dbt.host.vsock_option import Vsock
    from dbt.hypervisor.xen.back_ends.back_end import BackEnd, XenBus
    from dbt.memory.dma import Dma
    from dbt.memory.guest_memory import GuestMemory
    from dbt.vm.shared_directory import SharedDirectory
    from dbt.vm.vsock_channel import VsockChannel

    class Announcing(Protocol):
        """A network card."""

        def announce(self) -> None:
            """Tell a new network where the guest is, if the guest uses the card."""


#: The address of QEMU's first network card.
_FIRST_ADDRESS: Final = 0x525400123456
_DRIVE = frozenset({"read_only", "snapshot", "version"})
_SHARE = frozenset({"tag", "read_only"})


class DiskFailure(NamedTuple):
    """A request of a disk that the host could not do: whether it was to read, whether the host is full, why, and the
    same in a line for the user.
    """

    is_read: bool
    is_full: bool
    why: str
    line: str


class Attachments:
    """The virtio devices: ``drives`` first, in this order, then ``nets``, those of :data:`DEVICES` that are named,
    ``shares``, and a socket device if there is ``vsock``. Or they are the para-virtual ones of a domain of Xen, whose
    XenStore is at ``xenstore``.

    ``ask_outside`` is given the name of an operation on the host's files and the operation, and returns its outcome.
    ``notice`` is told when a network has gone, and when the host could not read or write a disk.

    Without ``claims``, another machine still uses the disks and networks: they are this one's after :meth:`claim`. Of
    drives that are not read through (:attr:`dbt.host.drive.Drive.is_read_through`) it must not be using any more.

    Raises DiskError for a file that is no disk, or that is in use, NetworkError for a network that cannot be reached,
    ShareError for a directory that cannot be opened, and VsockError or StoreSocketError if it can listen at no socket.
    :meth:`close` gives all files back.
    """

    def __init__(
        self,
        drives: Sequence[Drive],
        nets: Sequence[Net],
        devices: Sequence[str],
        rng_seed: int,
        shares: Sequence[Share],
        vsock: Vsock | None,
        journal: HostJournal,
        ask_outside: Callable[[str, Callable[[], bytes]], bytes],
        notice: Callable[[str], None],
        claims: bool = True,
        xenstore: str | None = None,
    ) -> None:
        self._notice = notice
        #: False while another machine may use the disks and networks.
        self.is_claimed = claims
        self._drives = drives
        self._nets = nets
        self._journal = journal
        self._rng_seed = rng_seed
        self._failures = GuestNotices(notice, "failures of disks")
        self._failed: dict[int, DiskFailure] = {}
        self._balloon: Balloon | None = None  # of the present board, as the next two
        self._console: Console | None = None
        self._cards: list[Announcing] = []
        #: What makes the virtio devices, in their order, given what accesses RAM, and where a console's output goes.
        self._makers: list[Callable[[Dma, OutputQueue], VirtioDevice]] = []
        self._open: list[OpenDrive] = []
        self._ends: list[NetworkEnd] = []
        self._shares: list[SharedDirectory] = []
        self._sockets: VsockChannel | None = None
        self.store_socket: StoreSocket | None = None
        self._held: list[tuple[int, bytes]] | None = None  # frames that are not to leave yet, if any are held
        self._diverted: Callable[[int, Sequence[bytes]], None] | None = None
        try:
            for number, drive in enumerate(drives):
                from dbt.host.disk_media import OpenDrive

                self._open.append(OpenDrive(drive, locked=claims or not drive.is_read_through))
                self._makers.append(partial(self._make_disk, number))
            for number, net in enumerate(nets):
                from dbt.host.network import Nowhere, open_end

                self._ends.append(open_end(net, notice) if claims else Nowhere())
                self._makers.append(partial(self._make_card, number))
            self._makers += [partial(make, self) for name, make in _MAKERS.items() if name in devices]
            for number, share in enumerate(shares):
                from dbt.vm.shared_directory import SharedDirectory

                self._shares.append(SharedDirectory(share, ask_outside))
                self._makers.append(partial(self._make_share, number))
            if vsock is not None:
                from dbt.vm.vsock_channel import VsockChannel

                self._sockets = VsockChannel(vsock, journal)
                self._makers.append(partial(self._make_sockets, self._sockets))
            if xenstore is not None:
                from dbt.host.store_socket import StoreSocket

                self.store_socket = StoreSocket(xenstore, journal)
        except BaseException:
            self.close()
            raise

    def make(self, memory: GuestMemory, output: OutputQueue) -> Attached | None:
        """Return the devices as they are at power-on, or None if there are none. What the guest sends to a console or
        a port goes to ``output``.
        """
        if not self._makers:
            return None
        from dbt.devices.virtio.attached import Attached
        from dbt.memory.dma import Dma

        dma = Dma(memory)
        self._cards = []
        self._console = None
        return Attached([make(dma, output) for make in self._makers], dma, self._console)

    def _make_disk(self, number: int, dma: Dma, output: OutputQueue) -> VirtioDevice:
        from dbt.devices.virtio.block import Block

        one = self._open[number]
        failed = partial(self._tell_failure, number, one.drive.path)
        return Block(one.medium, one.drive.serial.encode(), failed, one.drive.waits_for_room)

    def _make_card(self, number: int, dma: Dma, output: OutputQueue) -> VirtioDevice:
        from dbt.devices.virtio.net import Net as NetDevice

        card = NetDevice(partial(self._send, number), self._addresses[number])
        self._cards.append(card)
        return card

    def _make_rng(self, dma: Dma, output: OutputQueue) -> VirtioDevice:
        from dbt.devices.virtio.rng import Rng

        return Rng(self._rng_seed)

    def _make_balloon(self, dma: Dma, output: OutputQueue) -> VirtioDevice:
        from dbt.devices.virtio.balloon import Balloon

        self._balloon = Balloon(dma)
        return self._balloon

    def _make_console(self, dma: Dma, output: OutputQueue) -> VirtioDevice:
        from dbt.devices.virtio.console import Console

        self._console = Console(output.uart.send)
        return self._console

    def _make_port(self, dma: Dma, output: OutputQueue) -> VirtioDevice:
        from dbt.devices.virtio.console import Console

        self._console = Console(output.write, is_plain=True)
        return self._console

    def _make_share(self, number: int, dma: Dma, output: OutputQueue) -> VirtioDevice:
        return self._shares[number].make()

    def _make_sockets(self, sockets: VsockChannel, dma: Dma, output: OutputQueue) -> VirtioDevice:
        return sockets.make()

    def back_ends(self) -> list[Callable[[XenBus], BackEnd]]:
        """Return what makes the para-virtual devices of a domain of Xen, as they are at power-on."""
        if not (self._open or self._nets or self._shares):
            return []
        from dbt.vm.domain_devices import DomainDevices

        cards: list[Announcing] = []
        self._cards = cards
        devices = DomainDevices(self._tell_failure, self._send, cards.append)
        return [*devices.disks(self._open), *devices.cards(self._addresses), *devices.shares(self._shares)]

    @property
    def _addresses(self) -> list[bytes]:
        """The addresses of the network cards."""
        return [net.mac or (_FIRST_ADDRESS + number).to_bytes(6, "big") for number, net in enumerate(self._nets)]

    @property
    def given_pages(self) -> int | None:
        """The pages that the guest says that it has given to its balloon, or None if there is no balloon."""
        return None if self._balloon is None else self._balloon.actual

    def _tell_failure(self, number: int, path: str, error: OSError, is_read: bool) -> None:
        from dbt.devices.medium import NO_ROOM  # which a machine without a disk does not need

        why, is_full = str(error.strerror or error), error.errno == errno.ENOSPC
        what = "waits for" if error.errno in NO_ROOM and self._drives[number].waits_for_room else "gets an error from"
        line = f"the guest {what} the disk {path}: {why}"
        self._failures.tell((path, why), line)
        self._failed[number] = DiskFailure(is_read, is_full, why, line)

    def take_disk_failures(self) -> dict[int, DiskFailure]:
        """Return the last failure of each disk that has failed since this was called, by the number of the disk."""
        failed, self._failed = self._failed, {}
        return failed

    def _send(self, card: int, frames: Sequence[bytes]) -> None:
        """Send frames of the guest's, unless the machine repeats what it has done."""
        if self._journal.repeats_until is not None:
            return
        if self._diverted is not None:
            self._diverted(card, frames)
        elif self._held is None:
            self._ends[card].send(*frames)
        else:
            self._held += ((card, frame) for frame in frames)

    def divert_frames(self, take: Callable[[int, Sequence[bytes]], None]) -> None:
        """Give the frames that the guest sends from now on to ``take``, with the number of the card."""
        self._diverted = take

    def hold_frames(self) -> None:
        """Keep the frames that the guest sends from now on, until :meth:`release_frames`."""
        self._held = self._held or []

    def release_frames(self) -> None:
        """Let the frames leave that are kept, in the order in which they were sent. Others are kept again."""
        if self._held:
            for card, frame in self._held:
                self._ends[card].send(frame)
            self._held.clear()

    def arrivals(self) -> Iterator[Arrival]:
        """Yield the frames that have come for the network cards, and what has come for the socket device."""
        for number, end in enumerate(self._ends):
            for frame in end.receive():
                yield Arrival(f"net {number}" if number else "net", frame)
        if self._sockets is not None:
            yield from self._sockets.arrivals()
        if self.store_socket is not None:
            for change in self.store_socket.poll():
                yield Arrival(STORE_REQUEST, change)

    def announce(self) -> None:
        """Tell the networks of a restored machine where its guest is, to which it will not say that by itself."""
        for card in self._cards:
            card.announce()

    def events(self) -> dict[int, int]:
        """Return the file descriptors at which something may arrive, and what they are looked at for."""
        found = dict.fromkeys((descriptor for end in self._ends for descriptor in end.descriptors()), select.POLLIN)
        for one in (self._sockets, self.store_socket):
            if one is not None:
                found |= one.events()
        return found

    @property
    def has_network(self) -> bool:
        """True if something may arrive: frames, connections and bytes for the socket device, requests to XenStore."""
        return bool(self._ends) or self._sockets is not None or self.store_socket is not None

    @property
    def written_files(self) -> list[str]:
        """The files that the guest writes to. What it has written there stays, if the machine goes back in time."""
        return [drive.path for drive in self._drives if not drive.keeps_image and not drive.is_empty]

    def disks(self) -> list[tuple[Drive, int]]:
        """Return the disks, in their order, each with the bytes that it has."""
        return [(one.drive, one.file.size) for one in self._open]

    def save(self) -> list[State]:
        """Return what a machine that goes on has to find: how each disk is used, and when its file was written."""
        return [
            {
                "read_only": one.drive.read_only,
                "snapshot": one.drive.is_overlaid,
                "version": one.file.version(),
            }
            for one in self._open
        ]

    def fill_slots(self, values: State) -> tuple[State, list[str]]:
        """See :func:`dbt.vm.filled_slots.fill_slots`."""
        if not any(one.drive.path for one in self._open):
            return values, []
        from dbt.vm.filled_slots import fill_slots

        return fill_slots(values, self._open, self.save())

    def check_shape(self, saved: Any, nets: Any) -> None:
        """Raise StateError unless there are as many disks and network cards as in a saved state."""
        if nets != len(self._nets):
            had = _count(nets, "network card")
            raise StateError(
                f"the machine had {had} when it was saved, and is given {len(self._nets)} now. "
                "Give it as many (--net, which may be another network)"
            )
        if type(saved) is not list:
            raise StateError("the disks in the saved state are no list")
        if len(saved) != len(self._drives):
            had = _count(len(saved), "disk")
            raise StateError(
                f"the machine had {had} when it was saved, and is given {len(self._drives)} now. "
                "Give it the same files in the same order (--drive file=F)"
            )

    def check(self, saved: Any, nets: int) -> None:
        """Raise StateError unless the disks are those of a saved state, as they were then, and there are so many
        network cards.
        """
        self.check_shape(saved, nets)
        from dbt.devices.fields import Fields

        for number, (values, one) in enumerate(zip(saved, self._open, strict=True)):
            drive, file = one.drive, one.file
            fields = Fields(values, f"disk {number} in the saved state", _DRIVE)
            if (fields.flag("read_only"), fields.flag("snapshot")) != (drive.read_only, drive.is_overlaid):
                raise StateError(
                    f"the disk {drive.path} has other options than when the machine was saved: they were "
                    f"readonly={fields.flag('read_only')} and snapshot={fields.flag('snapshot')}"
                )
            if fields.number("version", 1 << 63) != file.version():
                raise StateError(
                    f"the disk {drive.path} has been written since the machine was saved, or is another file. "
                    "The guest would find data that does not belong to what it has in memory"
                )

    def check_vsock(self, cid: int) -> None:
        """Raise StateError unless the socket device is that of a saved state: with this CID, or none if it is 0."""
        if cid != self.cid:
            had, has = (f"the CID {one}" if one else "none" for one in (cid, self.cid))
            raise StateError(
                f"the socket device of the machine had {had} when it was saved, and has {has} now. Give it the same "
                "(--vsock CID,unix:PATH, with any path)"
            )

    @property
    def cid(self) -> int:
        """The CID of the socket device, or 0 without one."""
        return 0 if self._sockets is None else self._sockets.device.cid

    # -- handing over --------------------------------------------------------------------------

    def release(self, keeps_locks: bool = False, flushes: bool = True) -> list[Handover | None]:
        """Write everything to the disks, and give their locks and the networks back, so that another machine can have
        them: of which only :meth:`claim` takes them back. The locks are kept where somebody ``keeps_locks``, because
        the other machine has disks of its own. Unless it ``flushes``, raw files may have to be read on this host. Raise
        OSError if a disk cannot be written.

        Return for each network card what another process on this host can go on with, or None.
        """
        for one in self._open:
            one.release(keeps_locks, flushes)
        self.is_claimed = False
        return [end.hand_over() for end in self._ends]

    def plug(self, card: int, descriptor: int) -> None:
        """Connect a network card to a unix stream socket, whose descriptor is the machine's from now on."""
        from dbt.host.network import plugged_end

        self._ends[card].close()
        self._ends[card] = plugged_end(descriptor, f"of card {card}", self._notice)

    def sync(self) -> None:
        """Flush the files of disks that are the files themselves. The guest may write to them meanwhile."""
        for one in self._open:
            if one.drive.is_read_through and not one.drive.keeps_image:
                with suppress(OSError):  # which the guest's own flush, or release(), meets again
                    one.file.flush()

    def flush_tables(self) -> None:
        """Put what is kept in memory of disks into their files: changed blocks of overlays, and tables."""
        for one in self._open:
            if not one.drive.is_read_through and not one.drive.read_only:
                with suppress(OSError):  # as in sync()
                    one.medium.flush()

    def disk_files(self) -> list[list[RawFile]]:
        """Return the files of each disk, in the order of :attr:`dbt.host.drive.Drive.files`."""
        return [one.files() for one in self._open]

    def written_handles(self) -> list[int]:
        """Return the descriptors of the files that :meth:`sync` flushes."""
        from dbt.host.disk import RawFile

        files = (one.file for one in self._open if one.drive.is_read_through and not one.drive.keeps_image)
        return [file.handle for file in files if isinstance(file, RawFile)]

    def leave_networks(self) -> None:
        """Close the networks, after :meth:`release`, where no other process goes on with their connections."""
        from dbt.host.network import Nowhere

        for end in self._ends:
            end.close()
        self._ends = [Nowhere() for _ in self._ends]

    @property
    def is_connected(self) -> bool:
        """True unless connections of network cards are missing, as after :meth:`leave_networks`."""
        from dbt.host.net_option import NOWHERE
        from dbt.host.network import Nowhere

        pairs = zip(self._nets, self._ends, strict=True)
        return all(net.end == NOWHERE or not isinstance(end, Nowhere) for net, end in pairs)

    def claim(self, handed: Sequence[Handover | None] = ()) -> None:
        """Lock the disks, which nobody has written since :meth:`release`, and open the networks, or go on with those
        that were ``handed`` over, whose descriptors are the machine's from now on. Raise DiskError or NetworkError,
        after which it has none of them.
        """
        from dbt.host.network import Nowhere, adopt_end, open_end

        if self.is_claimed:
            return
        left = [one for one in handed if one is not None]
        locked: list[OpenDrive] = []
        try:
            for one in self._open:
                one.claim()
                locked.append(one)
            for card, net in enumerate(self._nets):
                found = handed[card] if card < len(handed) else None
                if found is not None:
                    left.remove(found)
                    self._ends[card] = adopt_end(net, found, self._notice)
                elif isinstance(self._ends[card], Nowhere):
                    self._ends[card] = open_end(net, self._notice)
        except ValueError:  # of which both are
            for one in locked:
                one.unlock()
            self.leave_networks()
            for unused in left:
                os.close(unused.descriptor)
            raise
        self.is_claimed = True

    # -- shared directories --------------------------------------------------------------------

    @property
    def asked(self) -> int:
        """How many requests to shared directories the guest has made since it was reset."""
        return sum(shared.device.asked for shared in self._shares)

    def save_shares(self) -> list[State]:
        """Return what a machine that goes on has to find of shared directories."""
        return [shared.save() for shared in self._shares]

    def check_shares(self, saved: Any) -> None:
        """Raise StateError unless the shared directories are those of a saved state."""
        if type(saved) is not list:
            raise StateError("the shared directories in the saved state are no list")
        from dbt.devices.fields import Fields
        from dbt.host.ninep.share import LONGEST_TAG

        before = [
            Fields(one, f"shared directory {number} in the saved state", _SHARE) for number, one in enumerate(saved)
        ]
        had = [(fields.text("tag", LONGEST_TAG), fields.flag("read_only")) for fields in before]
        has = [(one.share.tag, one.share.read_only) for one in self._shares]
        if had != has:
            raise StateError(
                f"the machine had the shared directories {_in_words(had)} when it was saved, and is given "
                f"{_in_words(has)} now. Give it the same ones in the same order (--share DIR:TAG)"
            )

    def check_open_files(self) -> None:
        """Raise StateError if a shared file that the guest has open cannot be opened."""
        if (lost := self.lost_file()) is not None:
            raise StateError(
                f"the guest has the shared file {lost[0]!r} open, and it cannot be opened: {lost[1]}. "
                "Share the directory that it had (--share DIR:TAG)"
            )

    def lost_file(self) -> tuple[str, str] | None:
        """Return the name of a shared file that the guest has open and that cannot be opened, and why; or None."""
        return next((lost for shared in self._shares if (lost := shared.lost_file()) is not None), None)

    def close(self) -> None:
        """Give the files and their locks back. A second call does nothing."""
        for one in self._open:
            one.close()
        for end in self._ends:
            end.close()
        for shared in self._shares:
            shared.close()
        for sockets in (self._sockets, self.store_socket):
            if sockets is not None:
                sockets.close()


_MAKERS: Final = {
    "rng": Attachments._make_rng,
    "balloon": Attachments._make_balloon,
    "console": Attachments._make_console,
    "port": Attachments._make_port,
}
#: The devices that need nothing of the host, by name, in their order.
DEVICES: Final = tuple(_MAKERS)


def _in_words(shares: Sequence[tuple[str, bool]]) -> str:
    """Return tags and options of shared directories, as on the command line."""
    return ", ".join(tag + ",ro" * read_only for tag, read_only in shares[:8]) or "none"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
