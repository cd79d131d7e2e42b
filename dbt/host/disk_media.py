"""The medium of a disk, with the files that it is on."""

from __future__ import annotations

from collections.abc import Sequence

from dbt.devices.medium import DirectMedium, Medium, OverlaidMedium
from dbt.host.disk import DiskError, DiskImage, RawFile
from dbt.host.disk_files import FileSequence, NoFile
from dbt.host.drive import RAW, Backing, Drive
from dbt.host.overlay import OverlayFile


class OpenDrive:
    """The open files of a drive, and the medium on them. Raises DiskError. :meth:`close` gives the files back.

    A drive whose content nobody keeps in memory (:attr:`dbt.host.drive.Drive.is_read_through`) need not be ``locked``
    at once: another machine uses it then, until :meth:`claim`.
    """

    def __init__(self, drive: Drive, locked: bool = True) -> None:
        self.drive = drive
        if fault := drive.fault():
            raise DiskError(fault)
        writable = not drive.keeps_image
        self.file: DiskImage
        if drive.is_empty:
            self.file = NoFile()
        elif drive.more:
            self.file = FileSequence([drive.path, *drive.more], locked)
        elif locked:
            self.file = _open_image(Backing(drive.path, drive.format), drive.backing, writable)
        else:
            assert drive.is_read_through
            self.file = RawFile(drive.path, writable, locked=False)
        self._overlay: OverlayFile | None = None
        try:
            self.medium = self._open_medium()
        except BaseException:
            self.close()
            raise

    def _open_medium(self) -> Medium:
        drive = self.drive
        if not drive.is_overlaid:
            return DirectMedium(self.file, drive.read_only)
        if not drive.overlay:
            return OverlaidMedium(self.file, drive.read_only)
        self._overlay = OverlayFile(drive.overlay, self.file)
        medium = OverlaidMedium(self.file, drive.read_only, self._overlay.store)
        medium.changed = self._overlay.load()
        return medium

    def release(self, keeps_lock: bool = False, flushes: bool = True) -> None:
        """Write everything to the files, and give their locks back, unless somebody ``keeps_lock``. They stay open.
        With ``flushes``, it will survive a failure of the host, as other hosts see it only then. Raise OSError.
        """
        if flushes or not self.drive.is_read_through:
            self.medium.flush()
            self.file.flush()
        if not keeps_lock:
            self.unlock()

    def files(self) -> list[RawFile]:
        """Return the files that it is on, in the order of :attr:`dbt.host.drive.Drive.files`."""
        return [*(() if self._overlay is None else self._overlay.files()), *self.file.files()]

    def unlock(self) -> None:
        """Give the locks back."""
        self.file.unlock()
        if self._overlay is not None:
            self._overlay.unlock()

    def claim(self) -> None:
        """Lock the files again, which nobody has written meanwhile. Raise DiskError, after which no lock is held."""
        self.file.lock()
        if self._overlay is not None:
            try:
                self._overlay.lock()
            except DiskError:
                self.file.unlock()
                raise

    def close(self) -> None:
        """Give the files and their locks back. A second call does nothing."""
        if self._overlay is not None:
            self._overlay.close()
        self.file.close()


def _open_image(image: Backing, behind: Sequence[Backing], writable: bool = False) -> DiskImage:
    """Open an image, and those that are behind it, the nearest first. Raise DiskError."""
    if image.format == RAW:
        if behind:
            raise DiskError(f"the image {image.path} is a raw one, which has no backing file {behind[0].path}")
        return RawFile(image.path, writable)
    backing = _open_image(behind[0], behind[1:]) if behind else None
    try:
        if writable:
            from dbt.host.qcow2_writer import WritableQcow2File

            return WritableQcow2File(image.path, backing)
        from dbt.host.qcow2 import Qcow2File

        return Qcow2File(image.path, backing)
    except BaseException:
        if backing is not None:
            backing.close()
        raise
