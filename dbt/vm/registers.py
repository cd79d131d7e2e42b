"""The registers of a machine, for its user."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import overload

from dbt.abi.cpu import CpuState

_COUNT = 16


class Registers(Sequence[int]):
    """R0 to R15 of the current mode, as unsigned 32-bit numbers to read and to write.

    Each access raises RuntimeError if the machine may not be used now, so the object can be kept for any time.
    """

    def __init__(self, cpu: CpuState, check: Callable[[], None]) -> None:
        self._cpu = cpu
        self._check = check

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        self._check()
        if isinstance(index, slice):
            return self._cpu.r.tolist()[index]
        return self._cpu.r[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._check()
        if not 0 <= value <= 0xFFFFFFFF:
            raise ValueError(f"{value:#x} does not fit into a register: give an unsigned 32-bit number")
        self._cpu.r[index] = value

    def __len__(self) -> int:
        return _COUNT

    def __iter__(self) -> Iterator[int]:
        self._check()
        return iter(self._cpu.r.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"[{', '.join(f'{value:#x}' for value in self)}]"
