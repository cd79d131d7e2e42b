"""Charging a guest for events, if its run is metered (:mod:`dbt.vm.meter`). In other runs all charges are 0.

- ``charge(cpu, units, least)`` takes ``units`` from what is left of the slice, so that the slice ends where the guest's
  allowance does. At least so many instructions are left to it. CpuState has the budget.
"""

from __future__ import annotations

from dbt.abi.cpu import Charged
from dbt.backend.builder import Builder, define
from dbt.backend.device_methods import now


def charge_event(f: Builder, kind: Charged, least: int) -> None:
    """Charge an event. CpuState has the budget, of which at least so much is left."""
    units = f.load_native("charges", element=kind)
    with f.when(units.ne(0), likely=False):
        f.call("charge", f.cpu, units, f.value("i64", least))


def _charge() -> Builder:
    f = define("charge", {"units": "i64", "least": "i64"}, attributes="noinline")
    f.store_native("charged", f.load_native("charged") + f["units"])
    tick, budget = now(f), f.load_native("budget")
    end = f.load_native("slice_end") - f["units"]
    end = tick.slt(end).choose(end, tick)  # no further back: Python takes it for a number without a sign
    f.store_native("slice_end", end)
    left = end - tick
    left = left.slt(f["least"]).choose(f["least"], left)
    with f.when(left.slt(budget)):
        # Budgets tell instructions apart, and the present one has another now.
        last = f.load_native("last_exception")
        f.store_native("last_exception", last.eq(budget).choose(left, last))
        f.store_native("tick_end", tick + left)
        f.store_native("budget", left)
    f.ret()
    return f


def charging_text() -> str:
    """Return the LLVM text of this module's definitions."""
    return _charge().text()
