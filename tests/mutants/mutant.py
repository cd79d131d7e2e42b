"""Making the translator wrong on purpose, and finding out whether the tests would notice.

A mutant names a function and a piece of its source text, with the text that takes its place. It runs in a forked
process of its own.
"""

from __future__ import annotations

import faulthandler
import inspect
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType, ModuleType

import pytest

from dbt.engine.region_tier import RegionTier
from tests.assembler import assemble
from tests.oracle.programs import ENTRY, SmallMachine, same_state

#: Seconds after which a program that does not end has shown the mutant. Without one it takes a second at most. They are
#: those of the processor, so that a busy machine does not make a mutant look noticed.
TIMEOUT_S = 8
#: So many times as many seconds by the clock, for one that waits without end.
_WAITS = 20


@dataclass(frozen=True, slots=True)
class Mutant:
    """``owner`` is the class or the module that ``function`` is in. ``by`` names the program that notices it soonest.

    ``old`` must be exactly once in the source of the function. ``new`` takes its place.
    """

    owner: type | ModuleType
    function: str
    old: str
    new: str
    by: str = ""

    def __str__(self) -> str:
        return f"{self.owner.__name__.rpartition('.')[2]}.{self.function}: {self.old} -> {self.new}"

    def require_source(self) -> None:
        """Fail the test if the source has outgrown the mutant."""
        if not hasattr(self.owner, self.function):
            pytest.fail(f"the source has outgrown this mutant: {self.owner.__name__} has no {self.function}")
        found = self._source().count(self.old)
        if found != 1:
            where = f"{self.owner.__name__}.{self.function}"
            pytest.fail(f"the source has outgrown this mutant: {where} has {found} times {self.old!r}")

    def apply(self) -> None:
        """Put the wrong function in the place of the right one, for as long as the process lives."""
        right = inspect.getattr_static(self.owner, self.function)
        source = self._source().replace(self.old, self.new)
        source = source.replace("super()", f"super({self.owner.__name__}, self)")
        if isinstance(right, staticmethod):
            source = source.replace("@staticmethod\n", "")
        namespace = self._right().__globals__ | {self.owner.__name__: self.owner}
        exec(source, namespace)
        wrong = namespace[self.function]
        setattr(self.owner, self.function, staticmethod(wrong) if isinstance(right, staticmethod) else wrong)
        for name, module in list(sys.modules.items()):
            if name.startswith("dbt.") and getattr(module, self.function, None) is right:
                setattr(module, self.function, wrong)  # where it was imported by name

    def _right(self) -> FunctionType:
        right = inspect.getattr_static(self.owner, self.function)
        function = right.__func__ if isinstance(right, staticmethod) else right
        assert isinstance(function, FunctionType)
        return function

    def _source(self) -> str:
        return textwrap.dedent(inspect.getsource(self._right()))


def limit_time(seconds: float) -> None:
    """Let a signal end this process after so many seconds of the processor, counted anew at each call. 0 lifts that."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, _WAITS * seconds)


def agree(source: str, kind: str, cuts: tuple[int, ...]) -> bool:
    """Whether a tier does what the threaded one does, and its compiler does not fail."""
    limit_time(TIMEOUT_S)
    machines = [SmallMachine(name, assemble(source, ENTRY)) for name in ("threaded", kind)]
    tier = machines[1].tier
    assert isinstance(tier, RegionTier)
    for count in cuts:
        for machine in machines:
            machine.advance(count)
        if tier.regions.worker.lost or not same_state(machines):
            return False
        if machines[0].ended:
            break
    tier.close()
    return True


def require_noticed(mutant: Mutant, notices: Callable[[], bool]) -> None:
    """Fail unless the source still has what the mutant changes, and ``notices`` notices the change."""
    mutant.require_source()
    assert is_noticed(mutant.apply, notices), "nothing notices this mutant"


def is_noticed(mutate: Callable[[], None], notices: Callable[[], bool]) -> bool:
    """Whether ``notices`` is true, raises, or never ends, where ``mutate`` was called before. Fail the test if that did
    not return, as where the compiler ends the process.
    """
    is_made, made = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 3
        try:
            faulthandler.disable()
            for number in (signal.SIGPROF, signal.SIGALRM):
                signal.signal(number, signal.SIG_DFL)
            mutate()
            os.write(made, b"1")
            status = 0 if notices() else 2
        finally:
            os._exit(status)
    os.close(made)
    with open(is_made, "rb") as pipe:
        could_be_made = bool(pipe.read(1))
    _, wait_status = os.waitpid(pid, 0)
    assert could_be_made, "the mutant cannot be made"
    return os.waitstatus_to_exitcode(wait_status) != 2
