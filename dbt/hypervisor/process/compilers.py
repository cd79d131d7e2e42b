"""Compilers for machines in processes of their own: forked from one process that has LLVM.

A machine's process cannot fork. It has a socket to this process, and sends it the ends of two pipes. What a compiler
gets by its pipe comes from a guest. It forms and lowers regions, in Python, and writes them to the cache directory.
LLVM executes in another process for each region, which is jailed, gets the text of a module and answers with an object.
So if a guest's code should take LLVM over, it can change what that very code is compiled to, and nothing else: in the
cache, a region has the words that it was made of, which the compiler says and not LLVM.
"""

from __future__ import annotations

import gc
import os
import pkgutil
import select
import signal
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Final

import dbt.backend
import dbt.frontend
from dbt.engine.compiler_process import Compiler
from dbt.engine.descriptors import is_ready, leave_all_but
from dbt.engine.worker_process import CACHE_VARIABLES, Compile, compile_with, make_compile, serve
from dbt.hypervisor.jail.measures import Policy, Strictness, enter, require
from dbt.hypervisor.jail.system_calls import COMPILER

if TYPE_CHECKING:
    from dbt.backend.compiled import CompiledRegion, Refused
    from dbt.engine.messages import CompileRequest
    from dbt.engine.mirror import CodeMirror

_ADD, _START = b"a", b"s"
_NICE: Final = 10
#: The CPU time that a region may take, in seconds, here and in LLVM; and what its object may have, in bytes.
_LONGEST_S: Final = 60.0
_LARGEST_OBJECT: Final = 16 << 20
_LARGEST_ALIGNMENT: Final = 4096


def serve_compilers(control: socket.socket, strictness: Strictness) -> None:
    """Fork a compiler for each request of the machines whose sockets come by ``control``, until that and all
    of these are closed.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for compilers
    is_loaded = False
    machines: dict[int, socket.socket] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    is_open = True
    while is_open or machines:
        for descriptor, _ in poll.poll():
            source = control if descriptor == control.fileno() else machines[descriptor]
            data, files = _received(source)
            if source is control and data:
                machine = socket.socket(fileno=files[0])
                machines[machine.fileno()] = machine
                poll.register(machine, select.POLLIN)
            elif source is control:  # no machine comes any more, and those that there are may go on
                poll.unregister(control)
                is_open = False
            elif data == _START and len(files) == 2:
                if not is_loaded:
                    _load()
                    is_loaded = True
                _fork(files, strictness)
            else:
                for file in files:
                    os.close(file)
                poll.unregister(descriptor)
                machines.pop(descriptor).close()


def _load() -> None:
    """Load LLVM, and everything that it may need later."""
    make_compile()
    for room in (dbt.backend, dbt.frontend):
        for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            import_module(module.name)
    gc.collect()
    gc.freeze()


def _received(source: socket.socket) -> tuple[bytes, list[int]]:
    try:
        data, files, _, _ = socket.recv_fds(source, 1, 2)
    except OSError:
        return b"", []
    return data, files


def _fork(files: list[int], strictness: Strictness) -> None:
    requests, results = files
    try:
        pid = os.fork()
    except OSError:  # the machine sees that its pipes are closed
        pid = -1
    if pid == 0:
        try:
            os.nice(_NICE)
            serve(requests, results, None, lambda: _compile_apart(strictness), _environment())
        finally:
            os._exit(0)
    os.close(requests)
    os.close(results)


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in CACHE_VARIABLES if name in os.environ}


def _compile_apart(strictness: Strictness) -> Compile:
    from dbt.backend.compile_region import RegionCompiler

    compile_ = compile_with(RegionCompiler(apart=lambda text, passes: compile_apart(text, passes, strictness)))

    def limited(mirror: CodeMirror, request: CompileRequest) -> CompiledRegion | Refused:
        signal.setitimer(signal.ITIMER_VIRTUAL, _LONGEST_S)  # whose signal ends the process
        try:
            return compile_(mirror, request)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    return limited


def compile_apart(text: str, passes: Iterable[str], strictness: Strictness) -> bytes:
    """Return the object that LLVM makes of a module's text, in a jailed process that ends with it. Raise NoObject."""
    from dbt.backend.compile_region import NoObject
    from dbt.backend.llvm import compile_object

    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, _LONGEST_S)  # whose signal ends the process
            leave_all_but({write})
            if strictness is not Strictness.OFF:
                require(strictness, enter(Policy(COMPILER)))
            data = compile_object(text, passes, 1)
            while data:
                data = data[os.write(write, data) :]
        finally:
            os._exit(0)
    os.close(write)
    try:
        data = _read_object(read)
    finally:
        os.close(read)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):  # the kernel does it where SIGCHLD is ignored
            os.waitpid(pid, 0)
    if not is_plausible(data):
        raise NoObject("LLVM has ended without an object" if not data else "LLVM's object is none")
    return data


def _read_object(read: int) -> bytes:
    """Return what comes by a pipe until it ends, or nothing if that is too much or takes too long."""
    data, deadline = bytearray(), time.monotonic() + 2 * _LONGEST_S
    while is_ready(read, max(deadline - time.monotonic(), 0)) and len(data) <= _LARGEST_OBJECT:
        piece = os.read(read, 1 << 20)
        if not piece:
            return bytes(data)
        data += piece
    return b""


def is_plausible(data: bytes) -> bool:
    """Return True if linking an object takes no more memory than the object has bytes, whoever has made it."""
    from dbt.backend.elfobject import NOBITS, sections_of

    try:
        sections = sections_of(data)
    except ValueError:
        return False
    sizes = [section.size for section in sections if section.type != NOBITS]
    return (
        sum(sizes) <= len(data)
        and all(section.alignment <= _LARGEST_ALIGNMENT for section in sections)
        and not any(section.size for section in sections if section.type == NOBITS)
    )


class RemoteCompiler(Compiler):
    """A compiler that another process has forked, of which this one has nothing but the pipes."""

    @classmethod
    def start(cls, forker: socket.socket) -> RemoteCompiler:
        """Ask for a compiler. Raise OSError if there is nobody who forks one."""
        requests_read, requests_write = os.pipe()
        results_read, results_write = os.pipe()
        try:
            socket.send_fds(forker, [_START], [requests_read, results_write])
        except OSError:
            os.close(requests_write)
            os.close(results_read)
            raise
        finally:
            os.close(requests_read)
            os.close(results_write)
        return cls(requests_write, results_read)

    def is_overdue(self, limit: float) -> bool:
        """See :class:`dbt.engine.compiler_process.Compiler`. Whether it had a processor is not known here."""
        return time.monotonic() - self._since > 3 * limit

    def is_starved(self, patience: float) -> bool:
        return False

    def yield_processors(self) -> None:
        self.yields = True

    def share_processors(self) -> bool:
        return True

    def let_finish(self) -> None:
        """It does what it has been asked for before it looks whether anybody is there."""

    @property
    def has_ended(self) -> bool:
        return is_ready(self._results, 0, select.POLLHUP) and not is_ready(self._results, 0, select.POLLIN)

    def end(self, grace: float = 0.0) -> int:
        with suppress(OSError):
            self.close()
        return 0


def add_machine(control: socket.socket) -> socket.socket:
    """Return the socket of a new machine to the process at the other end of ``control``."""
    ours, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(control, [_ADD], [theirs.fileno()])
    return ours
