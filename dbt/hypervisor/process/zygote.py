"""The process from which those of machines are forked. It has imported everything, and has one thread and no guest.

A fork takes a few milliseconds, and what the zygote has in memory is shared until somebody writes to it: objects are
frozen (:func:`gc.freeze`), so that the garbage collector does not.
"""

from __future__ import annotations

import gc
import os
import pkgutil
import signal
import socket
import sys
import time
from array import array
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from dbt.hypervisor.jail.measures import Strictness
from dbt.hypervisor.process import messages as say
from dbt.hypervisor.process.channel import Channel, ChannelEnded, Late
from dbt.hypervisor.process.compilers import add_machine

if TYPE_CHECKING:
    from dbt.engine.native import NativeCode
    from dbt.hypervisor.process.originals import Originals
    from dbt.vm.machine import Machine

#: Objects that fill gaps: of each size up to what Python allocates by itself, so many bytes. An object has a header.
_STEP, _LARGEST, _HEADER, _GAPS = 16, 512, 33, 256 << 10
_FILLING: Final[list[object]] = []
#: How often what a process does is done before the fork, and the guest for it: mcr p15, 0, r0, c7, c0, 4; b .-4
_WARM_UPS: Final = 12
_WAIT: Final = bytes.fromhex("900f07ee fdffffea")
_VIRT_RAM: Final = 0x40000000
#: How many seconds nobody may ask for anything, before a zygote that hurries settles.
_SETTLES_AFTER_S: Final = 1.0
#: How many seconds after the start of a machine the process of the next one is forked: that one executes meanwhile.
_AHEAD_AFTER_S: Final = 0.05
#: How long that one may take to answer, in seconds, before another one is forked.
_ANSWER_S: Final = 0.2
#: How long a process whose machine is lost may take to end by itself, in seconds.
_GRACE_S: Final = 0.2
#: What machines import when they need it, which they cannot any more in their jails: all modules of these rooms, and
#: some others.
_ROOMS: Final = (
    "isa.ir",
    "isa.arm",
    "isa.arm.a32",
    "dbt.abi",
    "dbt.board",
    "dbt.codecache",
    "dbt.devices",
    "dbt.devices.virtio",
    "dbt.engine",
    "dbt.frontend",
    "dbt.host",
    "dbt.host.ninep",
    "dbt.hypervisor.jail",
    "dbt.hypervisor.xen",
    "dbt.hypervisor.xen.back_ends",
    "dbt.hypervisor.xen.store",
    "dbt.inspector",
    "dbt.memory",
    "dbt.vm",
)
_PRELOADED: Final = (
    "calendar",
    "capstone.arm",
    "dbt.hypervisor.process.alone",
    "dbt.hypervisor.process.vm_process",
    "dbt.snapshot.plain",
    "hashlib",
    "traceback",
    "zstandard",
)


def main(hurries: bool = False) -> None:
    """Serve the host at standard input, which is a socket, until it is gone.

    ``hurries``: begin before the host says what else machines need, and have the first one soon: see :class:`Zygote`.
    """
    connection = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.setsid()  # Ctrl-C at the host's terminal is the host's
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    zygote = Zygote(Channel(connection, say.ToZygote), hurries)
    with suppress(ChannelEnded):
        zygote.serve()
    zygote.close()
    os._exit(0)


