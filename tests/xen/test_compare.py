"""The comparison with the real Xen: what it calls a difference. It is run by hand, and by the tests of Linux."""

from __future__ import annotations

from tests.xen.compare_xen import EXPECTED, differing_calls, differing_lines, is_expected
from tests.xen.probe import CALLS


def test_numbers_and_times_are_no_difference() -> None:
    mine = ["[    0.0] Memory: 91640K free at 0x40000000", "[    1.5] xen:events: Using FIFO-based ABI", "new"]
    theirs = ["[   10.0] Memory: 77K free at 0x48000000", "[    2.5] xen:events: Using 2-level ABI", "[   3.0] old"]
    only_here, only_there, same = differing_lines(mine, theirs)
    assert (only_here, only_there, same) == ([mine[1], "new"], theirs[1:], 1)


def test_what_may_differ_is_listed() -> None:
    assert is_expected("[    0.041725] VFP support v0.3: not present") and is_expected("dbt: the guest has ended")
    assert not is_expected("[    0.050070] xen:events: Using 2-level ABI")
    assert not any(is_expected(line) for line in ("Xen 4.17 support found", "Grant table initialized", ""))
    assert all(EXPECTED.values())


def test_a_call_that_is_answered_otherwise_is_named() -> None:
    words = ["00000000"] * sum(1 + call.shown for call in CALLS)
    assert differing_calls(words, words) == []
    (found,) = differing_calls(words, [*words[:-1], "fffffff2"])
    assert found.startswith(f"call {len(CALLS) - 1}") and found.endswith("00000000, and in Xen fffffff2")
