"""How often each block of a region was entered, from fewer counters than there are blocks.

Control that comes to a *joint*, the point before some blocks and behind others, also leaves it. So what the blocks
behind a joint were entered is what came by the blocks before it, from outside and by exits. If the flows that are not
counted have no cycle, seen as edges between joints, these equations say them all (Knuth and Stevenson, "Optimal
measurement points for program frequency counts", BIT 13, 1973). One counter more can be spared in each innermost loop
for which it is known how many instructions it has executed.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from dbt.abi.addresses import Gpa
from dbt.abi.layout import BlockCounters

#: The joint outside of the region.
OUTSIDE = 0
#: In place of the number of a counter: the flow follows from others, or is in no loop that has a meter.
DERIVED = NO_METER = -1

_HEADER = struct.Struct("<III")
_PATCH = struct.Struct("<Ii")
_FLOW = struct.Struct("<IIiIiII")


class FlowKind(IntEnum):
    """What a flow is beside the reported :class:`dbt.abi.layout.BlockCounters`, whose numbers these begin with."""

    BLOCK = BlockCounters.BLOCK
    EXIT = BlockCounters.EXIT
    UNREPORTED = 2  # an entry of the region, or an exit at the end of a slice


class Flow(NamedTuple):
    """Control goes from one joint to another. ``counter`` is the number of its counter or :data:`DERIVED`.

    A block has ``insns`` instructions. ``meter`` is the number of a counter that has how many instructions a loop has
    executed, of which the block is a part. Of one block in each such loop, this is the counter too. ``gpa`` is the
    address of the instruction at which is reported how often control goes there.
    """

    source: int
    target: int
    counter: int
    insns: int
    meter: int
    kind: FlowKind
    gpa: Gpa


class BlockFlows(NamedTuple):
    """The counters of a region's code, and what they mean.

    ``counters`` is their number. ``patches`` has the places in the code that hold a displacement to a counter: offsets,
    and what is to be added to the distance from there to the first counter.
    """

    counters: int
    patches: tuple[tuple[int, int], ...]
    flows: tuple[Flow, ...]

    def patched(self, code: bytes, distance: int) -> bytes:
        """Return code whose first counter is ``distance`` bytes from its beginning."""
        found = bytearray(code)
        for offset, addend in self.patches:
            struct.pack_into("<i", found, offset, distance - offset + addend)
        return bytes(found)

    def counts(self, counters: Sequence[int]) -> Iterator[tuple[BlockCounters, Gpa, int]]:
        """Yield what was counted at each address. There may be several counts for one."""
        known = {
            number: 0 if flow.counter == flow.meter else counters[flow.counter]
            for number, flow in enumerate(self.flows)
            if flow.counter != DERIVED
        }
        self._derive(known)
        for turning, flow in enumerate(self.flows):
            if flow.counter == flow.meter != NO_METER:
                turn = self.turn(turning)
                missing = counters[flow.meter] - self._insns(flow.meter, known)
                turns = missing // self._insns(flow.meter, turn)
                known.update((number, known[number] + turns * times) for number, times in turn.items())
        for number, flow in enumerate(self.flows):
            if flow.kind is not FlowKind.UNREPORTED:
                yield BlockCounters(flow.kind), flow.gpa, known[number]

    def turn(self, turning: int) -> dict[int, int]:
        """Return how much more often control goes by other flows, by number, if it goes once more by the flow
        ``turning``, and by the others that have counters no more often.
        """
        known = {number: int(number == turning) for number, flow in enumerate(self.flows) if flow.counter != DERIVED}
        self._derive(known)
        return {number: times for number, times in known.items() if times}

    def can_meter(self, turning: int, loop: Iterable[int]) -> bool:
        """Return True if it follows from the instructions of a loop how often control goes by the flow ``turning``."""
        turn = self.turn(turning)
        insns = sum(times * self.flows[number].insns for number, times in turn.items())
        return turn.keys() <= set(loop) and insns != 0

    def _insns(self, meter: int, known: Mapping[int, int]) -> int:
        """Return how many instructions of a loop these flows are."""
        flows = self.flows
        return sum(times * flows[number].insns for number, times in known.items() if flows[number].meter == meter)

    def _derive(self, known: dict[int, int]) -> None:
        """Add the flows that are not counted, each at a joint where it is the only one left."""
        surplus: dict[int, int] = defaultdict(int)  # by joint: what is known to come, less what is known to leave
        unknown: dict[int, set[int]] = defaultdict(set)

        def settle(number: int) -> None:
            flow = self.flows[number]
            surplus[flow.target] += known[number]
            surplus[flow.source] -= known[number]

        for number, flow in enumerate(self.flows):
            if number in known:
                settle(number)
            else:
                unknown[flow.source].add(number)
                unknown[flow.target].add(number)
        ready = [joint for joint, numbers in unknown.items() if len(numbers) == 1]
        while ready:
            joint = ready.pop()
            if len(unknown[joint]) != 1:
                continue
            number = unknown[joint].pop()
            flow = self.flows[number]
            known[number] = surplus[joint] if flow.source == joint else -surplus[joint]
            settle(number)
            other = flow.target if flow.source == joint else flow.source
            unknown[other].discard(number)
            if len(unknown[other]) == 1:
                ready.append(other)

    def pack(self) -> bytes:
        """Return the binary form."""
        header = _HEADER.pack(self.counters, len(self.patches), len(self.flows))
        return header + _packed(_PATCH, self.patches) + _packed(_FLOW, self.flows)

    @classmethod
    def unpack(cls, data: bytes, code_size: int) -> BlockFlows:
        """Return what :meth:`pack` made ``data`` of, for code of this size.

        Raises ValueError if it was made of nothing, or would patch or read what is not there.
        """
        try:
            counters, patches, flows = _HEADER.unpack_from(data)
            end = _HEADER.size + patches * _PATCH.size
            found = cls(
                counters,
                tuple(_PATCH.iter_unpack(data[_HEADER.size : end])),
                tuple(
                    Flow(source, target, counter, insns, meter, FlowKind(kind), Gpa(gpa))
                    for source, target, counter, insns, meter, kind, gpa in _FLOW.iter_unpack(data[end:])
                ),
            )
        except struct.error as error:
            raise ValueError(f"not the flows of a region: {error}") from error
        if len(found.patches) != patches or len(found.flows) != flows:
            raise ValueError("the flows of a region are cut short")
        if any(offset + 4 > code_size or not -8 <= addend < 8 * counters for offset, addend in found.patches):
            raise ValueError("a patch outside of a region's code or counters")
        if any(not DERIVED <= number < counters for flow in found.flows for number in (flow.counter, flow.meter)):
            raise ValueError("a flow without its counter")
        if not found.is_determined():
            raise ValueError("flows that do not follow from the counters")
        return found

    def is_determined(self) -> bool:
        """Return True if all flows follow from the counters."""
        known = {number: 0 for number, flow in enumerate(self.flows) if flow.counter != DERIVED}
        self._derive(known)
        loops: dict[int, list[int]] = defaultdict(list)
        for number, flow in enumerate(self.flows):
            loops[flow.meter].append(number)
        metered = [number for number, flow in enumerate(self.flows) if flow.counter == flow.meter != NO_METER]
        return len(known) == len(self.flows) and all(
            self.can_meter(number, loops[self.flows[number].meter]) for number in metered
        )


def _packed(form: struct.Struct, rows: Iterable[Iterable[int]]) -> bytes:
    return b"".join(form.pack(*row) for row in rows)
