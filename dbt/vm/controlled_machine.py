"""Control of a machine by the program that has it: stopping a run, its input and time, debuggers, and going back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import get_ident
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from dbt.abi.layout import PAGE_SIZE
from dbt.board.boards import POWER_KEY, STORE
from dbt.host.console import Console
from dbt.vm.input import Arrival, InputSource
from dbt.vm.loaded_machine import LoadedMachine
from dbt.vm.options import MachineOptions, check_limits
from dbt.vm.parts import Parts

if TYPE_CHECKING:
    from dbt.host.network import Handover
    from dbt.hypervisor.xen.host import XenHost
    from dbt.memory.own_memory import OwnMemory
    from dbt.vm.attachments import DiskFailure
    from dbt.vm.checkpoint import Checkpoint
    from dbt.vm.debugged_run import RunPartner
    from dbt.vm.device_limits import DiskLimits, NetLimits
    from dbt.vm.history import History
    from dbt.vm.host_loop import TicksBehind
    from dbt.vm.metered_run import MeteredRun
    from dbt.vm.result import RunResult
    from dbt.vm.run_watcher import RunWatcher
    from dbt.vm.step_observer import StepObserver

_Result = TypeVar("_Result")
#: The receiver of what a balloon is asked for.
_BALLOON = "balloon"


class ControlledMachine(LoadedMachine, ABC):
    """What :class:`dbt.vm.machine.Machine` has for the program that controls it."""

    def __init__(self, options: MachineOptions, parts: Parts, console: Console, notice: Callable[[str], None]) -> None:
        super().__init__(options, parts)
        self.console, self._notice = console, notice
        self._checkpoints: WeakSet[Checkpoint] = WeakSet()
        self._history: History | None = None
        self._own_memory: OwnMemory | None = None

    @abstractmethod
    def run(
        self,
        fuel: int | None = None,
        timeout: float | None = None,
        trace: StepObserver | None = None,
        watcher: RunWatcher | None = None,
    ) -> RunResult:
        """See :meth:`dbt.vm.machine.Machine.run`."""

    def _execute(self, run: Callable[[], _Result]) -> _Result:
        """Return what ``run`` returns, which executes the guest: this thread alone does, and signal handlers wait."""
        signals, mark = self._parts.signals, [get_ident()]
        try:
            self._ownership.acquire(mark)
            signals.begin()
            return run()
        finally:
            if self._ownership.release(mark):  # while handlers wait, so that nothing comes in between
                signals.end()

    def step(self) -> RunResult:
        """Execute one instruction."""
        return self.run(fuel=1)

    def interrupt(self) -> None:
        """Stop the run at the end of its slice, within some milliseconds. Signal handlers and other threads may
        call it.
        """
        self._parts.loop.interrupt()

    @property
    def is_interrupted(self) -> bool:
        """True after :meth:`interrupt`, until a run has stopped for it."""
        return self._parts.loop.must_stop

    def press_power_key(self, reboots: bool = False) -> None:
        """Press the power key, which is released 100 ms of virtual time later. A domain of Xen is asked by XenStore to
        power off, or with ``reboots`` to reboot by itself. Signal handlers and other threads may call it. Raise
        ValueError if the board has no such key.

        It is input: it is recorded, and during a replay only the recorded keys are pressed.
        """
        if self.options.board_model.is_domain:
            self.write_store("control/shutdown", "reboot" if reboots else "poweroff")
            return
        if POWER_KEY not in self._parts.peripherals.board.receivers:
            raise ValueError(f"the board {self.options.board_model.name} has no power key")
        self._parts.mailbox.post(Arrival(POWER_KEY, b""))

    def ask_for_memory(self, size: int) -> None:
        """Ask the guest to have given so many bytes of its RAM back by its balloon. Signal handlers and other threads
        may call it. Raise ValueError if the board has no balloon, or for a size that it cannot have.

        It is input, as the power key is.
        """
        is_domain = self.options.board_model.is_domain
        if not is_domain and _BALLOON not in self._parts.peripherals.board.receivers:
            raise ValueError(
                "the machine has no balloon: --balloon, `balloon = true` in a definition, or devices=['balloon'] makes "
                "one with it"
            )
        pages, rest = divmod(size, PAGE_SIZE)
        if rest or not 0 <= size <= self.ram.size:
            raise ValueError(f"a balloon has a number of bytes up to {self.ram.size} in pages, and {size} is none")
        if is_domain:
            self.write_store("memory/target", str((self.ram.size - size) >> 10))
            return
        self._parts.mailbox.post(Arrival(_BALLOON, pages.to_bytes(4, "little")))

    def limit_disk(self, number: int, limits: DiskLimits) -> None:
        """Limit what the guest can do with a disk from now on, by its number. Its requests take longer then, in its
        time. The limits are a part of the state. Signal handlers and other threads may call it. Raise ValueError for
        limits that make no sense, or if there is no such disk.

        It is input, as the power key is.
        """
        self._limit("disk", number, len(self.options.drives), 0, limits)

    def limit_net(self, number: int, limits: NetLimits) -> None:
        """Limit what a network card sends and receives, as :meth:`limit_disk` does."""
        self._limit("network card", number, len(self.options.nets), len(self.options.drives), limits)

    def plug_net(self, number: int, descriptor: int) -> None:
        """Connect a network card to another end: a unix stream socket with frames as at the network unix:PATH. The
        descriptor is the machine's from now on. What was on its way at the old end is lost.
        """
        if not 0 <= number < len(self.options.nets):
            raise ValueError(f"the machine has no network card {number}: it has {len(self.options.nets)}")
        self._parts.attachments.plug(number, descriptor)

    def _limit(self, what: str, number: int, count: int, first: int, limits: DiskLimits | NetLimits) -> None:
        from dbt.devices.virtio.attached import limits_name
        from dbt.vm.device_limits import packed  # which few guests need

        if not 0 <= number < count:
            raise ValueError(f"the machine has no {what} {number}: it has {count}")
        if self.options.board_model.is_domain:
            raise ValueError(f"the {what} {number} is a domain's of Xen, and cannot be limited")
        self._parts.mailbox.post(Arrival(limits_name(first + number), packed(limits)))

    @property
    def own_memory(self) -> OwnMemory:
        """How much memory of the host its RAM has for itself. The machine must not be running when it is asked."""
        if self._own_memory is None:
            from dbt.memory.own_memory import OwnMemory  # which few guests need

            self._own_memory = OwnMemory(self.ram)
        return self._own_memory

    @property
    def given_memory(self) -> int | None:
        """The bytes of its RAM that the guest says that it has given back by its balloon, or None if it has none."""
        domain = self._parts.peripherals.board.hypervisor
        pages = self._parts.attachments.given_pages if domain is None else len(domain.reservation.holes)
        return None if pages is None else pages * PAGE_SIZE

    def take_disk_failures(self) -> Mapping[int, DiskFailure]:
        """Return the last failure of each disk that has failed since this was called, by the number of the disk. The
        machine must not be running, or the caller be a part of the run.
        """
        return self._parts.attachments.take_disk_failures()

    def write_store(self, path: str, value: str) -> None:
        """Write a node of XenStore as the toolstack does: ``control/shutdown``, of which the guest is asked to power
        off, or ``memory/target``, the KiB of RAM that it should have. Signal handlers and other threads may call it.
        Raise ValueError if the board is no domain of Xen, or for a path or a value that a node cannot have.

        It is input, as the power key is. A path that does not begin with a slash is one of the guest's own.
        """
        if STORE not in self._parts.peripherals.board.receivers:
            raise ValueError(f"the board {self.options.board_model.name} has no XenStore")
        from dbt.hypervisor.xen.store.server import Type
        from dbt.hypervisor.xen.store.tree import StoreError, check_path

        try:
            check_path(path if path.startswith(("/", "@")) else f"/{path}")
        except StoreError:
            raise ValueError(f"{path!r:.100} is no path of a node of XenStore") from None
        self._parts.mailbox.post(Arrival(STORE, bytes([Type.WRITE]) + path.encode() + b"\0" + value.encode()))

    def wait_until(self, tick: int, until_woken: bool = False) -> None:
        """Let virtual time pass up to ``tick``, as for a guest that waits in a WFI. With
        ``until_woken``, no time passes after something has come that the guest waits for.
        """
        run = [get_ident()]
        try:
            self._ownership.acquire(run)
            self._parts.loop.wait_until(tick, until_woken)
        finally:
            self._ownership.release(run)

    def run_metered(
        self,
        allowance: int,
        watcher: RunWatcher | None = None,
        ticks_behind: TicksBehind | None = None,
        fuel: int | None = None,
    ) -> MeteredRun:
        """Execute the guest until it has used its allowance, waits, exits, or something stops it.

        ``allowance`` is in instructions: those that retire, and fixed charges for other events. It never sleeps: if the
        guest waits for an interrupt, the run ends, and its time has not passed. :meth:`wait_until` lets it pass. Where
        the guest is stopped does not depend on the host's time, but for what ``watcher`` wants.

        ``fuel`` is the number of instructions that retire at most, whatever the charges are.

        ``ticks_behind`` is given the virtual time, and returns by how many ticks it is to be raised, because it is
        behind the host's clock. That is input, which is recorded.

        Raise what :meth:`dbt.vm.machine.Machine.run` raises, and ValueError for an allowance that is less than 1.
        """
        from dbt.vm.metered_run import run_metered  # which a machine that does not share its host does not need

        check_limits(fuel, None)
        if allowance < 1:
            raise ValueError(f"an allowance is a number of instructions, 1 or more, and {allowance} is none")
        return self._execute(lambda: run_metered(self, self._parts.loop, allowance, watcher, ticks_behind, fuel))

    def divert_frames(self, take: Callable[[int, Sequence[bytes]], None]) -> None:
        """Give the frames that the guest sends from now on to ``take``, with the number of the card, when the guest
        sends them. Its networks do not get them.
        """
        self._ownership.check_stopped()
        self._parts.attachments.divert_frames(take)

    def join_host(self, host: XenHost, number: int) -> None:
        """Let the machine be a domain of a host where other guests are, with a number. While it executes, no other
        machine there may, and the caller lets them stand together (:mod:`dbt.hypervisor.xen.host`).

        Raise ValueError if its board is no domain of Xen, or StateError if it was another one already.
        """
        self._ownership.check_stopped()
        self._parts.peripherals.join_host(host, number)

    def hold_frames(self) -> None:
        """Keep the frames that the guest sends, until :meth:`release_frames` lets them leave, again and again.

        So other machines that execute at the same time get them at a point that does not depend on the host's time.
        """
        self._ownership.check_stopped()
        self._parts.attachments.hold_frames()

    def release_frames(self) -> None:
        """Let the frames leave that are held, in the order in which they were sent."""
        self._ownership.check_stopped()
        self._parts.attachments.release_frames()

    @property
    def outside_events(self) -> Mapping[int, int]:
        """The file descriptors at which something may come for the guest, and what they are looked at for, as poll(2)
        has it.
        """
        self._ownership.check()
        return self._parts.attachments.events()

    def attach_input(self, source: InputSource) -> None:
        """Take the guest's input from ``source`` from now on, which is a recorder, a replay, or an object of your
        own.
        """
        self._ownership.check()
        self._parts.port.attach(source)

    # -- handing over --------------------------------------------------------------------------

    def release(self, why: str, keeps_locks: bool = False, flushes: bool = True) -> list[Handover | None]:
        """Give the disks and networks back, so that a machine that goes on from this one's state can claim them. This
        one cannot run any more, because of ``why``, before :meth:`claim` and :meth:`permit`.

        Return for each network card what a machine of another process on this host goes on with, or None if it has to
        connect anew. With ``keeps_locks`` nobody else can have the disks, because the other machine has copies of them.
        Unless it ``flushes``, what is in files of raw disks may still be in this host's memory, from where every
        process of this host reads it. Raise OSError if a disk cannot be written. The machine must not be running.
        """
        self._ownership.check_stopped()
        handed = self._parts.attachments.release(keeps_locks, flushes)
        self._ownership.forbid(why)
        return handed

    def take_pending(self) -> list[Arrival]:
        """Return what has come from outside and the guest has not got yet, such as a key or a frame, and keep nothing
        of it. The machine must not be running.
        """
        self._ownership.check_stopped()
        return list(self._parts.mailbox.take())

    def post_pending(self, arrivals: Iterable[Arrival]) -> None:
        """Have what :meth:`take_pending` has returned, of a machine with the same devices. Raise ValueError for what is
        for none of them.
        """
        for arrival in arrivals:
            if arrival.receiver not in self._parts.peripherals.board.receivers:
                raise ValueError(f"the machine has nothing that could be told of {arrival.receiver!r:.80}")
            self._parts.mailbox.post(arrival)

    def sync_disks(self) -> None:
        """Put what the guest has written to raw disks where it survives the host, so that :meth:`release` has less to
        do. Any thread may call it, also while the guest runs. A failure is :meth:`release`'s to report.
        """
        self._parts.attachments.sync()

    def flush_tables(self) -> None:
        """See :meth:`dbt.vm.attachments.Attachments.flush_tables`. The machine must not be running."""
        self._ownership.check_stopped()
        self._parts.attachments.flush_tables()

    def leave_networks(self) -> None:
        """Close the connections of the network cards, after :meth:`release`: nobody goes on with them."""
        self._ownership.check_stopped()
        self._parts.attachments.leave_networks()

    def claim(self, handed: Sequence[Handover | None] = ()) -> None:
        """Take the disks and networks that this machine was made without or has released. It still cannot run.

        ``handed`` are connections of another process. Raise DiskError or NetworkError, after which it has nothing.
        """
        self._ownership.check_stopped()
        self._parts.attachments.claim(handed)

    def permit(self) -> None:
        """Let the machine run, which has claimed its disks and networks."""
        if not self._parts.attachments.is_claimed:
            raise RuntimeError("this machine has no disks and networks, which another machine may use: claim them")
        self._ownership.forbid("")

    def announce(self) -> None:
        """Tell the networks where the guest is now, to which it will not say that by itself."""
        self._ownership.check_stopped()
        self._parts.attachments.announce()

    # -- debuggers -----------------------------------------------------------------------------

    def serve_gdb(
        self,
        endpoint: str = "0",
        wait: bool = False,
        fuel: int | None = None,
        timeout: float | None = None,
        announce: Callable[[str], None] | None = None,
        history: bool | History = False,
        save: Callable[[], str] | None = None,
        monitor: RunPartner | None = None,
    ) -> RunResult:
        """Run the guest as :meth:`run` does, and let debuggers connect that speak gdb's remote protocol.

        ``endpoint`` is ``[HOST:]PORT`` or ``unix:PATH``. Without a host, only this host can connect; port 0 is any that
        is free. ``announce`` is called with the place, once it listens; the default is ``notice``. With ``wait``, the
        guest does not start before a debugger has connected and lets it. With ``history``, debuggers can run the guest
        backwards (:meth:`begin_history`); a history that there is already can be given instead.

        ``save`` is called when a debugger's user wants the machine to be saved (``monitor snapshot``). It returns where
        it has done so, or raises :class:`dbt.vm.debugger.SaveError`.

        ``monitor`` is a :class:`dbt.qmp.monitor.QmpMonitor`, whose clients control the run as well. The guest runs
        while neither they nor the debugger hold it.

        Raise ValueError for an endpoint that is none, and OSError if the host refuses it.
        """
        from dbt.vm.debug_service import serve_gdb

        check_limits(fuel, timeout)
        return serve_gdb(self, endpoint, wait, fuel, timeout, history, announce or self._notice, save, monitor)

    # -- going back ----------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """Return a checkpoint of this point of the run, to which :meth:`rollback` returns the machine.

        There may be any number of them. Raise CheckpointError if the guest writes to a file as its disk. The machine
        must not be running.
        """
        self._ownership.check_stopped()
        from dbt.vm.checkpoint import Checkpoint  # which few guests need

        checkpoint = Checkpoint(self._parts)
        self._checkpoints.add(checkpoint)
        return checkpoint

    def rollback(self, checkpoint: Checkpoint) -> None:
        """Return to the point at which :meth:`checkpoint` was called: registers, RAM, devices, time, counts of
        instructions and exceptions, and the handles of open files.

        It takes time in proportion to the pages that were written since. Other checkpoints remain valid, those of later
        points too. Not undone is what has left the machine: output, what was written to files, and input that was
        taken from a console.

        Raise CheckpointError if the checkpoint is closed or that of another machine, or if the machine has been reset
        or loaded since; RecordingError if the input is being recorded. Nothing has changed then. The machine must not
        be running.
        """
        self._ownership.check_stopped()
        signals = self._parts.signals
        try:
            signals.begin()  # an exception in the middle would leave a state that never was
            checkpoint.roll_back(self._parts)
        finally:
            signals.end()

    def begin_history(self, memory: int | None = None) -> History:
        """Keep the history of the run from now on, in which one can go back: see :class:`dbt.vm.history.History`.

        ``memory`` is how many bytes of the host's memory its checkpoints may take; the default is 256 MiB. Until the
        history is closed, nobody else may roll the machine back. Raise RuntimeError if there is a history already.
        """
        self._ownership.check_stopped()
        from dbt.vm.history import DEFAULT_MEMORY, History  # which few guests need

        if self._history is not None and not self._history.is_closed:
            raise RuntimeError("the machine has a history already")
        self._history = History(self, self._parts, DEFAULT_MEMORY if memory is None else memory)
        return self._history