class Zygote:
    """What machines' processes are forked from. Before that it *settles*: it puts its memory in order, so that they
    share as much of it as possible, which takes a third of a second.

    With ``hurries``, the process of the first machine may be forked before. It has more memory for itself than others.
    """

    def __init__(self, channel: Channel[say.ToZygote], hurries: bool) -> None:
        self._channel, self._hurries = channel, hurries
        self._strictness = Strictness.ON
        self._native: NativeCode | None = None
        self._originals: Originals | None = None
        self._compilers: CompilersProcess | None = None
        self._early_compilers: CompilersProcess | None = None
        self._has_spawned = False
        self._ahead: Ahead | None = None
        self._copied = array("Q")  # address and size of what processes write to that are forked ahead, in turn
        if hurries:
            self._import()

    def serve(self) -> None:
        """Do what the host asks. Raise ChannelEnded when it is gone."""
        channel = self._channel
        while True:
            if self._native is not None and self._originals is None and not channel.has_data(_SETTLES_AFTER_S):
                self._settle()
            if self._copied and self._ahead is None and not channel.has_data(_AHEAD_AFTER_S):
                self._ahead = self._fork_ahead()
            match channel.receive():
                case say.Preload(path, modules, jail):
                    sys.path[:] = path
                    self._strictness = Strictness(jail)
                    self._preload(modules)
                    channel.send(say.Ready())
                case say.Spawn() as message:
                    self._get_ready()  # while the machine's socket is the channel's, which those that are forked close
                    (file,) = channel.take_files(1)
                    channel.send(self._spawned(message, file))
                case say.Model():
                    channel.send(_tried(self._take_model, *channel.take_files(1)))
                case say.HaveCode():
                    channel.send(_tried(self._have_code, *channel.take_files(1)))
                case say.ForkAhead():
                    channel.send(_tried(self._begin_ahead, *channel.take_files(1)))
                case say.Reap(pid):
                    channel.send(say.Reaped(_reap(pid)))
                    if self._early_compilers is not None and self._early_compilers.has_ended:
                        self._early_compilers = None

    def close(self) -> None:
        if self._native is not None:
            self._native.close()

    def _import(self) -> NativeCode:
        """Import what machines need, and load the handlers' image, which they share. Return the image."""
        _import_for_machines()
        from dbt.engine.native import NativeCode

        self._native = NativeCode.share(lambda line: None)
        self._native.share_initial_ops()
        return self._native

    def _preload(self, modules: Iterable[str]) -> None:
        """Import what else machines need."""
        if self._native is None:
            self._import()
        for name in modules:
            import_module(name)
        if self._hurries:
            gc.freeze()
        else:
            self._settle()

    def _settle(self) -> None:
        """Put memory in order, and remember what it is then."""
        assert self._native is not None
        for _ in range(_WARM_UPS):
            _warm_up()
        from dbt.hypervisor.process.originals import Originals

        gc.unfreeze()
        gc.collect()
        _fill_gaps()
        gc.freeze()
        self._originals = Originals(self._native)
        if self._compilers is not None:  # which have the old memory, until the first machine has ended
            self._compilers.control.close()
            self._early_compilers, self._compilers = self._compilers, None

    def _get_ready(self) -> None:
        """Settle before the second machine, and have the process that forks compilers."""
        if self._originals is None and self._has_spawned:
            self._settle()
        self._has_spawned = True
        if self._compilers is None:
            self._compilers = self._fork_compilers()

    def _spawned(self, message: say.Spawn, file: int) -> say.FromZygote:
        """Have the process of a machine, and return the answer. ``file`` is its socket."""
        try:
            ahead, self._ahead = self._ahead, None
            if ahead is not None and ahead.begin(message, file):
                return say.Spawned(ahead.pid)
            return say.Spawned(self._fork(lambda compiler: self._be_machine(message, file, compiler)))
        except OSError as error:
            return say.Failed(OSError.__name__, str(error))
        finally:
            os.close(file)

    def _fork(self, be_machine: Callable[[socket.socket], None]) -> int:
        """Fork the process of a machine, which gets the socket to what forks compilers. Raise OSError."""
        assert self._compilers is not None
        with add_machine(self._compilers.control) as compiler:
            pid = os.fork()
            if pid == 0:
                self._be_forked(be_machine, compiler)
        return pid

    def _be_forked(self, be_machine: Callable[[socket.socket], None], compiler: socket.socket) -> NoReturn:
        status = 1
        try:
            self._channel.close()
            assert self._compilers is not None
            self._compilers.control.close()
            be_machine(compiler)
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)

    def _be_machine(self, message: say.Spawn, file: int, compiler: socket.socket) -> None:
        from dbt.hypervisor.process.vm_process import run

        run(socket.socket(fileno=file), message, compiler, self._originals)

    def _fork_ahead(self) -> Ahead | None:
        """Fork the process of the next machine, or return None if the host refuses. It is asked for again then."""
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            return None

        def be_ahead(compiler: socket.socket) -> None:
            ours.close()
            self._ordered.copy_pages(self._copied)
            channel: Channel[say.ToZygote] = Channel(theirs, say.ToZygote)
            with suppress(ChannelEnded):
                message = channel.receive()
                assert isinstance(message, say.Spawn)
                (file,) = channel.take_files(1)
                channel.send(say.Ready())
                channel.close()
                self._be_machine(message, file, compiler)

        with theirs:
            try:
                return Ahead(self._fork(be_ahead), Channel(ours, say.FromZygote))
            except OSError:
                ours.close()
                return None

    def _drop_ahead(self) -> None:
        """End the process of the next machine, because later ones have more."""
        if self._ahead is not None:
            self._ahead.end()
            self._ahead = None

    def _take_model(self, file: int) -> None:
        """Have a model, whose file is closed. Raise ValueError or OSError."""
        try:
            self._ordered.take_model(file)
            self._drop_ahead()
        finally:
            os.close(file)

    def _begin_ahead(self, file: int) -> None:
        """Fork processes ahead, which copy what is in a file. It is closed. Raise ValueError or OSError."""
        try:
            self._copied = self._ordered.copied_ahead(file)
            self._drop_ahead()
        finally:
            os.close(file)

    @property
    def _ordered(self) -> Originals:
        """The memory that is in order. Raise ValueError if it is not yet."""
        if self._originals is None:
            raise ValueError("the zygote has not put its memory in order, so nothing is equal to a model")
        return self._originals

    def _have_code(self, file: int) -> None:
        """Have the code of a model for machines that are forked from now on. Raise ValueError or OSError."""
        from dbt.engine.warm_code import WarmCode

        assert self._native is not None
        try:
            if self._native.warm_code is not None:
                raise ValueError("there is the code of a model already")
            self._native.warm_code = WarmCode(file)
            self._drop_ahead()
        except BaseException:
            os.close(file)
            raise

    def _fork_compilers(self) -> CompilersProcess:
        """Fork the process that forks compilers."""
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            try:
                self._channel.close()
                ours.close()
                from dbt.hypervisor.process.compilers import serve_compilers

                serve_compilers(theirs, self._strictness)
            finally:
                os._exit(0)
        theirs.close()
        return CompilersProcess(pid, ours)


