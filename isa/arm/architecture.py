"""The callouts and routines of every ARM instruction set, which other rooms look up by name."""

from isa.arm import callouts, exceptions, vmsa
from isa.arm.recorder import CALLOUTS, ROUTINES

__all__ = ["CALLOUTS", "CALLOUT_NUMBERS", "ROUTINES"]

_MODULES = (callouts, exceptions, vmsa)

#: The position of each callout, for counters.
CALLOUT_NUMBERS = {name: number for number, name in enumerate(CALLOUTS)}
