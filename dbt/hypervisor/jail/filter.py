"""The seccomp filter: a program of the kernel's, in the bytes of classic BPF (seccomp(2))."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Collection
from typing import Final

_INSTRUCTION: Final = struct.Struct("<HBBI")
_LOAD, _JUMP_EQUAL, _JUMP_LESS, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_X86_64: Final = 0xC000003E
#: The first number of the calls of another convention (x32), which are not looked at.
_X32: Final = 0x40000000
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_MMAP, _MPROTECT = 9, 10
_SECCOMP, _SET_FILTER, _ALL_THREADS = 317, 1, 1


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def filter_bytes(allowed: Collection[int]) -> bytes:
    """Return the program that allows these system calls. mmap and mprotect cannot make memory that is executable."""
    executable = {_MMAP, _MPROTECT} & set(allowed)
    plain = sorted(set(allowed) - executable)
    guarded = sorted(executable)
    # What follows the calls: refuse, the look at the protection (load, test), refuse, allow.
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, _X86_64),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_LESS, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
    ]
    count = len(plain) + len(guarded)
    for at, number in enumerate(plain + guarded):
        left = count - at - 1
        look, allow = left + 1, left + 4
        code.append((_JUMP_EQUAL, look if number in executable else allow, 0, number))
    code += [
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, _FIRST_ARGUMENT + 2 * 8),
        (_JUMP_BITS, 0, 1, mmap.PROT_EXEC),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(_INSTRUCTION.pack(*one) for one in code)


def install(allowed: Collection[int]) -> None:
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
