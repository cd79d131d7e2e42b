"""When a machine's process gives memory back, on a clock of the test's."""

from __future__ import annotations

from itertools import pairwise

from pytest import approx

from dbt.hypervisor.process.rests import FIRST_S, LONGEST_S, QUIET_S, Rests


class Clock:
    """A clock that the test advances, and a guest that waits for something every half second."""

    def __init__(self) -> None:
        self.now = 100.0
        self.rests = Rests(lambda: self.now)

    def run(self, seconds: float, used: float, every: float = 0.5) -> list[tuple[float, bool]]:
        """Let the guest use ``used`` seconds after each time ``every``. Return when there were rests, and which."""
        found, began, next_turn = [], self.now, self.now + every
        while self.now < began + seconds:
            rest = self.rests.next()
            if rest is not None and self.now + rest[0] < next_turn:
                self.now += rest[0]
                found.append((self.now - began, rest[1]))
                self.rests.rested(rest[1])
            else:
                self.now, next_turn = next_turn, next_turn + every
                self.rests.executed(used)
        return found


def test_a_guest_that_executes_nothing_rests_twice() -> None:
    clock = Clock()
    rests = clock.run(1000, 0.01, every=10_000)
    assert [when for when, _ in rests] == approx([QUIET_S, QUIET_S + FIRST_S])
    assert [deep for _, deep in rests] == [False, True]


def test_the_rests_of_an_idle_guest_become_rare() -> None:
    deep = [when for when, is_deep in Clock().run(1000, 0.001) if is_deep]
    distances = [later - earlier for earlier, later in pairwise(deep)]
    assert distances[:3] == approx([2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S], abs=1)
    assert distances == sorted(distances)
    assert distances[-1] == approx(LONGEST_S, abs=1)


def test_a_busy_guest_has_no_deep_rest_until_it_is_idle() -> None:
    clock = Clock()
    assert {deep for _, deep in clock.run(20, 0.2)} == {False}
    (first, is_deep), (second, is_second_deep) = clock.run(5, 0.001)[:2]
    assert first == approx(QUIET_S) and not is_deep
    assert second == approx(QUIET_S + FIRST_S, abs=0.5) and is_second_deep


def test_a_guest_that_never_waits_long_is_left_alone() -> None:
    assert Clock().run(100, 0.0001, every=QUIET_S / 2) == []
