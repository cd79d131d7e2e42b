"""A machine whose host is gone goes on within its cap, until a new host attaches."""

from __future__ import annotations

import os
import select
import socket
import struct
from time import monotonic, monotonic_ns, thread_time_ns
from typing import TYPE_CHECKING, Final

from dbt.board.clock import nanoseconds, ticks_in
from dbt.host.endpoint import Listener
from dbt.hypervisor.process import messages as say
from dbt.hypervisor.process.channel import Channel, ChannelEnded, Late, WrongMessage
from dbt.hypervisor.waits import GuestTime

if TYPE_CHECKING:
    from dbt.hypervisor.process.vm_process import VmProcess

#: The longest turn, in seconds.
_TURN_S: Final = 0.01
#: How long who connects may take to say what it wants, in seconds.
_PATIENCE_S: Final = 1.0
_CREDENTIALS: Final = struct.Struct("3i")


def go_on_alone(process: VmProcess, listener: Listener) -> Channel[say.ToVm]:
    """Execute the guest, unless it is paused, has ended or may be elsewhere. Return the channel to the host that
    attaches.
    """
    runner = AloneRunner(process) if process.has_machine and not process.moves.doubt else None
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        seconds = None if runner is None else runner.advance()
        if runner is not None:
            for descriptor, event in process.machine.outside_events.items():
                poll.register(descriptor, event)
        heard = poll.poll(None if seconds is None else 1000 * seconds)
        if any(descriptor == listener.fileno() for descriptor, _ in heard):
            channel = _accepted(process, listener)
            if channel is not None:
                return channel


def _accepted(process: VmProcess, listener: Listener) -> Channel[say.ToVm] | None:
    """Return the channel to who has connected, if that is a host of this user's that attaches."""
    connection, _ = listener.accept()
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    channel: Channel[say.ToVm] = Channel(connection, say.ToVm)
    if uid == os.geteuid():
        try:
            message = channel.receive(monotonic() + _PATIENCE_S)
            if isinstance(message, say.End):
                raise SystemExit
            if isinstance(message, say.Attach) and process.has_machine:
                process.take_over(message.behaviour)
                channel.send(process.attached())
                return channel
        except (ChannelEnded, WrongMessage, Late):
            pass  # who has connected is no host, and another one may come
    channel.close()
    return None


class AloneRunner:
    """Executes a guest by the host's clock: in each period as much as its cap or its part of a core's time, and its
    waits take their time.
    """

    def __init__(self, process: VmProcess) -> None:
        self._process = process
        self._origin_ns = monotonic_ns()
        self._time = GuestTime()
        self._period_end = 0.0
        self._used = self._used_ns = 0  # in the present period
        self._wakes: float | None = None  # when, by the clock ``monotonic``
        self._wakes_at: int | None = None  # the tick up to which the guest waits
        self._waits = False

    def advance(self) -> float | None:
        """Execute what may be executed now. Return in how many seconds there may be more, or None if never."""
        process, conduct = self._process, self._process.conduct
        if not conduct.goes_on or process.ended is not None or process.instructions_left == 0:
            return None
        now = monotonic()
        if now >= self._period_end:
            period_s = conduct.period_ms / 1000
            self._used = max(self._used - conduct.cap, 0)
            self._used_ns = max(self._used_ns - self._most_ns, 0)
            self._period_end = max(self._period_end + period_s, now)
        if self._waits:
            if process.machine.input_source.has_arrivals:
                self._wakes = now
            if self._wakes is None or self._wakes > now:
                return None if self._wakes is None else self._wakes - now
        if conduct.core_time is None:
            units, seconds = conduct.cap - self._used, _TURN_S
        else:
            units, seconds = conduct.cap, min((self._most_ns - self._used_ns) / 1e9, _TURN_S)
        if units <= 0 or seconds <= 0:
            return self._period_end - now
        self._execute(units, seconds)
        return 0.0

    @property
    def _most_ns(self) -> int:
        conduct = self._process.conduct
        return int((conduct.core_time or 0) * conduct.period_ms * 1_000_000)

    def _execute(self, units: int, seconds: float) -> None:
        process, rate = self._process, self._process.machine.timeline.ticks_per_second
        began = thread_time_ns()  # earlier than the turn's, whose messages take of the core, too
        tick = None
        if self._waits:
            now = process.machine.vcpu.now()
            tick = now + ticks_in(self._time.lag(self._host_ns(), nanoseconds(now, rate)), rate)
            tick = tick if self._wakes_at is None else min(tick, self._wakes_at)
        slice_units = max(int(process.conduct.rate * _TURN_S), 1)
        left, memory, ahead = process.instructions_left, process.most_memory, self._time.ahead
        done = process.execute(
            say.Execute(min(units, slice_units), seconds, True, self._origin_ns, ahead, left, memory, tick, b"", {}, 0)
        )
        self._used += done.instructions + done.charged
        self._used_ns += thread_time_ns() - began
        self._time = GuestTime(done.ahead)
        self._waits = done.reason == "waiting"
        if self._waits:
            lag = self._time.lag(self._host_ns(), nanoseconds(done.now, rate))
            self._wakes = None if done.wait_ns is None else monotonic() + max(done.wait_ns - lag, 0) / 1e9
            self._wakes_at = None if done.wait_ns is None else done.now + ticks_in(done.wait_ns, rate)

    def _host_ns(self) -> int:
        return monotonic_ns() - self._origin_ns
