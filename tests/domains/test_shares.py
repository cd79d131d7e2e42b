"""Fair shares: exact proportions, and bounds that hold."""

from __future__ import annotations

from random import Random

import pytest

from dbt.hypervisor.shares import Claim, fair_shares


def test_shares_are_exact_multiples_of_the_weights() -> None:
    assert fair_shares(100, [Claim(1, 0, 1000), Claim(2, 0, 1000), Claim(4, 0, 1000)]) == [14, 28, 56]
    assert fair_shares(100, [Claim(256, 0, 1000), Claim(512, 0, 1000), Claim(1024, 0, 1000)]) == [14, 28, 56]


def test_what_a_claim_cannot_use_is_for_the_others() -> None:
    assert fair_shares(200, [Claim(1, 0, 100), Claim(2, 0, 100), Claim(4, 0, 100)]) == [33, 66, 100]
    assert fair_shares(200, [Claim(1, 0, 10), Claim(1, 0, 100), Claim(1, 0, 500)]) == [10, 95, 95]


def test_nobody_gets_less_than_it_has() -> None:
    assert fair_shares(100, [Claim(1, 70, 1000), Claim(1, 0, 1000), Claim(1, 0, 1000)]) == [70, 15, 15]
    assert fair_shares(0, [Claim(1, 5, 5)]) == [5]


def test_without_claims_nothing_is_shared() -> None:
    assert fair_shares(100, []) == []


@pytest.mark.parametrize("seed", range(200))
def test_any_claims_are_filled_like_water(seed: int) -> None:
    """Between its bounds, each claim stands at the same level: that is what fair means here."""
    random = Random(seed)
    claims = []
    for _ in range(random.randrange(1, 9)):
        least = random.choice((0, random.randrange(1_000_000)))
        claims.append(Claim(random.randrange(1, 300), least, least + random.randrange(2_000_000)))
    capacity = sum(claim.least for claim in claims) + random.randrange(5_000_000)
    shares = fair_shares(capacity, claims)
    assert all(claim.least <= share <= claim.most for claim, share in zip(claims, shares, strict=True))
    assert sum(shares) <= capacity
    between = [(s, c) for s, c in zip(shares, claims, strict=True) if c.least < s < c.most]
    levels = {share * 10**9 // claim.weight for share, claim in between}
    assert len(levels) <= 1
    if between:
        assert capacity - sum(shares) < sum(claim.weight for claim in claims)
        share, claim = between[0]
        for other_share, other in zip(shares, claims, strict=True):
            if other_share == other.least < other.most:  # it stands above the water
                assert (other_share + other.weight) * claim.weight >= (share - claim.weight) * other.weight
            elif other_share == other.most > other.least:  # it is full
                assert other_share * claim.weight <= (share + claim.weight) * other.weight
