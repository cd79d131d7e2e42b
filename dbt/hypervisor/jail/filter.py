"""The seccomp filter: a program of the kernel's, in the bytes of classic BPF (seccomp(2))."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from typing import Final

from dbt.hypervisor.jail.system_calls import Only, SystemCall

_INSTRUCTION: Final = struct.Struct("<HBBI")
_LOAD, _JUMP_EQUAL, _JUMP_LESS, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_X86_64: Final = 0xC000003E
#: The first number of the calls of another convention (x32), which are not looked at.
_X32: Final = 0x40000000
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_SECCOMP, _SET_FILTER, _ALL_THREADS = 317, 1, 1


#: A kind of instruction, how many follow that are left out if its test holds and if not, and its number.
_Code = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def filter_bytes(allowed: Iterable[SystemCall]) -> bytes:
    """Return the program that allows these system calls, each with the arguments that it may have."""
    calls = list(allowed)
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, _X86_64),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_LESS, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
        *_allowed_if(call.number for call in calls if call.only is None),
    ]
    for call in calls:
        if call.only is not None:
            block = _look_at_argument(call.only)
            code += [(_JUMP_EQUAL, 0, len(block), call.number), *block]
    code.append((_RETURN, 0, 0, _REFUSE))
    return b"".join(_INSTRUCTION.pack(*one) for one in code)


def _allowed_if(values: Iterable[int]) -> list[_Code]:
    """Return code that allows the call if what has been loaded is one of these values, and goes on if not."""
    return [one for value in values for one in ((_JUMP_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW))]


def _look_at_argument(only: Only) -> list[_Code]:
    """Return code that allows or refuses a call by the lower half of one of its arguments, which is all of an int."""
    bits = [(_JUMP_BITS, 1, 0, only.without), (_RETURN, 0, 0, _ALLOW)] if only.without else []
    load = (_LOAD, 0, 0, _FIRST_ARGUMENT + 8 * only.argument)
    return [load, *_allowed_if(only.values), *bits, (_RETURN, 0, 0, _REFUSE)]


def install(allowed: Iterable[SystemCall]) -> None:
    """Let this process, with all of its threads, make these system calls only, from now on. It cannot be undone.

    Raise OSError if the host refuses. Precondition: :func:`dbt.hypervisor.jail.measures.give_up_privileges`.
    """
    code = filter_bytes(allowed)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // _INSTRUCTION.size, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_SECCOMP, _SET_FILTER, _ALL_THREADS, ctypes.byref(program)):
        error = ctypes.get_errno()
        raise OSError(error, f"a seccomp filter: {os.strerror(error)}")
