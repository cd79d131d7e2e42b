"""How a machine is to use a file as a disk. :mod:`dbt.host.disk` opens it."""

from __future__ import annotations

from typing import Final, NamedTuple

RAW, QCOW2 = "raw", "qcow2"
FORMATS: Final = (RAW, QCOW2)


class Backing(NamedTuple):
    """An image that has what another one leaves out."""

    path: str
    format: str = "raw"


class Drive(NamedTuple):
    """A disk of a machine: an image in the file ``path``. Without a path it is an empty slot, which a machine that goes
    on from a saved state may have filled: see :meth:`dbt.vm.machine.Machine.restore`.

    - ``serial``: what the disk says its serial number is, of which the guest gets 20 bytes.
    - ``read_only``: the guest can only read it.
    - ``snapshot``: what the guest writes is kept by the machine, as part of its state, and the file does not change.
      Otherwise the file itself is the disk.
    - ``overlay``: as ``snapshot``, and what the guest flushes is also put into the file of that name. Another machine
      with the same drive finds it there.
    - ``format``: one of :data:`FORMATS`. It is never guessed, or a guest that writes to its raw disk could make the
      host read other files the next time.
    - ``more``: raw images that come one behind the other after ``path``, on one disk that can only be read. All of them
      are of whole blocks of 4096 bytes.
    - ``waits_for_room``: a host whose file system is full lets the guest wait until there is room, by the guest's time,
      which has to be the host's. Otherwise it gets an error, after which its file system may be of no use.
    - ``backing``: the images that a qcow2 image is made on, the nearest first. What an image itself says of them is not
      followed.
    """

    path: str
    read_only: bool = False
    snapshot: bool = False
    serial: str = ""
    overlay: str = ""
    format: str = "raw"
    backing: tuple[Backing, ...] = ()
    more: tuple[str, ...] = ()
    waits_for_room: bool = False

    def fault(self) -> str:
        """Return what is wrong with the values of the drive, or an empty text."""
        for name in (self.format, *(one.format for one in self.backing)):
            if name not in FORMATS:
                return f"there are no disks of format {name}, but of {', '.join(FORMATS)}"
        if self.format == RAW and self.backing:
            return f"the disk {self.path} is a raw image, which has no backing file"
        if self.more and not (self.format == RAW and self.read_only and not self.is_overlaid and self.path):
            return f"the disk {self.path} is made of several files, which have to be raw ones that are only read"
        if self.is_empty and (self.format != RAW or self.is_overlaid):
            return "an empty slot for a disk has no format and no overlay"
        return ""

    @property
    def files(self) -> list[tuple[str, bool]]:
        """The paths of the files that it is on, and for each whether what the guest writes gets there."""
        found = [(self.overlay, True)] if self.overlay else []
        if self.path:
            found.append((self.path, not self.keeps_image))
        return [*found, *((path, False) for path in (*self.more, *(one.path for one in self.backing)))]

    @property
    def is_empty(self) -> bool:
        """True if there is no disk in the slot."""
        return not self.path

    @property
    def keeps_image(self) -> bool:
        """True if the image does not change, whatever the guest writes."""
        return self.read_only or self.snapshot or bool(self.overlay)

    @property
    def is_read_through(self) -> bool:
        """True if whoever opens the file finds its content by reading it, also what another machine writes later."""
        return self.format == RAW and not self.overlay

    @property
    def is_overlaid(self) -> bool:
        """True if what the guest writes is part of the machine's state."""
        return self.snapshot or bool(self.overlay)
