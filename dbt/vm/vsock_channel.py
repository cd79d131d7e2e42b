"""The socket device of the present board and its end on the host, which are kept in step.

The device has checksums of all that was said in either direction, which are a part of its state. If they differ from
those here, the machine has been restored, forked, reset or rolled back since: the streams of the device are not those
of the end any more. Then the end closes its connections, and the device is told, which is input as all that comes from
the end.
"""

from __future__ import annotations

from collections.abc import Iterator

from dbt.devices.virtio.vsock import Vsock
from dbt.devices.virtio.vsock_packet import Kind, Message
from dbt.host import vsock
from dbt.host.journal import HostJournal
from dbt.host.vsock_option import Vsock as Option
from dbt.vm.input import Arrival


class VsockChannel:
    """The socket device of a machine. ``journal`` says whether the machine repeats what it has done before."""

    def __init__(self, option: Option, journal: HostJournal) -> None:
        """Open the end. Raise VsockError."""
        self._option = option
        self._journal = journal
        self._end = vsock.open_end(option)
        self.device = self.make()

    def make(self) -> Vsock:
        """Return the device as it is at power-on. The one before is given up."""
        self._end.forget()
        self._heard = self._said = 0  # checksums of what the device has said, and the end
        self._is_in_step, self._is_silent = True, True
        self.device = Vsock(self._option.cid, self._tell)
        return self.device

    def _tell(self, message: Message) -> None:
        """Give the end what the device says, unless the machine repeats it or they are out of step."""
        if self._journal.repeats_until is not None:
            return
        self._heard = message.checksum(self._heard)
        if message.kind == Kind.LOST or self._heard != self.device.said:
            self._is_in_step = False
        elif self._is_in_step:
            self._end.take(message)

    def arrivals(self) -> Iterator[Arrival]:
        """Yield what the end has for the device."""
        has_missed = self._is_silent and self.device.arrived != self._said
        if not self._is_in_step or self._heard != self.device.said or has_missed:
            yield from self._come_in_step()
        for message in self._end.poll():
            yield self._arrival(message)

    def _come_in_step(self) -> Iterator[Arrival]:
        self._end.forget()
        self._heard, self._said = self.device.said, self.device.arrived
        self._is_in_step, self._is_silent = True, True
        if not self.device.is_idle:
            yield self._arrival(Message(Kind.RESTART))

    def _arrival(self, message: Message) -> Arrival:
        before, self._said, self._is_silent = self._said, message.checksum(self._said), False
        return Arrival(Vsock.receiver, message.pack(before))

    def events(self) -> dict[int, int]:
        """Return the file descriptors at which something may arrive, and what they are looked at for."""
        return self._end.events()

    def close(self) -> None:
        """Close the end. A second call does nothing."""
        self._end.close()