class Ahead(NamedTuple):
    """The process of the next machine, which nobody has asked for yet, and the channel at which it hears of that."""

    pid: int
    channel: Channel[say.FromZygote]

    def begin(self, message: say.Spawn, file: int) -> bool:
        """Let it be the process of a machine. Return False, and end it, if it does not answer."""
        try:
            self.channel.send(message, [file])
            self.channel.receive(time.monotonic() + _ANSWER_S)
        except (ChannelEnded, Late):
            self.end()
            return False
        self.channel.close()
        return True

    def end(self) -> None:
        self.channel.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class CompilersProcess(NamedTuple):
    """The process that forks compilers, and the socket at which it hears of machines. It ends with the last of them
    after that was closed.
    """

    pid: int
    control: socket.socket

    @property
    def has_ended(self) -> bool:
        return os.waitpid(self.pid, os.WNOHANG)[0] != 0


def _import_for_machines() -> None:
    for name in _PRELOADED:
        import_module(name)
    for room in _ROOMS:
        for module in pkgutil.iter_modules(import_module(room).__path__, f"{room}."):
            import_module(module.name)


def _fill_gaps() -> None:
    """Fill the gaps that freed objects have left between others. What a process allocates is then in pages of its own,
    and not in those of which each has something that is shared.
    """
    for size in range(_STEP, _LARGEST + 1, _STEP):
        _FILLING.extend(bytes(size - _HEADER) for _ in range(_GAPS // size) if size > _HEADER)
    _FILLING.extend((None,) for _ in range(20000))


def _warm_up() -> None:
    """Do once what each process of a machine does. Python writes to functions as it adapts them to how they are called,
    and to types when they are first used; what has been written before the fork stays shared.
    """
    from dbt.host.drive import Drive
    from dbt.host.net_option import NOWHERE, Net
    from dbt.host.ninep.share import Share
    from dbt.vm.machine import Machine

    with Machine(1 << 20, "stitched") as machine:
        machine.load_bytes(_WAIT, base=0, entry=0)
        _warm_up_as(machine)
    with Machine(
        1 << 20,
        "stitched",
        cpu="cortex-a15",
        board="virt",
        devices=("port", "rng"),
        drives=[Drive(""), Drive("", read_only=True)],
        nets=[Net(NOWHERE)],
        shares=[Share(None, "any")],
    ) as machine:
        machine.load_bytes(_WAIT, base=_VIRT_RAM, entry=_VIRT_RAM)
        _warm_up_as(machine)


def _warm_up_as(machine: Machine) -> None:
    """Do what the process of a machine does that is in the state of ``machine``."""
    from uuid import UUID

    from dbt.hypervisor.process.vm_process import VmProcess

    VmProcess("warm-up", UUID(int=0), None, Strictness.OFF).warm_up(machine)


def _tried(take: Callable[[int], None], file: int) -> say.FromZygote:
    """Take a file, and return the answer."""
    try:
        take(file)
    except (ValueError, OSError) as error:
        return say.Failed(type(error).__name__, str(error))
    return say.Ready()


def _reap(pid: int) -> int | None:
    """End a process, unless it ends by itself soon. Return how it has ended, or None if it is no child of this one."""
    deadline = time.monotonic() + _GRACE_S
    try:
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                ended = os.waitpid(pid, 0)
                break
            time.sleep(0.001)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(ended[1])
