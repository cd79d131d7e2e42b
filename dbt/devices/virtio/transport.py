"""The virtio-mmio transport, version 2 (virtio 1.2, section 4.2): registers, features, status and interrupts.

Registers and their answers are QEMU's (``virtio-mmio.force-legacy=false``), with what the specification demands beyond:
features that were not offered are refused, and VIRTIO_F_VERSION_1 has to be accepted. What becomes of requests is in
:mod:`dbt.devices.virtio.server`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dbt.devices.state import Word
from dbt.devices.virtio.queue import MAX_SIZE, RING_F_EVENT_IDX, RING_F_INDIRECT_DESC, VirtQueue
from dbt.devices.virtio.server import DRIVER_OK, F_VERSION_1, FEATURES_OK, NEEDS_RESET, NONE, WORD, RequestServer

__all__ = ["COMMON_FEATURES", "DRIVER_OK", "FEATURES_OK", "F_RING_RESET", "F_VERSION_1", "NEEDS_RESET", "Transport"]
F_RING_RESET: Final = 1 << 40
#: What every device offers.
COMMON_FEATURES: Final = F_VERSION_1 | F_RING_RESET | RING_F_INDIRECT_DESC | RING_F_EVENT_IDX

MAGIC, VERSION, VENDOR = 0x74726976, 2, 0x554D4551
INTERRUPT_STATUS, INTERRUPT_ACK = 0x060, 0x064
CONFIG = 0x100


@dataclass(eq=False)
class Transport(RequestServer):
    """A transport with its device.

    ``driver_features`` are the two words that the driver has written, ``features`` what was accepted with FEATURES_OK.
    """

    device_id: int = field(init=False)
    features_select: int = 0
    driver_select: int = 0
    driver_low: Word = 0
    driver_high: Word = 0
    queue_select: Word = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.device_id = self.device.device_id

    def is_possible(self) -> bool:
        is_idle = self.serving == self.head == NONE
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
            case 0x070:
                return self.status
            case 0x000:
                return MAGIC
            case 0x004:
                return VERSION
            case 0x008:
                return self.device_id
            case 0x00C:
                return VENDOR
            case 0x010:  # DeviceFeatures
                return self.offered >> 32 * self.features_select & WORD
            case 0x034:  # QueueNumMax
                return 0 if self._selected is None else MAX_SIZE
            case 0x044:  # QueueReady
                return int(self._selected is not None and self._selected.ready)
            case 0x060:  # InterruptStatus
                return self.interrupt.read()
            case 0x0B0 | 0x0B4:  # SHMLen: there is no shared memory
                return WORD
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
            case 0x050:
                self._notify(value)
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
        self.stop()
        self.status = self.features = self.queue_select = 0
        self.driver_low = self.driver_high = 0  # The selectors stay, as in QEMU.
        self.broken = False
        for queue in self.queues:
            queue.reset()
        self.device.reset()
        self.interrupt.acknowledge(WORD)

    def _reset_queue(self, queue: VirtQueue) -> None:
        """Reset one queue (section 2.6.1). A request of it that is being served is given up."""
        if self.serving != NONE and self.queues[self.serving] is queue:
            self.stop_serving()
        queue.reset()
        self._go_on(immediate=True)
