"""The code with which a region counts its blocks and exits, if it is to count."""

from __future__ import annotations

from collections.abc import Callable, Collection

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.layout import SideExit
from dbt.backend.block_flows import NO_METER, OUTSIDE, BlockFlows, Flow, FlowKind
from dbt.backend.count_plan import CountPlan, plan_counts
from dbt.backend.module import Function
from dbt.frontend.forming import Place, Region


class BlockCounting:
    """Emits the counting of one region into its function.

    Counters are addressed by the distance from the code, which is filled in when the region is installed. That takes no
    register. A loop with a meter adds the budget where it is entered, and subtracts it where it is left.
    """

    def __init__(
        self,
        f: Function,
        region: Region,
        symbol: str,
        budget: str,
        branchless: Collection[Place],
        gpa_of: Callable[[Gva], Gpa],
        derive: bool,
    ) -> None:
        """See :func:`dbt.backend.count_plan.plan_counts`. ``symbol`` is to be the name of the counters in the
        module, ``budget`` is the alloca with the budget."""
        self._f, self.symbol, self._budget, self._gpa_of = f, symbol, budget, gpa_of
        self._region = region
        self._plan: CountPlan = plan_counts(region, branchless, gpa_of, derive)
        self._exits: dict[tuple[Place, Gva, FlowKind], int] = {}

    def enter_region(self, gva: Gva) -> None:
        """Count an entry of the region."""
        if (counter := self._plan.pads.get(gva)) is not None:
            self._add(counter, "1")

    def enter_block(self, place: Place) -> None:
        """Count that a block is entered and does not end the slice."""
        if (counter := self._plan.blocks.get(place)) is not None:
            self._add(counter, "1")

    def counts_block(self, place: Place) -> bool:
        """Return True if the block has a counter."""
        return place in self._plan.blocks

    def enter_way(self, place: Place, times: str) -> None:
        """Count that a block is executed so often (an i64) in place of a branch to it."""
        self._add(self._plan.blocks[place], times)

    def is_metered(self, source: Place | None, target: Place) -> bool:
        """Return True if to go from one block to another must be told to :meth:`go`. None is outside of the region."""
        return self._meter_of(source) != self._meter_of(target)

    def go(self, source: Place | None, target: Place) -> None:
        """Let the meters know that control goes from one block to another."""
        before, behind = self._meter_of(source), self._meter_of(target)
        if before == behind:
            return
        if before is not None:
            self._add_budget(before, "sub")
        if behind is not None:
            self._add_budget(behind, "add")

    def leave(self, place: Place, pc: Gva, reason: SideExit) -> None:
        """Count that the region is left at an instruction of a block, or at its head because the slice ends."""
        plan, is_entered = self._plan, reason is not SideExit.BUDGET
        kind = FlowKind.EXIT if is_entered else FlowKind.UNREPORTED
        counter = self._exits.get((place, pc, kind))
        if counter is None:
            counter = self._exits[place, pc, kind] = plan.new_counter()
            joint = plan.behind[place] if is_entered else plan.before[place]
            plan.flows.append(Flow(joint, OUTSIDE, counter, 0, NO_METER, kind, self._gpa_of(pc)))
        self._add(counter, "1")
        if (meter := self._meter_of(place)) is not None:
            self._add_budget(meter, "sub", 0 if is_entered else len(self._region.blocks[place].insns))

    def declaration(self) -> str:
        """Return the line that the module needs for the counters."""
        return f"@{self.symbol} = external hidden global i8\n"

    def flows(self, patches: tuple[tuple[int, int], ...]) -> BlockFlows:
        """Return what the counters mean, when the region has been lowered. ``patches`` are the places of the code that
        have been left for them.
        """
        return BlockFlows(self._plan.counters, patches, tuple(self._plan.flows))

    def _meter_of(self, place: Place | None) -> int | None:
        return None if place is None else self._plan.meters.get(place)

    def _add_budget(self, meter: int, sign: str, more: int = 0) -> None:
        budget = self._f.emit(f"load i64, ptr {self._budget}")
        if more:
            budget = self._f.emit(f"add i64 {budget}, {more}")
        self._add(meter, budget, sign)

    def _add(self, counter: int, amount: str, sign: str = "add") -> None:
        f, pointer = self._f, f"getelementptr (i8, ptr @{self.symbol}, i64 {8 * counter})"
        count = f.emit(f"load i64, ptr {pointer}")
        f.do(f"store i64 {f.emit(f'{sign} i64 {count}, {amount}')}, ptr {pointer}")
