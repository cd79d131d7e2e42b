"""The virtio-mmio transport, version 2 (virtio 1.2, section 4.2): registers, features, status and interrupts.

Registers and their answers are QEMU's (``virtio-mmio.force-legacy=false``), with what the specification demands beyond:
features that were not offered are refused, and VIRTIO_F_VERSION_1 has to be accepted.

A device serves one request at a time. Its answer comes at a tick that follows from the request alone: the head of
the chain is taken when the driver notifies the device or the request before is done, and the buffers are accessed when
the time is over. Requests of immediate queues, such as frames that are sent, are answered when the driver notifies the
device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dbt.devices.device import Device
from dbt.devices.state import Part, Wiring, Word
from dbt.devices.virtio.device import RequestError, VirtioDevice
from dbt.devices.virtio.interrupt import CONFIG_CHANGE, USED_BUFFER, InterruptStatus
from dbt.devices.virtio.queue import (
    MAX_SIZE,
    RING_F_EVENT_IDX,
    RING_F_INDIRECT_DESC,
    Chain,
    QueueError,
    VirtQueue,
)
from dbt.devices.wiring import Alarm, Line, Time
from dbt.memory.dma import Dma, DmaError

F_VERSION_1: Final = 1 << 32
F_RING_RESET: Final = 1 << 40
#: What every device offers.
COMMON_FEATURES: Final = F_VERSION_1 | F_RING_RESET | RING_F_INDIRECT_DESC | RING_F_EVENT_IDX

MAGIC, VERSION, VENDOR = 0x74726976, 2, 0x554D4551
DRIVER_OK, FEATURES_OK, NEEDS_RESET = 4, 8, 64
_RUNNING = DRIVER_OK | FEATURES_OK
INTERRUPT_STATUS, INTERRUPT_ACK = 0x060, 0x064
CONFIG = 0x100
_WORD = 0xFFFFFFFF
_NONE = -1
_SECOND = 10**9
#: Requests that are answered at once, at most: the guest waits as long. The next ones are at the next tick.
_AT_ONCE: Final = 64


@dataclass(eq=False)
class Transport(Device):
    """A transport with its device. ``number`` tells its alarm from those of other transports that share ``time``.

    ``driver_features`` are the two words that the driver has written, ``features`` what was accepted with FEATURES_OK.
    ``serving`` and ``head`` are queue and first descriptor of the request that is being served, or -1. After what no
    driver does the device is ``broken`` until it is reset.
    """

    dma: Wiring[Dma]
    time: Wiring[Time]
    irq: Wiring[Line]
    number: Wiring[int]
    device: Part[VirtioDevice]
    device_id: int = field(init=False)
    queues: Part[list[VirtQueue]] = field(init=False)
    interrupt: Part[InterruptStatus] = field(init=False)
    status: int = 0
    features_select: int = 0
    driver_select: int = 0
    driver_low: Word = 0
    driver_high: Word = 0
    features: int = 0
    queue_select: Word = 0
    generation: Word = 0
    serving: int = _NONE
    head: int = _NONE
    broken: bool = False
    alarm: Wiring[Alarm] = field(init=False, repr=False)
    input_queues: Wiring[tuple[int, ...]] = field(init=False, repr=False)
    slow_queues: Wiring[tuple[int, ...]] = field(init=False, repr=False)  # the requests that take time

    def __post_init__(self) -> None:
        device = self.device
        self.input_queues = tuple(sorted(device.input_queues))
        others = device.input_queues | device.immediate_queues
        self.slow_queues = tuple(number for number in range(device.queue_count) if number not in others)
        self.device_id = self.device.device_id
        self.interrupt = InterruptStatus(self.irq)
        self.queues = [VirtQueue(self.dma) for _ in range(self.device.queue_count)]
        self.alarm = self.time.alarm(f"request {self.number}", self.rings)

    def is_possible(self) -> bool:
        is_idle = self.serving == self.head == _NONE
        is_serving = 0 <= self.serving < len(self.queues) and 0 <= self.head < 1 << 16
        return (
            self.device_id == self.device.device_id
            and (is_idle or is_serving)
            and 0 <= self.status < 1 << 8
            and self.features_select in (0, 1)
            and self.driver_select in (0, 1)
            and not self.features & ~self.offered
        )

    @property
    def is_running(self) -> bool:
        """True if the driver has accepted features and is ready, and the device has not stopped."""
        return not self.broken and self.status & _RUNNING == _RUNNING

    @property
    def offered(self) -> int:
        """The features that the device offers."""
        return COMMON_FEATURES | self.device.features()

    # -- registers -----------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        if offset >= CONFIG:
            config = self.device.config()
            data = config[offset - CONFIG : offset - CONFIG + size]
            return int.from_bytes(data, "little") if len(data) == size else (1 << 8 * size) - 1
        return self._read_word(offset) if size == 4 else 0

    def _read_word(self, offset: int) -> int:
        match offset:
            case 0x000:
                return MAGIC
            case 0x004:
                return VERSION
            case 0x008:
                return self.device_id
            case 0x00C:
                return VENDOR
            case 0x010:  # DeviceFeatures
                return self.offered >> 32 * self.features_select & _WORD
            case 0x034:  # QueueNumMax
                return 0 if self._selected is None else MAX_SIZE
            case 0x044:  # QueueReady
                return int(self._selected is not None and self._selected.ready)
            case 0x060:  # InterruptStatus
                return self.interrupt.read()
            case 0x070:
                return self.status
            case 0x0B0 | 0x0B4:  # SHMLen: there is no shared memory
                return _WORD
            case 0x0FC:
                return self.generation
            case _:
                return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if offset >= CONFIG:
            if offset - CONFIG + size <= len(self.device.config()):
                self.device.write_config(offset - CONFIG, value.to_bytes(size, "little"))
                self._tell_config()
        elif size == 4:
            self._write_word(offset, value)

    def _write_word(self, offset: int, value: int) -> None:
        match offset:
            case 0x014:
                self.features_select = int(value != 0)
            case 0x020:  # DriverFeatures
                if self.driver_select:
                    self.driver_high = value
                else:
                    self.driver_low = value
            case 0x024:
                self.driver_select = int(value != 0)
            case 0x030:
                self.queue_select = value if value < MAX_SIZE else self.queue_select
            case 0x050:
                self._notify(value)
            case 0x064:  # InterruptACK
                self.interrupt.acknowledge(value)
            case 0x070:
                self._set_status(value & 0xFF)
            case _ if self._selected is not None:
                self._write_queue(self._selected, offset, value)

    @property
    def _selected(self) -> VirtQueue | None:
        return self.queues[self.queue_select] if self.queue_select < len(self.queues) else None

    def _write_queue(self, queue: VirtQueue, offset: int, value: int) -> None:
        if offset == 0x044:
            queue.ready = bool(value)
        elif offset == 0x0C0:  # QueueReset
            if value and self.features & F_RING_RESET:
                self._reset_queue(queue)
        elif queue.ready:
            pass  # The specification forbids changes of a queue that is in use.
        elif offset == 0x038:  # QueueNum
            queue.size = value if 0 < value <= MAX_SIZE else queue.size
        else:
            self._place_queue(queue, offset, value)

    def _place_queue(self, queue: VirtQueue, offset: int, value: int) -> None:
        match offset:
            case 0x080:
                queue.desc_low = value
            case 0x084:
                queue.desc_high = value
            case 0x090:
                queue.avail_low = value
            case 0x094:
                queue.avail_high = value
            case 0x0A0:
                queue.used_low = value
            case 0x0A4:
                queue.used_high = value

    # -- status --------------------------------------------------------------------------------

    def _set_status(self, status: int) -> None:
        if not status:
            self._reset()
            return
        if status & FEATURES_OK and not self.status & FEATURES_OK:
            wanted = self.driver_high << 32 | self.driver_low
            if wanted & ~self.offered or not wanted & F_VERSION_1:
                status &= ~FEATURES_OK
            else:
                self.features = wanted
        was_running = self.is_running
        self.status = status
        if self.is_running and not was_running:
            self.device.start(self.features)
            self._go_on(immediate=True)

    def _reset(self) -> None:
        self.alarm.cancel()
        self.serving = self.head = _NONE
        self.status = self.features = self.queue_select = 0
        self.driver_low = self.driver_high = 0  # The selectors stay, as in QEMU.
        self.broken = False
        for queue in self.queues:
            queue.reset()
        self.device.reset()
        self.interrupt.acknowledge(_WORD)

    def _reset_queue(self, queue: VirtQueue) -> None:
        """Reset one queue (section 2.6.1). A request of it that is being served is given up."""
        if self.serving != _NONE and self.queues[self.serving] is queue:
            self.alarm.cancel()
            self.serving = self.head = _NONE
        queue.reset()
        self._go_on(immediate=True)

    def _break(self) -> None:
        """Stop until the driver resets the device, which it is told to do."""
        self.broken = True
        self.alarm.cancel()
        self.serving = self.head = _NONE
        if self.features & F_VERSION_1:
            self.status |= NEEDS_RESET
            self._tell_config(always=True)

    def _tell_config(self, always: bool = False) -> None:
        """Tell the driver that the configuration space has changed, if it has (or the status, with ``always``)."""
        if (always or self.device.has_config_change()) and self.status & DRIVER_OK:
            self.generation = self.generation + 1 & _WORD
            self.interrupt.add(USED_BUFFER | CONFIG_CHANGE)

    # -- requests ------------------------------------------------------------------------------

    def _notify(self, number: int) -> None:
        if number >= len(self.queues):
            return
        if number not in self.device.immediate_queues:
            self._go_on()
        elif self.is_running:
            try:
                self._answer_all(number)
                self._deliver_all()
            except (QueueError, DmaError, RequestError):
                self._break()

    def receive(self, data: bytes) -> None:
        """Give the device something from outside."""
        self.device.arrive(data)
        self.attend()

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

    def _go_on(self, immediate: bool = False) -> None:
        """Deliver what the device has to say, and begin the next request if none is being served.

        With ``immediate``, look for requests in immediate queues as well.
        """
        if not self.is_running:
            return
        try:
            if immediate:
                for number in sorted(self.device.immediate_queues):
                    self._answer_all(number)
            self._deliver_all()
            if self.serving == _NONE:
                self._begin()
        except (QueueError, DmaError, RequestError):
            self._break()

    def _answer_all(self, number: int) -> None:
        """Answer the requests of an immediate queue."""
        queue = self.queues[number]
        if not queue.ready:
            return
        before = queue.next_used
        try:
            self._answer_some(number, queue)
        finally:
            self.device.answered()
        if queue.next_used != before:
            self._interrupt(queue)

    def _answer_some(self, number: int, queue: VirtQueue) -> None:
        for _ in range(_AT_ONCE):
            head = queue.take()
            if head is None:
                queue.want_notice(self.features)
                return
            queue.push(head, self.device.serve(number, self._chain(number, head)))
        if self.serving == _NONE:  # otherwise the next ones come after this request
            self.alarm.set(self.time.now + 1)

    def _begin(self) -> None:
        for number in self.slow_queues:
            queue = self.queues[number]
            if not queue.ready or not self.device.can_serve(number):
                continue
            head = queue.take()
            if head is None:
                queue.want_notice(self.features)
                continue
            duration = self.device.duration(number, self._chain(number, head))
            self.serving, self.head = number, head
            self.alarm.set(self.time.now + max(1, duration * self.time.ticks_per_second // _SECOND))
            return

    def _chain(self, number: int, head: int) -> Chain:
        return self.queues[number].chain(head, self.features, self.device.most_bytes(number))

    def rings(self) -> None:
        """The alarm rings: the request that is being served is done, or there are more than are answered at once."""
        number, head = self.serving, self.head
        if number == _NONE:
            self._go_on(immediate=True)
            return
        if not self.is_running:
            return
        self.serving = self.head = _NONE
        queue = self.queues[number]
        try:
            if queue.ready:
                self._answer(queue, head, self.device.serve(number, self._chain(number, head)))
        except (QueueError, DmaError, RequestError):
            self._break()
        self._tell_config()
        self._go_on(immediate=True)

    def _deliver_all(self) -> None:
        for number in self.input_queues:
            self._deliver(number)

    def _deliver(self, number: int) -> None:
        """Fill buffers of an input queue as long as there are any, and something to put there."""
        queue = self.queues[number]
        if not queue.ready:
            return
        while (data := self.device.next_input(number)) is not None:
            chains = self._gather(number, len(data))
            if not chains:
                queue.want_notice(self.features)
                return
            data = self.device.for_buffers(data, [chain.in_size for chain in chains])
            sizes = self._fill(data, chains)
            self.device.take_input(number, sum(sizes))
            for chain, written in zip(chains, sizes, strict=True):
                queue.push(chain.head, written)
            self._interrupt(queue)

    def _gather(self, number: int, size: int) -> list[Chain]:
        """Take the next buffers of an input queue: one, or as many as have so many bytes if the device uses several.

        Return none, and take none, if there are not enough.
        """
        queue = self.queues[number]
        chains: list[Chain] = []
        while not chains or (self.device.spans_buffers and sum(chain.in_size for chain in chains) < size):
            head = queue.take()
            if head is None:
                queue.put_back(len(chains))
                return []
            chains.append(self._chain(number, head))
        return chains

    @staticmethod
    def _fill(data: bytes, chains: list[Chain]) -> list[int]:
        """Write data to the buffers, and return how many bytes each has got."""
        sizes, done = [], 0
        for chain in chains:
            sizes.append(chain.write(memoryview(data)[done:]))
            done += sizes[-1]
        return sizes

    def _answer(self, queue: VirtQueue, head: int, written: int) -> None:
        queue.push(head, written)
        self._interrupt(queue)

    def _interrupt(self, queue: VirtQueue) -> None:
        if queue.wants_interrupt(self.features):
            self.interrupt.add(USED_BUFFER)
