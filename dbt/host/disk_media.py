"""The medium of a disk, with the files that it is on."""

from __future__ import annotations

from dbt.devices.virtio.medium import DirectMedium, Medium, OverlaidMedium
from dbt.host.disk import RawFile
from dbt.host.drive import Drive
from dbt.host.overlay import OverlayFile


class OpenDrive:
    """The open files of a drive, and the medium on them. Raises DiskError. :meth:`close` gives the files back."""

    def __init__(self, drive: Drive) -> None:
        self.drive = drive
        self.file = RawFile(drive.path, writable=not drive.keeps_image)
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

    def close(self) -> None:
        """Give the files and their locks back. A second call does nothing."""
        if self._overlay is not None:
            self._overlay.close()
        self.file.close()
