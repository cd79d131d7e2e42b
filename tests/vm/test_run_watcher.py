"""A run that a debugger or a monitor watches, and that the machine's user may stop too."""

from __future__ import annotations

import pytest

from dbt import CaptureConsole, Machine, StopReason
from dbt.vm.options import TIERS, TierName
from tests.assembler import assemble


class _Stops:
    """Stops the run at once, if it is to."""

    goes_on = hears_exceptions = False

    def __init__(self, stops: bool) -> None:
        self._stops = stops

    def wants_stop(self) -> bool:
        return self._stops

    def stops_in_handler(self, kind: object) -> bool:
        return False


@pytest.mark.parametrize("tier", TIERS)
def test_an_interrupt_is_not_lost_where_the_watcher_stops_too(tier: TierName) -> None:
    with Machine(1 << 20, tier=tier, console=CaptureConsole()) as machine:
        machine.load_bytes(assemble("loop: add r0, r0, #1 ; b loop", 0x8000), base=0x8000)
        machine.interrupt()
        assert machine.run(watcher=_Stops(True)).reason is StopReason.INTERRUPTED
        assert machine.is_interrupted
        assert machine.run(100, watcher=_Stops(False)).reason is StopReason.INTERRUPTED and not machine.icount
        assert not machine.is_interrupted
        assert machine.run(100, watcher=_Stops(False)).reason is StopReason.FUEL and machine.icount == 100
