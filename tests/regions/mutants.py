"""Making the translator wrong on purpose, and finding out whether the tests would notice.

A mutant is told by the function and a piece of its source text with what takes its place; the piece must be
there exactly once, so a mutant that the source has outgrown says so. It lives in a process of its own.
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
from typing import Any

from dbt.engine.region_tier import RegionTier
from tests.assembler import assemble
from tests.regions.machines import ENTRY, SmallMachine

#: Seconds after which a program that does not come to an end has shown the mutant; others take one at most.
TIMEOUT_S = 8


@dataclass(frozen=True, slots=True)
class Mutant:
    """``owner``: the class, or the module, in which ``function`` is. ``by``: the program that notices it soonest."""

    owner: Any
    function: str
    old: str
    new: str
    by: str = ""

    def __str__(self) -> str:
        return f"{self.owner.__name__.rpartition('.')[2]}.{self.function}: {self.old} -> {self.new}"

    def apply(self) -> None:
        """Put the wrong function in the place of the right one, for as long as the process lives."""
        right = inspect.getattr_static(self.owner, self.function)
        function = right.__func__ if isinstance(right, staticmethod) else right
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count(self.old) == 1, f"{self}: found {source.count(self.old)} times"
        source = source.replace(self.old, self.new).replace("super()", f"super({self.owner.__name__}, self)")
        if isinstance(right, staticmethod):
            source = source.replace("@staticmethod\n", "")
        namespace = function.__globals__ | {self.owner.__name__: self.owner}
        exec(source, namespace)
        wrong = namespace[self.function]
        setattr(self.owner, self.function, staticmethod(wrong) if isinstance(right, staticmethod) else wrong)
        for name, module in list(sys.modules.items()):
            if name.startswith("dbt.") and getattr(module, self.function, None) is right:
                setattr(module, self.function, wrong)  # where it was imported by name


def agree(source: str, kind: str, cuts: tuple[int, ...]) -> bool:
    """Whether a tier does what the threaded one does, and its compiler does not fail."""
    signal.alarm(TIMEOUT_S)
    machines = [SmallMachine(name, assemble(source, ENTRY)) for name in ("threaded", kind)]
    tier = machines[1].tier
    assert isinstance(tier, RegionTier)
    for count in cuts:
        for machine in machines:
            machine.advance(count)
        if tier.worker_counts.lost or machines[0].digest() != machines[1].digest():
            return False
        if machines[0].ended:
            break
    tier.close()
    return True


def is_noticed(mutate: Callable[[], None], notices: Callable[[], bool]) -> bool:
    """Whether ``notices`` is true, raises, or never ends, where ``mutate`` was called before."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            faulthandler.disable()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            mutate()
            status = 3
            status = 0 if notices() else 2
        finally:
            os._exit(status)
    _, wait_status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(wait_status)
    assert code != 1, "the mutant cannot be made"
    return code != 2
