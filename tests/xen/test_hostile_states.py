"""Saved states of a domain that no domain has got to: they are refused, or do no harm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dbt.board.timeline import Event
from dbt.devices.state import StateError
from tests.xen.attackers import host_of
from tests.xen.front_ends import SECOND
from tests.xen.fuzz_states import Served, attack
from tests.xen.guests import Caller, domain_machine
from tests.xen.pairs import sleepers
from tests.xen.pv import minios
from tests.xen.store_client import Client

#: As large as a number of a state can be, and so large that it cannot grow.
_LARGEST = (1 << 63) - 1


def _server(state: Any) -> Any:
    return state["store"][0]["server"][0]


@pytest.mark.parametrize(
    "change",
    [
        lambda state: _server(state).update(watches=[b"//\0token\0"]),
        lambda state: _server(state).update(watches=[b"\xff\0token\0"]),
        lambda state: _server(state).update(watches=[b"data\0" + b"t" * 4096 + b"\0"]),
        lambda state: _server(state)["tree"][0].update(generation=_LARGEST),
        lambda state: state["console"][0].update(arrived=_LARGEST),
        lambda state: state["processor"][0].update(stolen=_LARGEST),
        lambda state: state["processor"][0].update(blocked=_LARGEST),
        lambda state: state["processor"][0].update(blocked_since=_LARGEST),
    ],
)
def test_what_no_domain_has(change: Callable[[Any], None]) -> None:
    with domain_machine() as machine:
        client = Client(Caller(machine))
        domain = client.caller.domain
        state: Any = domain.save()
        domain.restore(state)
        change(state)
        with pytest.raises(StateError):
            domain.restore(state)


@pytest.mark.parametrize("change", [{"period": _LARGEST}, {"next": _LARGEST}])
def test_a_timer_that_no_kernel_sets(change: dict[str, int]) -> None:
    with minios(tier="threaded") as machine:
        machine.run(fuel=1_000_000)
        domain = machine.board.hypervisor
        assert domain is not None
        state: Any = domain.save()
        assert state["pv"][0]["period"]
        state["pv"][0].update(change)
        with pytest.raises(StateError):
            domain.restore(state)


def test_an_alarm_for_no_message() -> None:
    """The back end has nothing to answer then, and answers the next message."""
    made = Served()
    board = made.bench.board
    state = board.save()
    board.restore(state._replace(events=[Event("Xen", "9pfs 0", made.bench.time.tick + 5, 0)]))
    made.bench.time.advance(SECOND)
    made.pairs[0].send(b"\x0b\0\0\0\x78\1\0\2\0\0\0")
    assert made.pairs[0].take() == b"\7\0\0\0\x79\1\0"
    made.bench.close()


def test_a_domain_that_owns_the_root_ends() -> None:
    """The root stays, and is nobody's: the next domain of this number does not have it."""
    cluster = sleepers(2)
    first, second = (Client(Caller(cluster[f"domain {number}"].machine)) for number in (1, 2))
    host = host_of(cluster)
    host.tree.set_permissions(0, "/", b"n1\0r2\0")
    assert first.ask(11, b"/mine\0value") == b"OK\0"
    host.leave(1)
    assert host.tree.permissions["/"] == b"n0\0" and "/mine" not in host.tree.values
    assert second.ask(1, b"/\0") == b"EACCES\0"


@pytest.mark.parametrize("first", range(0, 30, 15))
def test_random_changes(first: int) -> None:
    taken = [attack(seed) for seed in range(first, first + 15)]
    assert any(taken)
