"""A device's queues: its requests are served one at a time, and what it has to say is delivered.

The answer to a request comes at a tick that follows from the request, and from the device's limits
(:mod:`dbt.devices.virtio.throttle`): the head of the chain is taken when the driver notifies the device or the request
before is done, and the buffers are accessed when the time is over. Requests of immediate queues, such as frames that
are sent, are answered when the driver notifies the device, unless a limit paces them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from dbt.devices.device import Device
from dbt.devices.state import Part, Wiring, Word
from dbt.devices.virtio.device import RequestError, TryLater, VirtioDevice
from dbt.devices.virtio.interrupt import CONFIG_CHANGE, USED_BUFFER, InterruptStatus
from dbt.devices.virtio.queue import Chain, QueueError, VirtQueue
from dbt.devices.virtio.throttle import Throttle
from dbt.devices.wiring import Alarm, Line, Time
from dbt.memory.dma import Dma, DmaError

F_VERSION_1: Final = 1 << 32
DRIVER_OK, FEATURES_OK, NEEDS_RESET = 4, 8, 64
_RUNNING = DRIVER_OK | FEATURES_OK
WORD: Final = 0xFFFFFFFF
NONE: Final = -1
_SECOND = 10**9
#: Requests that are answered at once, at most: the guest waits as long. The next ones are at the next tick.
_AT_ONCE: Final = 64
#: After so long a request that cannot be done is tried again, in parts of a second of the guest's time.
_AGAIN: Final = 10


@dataclass(eq=False)
class RequestServer(Device):
    """The queues of a device. ``number`` tells its alarms from those of other servers that share ``time``.

    ``features`` are those that driver and device have agreed on. ``serving`` and ``head`` are queue and first
    descriptor of the request that is being served, or -1. After what no driver does the device is ``broken`` until it
    is reset.
    """

    dma: Wiring[Dma]
    time: Wiring[Time]
    irq: Wiring[Line]
    number: Wiring[int]
    device: Part[VirtioDevice]
    queues: Part[list[VirtQueue]] = field(init=False)
    interrupt: Part[InterruptStatus] = field(init=False)
    throttle: Part[Throttle] = field(init=False)
    status: int = 0
    features: int = 0
    generation: Word = 0
    serving: int = NONE
    head: int = NONE
    broken: bool = False
    alarm: Wiring[Alarm] = field(init=False, repr=False)
    input_alarm: Wiring[Alarm | None] = field(default=None, init=False, repr=False)
    input_queues: Wiring[tuple[int, ...]] = field(init=False, repr=False)
    other_queues: Wiring[tuple[int, ...]] = field(init=False, repr=False)  # those with requests

    def __post_init__(self) -> None:
        device = self.device
        self.input_queues = tuple(sorted(device.input_queues))
        self.other_queues = tuple(number for number in range(device.queue_count) if number not in device.input_queues)
        self.interrupt = InterruptStatus(self.irq)
        self.queues = [VirtQueue(self.dma) for _ in range(device.queue_count)]
        self.throttle = Throttle(self.time.ticks_per_second, len(device.limited))
        self.alarm = self.time.alarm(f"request {self.number}", self.rings)
        if device.input_queues & device.paced_queues.keys():
            self.input_alarm = self.time.alarm(f"input {self.number}", self._go_on)

    @property
    def is_running(self) -> bool:
        """True if the driver has accepted features and is ready, and the device has not stopped."""
        return not self.broken and self.status & _RUNNING == _RUNNING

    def set_limits(self, data: bytes) -> None:
        """Limit what the device does from now on: see :meth:`dbt.devices.virtio.throttle.Throttle.set`."""
        self.throttle.set(data, self.time.now)
        self._go_on(immediate=True)

    def _is_immediate(self, number: int) -> bool:
        """Return True if requests of a queue take no time."""
        device = self.device
        is_paced = number == self.serving or self.throttle.limits(device.paced_queues.get(number))
        return number in device.immediate_queues and not is_paced

    def stop_serving(self) -> None:
        """Give up the request that is being served."""
        self.alarm.cancel()
        self.serving = self.head = NONE

    def stop(self) -> None:
        """Give up what is being done."""
        self.stop_serving()
        self.throttle.end_input()
        if self.input_alarm is not None:
            self.input_alarm.cancel()

    def _break(self) -> None:
        """Stop until the driver resets the device, which it is told to do."""
        self.broken = True
        self.stop()
        if self.features & F_VERSION_1:
            self.status |= NEEDS_RESET
            self._tell_config(always=True)

    def _tell_config(self, always: bool = False) -> None:
        """Tell the driver that the configuration space has changed, if it has (or the status, with ``always``)."""
        if (always or self.device.has_config_change()) and self.status & DRIVER_OK:
            self.generation = self.generation + 1 & WORD
            self.interrupt.add(USED_BUFFER | CONFIG_CHANGE)

    # -- requests ------------------------------------------------------------------------------

    def _notify(self, number: int) -> None:
        if number >= len(self.queues):
            return
        if not self._is_immediate(number):
            self._go_on()
        elif self.is_running:
            try:
                self._answer_all(number)
                self._deliver_all()
            except (QueueError, DmaError, RequestError):
                self._break()

    def receive(self, pieces: Sequence[bytes]) -> None:
        """Give the device what has come from outside, as if one piece came after the other.

        Where it makes no difference, the driver hears of several at once.
        """
        device, at = self.device, 0
        while at < len(pieces):
            end = at + device.arrivals_at_once
            for data in pieces[at:end]:
                device.arrive(data)
            self.attend()
            at = end

    def attend(self) -> None:
        """Do what can be done, because the device has got something to say from outside."""
        self._tell_config()
        self._go_on()

    def has_buffers(self, number: int) -> bool:
        """Return True if the driver waits for what the device has to say on an input queue."""
        queue = self.queues[number]
        try:
            return self.is_running and queue.ready and queue.waiting() > 0
        except (QueueError, DmaError):
            return False

    def _go_on(self, immediate: bool = False, since: int | None = None) -> None:
        """Deliver what the device has to say, and begin the next request if none is being served, which has waited
        ``since`` a tick.

        With ``immediate``, look for requests in immediate queues as well.
        """
        if not self.is_running:
            return
        try:
            if immediate:
                for number in filter(self._is_immediate, self.other_queues):
                    self._answer_all(number)
            self._deliver_all()
            if self.serving == NONE:
                self._begin(since)
        except (QueueError, DmaError, RequestError):
            self._break()

    def _answer_all(self, number: int) -> None:
        """Answer the requests of an immediate queue."""
        queue = self.queues[number]
        if not queue.ready:
            return
        try:
            self._answer_some(number, queue)
        finally:
            self.device.answered()
            has_answers = queue.publish()
        if has_answers:
            self._interrupt(queue)

    def _answer_some(self, number: int, queue: VirtQueue) -> None:
        device, features = self.device, self.features
        most = device.most_bytes(number)
        heads = queue.take_some(_AT_ONCE)
        for head in heads:
            queue.push(head, device.serve(number, queue.chain(head, features, most)))
        if len(heads) < _AT_ONCE:
            queue.want_notice(features)
        elif self.serving == NONE:  # otherwise the next ones come after this request
            self.alarm.set(self.time.now + 1)

    def _begin(self, since: int | None) -> None:
        for number in self.other_queues:
            queue = self.queues[number]
            if self._is_immediate(number) or not queue.ready or not self.device.can_serve(number):
                continue
            head = queue.take()
            if head is None:
                queue.want_notice(self.features)
                continue
            chain, start = self._chain(number, head), self.time.now if since is None else since
            duration = self.device.duration(number, chain)
            through = self.throttle.take(self.device.costs(number, chain.out_size + chain.in_size), start)
            self.serving, self.head = number, head
            self.alarm.set(max(start + max(1, duration * self.time.ticks_per_second // _SECOND), through))
            return

    def _chain(self, number: int, head: int) -> Chain:
        return self.queues[number].chain(head, self.features, self.device.most_bytes(number))

    def rings(self) -> None:
        """The alarm rings: the request that is being served is done, or there are more than are answered at once."""
        number, head = self.serving, self.head
        if number == NONE:
            self._go_on(immediate=True)
            return
        if not self.is_running:
            return
        self.serving = self.head = NONE
        queue = self.queues[number]
        try:
            if queue.ready:
                written = self.device.serve(number, self._chain(number, head))
                self.device.answered()
                self._answer(queue, head, written)
        except TryLater:
            self.serving, self.head = number, head
            self.alarm.set(self.time.now + self.time.ticks_per_second // _AGAIN)
            return
        except (QueueError, DmaError, RequestError):
            self._break()
        self._tell_config()
        self._go_on(immediate=True, since=self.time.due)

    def _deliver_all(self) -> None:
        for number in self.input_queues:
            self._deliver(number)

    def _deliver(self, number: int) -> None:
        """Fill buffers of an input queue as long as there are any, and something to put there."""
        queue = self.queues[number]
        if not queue.ready:
            return
        try:
            self._deliver_some(number, queue)
        finally:
            if queue.publish():
                self._interrupt(queue)

    def _deliver_some(self, number: int, queue: VirtQueue) -> None:
        device = self.device
        has_limit = self.throttle.limits(device.paced_queues.get(number))
        since = self.time.now
        while (data := device.next_input(number)) is not None:
            if has_limit and not self._may_deliver(number, len(data), since):
                return
            chains = self._gather(number, len(data))
            if not chains:
                queue.want_notice(self.features)
                return
            data = device.for_buffers(data, [chain.in_size for chain in chains])
            sizes = self._fill(data, chains)
            device.take_input(number, sum(sizes))
            since = self.throttle.input_through if has_limit else since
            self.throttle.end_input()
            for chain, written in zip(chains, sizes, strict=True):
                queue.push(chain.head, written)

    def _may_deliver(self, number: int, size: int, since: int) -> bool:
        """Return True if so many bytes for an input queue, which have waited ``since`` a tick, have come through the
        device's limit; else look later.
        """
        throttle = self.throttle
        is_through = throttle.input_is_through(self.device.costs(number, size), self.time.now, since)
        if not is_through and self.input_alarm is not None:
            self.input_alarm.set(throttle.input_through)
        return is_through

    def _gather(self, number: int, size: int) -> list[Chain]:
        """Take the next buffers of an input queue: one, or as many as have so many bytes if the device uses several.

        Return none, and take none, if there are not enough.
        """
        queue = self.queues[number]
        most = size if self.device.spans_buffers else 0
        room = 0
        chains: list[Chain] = []
        while not chains or room < most:
            head = queue.take()
            if head is None:
                queue.put_back(len(chains))
                return []
            chain = self._chain(number, head)
            chains.append(chain)
            room += chain.in_size
        return chains

    @staticmethod
    def _fill(data: bytes, chains: list[Chain]) -> list[int]:
        """Write data to the buffers, and return how many bytes each has got."""
        if len(chains) == 1:
            return [chains[0].write(data)]
        sizes, done = [], 0
        for chain in chains:
            sizes.append(chain.write(memoryview(data)[done:]))
            done += sizes[-1]
        return sizes

    def _answer(self, queue: VirtQueue, head: int, written: int) -> None:
        queue.push(head, written)
        queue.publish()
        self._interrupt(queue)

    def _interrupt(self, queue: VirtQueue) -> None:
        if queue.wants_interrupt(self.features):
            self.interrupt.add(USED_BUFFER)
