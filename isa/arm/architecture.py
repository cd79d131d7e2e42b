"""What every ARM instruction set shares and other rooms look up by name: callouts and routines, all of them."""

from isa.arm import callouts, exceptions, vmsa
from isa.arm.recorder import CALLOUTS, ROUTINES

__all__ = ["CALLOUTS", "CALLOUT_NUMBERS", "ROUTINES"]

_MODULES = (callouts, exceptions, vmsa)

#: The position of each callout, for counters.
CALLOUT_NUMBERS = {name: number for number, name in enumerate(CALLOUTS)}
