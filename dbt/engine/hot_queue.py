"""The queue of hot code for which the compiler has not been asked yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt.abi.addresses import Gpa

if TYPE_CHECKING:
    from dbt.engine.messages import CompileRequest

#: Code that has not been hot again for so many retired instructions is no longer worth a region. Should it become hot
#: once more, it is asked for once more.
COLD_AFTER = 100_000_000


class HotCode:
    """``request`` is what the compiler is to be asked for. It was made when the code became hot, because later the
    guest may be in another address space, or at its end. ``heat`` is how often the code has become hot, the last time
    when ``last`` instructions had been retired. ``is_very_hot``: it is worth a region even if another region has it
    too.
    """

    def __init__(self, request: CompileRequest, heat: int, last: int, is_very_hot: bool = False) -> None:
        self.request = request
        self.gpa = request.gpa
        self.heat = heat
        self.last = last
        self.is_very_hot = is_very_hot


class HotQueue:
    """The code that waits, by physical address. The argument ``now`` is the number of instructions retired so far.

    Code that was hot most often comes first. Among equals, which is nearly all, the most recent comes first, because it
    is most likely to be executed still when its region is ready. The order depends on the guest's instructions alone.
    """

    def __init__(self) -> None:
        self._waiting: dict[Gpa, HotCode] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, gpa: Gpa) -> bool:
        return gpa in self._waiting

    def add(self, request: CompileRequest, now: int, is_very_hot: bool = False) -> None:
        """Add code that has become hot and does not wait yet."""
        self._waiting[request.gpa] = HotCode(request, 1, now, is_very_hot)

    def heat(self, gpa: Gpa, now: int) -> None:
        """Note that code has become hot again, if it waits."""
        code = self._waiting.get(gpa)
        if code is not None:
            code.heat += 1
            code.last = now

    def take(self) -> HotCode:
        """Remove and return the code that comes first."""
        code = max(self._waiting.values(), key=lambda code: (code.heat, code.last))
        del self._waiting[code.gpa]
        return code

    def in_order(self) -> list[HotCode]:
        """Return the code in the order in which :meth:`take` would, and keep it."""
        return sorted(self._waiting.values(), key=lambda code: (code.heat, code.last), reverse=True)

    def drop_cold(self, now: int) -> list[Gpa]:
        """Remove code that has not been hot lately, and return its addresses."""
        cold = [gpa for gpa, code in self._waiting.items() if now - code.last > COLD_AFTER]
        for gpa in cold:
            del self._waiting[gpa]
        return cold
