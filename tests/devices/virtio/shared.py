"""A 9p device with a directory of its own, which goes when the device does."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from dbt.devices.virtio.ninep import NineP, Request
from dbt.host.ninep.server import Server


def make_share(directory: Path) -> Path:
    """Make the directory that is shared by 9p in another one, and return its path."""
    share = directory / "share"
    (share / "sub").mkdir(parents=True)
    (share / "a").write_bytes(b"hello, world")
    (share / "a").chmod(0o644)
    (share / "link").symlink_to("sub")
    return share


class _Owner:
    def __init__(self) -> None:
        self._place = TemporaryDirectory()
        self._server = Server(str(make_share(Path(self._place.name))))

    def answer(self, request: Request) -> bytes:
        return self._server.answer(request).pack()


def shared_directory() -> NineP:
    """Return a new device with the tag ``share``."""
    return NineP(b"share", _Owner().answer)
