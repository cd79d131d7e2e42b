"""What a domain may use: its share of the host, its instructions, and what its devices do in a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypedDict, cast

from dbt.abi.layout import PAGE_SIZE
from dbt.hypervisor.credit import DEFAULT_WEIGHT, MAX_WEIGHT, LatencyClass
from dbt.vm.device_limits import DiskLimits, NetLimits, packed

if TYPE_CHECKING:
    from dbt.vm.machine import Machine

#: Why a domain stands still that may not execute more instructions.
NO_INSTRUCTIONS_LEFT: Final = "its limit of instructions is used up (set_limits with more instructions lets it go on)"
#: The largest limit of instructions and of memory: another process understands no larger number.
MOST: Final = (1 << 62) - 1
_NO_DISK_LIMITS, _NO_NET_LIMITS = DiskLimits(), NetLimits()


class LimitChanges(TypedDict, total=False):
    """Some of the fields of :class:`Limits`."""

    weight: int | None
    cap: float | None
    latency: LatencyClass | None
    instructions: int | None
    memory: int | None
    disks: DiskLimits | None
    nets: NetLimits | None
    core_time: float | None


class Limits(NamedTuple):
    """The limits of a domain.

    - ``weight``: in proportion to it the domains share what they all want.
    - ``cap``: the largest part of a core that it gets, above 0 and up to 1, whether others want it or not.
    - ``core_time``: likewise, but a part of the host's CPU time and not of the units of a core at its nominal rate
      (:mod:`dbt.hypervisor.core_time`). It takes the host's clock: in other clocks it is a ``cap``.
    - ``latency``: whether it goes before others when it wakes.
    - ``instructions``: how many it may execute from its definition on. It is paused when they are used up, exactly.
    - ``memory``: how many bytes its RAM may take of the host, besides what it shares with clones. It is looked at after
      each turn, and a domain that has more is crashed.
    - ``disks``, ``nets``: what each of its disks and network cards may do in a second of the guest's time.
    """

    weight: int = DEFAULT_WEIGHT
    cap: float | None = None
    latency: LatencyClass = LatencyClass.NORMAL
    instructions: int | None = None
    memory: int | None = None
    disks: DiskLimits = _NO_DISK_LIMITS
    nets: NetLimits = _NO_NET_LIMITS
    core_time: float | None = None

    @classmethod
    def of(cls, name: str, given: LimitChanges) -> Limits:
        """Return the limits of the domain called ``name``: what is given, and otherwise the defaults. Raise ValueError
        for limits that make no sense.
        """
        return cls().changed(name, given)

    def changed(self, name: str, changes: LimitChanges) -> Limits:
        """Return the limits in which some are others; None means no change. Raise ValueError likewise."""
        unknown = changes.keys() - set(self._fields)
        if unknown:
            raise TypeError(f"a domain has no limit {sorted(unknown)[0]!r}: it has {', '.join(self._fields)}")
        given = cast("dict[str, Any]", {what: value for what, value in changes.items() if value is not None})
        new = self._replace(**given)
        new.check(name)
        return new

    def check(self, name: str) -> None:
        """Raise ValueError, which names the domain, for limits that make no sense."""
        weight = self.weight
        if not _is_whole(weight) or not 1 <= weight <= MAX_WEIGHT:
            raise ValueError(
                f"the weight of the domain {name} is {weight!r}, and not a whole number from 1 to {MAX_WEIGHT}"
            )
        for what, part in (("cap", self.cap), ("core_time", self.core_time)):
            if part is not None and (not isinstance(part, (int, float)) or isinstance(part, bool) or not 0 < part <= 1):
                raise ValueError(
                    f"the {what} of the domain {name} is {part!r}, and not a part of a core above 0 and up to 1"
                )
        if not isinstance(self.latency, LatencyClass):
            raise ValueError(f"the latency class of the domain {name} is {self.latency!r}, and not a LatencyClass")
        for what, most in (("instructions", self.instructions), ("memory", self.memory)):
            if most is not None and (not _is_whole(most) or not 1 <= most <= MOST):
                raise ValueError(
                    f"the limit of {what} of the domain {name} is {most!r}, and not a whole number from 1 to {MOST}"
                )
        if not isinstance(self.disks, DiskLimits) or not isinstance(self.nets, NetLimits):
            raise ValueError(f"the domain {name} limits disks by a DiskLimits, and network cards by a NetLimits")
        for devices in (self.disks, self.nets):
            packed(devices)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def limit_devices(machine: Machine, limits: Limits) -> None:
    """Give all disks and network cards of a machine their limits. What is as it was goes on as it was. Raise ValueError
    for limits of a domain of Xen, whose devices have none.
    """
    if machine.options.board_model.is_domain and not (any(limits.disks) or any(limits.nets)):
        return
    for number in range(len(machine.options.drives)):
        machine.limit_disk(number, limits.disks)
    for number in range(len(machine.options.nets)):
        machine.limit_net(number, limits.nets)


def set_memory(machine: Machine, size: int) -> None:
    """Ask a guest to have only so many bytes of its RAM, and to give the rest back by its balloon. Raise ValueError for
    a number that it cannot have, and as :meth:`dbt.vm.controlled_machine.ControlledMachine.ask_for_memory`.
    """
    if size % PAGE_SIZE or not 0 <= size <= machine.ram.size:
        raise ValueError(
            f"a guest has a multiple of {PAGE_SIZE} bytes of memory, and this one at most {machine.ram.size}"
        )
    machine.ask_for_memory(machine.ram.size - size)
