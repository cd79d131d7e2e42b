"""A CPU, RAM and a tier without a machine around them, for the oracle's runners and the tests of tiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dbt.abi.cpu import CpuState
from dbt.engine.tier import Tier
from dbt.memory.guest_memory import Bus, GuestMemory
from dbt.memory.ram import Ram, RamRegion
from dbt.vm.state import hash_of
from isa.arm.cpus import ANY, CpuModel

#: Makes a tier that executes the code of a CPU and a memory.
MakeTier = Callable[[CpuState, GuestMemory], Tier]


class BareMachine:
    """A CPU of one model with RAM and, behind ``bus``, devices. ``ram`` is as :class:`dbt.memory.ram.Ram` takes it."""

    def __init__(
        self, make_tier: MakeTier, ram: int | Sequence[RamRegion], bus: Bus | None = None, model: CpuModel = ANY
    ) -> None:
        self.cpu = CpuState(model)
        self.memory = GuestMemory(Ram(ram), bus)
        self.tier = make_tier(self.cpu, self.memory)

    def state_hash(self, *more: object) -> str:
        """Return a hash of the registers, of all RAM, and of ``more`` plain values that belong to the state."""
        return hash_of((self.cpu.snapshot(), more), self.memory.ram)

    def close(self) -> None:
        """Release its processes, descriptors and mappings. It must not be used after that."""
        self.tier.close()
        self.memory.ram.close()
        self.cpu.close()
