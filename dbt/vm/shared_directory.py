"""A directory that the guest mounts by 9p: its server, and the device of the present board.

What a request leads to is input from outside. It is noted in the journal of a history, and recorded, and then comes
again without the directory.
"""

from __future__ import annotations

from collections.abc import Callable

from dbt.devices.state import State, StateError
from dbt.devices.virtio.ninep import NineP, Request
from dbt.host.ninep.fids import Fid
from dbt.host.ninep.server import Server
from dbt.host.ninep.share import Share
from dbt.vm.input import RecordingError


class ShareError(ValueError):
    """Raised if a directory that is to be shared cannot be opened."""


class SharedDirectory:
    """A ``share`` of a machine. ``ask_outside``: see :class:`dbt.vm.attachments.Attachments`."""

    def __init__(self, share: Share, ask_outside: Callable[[str, Callable[[], bytes]], bytes]) -> None:
        """Open it. Raise ShareError."""
        self.share = share
        self._ask_outside = ask_outside
        self._server: Server | None = None
        if share.path is not None:
            try:
                self._server = Server(share.path, share.read_only, share.is_file)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                raise ShareError(f"the directory {share.path} cannot be shared: {reason}") from None
        self.device = self.make()

    def make(self) -> NineP:
        """Return the device as it is at power-on. The one before is given up."""
        if self._server is not None:
            self._server.forget()
        self.device = NineP(self.share.tag.encode(), self._answer)
        return self.device

    def _answer(self, request: Request) -> bytes:
        return self._ask_outside(f"a request to the shared directory {self.share.tag}", lambda: self._serve(request))

    def _serve(self, request: Request) -> bytes:
        if self._server is None:
            raise RecordingError(
                f"the guest asks for what is in the directory {self.share.tag}, which was not shared: there is only "
                "what was recorded of it"
            )
        return self._server.answer(request).pack()

    def save(self) -> State:
        """Return what a machine that goes on has to find."""
        return {"tag": self.share.tag, "read_only": self.share.read_only}

    def lost_file(self) -> tuple[str, str] | None:
        """Return the name of a file that the guest has open and that cannot be opened, and why; or None.

        Raise StateError for fids that are none.
        """
        try:
            fids = [Fid.unpack(packed) for packed in self.device.fids.values()]
        except ValueError as error:
            raise StateError(f"the saved state of the shared directory {self.share.tag} is none: {error}") from None
        lost = None if self._server is None else self._server.lost_file(fids)
        return None if lost is None else (lost[0].decode("utf-8", "backslashreplace"), lost[1])

    def close(self) -> None:
        """Close the directory and what the guest has open of it. A second call does nothing."""
        if self._server is not None:
            self._server.close()
