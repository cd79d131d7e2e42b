"""The guard on host time: it corrects the weights where domains of equal weight take unequal time of the host.

What a unit takes depends on the code: a loop that is in registers takes a tenth of a nanosecond for an instruction,
code that is executed for the first time a hundred times as long. Between two periods the guard compares what the
domains' units have taken of late. If they differ by more than a quarter, each domain's weight is divided by what its
units take, so that the weights hold for the host's time. Schedules that can be repeated have no guard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dbt.hypervisor.credit import Account

#: Costs of units that differ by less than this, as a ratio, are left alone: the host's own noise is of this size.
_BAND = 1.25
#: What the factor of the cheapest domain is, and how much of older measurements is kept.
_SCALE, _KEPT = 1 << 12, 0.5
#: What has used less in a period is not judged by it.
_LEAST_UNITS = 10_000


class HostTimeGuard:
    """Keeps what a unit of each domain takes, in nanoseconds."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}

    def correct(self, accounts: Iterable[Account], used: Mapping[str, tuple[int, int]]) -> None:
        """Set the factors of the accounts, for the next period. ``used`` has units and nanoseconds of each domain in
        the last one.
        """
        costs: dict[str, float] = {}
        accounts = list(accounts)
        for account in accounts:
            units, ns = used.get(account.name, (0, 0))
            old_units, old_ns = self._sums.get(account.name, (0.0, 0.0))
            if units >= _LEAST_UNITS:
                old_units, old_ns = old_units * _KEPT + units, old_ns * _KEPT + ns
                self._sums[account.name] = old_units, old_ns
            if old_units and old_ns:
                costs[account.name] = old_ns / old_units
        cheapest = min(costs.values(), default=1.0)
        differ = bool(costs) and max(costs.values()) > cheapest * _BAND
        for account in accounts:
            cost = costs.get(account.name, cheapest)
            account.factor = max(round(_SCALE * cheapest / cost), 1) if differ else 1

    def forget(self, name: str) -> None:
        """Forget a domain that is gone."""
        self._sums.pop(name, None)
