"""A machine's state on its way from one process to another: a file of its values, and the file of its RAM."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, cast

from dbt.devices.state import StateError
from dbt.hypervisor.migration.values import decode, encode
from dbt.memory.ram_image import RamImage
from dbt.snapshot.plain import NotPlain
from dbt.vm.vm_state import VmState, layout_of

if TYPE_CHECKING:
    from dbt.devices.state import State

#: The most bytes of values. A machine's are some thousand, and what its disks have changed besides.
_MOST: Final = 1 << 30
#: The most bytes of values that go in a message, and not in a file.
_IN_MESSAGE: Final = 1 << 20


def memory_file(data: bytes) -> int:
    """Return the descriptor of a file in memory with these bytes. The caller closes it."""
    file = os.memfd_create("dbt-values", os.MFD_CLOEXEC)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(file, left) :]
    except BaseException:
        os.close(file)
        raise
    return file


def carried(values: bytes) -> tuple[bytes, list[int]]:
    """Return values as a message has them, and the files that come with it, which the caller closes. Somebody waits,
    and few machines have so many that they need a file.
    """
    return (values, []) if len(values) <= _IN_MESSAGE else (b"", [memory_file(values)])


def uncarried(values: bytes, files: list[int]) -> bytes:
    """Return the values of a message, and take the first of the files that came with it if they are in one. Raise
    StateError for a file that has none, and OSError.
    """
    return values or content_of(files.pop(0))


class StateEncoder:
    """Encodes states. The last one is not encoded again: it may be the template of many machines."""

    def __init__(self) -> None:
        self._last: tuple[State, bytes] | None = None

    def files(self, state: VmState) -> tuple[int, int]:
        """Return what :func:`state_files` does."""
        last = self._last
        if last is None or last[0] is not state.values:
            last = self._last = state.values, encode(state.values)
        return state_files(state, last[1])


def state_files(state: VmState, encoded: bytes | None = None) -> tuple[int, int]:
    """Return the descriptors of two files in memory, with the values and with the RAM. The caller closes them.
    ``encoded`` are the values, if they have been encoded.
    """
    values = memory_file(encode(state.values) if encoded is None else encoded)
    try:
        return values, state.ram.descriptor()
    except BaseException:
        os.close(values)
        raise


def received_state(values: int, ram: int, parts: list[tuple[int, int]] | None = None) -> VmState:
    """Return the state in two files from another process, whose descriptors are closed. ``parts`` are those of RAM that
    are not zero, if that is known. Raise StateError for what is none.
    """
    try:
        decoded = decode(content_of(values))
        if not isinstance(decoded, dict):
            raise StateError("the values of the state are no mapping")
        layout = layout_of(cast("State", decoded))
    except (NotPlain, OSError, StateError) as error:
        os.close(ram)
        raise StateError(f"the state from another process is none: {error}") from None
    try:
        return VmState(cast("State", decoded), RamImage.received(layout, ram, parts))
    except ValueError as error:
        raise StateError(f"the RAM from another process cannot be used: {error}") from None


def content_of(handle: int) -> bytes:
    """Return what is in a file, which somebody may change meanwhile, and close it. Raise StateError for a file that is
    no state's, and OSError.
    """
    try:
        size = os.fstat(handle).st_size
        if not 0 < size <= _MOST:
            raise StateError(f"its values have {size} bytes, and not 1 to {_MOST}")
        data = b""
        while len(data) < size and (piece := os.pread(handle, size - len(data), len(data))):
            data += piece
        return data
    finally:
        os.close(handle)
