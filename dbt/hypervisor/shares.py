"""Fair shares: a capacity is filled into domains like water, by weight, between what each has and what it can use."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import NamedTuple


class Claim(NamedTuple):
    """What a domain may get of a capacity: in proportion to ``weight``, not less than ``least`` and not more than
    ``most``.
    """

    weight: int
    least: int
    most: int


def fair_shares(capacity: int, claims: Sequence[Claim]) -> list[int]:
    """Return what each claim gets. Those that are not at a bound get exactly ``weight`` times the same number.

    So a few units are left over, fewer than the sum of the weights divided by what divides them all. Nothing is handed
    out beyond the capacity, unless the lower bounds together are more.
    """
    shares: dict[int, int] = {}
    open_, left = set(range(len(claims))), capacity
    while open_:
        common = gcd(*(claims[number].weight for number in open_))
        total = sum(claims[number].weight for number in open_) // common
        unit = max(left, 0) // total
        wanted = {number: claims[number].weight // common * unit for number in open_}
        above = {number for number in open_ if wanted[number] > claims[number].most}
        below = {number for number in open_ if wanted[number] < claims[number].least}
        # If more is given back than is missing, the others get more, and those above their bound stay above it.
        excess = sum(wanted[number] - claims[number].most for number in above)
        deficit = sum(claims[number].least - wanted[number] for number in below)
        settled = above if excess >= deficit and above else below
        if not settled:
            shares.update(wanted)
            break
        for number in settled:
            shares[number] = claims[number].most if number in above else claims[number].least
            left -= shares[number]
        open_ -= settled
    return [shares[number] for number in range(len(claims))]
