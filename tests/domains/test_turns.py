"""Turns that are broken off: nobody waits for one that has no outcome, and the host can run again."""

from __future__ import annotations

import signal
from types import FrameType

import pytest

from dbt import CaptureConsole
from dbt.hypervisor import Clock, DomainState, Host
from dbt.hypervisor.carrier import Carrier, Outcome
from dbt.hypervisor.credit import Turn
from dbt.hypervisor.turns import Turns
from dbt.vm.state import state_hash
from tests.domains.guests import boot
from tests.vm.alarms import alarms

RATE = 10_000_000


@pytest.mark.parametrize("cores", [1, 2])
def test_what_a_turn_raises_is_its_outcome(cores: int) -> None:
    def execute(turn: Turn) -> Outcome:
        raise {"a": ValueError("no"), "b": KeyboardInterrupt()}[turn.name]

    turns = Turns(cores, execute)
    turns.begin()
    for core, name in enumerate("ab"):
        turns.launch(Turn(core, core, name, 10))
    (_, failed), (_, broken_off) = turns.take(2, everything=True)
    assert (failed.reason, failed.message, failed.error) == (None, "ValueError: no", None)
    assert isinstance(broken_off.error, KeyboardInterrupt)
    turns.end()


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("where", ["before", "instead", "behind"])
def test_a_host_runs_again_after_ctrl_c_anywhere_about_a_turn(
    cores: int, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Host(cores, Clock.LOCKSTEP, RATE) as host:
        for name in ("spinner", "memory"):
            host.define(name, boot(name)).start()
        domain = host.domains["memory"]
        owner, method = (domain, "execute") if where == "instead" else (host._turns, "launch")
        real, count = getattr(owner, method), 0

        def broken_off(turn: object) -> object:
            nonlocal count
            count += 1
            if where == "behind":
                real(turn)
            if count == 3:
                raise KeyboardInterrupt
            return None if where == "behind" else real(turn)

        monkeypatch.setattr(owner, method, broken_off)
        with pytest.raises(KeyboardInterrupt):
            host.run(periods=5)
        host.run(periods=5)
        assert {one.state for one in host.domains.values()} == {DomainState.RUNNING}
        with boot("memory")(CaptureConsole()) as alone:
            alone.run(fuel=domain.icount)
            assert domain.state_hash() == state_hash(alone)


def test_ctrl_c_during_a_turn_ends_it(carrier: Carrier) -> None:
    def press(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with Host(1, carrier=carrier) as host, alarms():
        signal.signal(signal.SIGALRM, press)
        domain = host.define("memory", boot("memory"))
        domain.start()
        for _ in range(3):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(KeyboardInterrupt):
                host.run(timeout=30)
        host.run(periods=1)
        assert domain.state is DomainState.RUNNING
        with boot("memory")(CaptureConsole()) as alone:
            alone.run(fuel=domain.icount)
            assert domain.state_hash() == state_hash(alone)
