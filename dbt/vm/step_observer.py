"""Observers of single instructions, such as the instruction log (:mod:`dbt.debug.instruction_log`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dbt.vm.machine import Machine


class StepObserver(Protocol):
    """Is called before and after each instruction."""

    def before_step(self, machine: Machine) -> None: ...

    def after_step(self, machine: Machine, event: str) -> None:
        """``event`` names the exit that the instruction caused, such as "data abort". It is empty if there was none."""


class BoundListener:
    """A step observer, bound to the machine that it observes."""

    def __init__(self, machine: Machine, observer: StepObserver) -> None:
        self._machine, self._observer = machine, observer

    def before_step(self) -> None:
        self._observer.before_step(self._machine)

    def after_step(self, event: str) -> None:
        self._observer.after_step(self._machine, event)
