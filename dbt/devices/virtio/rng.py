"""The entropy device (virtio 1.2, section 5.4). Its numbers follow from a seed, so that a run can be repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from dbt.devices.state import Wiring
from dbt.devices.virtio.device import VirtioDevice
from dbt.devices.virtio.queue import Chain

if TYPE_CHECKING:
    from hashlib import blake2b
else:
    try:
        from _blake2 import blake2b  # because hashlib loads OpenSSL too, which takes 2 ms
    except ImportError:  # a Python without its own
        from hashlib import blake2b

#: Bytes that one request gets at most.
_MOST: Final = 1 << 16
_DIGEST: Final = 32
_LATENCY_NS: Final = 1_000


@dataclass(eq=False)
class Rng(VirtioDevice):
    """Random bytes from ``seed``, in [0, 2^63): BLAKE2 of the seed and a counter. ``given`` counts 32 bytes each."""

    device_id: ClassVar[int] = 4
    queue_count: ClassVar[int] = 1

    seed: Wiring[int]
    given: int = 0

    def is_possible(self) -> bool:
        return self.given >= 0

    def duration(self, queue: int, chain: Chain) -> int:
        return _LATENCY_NS + min(chain.in_size, _MOST)

    def serve(self, queue: int, chain: Chain) -> int:
        size = min(chain.in_size, _MOST)
        blocks = -(-size // _DIGEST)
        key = self.seed.to_bytes(8, "little")
        data = b"".join(
            blake2b((self.given + number).to_bytes(16, "little"), digest_size=_DIGEST, key=key).digest()
            for number in range(blocks)
        )
        self.given += blocks
        return chain.write(data[:size])
