"""Compilers for machines in processes of their own: forked from one process that has LLVM, each in a jail of its own.

A machine's process cannot fork. It has a socket to this process, and sends it the ends of two pipes. What a compiler
gets by its pipe comes from a guest. It has no files, and answers by its other pipe only.
"""

from __future__ import annotations

import gc
import os
import pkgutil
import select
import signal
import socket
import time
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Final

import dbt.backend
import dbt.frontend
from dbt.engine.compiler_process import Compiler
from dbt.engine.descriptors import is_ready
from dbt.engine.worker_process import Compile, make_compile, serve
from dbt.hypervisor.jail.measures import Policy, Strictness, enter, require
from dbt.hypervisor.jail.system_calls import COMPILER

if TYPE_CHECKING:
    from dbt.backend.compiled import CompiledRegion, Refused
    from dbt.engine.messages import CompileRequest
    from dbt.engine.mirror import CodeMirror

_ADD, _START = b"a", b"s"
_NICE: Final = 10
#: The CPU time that a region may take, in seconds.
_LONGEST_S: Final = 60.0


def serve_compilers(control: socket.socket, strictness: Strictness) -> None:
    """Fork a compiler for each request of the machines whose sockets come by ``control``, until that and all
    of these are closed.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for compilers
    compile_: Compile | None = None
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
                compile_ = compile_ or _made()
                _fork(files, compile_, strictness)
            else:
                for file in files:
                    os.close(file)
                poll.unregister(descriptor)
                machines.pop(descriptor).close()


def _made() -> Compile:
    """Load LLVM, and everything that it may need later."""
    compile_ = make_compile()
    for room in (dbt.backend, dbt.frontend):
        for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            import_module(module.name)
    gc.collect()
    gc.freeze()
    return compile_


def _received(source: socket.socket) -> tuple[bytes, list[int]]:
    try:
        data, files, _, _ = socket.recv_fds(source, 1, 2)
    except OSError:
        return b"", []
    return data, files


def _fork(files: list[int], compile_: Compile, strictness: Strictness) -> None:
    requests, results = files
    try:
        pid = os.fork()
    except OSError:  # the machine sees that its pipes are closed
        pid = -1
    if pid == 0:
        try:
            os.nice(_NICE)
            serve(requests, results, None, lambda: _jailed(compile_, strictness))
        finally:
            os._exit(0)
    os.close(requests)
    os.close(results)


def _jailed(compile_: Compile, strictness: Strictness) -> Compile:
    """Enter the jail of a compiler, for ever, and return ``compile_`` with a limit of CPU time."""
    if strictness is not Strictness.OFF:
        require(strictness, enter(Policy(COMPILER)))

    def limited(mirror: CodeMirror, request: CompileRequest) -> CompiledRegion | Refused:
        signal.setitimer(signal.ITIMER_VIRTUAL, _LONGEST_S)  # whose signal ends the process
        try:
            return compile_(mirror, request)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    return limited


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
