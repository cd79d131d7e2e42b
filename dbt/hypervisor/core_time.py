"""Parts of a core's time: how many units they are in a period follows from what the last ones took of the host.

A unit takes a tenth of a nanosecond in compiled code, and a hundred times as long where code is executed for the first
time. So half of a core is no fixed number of units. Before each period, the number is derived that will take the part
which a domain may have, at what its units took last. In the period that number is a cap, and exact as any cap. What the
domain has then taken of the host's CPU time beyond its part it owes to the following periods, in which it has no turn
if that is much; what it was kept from taking, because units took less than before, it has in the next one.
"""

from __future__ import annotations

from dataclasses import dataclass

#: What a unit is taken to need in nanoseconds as long as nothing is known: the price of code that is not compiled.
_FIRST_COST = 20.0
#: The price of units does not rise by a period in which fewer were used: a turn as such takes more.
_LEAST_UNITS = 1_000
#: A turn as such takes up to a millisecond. So whose part is small waits for some periods, and has a longer turn then.
_LEAST_NS = 5_000_000
#: A cap is changed within a period if it has turned out to be so many times too large or too small. Otherwise a domain
#: whose units have become a hundred times as expensive would owe many periods, and one in the opposite case lose one.
_FAR = 2


@dataclass
class _Part:
    part: float
    cap: int  # units of the present period
    most_ns: int  # what they are to take
    cost: float = _FIRST_COST  # nanoseconds for a unit
    used_ns: int = 0  # in the present period
    owed_ns: int = 0  # from the periods before: less than 0 if it may have more


class CoreTime:
    """Keeps what domains may use that have a part of a core's time, in periods of ``period_ns`` nanoseconds."""

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._parts: dict[str, _Part] = {}

    def set_part(self, name: str, part: float | None) -> int | None:
        """Give a domain a part of a core's time, above 0 and below 1, or no limit. Return its cap in units, for the
        present period, of which what it has used counts.
        """
        if part is None:
            self._parts.pop(name, None)
            return None
        one = self._parts.setdefault(name, _Part(part, 1, 0))
        one.part = part
        return self._set_cap(one)

    def _set_cap(self, one: _Part) -> int:
        one.most_ns = round(one.part * self._period_ns) - one.owed_ns
        if one.most_ns < _LEAST_NS:
            one.most_ns = 0 if one.owed_ns > 0 else _LEAST_NS
        one.cap = max(int(one.most_ns / one.cost), min(one.most_ns, 1))
        return one.cap

    def revised_cap(self, name: str, units: int, host_ns: int) -> int | None:
        """Note that a turn has taken ``host_ns`` of CPU time, and that the domain has used so many units of the period.
        Return its new cap for the period, or None if that is as it was.
        """
        one = self._parts.get(name)
        if one is None:
            return None
        one.used_ns += host_ns
        if one.used_ns >= _FAR * max(one.most_ns, one.part * self._period_ns):
            one.cap = min(units, one.cap)
        elif units >= one.cap and _FAR * one.used_ns < one.most_ns:  # however few: a cap of few units would stay
            one.cost = max(one.used_ns, 1) / units
            one.cap = units + int((one.most_ns - one.used_ns) / one.cost)
        else:
            return None
        return one.cap

    def next_cap(self, name: str, units: int, passed_ns: int) -> int | None:
        """Return the cap of a domain for the next period, or None if it has no part. In the last one, which lasted
        ``passed_ns``, it has used so many units.
        """
        one = self._parts.get(name)
        if one is None:
            return None
        most_kept = -one.part * self._period_ns if units >= one.cap else 0
        one.owed_ns = round(max(one.owed_ns + one.used_ns - one.part * passed_ns, most_kept))
        if units >= _LEAST_UNITS and one.used_ns:
            one.cost = one.used_ns / units
        one.used_ns = 0
        return self._set_cap(one)

    def forget(self, name: str) -> None:
        """Forget a domain that is gone."""
        self._parts.pop(name, None)
