"""The machine: a virtual CPU, RAM, the board's devices and semihosting, as one object to build, run and close."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dbt.board import clock
from dbt.engine.observer import MEASURING, NOBODY, Observer, Several
from dbt.engine.tier import JitMode
from dbt.frontend.optimizations import ALL, Optimizations
from dbt.host.console import Console, HostConsole
from dbt.memory.ram import RamRegion
from dbt.vm.controlled_machine import ControlledMachine
from dbt.vm.options import (
    DEFAULT_MEMORY,
    JIT_MODES,
    TIERS,
    MachineOptions,
    TierFactory,
    TierName,
    check_limits,
    check_receivers,
    path_text,
    silent,
)
from dbt.vm.parts import build_parts
from dbt.vm.result import RunResult
from dbt.vm.step_observer import BoundListener, StepObserver

if TYPE_CHECKING:
    from os import PathLike
    from types import TracebackType
    from typing import Self, Unpack

    from dbt.devices.state import State
    from dbt.host.drive import Drive
    from dbt.host.net_option import Net
    from dbt.host.ninep.share import Share
    from dbt.host.vsock_option import Vsock
    from dbt.memory.ram_image import RamSource
    from dbt.vm.guest import Guest
    from dbt.vm.identity import Identity
    from dbt.vm.options import HostOptions
    from dbt.vm.run_watcher import RunWatcher
    from dbt.vm.state import Same
    from dbt.vm.vm_state import VmState

#: Why a machine that has not claimed its disks and networks does not run.
_UNCLAIMED = "another machine still has the disks and networks of this machine, which cannot run before it claims them"
__all__ = ["DEFAULT_MEMORY", "JIT_MODES", "TIERS", "JitMode", "Machine", "StepObserver", "TierName"]


class Machine(ControlledMachine):
    """One virtual ARM machine.

    - ``memory``: the size of its RAM in bytes, a multiple of 4096, from where the board has RAM; or the regions of its
      RAM.
    - ``tier``: what executes its code, as the name of a tier or as a function that makes one.
    - ``files``: the directory whose files the guest may open by semihosting. None means that there are no files.
    - ``console``: the other end of its UART and of semihosting. The default is the process's standard streams.
    - ``epoch``: the time of day at the start of the guest, in seconds since 1970.
    - ``notice``: is called with what the user should know, one line at a time.
    - ``jit``: how the tier "auto" compiles hot regions: "async" beside the guest, "sync" in line, or "off".
    - ``optimizations``: which optimizations the tier "auto" uses.
    - ``dump``: a directory to which the stages of every compiled region are written (:mod:`dbt.backend.dump`). Regions
      in the cache directory are not used then.
    - ``cpu``: the model of the processor. By default a program has "any" and a kernel "arm926",
      and both have "cortex-a15" on the board "virt".
    - ``semihosting``: whether SVC 0x123456 reaches the host. By default it does for a program. It does not for a
      kernel, because any process of the kernel could use it.
    - ``realtime``: whether guest idle time passes in real time, and the guest's time is never slower than the host's.
      Otherwise virtual time depends on the program alone, and jumps to the next event while the guest waits.
    - ``insn_ns``: the time that an instruction takes for the guest, in nanoseconds: a divisor of 1000, or
      0.5, 0.2 or 0.1.
    - ``measures``: whether ``retired`` tells apart what stitched code and what the handlers executed. Stitched code
      counts its instructions then, which takes a little time.
    - ``observer``: is told what the translator does (:mod:`dbt.trace`).
    - ``board``: "versatile", a Versatile/PB with RAM from address 0 on, or "virt", QEMU's board of that name, with RAM
      from 0x40000000 on, or "xen", a domain of Xen (:mod:`dbt.hypervisor.xen`). By default it is the one of the
      processor: "cortex-a15" and "cortex-a7" have "virt".
    - ``rng_seed``: what the random numbers follow from that the board gives to a kernel, and those of the device "rng".
    - ``devices``: the names of virtio devices that the machine has: "rng" is a source of random numbers,
      "balloon" takes memory back, and "console" gets the console's input in place of the UART. "port" gets it too, and
      is a stream of bytes for a program of the guest (Linux' /dev/vport0p0); what the UART sends goes to the console's
      ``write_error`` then.
    - ``drives``: the virtio disks (:class:`dbt.host.drive.Drive`), in the guest's order.
    - ``nets``: the virtio network cards (:class:`dbt.host.net_option.Net`).
    - ``shares``: the directories that the guest can mount by 9p (:class:`dbt.host.ninep.share.Share`).
    - ``vsock``: the socket device, by which programs of guest and host connect to each other
      (:class:`dbt.host.vsock_option.Vsock`).
    - ``xenstore``: ``unix:PATH``, where programs of the host look at the XenStore of a domain of Xen, and change it
      (:class:`dbt.host.store_socket.StoreSocket`).
    - ``claims``: whether it takes its disks and networks at once. Otherwise another machine still has them, and this
      one can run after :meth:`claim` and :meth:`permit`.

    Paths are given as text or as :class:`os.PathLike`. Raises ValueError for arguments that make no sense, TypeError
    for a path that is none, and OSError if the host has no room for the machine or ``files`` cannot be opened. If
    ``dump`` cannot be written, ``notice`` is told when the tier is made, and the guest runs without.

    After a reset the machine is in supervisor mode with interrupts masked. R0 to R12 and LR are 0, and SP is the end of
    RAM.

    A machine may be used by one thread at a time, in the process that made it. Any other use raises RuntimeError.
    :meth:`close`, or the end of a ``with`` block, releases every process, file descriptor and mapping at once.
    """

    def __init__(
        self,
        memory: int | Sequence[RamRegion] = DEFAULT_MEMORY,
        tier: TierName | TierFactory = "auto",
        files: str | PathLike[str] | None = None,
        console: Console | None = None,
        epoch: int = clock.DEFAULT_EPOCH,
        notice: Callable[[str], None] = silent,
        jit: JitMode = "async",
        optimizations: Optimizations = ALL,
        dump: str | PathLike[str] | None = None,
        cpu: str | None = None,
        semihosting: bool | None = None,
        realtime: bool = False,
        insn_ns: float = clock.DEFAULT_INSN_NS,
        measures: bool = False,
        observer: Observer = NOBODY,
        board: str | None = None,
        rng_seed: int = 0,
        devices: Sequence[str] = (),
        drives: Sequence[Drive] = (),
        nets: Sequence[Net] = (),
        shares: Sequence[Share] = (),
        vsock: Vsock | None = None,
        claims: bool = True,
        xenstore: str | None = None,
    ) -> None:
        jail = None if files is None else path_text("files", files)
        stages = None if dump is None else path_text("dump", dump)
        options = MachineOptions(
            memory,
            tier,
            jail,
            epoch,
            jit,
            optimizations,
            stages,
            cpu,
            semihosting,
            realtime,
            insn_ns,
            board,
            rng_seed,
            tuple(devices),
            tuple(drives),
            tuple(nets),
            tuple(shares),
            vsock,
            claims,
            xenstore,
        )
        options.check()
        check_receivers(console, notice, observer)
        console = console if console is not None else HostConsole()
        observer = Several(MEASURING, observer) if measures else observer
        super().__init__(options, build_parts(options, console, notice, observer), console, notice)
        #: The saved guest that it has loaded and for which it has been reset, if nothing has happened since.
        self._prepared_for: object = None
        if not claims:
            self._ownership.forbid(_UNCLAIMED)

    def __enter__(self) -> Machine:
        self._ownership.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release every process, file descriptor and mapping of the machine at once. A second call does nothing.

        Afterwards everything but ``icount`` and the counts raises RuntimeError.
        """
        if self._ownership.close():
            for checkpoint in list(self._checkpoints):
                checkpoint.close()
            self._parts.close()

    # -- running -------------------------------------------------------------------------------

    def run(
        self,
        fuel: int | None = None,
        timeout: float | None = None,
        trace: StepObserver | None = None,
        watcher: RunWatcher | None = None,
    ) -> RunResult:
        """Execute the guest until it exits or something stops it. Another call continues from there.

        ``fuel`` is the number of instructions after which to stop, exactly. ``timeout`` is in seconds of host time. An
        exception of a signal handler, the console or an observer is raised between two instructions, after which the
        guest can go on as well. ``watcher`` may stop the run too. Raise ValueError for a limit that is negative or no
        number.
        """
        check_limits(fuel, timeout)
        listener = None if trace is None else BoundListener(self, trace)
        return self._execute(lambda: self._parts.loop.run(self, fuel, timeout, listener, watcher))

    # -- state ---------------------------------------------------------------------------------

    def values(self) -> State:
        """Return all of the state but RAM, as plain values by name. The machine must not be running."""
        from dbt.vm.vm_state import values_of

        self._ownership.check_stopped()
        return values_of(self, self._parts, self._guest)

    def save(self) -> VmState:
        """Return the whole state as a value. Nothing changes. The machine must not be running."""
        from dbt.vm.vm_state import save

        self._ownership.check_stopped()
        return save(self, self._parts, self._guest)

    @classmethod
    def restore(cls, state: VmState, **host: Unpack[HostOptions]) -> Self:
        """Return a new machine in a saved state, which goes on as the one that was saved.

        ``host`` are the arguments of the class that are not part of the state: ``files`` must be given if the guest has
        files open. Raise StateError if it is no state that a machine can be in, or if a file that the guest has open is
        gone or has changed; otherwise as the class itself.

        A slot that was empty (:class:`dbt.host.drive.Drive`) may have a disk now. The guest hears of it at once.
        """
        return cls._restored(state.values, state.ram, host)

    @classmethod
    def _restored(cls, values: State, ram: RamSource, host: HostOptions) -> Self:
        from dbt.vm.vm_state import machine_options

        machine = cls(**machine_options(values), **host)
        try:
            machine.take_over(values, ram)
        except BaseException:
            machine.close()
            raise
        return machine

    @classmethod
    def prepared(cls, values: State, **host: Unpack[HostOptions]) -> Self:
        """Return a machine for a state that is still to come, with the tier that will execute it.

        ``values`` are those of an earlier state of the same machine (:class:`dbt.vm.vm_state.VmState`). Raise
        StateError if they are none. What is here need not be done by :meth:`take_over`, for which somebody waits.
        """
        from dbt.vm.vm_state import machine_options, prepare, rehearse

        machine = cls(**machine_options(values), **host)
        try:
            prepare(machine._parts, values, machine._become)
            machine._prepared_for = values.get("guest")
            assert machine.tier
            rehearse(machine, machine._parts)
        except BaseException:
            machine.close()
            raise
        return machine

    def take_over(self, values: State, ram: RamSource, same: Same | None = None) -> None:
        """Be in a saved state, for which this machine was made and has run nothing. ``same`` compares plain values, as
        :func:`dbt.vm.state.are_same` does.

        Raise StateError if it is no state that it can be in. It must be closed then.
        """
        from dbt.vm.state import are_same
        from dbt.vm.vm_state import restore

        same = same or are_same
        self._ownership.check_stopped()
        is_reset = self._prepared_for is not None and same(self._prepared_for, values.get("guest"))
        restore(self, self._parts, values, ram, _stay if is_reset else self._become, same)

    def fork(self, identity: Identity | None = None, **host: Unpack[HostOptions]) -> Self:
        """Return a machine in the same state, which is independent from now on. It may have another ``identity``.

        ``host`` are arguments as in :meth:`restore`; those that are not given are this machine's, but for its observer.
        Both use the same console then, so give another one unless they take turns. Pages of RAM are shared until one
        of the two stores to them. Raise StateError if a file that the guest has open cannot be opened again. The
        machine must not be running.
        """
        from dbt.memory.ram_image import forked
        from dbt.vm.vm_state import values_of

        self._ownership.check_stopped()
        arguments = self.options.of_host(self.console, self._notice)
        arguments.update(host)
        values = values_of(self, self._parts, self._guest)
        if identity is not None:
            from dbt.vm.identity import with_identity

            values = with_identity(values, identity)
            cards = zip(arguments["nets"], identity.addresses, strict=True)
            arguments["nets"] = [net._replace(mac=address) for net, address in cards]
        fork = type(self)._restored(values, forked(self.ram), arguments)
        if identity is not None:
            from dbt.vm.identity import give_seeds

            give_seeds(fork, self.options.rng_seed)
        return fork


def _stay(guest: Guest) -> None:
    """Do not load a guest that is loaded."""
