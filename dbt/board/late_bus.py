"""The bus of a board that may not have been made yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbt.abi.addresses import Gpa
    from dbt.memory.guest_memory import Bus, PrivateRegisters


class LateBus:
    """What memory has for a bus (:class:`dbt.memory.guest_memory.Bus`): each access goes to the bus of the present
    board, which ``present`` returns after making it if that has not been done.
    """

    def __init__(self, present: Callable[[], Bus]) -> None:
        self._present = present

    def covers(self, gpa: Gpa, size: int) -> bool:
        return self._present().covers(gpa, size)

    def read(self, gpa: Gpa, size: int) -> int:
        return self._present().read(gpa, size)

    def write(self, gpa: Gpa, size: int, value: int) -> None:
        self._present().write(gpa, size, value)

    def native_device(self, gpa: Gpa) -> tuple[Gpa, int, int] | None:
        return self._present().native_device(gpa)

    def private(self, number: int) -> tuple[PrivateRegisters, int] | None:
        return self._present().private(number)
