"""The options of a machine. They are checked once, and make its tier when that is needed."""

# There is no "from __future__ import annotations" here: NamedTuple would compile each annotation at each start.

import os
from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Literal, NamedTuple

from dbt.abi.cpu import CpuState
from dbt.abi.layout import PAGE_SIZE
from dbt.board.boards import BOARDS, MAX_MEMORY, BoardModel, default_board
from dbt.board.clock import END_OF_EPOCHS, INSN_NS_CHOICES
from dbt.engine.observer import NOBODY, Observer
from dbt.engine.tier import Allowance, HostCall, JitMode, Tier
from dbt.frontend.optimizations import Optimizations
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import RamLayout, RamRegion
from dbt.vm.attachments import DEVICES
from dbt.vm.error_latch import ErrorLatch, LatchedObserver
from isa.arm.cpus import CPUS

if TYPE_CHECKING:
    from typing import TypedDict

    from dbt.backend.dump import RegionDump
    from dbt.host.console import Console
    from dbt.host.drive import Drive
    from dbt.host.jail import FileJail
    from dbt.host.net_option import Net
    from dbt.host.ninep.share import Share
    from dbt.host.vsock_option import Vsock

DEFAULT_MEMORY = 128 << 20
TierName = Literal["auto", "stitched", "threaded", "reference"]
TIERS: tuple[TierName, ...] = ("auto", "stitched", "threaded", "reference")
JIT_MODES: tuple[JitMode, ...] = ("async", "sync", "off")
_CONSOLE_METHODS = ("write", "write_error", "read", "arrived", "wait", "flush")
#: A function that makes a tier for a processor and its memory.
TierFactory = Callable[[CpuState, GuestMemory, Allowance], Tier]


def silent(line: str) -> None:
    """Ignore a notice."""


class TierParts(NamedTuple):
    """What a tier is made of: the state that it works on, and the receivers of its messages.

    ``must_stop`` returns True if the present run is to end soon, ``program`` the identity of the guest's program.
    ``host_call`` answers semihosting calls within a slice.
    """

    cpu: CpuState
    memory: GuestMemory
    notice: Callable[[str], None]
    observer: Observer
    latch: ErrorLatch
    symbolize: Callable[[int], str]
    must_stop: Callable[[], bool]
    program: Callable[[], bytes]
    host_call: HostCall


if TYPE_CHECKING:

    class HostOptions(TypedDict, total=False):
        """The arguments of :class:`dbt.vm.machine.Machine` that are not part of a guest's state."""

        tier: TierName | TierFactory
        files: str | PathLike[str] | None
        console: Console | None
        notice: Callable[[str], None]
        jit: JitMode
        optimizations: Optimizations
        dump: str | PathLike[str] | None
        realtime: bool
        measures: bool
        observer: Observer
        drives: Sequence[Drive]
        nets: Sequence[Net]
        shares: Sequence[Share]
        vsock: Vsock | None
        claims: bool
        xenstore: str | None
else:
    HostOptions = dict  # as it is when it has been made: to define the class takes a third of a millisecond


class MachineOptions(NamedTuple):
    """The arguments of :class:`dbt.vm.machine.Machine`."""

    memory: int | Sequence[RamRegion]
    tier: TierName | TierFactory
    files: str | None
    epoch: int
    jit: JitMode
    optimizations: Optimizations
    dump: str | None
    cpu: str | None
    semihosting: bool | None
    realtime: bool
    insn_ns: float
    board: str | None
    rng_seed: int
    devices: tuple[str, ...]
    drives: "tuple[Drive, ...]"
    nets: "tuple[Net, ...]"
    shares: "tuple[Share, ...]"
    vsock: "Vsock | None"
    claims: bool = True
    xenstore: str | None = None

    @property
    def board_model(self) -> BoardModel:
        """The board: the one that was chosen, or else that of the processor."""
        return default_board(self.cpu) if self.board is None else BOARDS[self.board]

    @property
    def layout(self) -> RamLayout:
        """Where the machine has RAM."""
        return self.board_model.layout(self.memory)

    @property
    def device_count(self) -> int:
        """How many virtio or para-virtual devices the machine has."""
        return len(self.devices) + len(self.drives) + len(self.nets) + len(self.shares) + (self.vsock is not None)

    @property
    def hears_outside(self) -> bool:
        """Whether something may come for the guest without a call of who has the machine."""
        return bool(self.nets or self.vsock or self.xenstore)

    def of_host(self, console: "Console", notice: Callable[[str], None]) -> HostOptions:
        """Return those that are not part of a guest's state, for another machine with this console and ``notice``.

        It does not write to this machine's overlay files. Its network cards and its socket device are connected to
        nothing, because what this machine is connected to is taken.
        """
        return {
            "tier": self.tier,
            "files": self.files,
            "console": console,
            "notice": notice,
            "jit": self.jit,
            "optimizations": self.optimizations,
            "realtime": self.realtime,
            "drives": [drive._replace(snapshot=drive.is_overlaid, overlay="") for drive in self.drives],
            "nets": [net.disconnected() for net in self.nets],
            "shares": self.shares,
            "vsock": None if self.vsock is None else self.vsock._replace(end="none"),
        }

    def check(self) -> None:
        """Raise ValueError for values that make no sense."""
        _check_memory(self.memory)
        if self.semihosting is not None and not isinstance(self.semihosting, bool):
            raise ValueError(f"semihosting is True, False or None, and {self.semihosting!r} is none of them")
        if not isinstance(self.realtime, bool):
            raise ValueError(f"realtime is True or False, and {self.realtime!r} is neither")
        if not isinstance(self.epoch, int) or isinstance(self.epoch, bool):
            raise ValueError(f"epoch is a whole number of seconds since 1970, and {self.epoch!r} is none")
        if not 0 <= self.epoch < END_OF_EPOCHS:
            raise ValueError(f"epoch={self.epoch} is not in [0, 2^32): the guest's clocks have 32 bits of seconds")
        if not any(type(self.insn_ns) is type(ns) and self.insn_ns == ns for ns in INSN_NS_CHOICES):
            choices = ", ".join(map(str, INSN_NS_CHOICES))
            raise ValueError(f"insn_ns={self.insn_ns!r} is none of the nanoseconds that divide 1000: {choices}")
        if not isinstance(self.optimizations, Optimizations):
            raise ValueError(
                f"optimizations is an Optimizations, such as Optimizations.without('literals'), and not "
                f"{self.optimizations!r}"
            )
        if not callable(self.tier) and self.tier not in TIERS:
            raise ValueError(f"there is no tier {self.tier!r}: use one of {', '.join(TIERS)}")
        if self.jit not in JIT_MODES:
            raise ValueError(f"there is no JIT mode {self.jit!r}: use one of {', '.join(JIT_MODES)}")
        if self.cpu is not None and self.cpu not in tuple(CPUS):
            raise ValueError(f"there is no CPU {self.cpu!r}: use one of {', '.join(CPUS)}")
        if self.board is not None and self.board not in tuple(BOARDS):
            raise ValueError(f"there is no board {self.board!r}: use one of {', '.join(BOARDS)}")
        _ = self.layout  # which may be impossible
        if not isinstance(self.rng_seed, int) or isinstance(self.rng_seed, bool) or not 0 <= self.rng_seed < 1 << 63:
            raise ValueError(f"rng_seed={self.rng_seed!r} is no whole number in [0, 2^63)")
        self._check_attachments()

    def _check_attachments(self) -> None:
        if self.xenstore is not None and not self.board_model.is_domain:
            raise ValueError(f"the board {self.board_model.name} has no XenStore: leave xenstore out, or take xen")
        count = self.device_count
        if not count:
            return
        from dbt.devices.virtio.attached import SLOTS_SIZE
        from dbt.host.drive import Drive
        from dbt.host.net_option import Net

        unknown = [name for name in self.devices if name not in DEVICES]
        if unknown or len(set(self.devices)) != len(self.devices):
            raise ValueError(f"devices={self.devices!r} is no list of different names of {', '.join(DEVICES)}")
        if {"console", "port"} <= set(self.devices):
            raise ValueError(f"devices={self.devices!r}: a machine has a console or a port, and not both")
        if not all(isinstance(drive, Drive) for drive in self.drives):
            raise ValueError(f"drives={self.drives!r} is no list of Drive")
        if not all(isinstance(net, Net) and len(net.mac) in (0, 6) for net in self.nets):
            raise ValueError(f"nets={self.nets!r} is no list of Net with addresses of six bytes")
        self._check_shares()
        self._check_vsock()
        board = self.board_model
        if board.is_domain:
            self._check_back_ends(board)
            return
        if count > board.virtio_slots:
            raise ValueError(f"a machine has at most {board.virtio_slots} virtio devices, and not {count}")
        start, end = board.virtio_base, board.virtio_base + SLOTS_SIZE
        if any(region.base < end and start < region.end for region in self.layout.regions):
            raise ValueError(
                f"RAM hides the virtio devices of the board {board.name}, which are from {start:#x} on: give the "
                "machine less memory"
            )

    def _check_back_ends(self, board: BoardModel) -> None:
        if self.devices or self.vsock is not None:
            raise ValueError("a domain of Xen can have drives, nets and shares, and no other devices")
        if self.device_count > board.most_back_ends:
            raise ValueError(f"a domain has at most {board.most_back_ends} devices, and not {self.device_count}")

    def _check_shares(self) -> None:
        if not self.shares:
            return
        from dbt.host.ninep.share import Share, fault_of

        if not all(isinstance(share, Share) for share in self.shares):
            raise ValueError(f"shares={self.shares!r} is no list of Share")
        if fault := fault_of(self.shares):
            raise ValueError(fault)

    def _check_vsock(self) -> None:
        if self.vsock is None:
            return
        from dbt.host.vsock_option import FIRST_CID, LAST_CID, Vsock

        if not isinstance(self.vsock, Vsock):
            raise ValueError(f"vsock={self.vsock!r} is no Vsock")
        cid = self.vsock.cid
        if not isinstance(cid, int) or isinstance(cid, bool) or not FIRST_CID <= cid <= LAST_CID:
            raise ValueError(f"the CID of a guest is a number from {FIRST_CID} to {LAST_CID}, and {cid!r:.100} is none")

    def make_tier(self, parts: TierParts, allowance: Allowance) -> Tier:
        """Return a new tier. Making it may build native code, which takes seconds."""
        cpu, memory, notice = parts.cpu, parts.memory, parts.notice
        observer = parts.observer if parts.observer is NOBODY else LatchedObserver(parts.observer, parts.latch)
        if callable(self.tier):
            return self.tier(cpu, memory, allowance)
        if self.tier == "reference":
            from dbt.engine.reference import ReferenceTier

            return ReferenceTier(cpu, memory, allowance=allowance)
        if self.tier in ("threaded", "stitched"):
            from dbt.engine.threaded import ThreadedTier

            stitch = self.tier == "stitched"
            return ThreadedTier(cpu, memory, notice, observer, allowance, stitch=stitch, host_call=parts.host_call)
        from dbt.engine.region_tier import RegionTier

        return RegionTier(
            cpu,
            memory,
            notice,
            self.jit,
            optimizations=self.optimizations,
            dump=self._open_dump(parts),
            observer=observer,
            allowance=allowance,
            must_stop=parts.must_stop,
            program=parts.program,
            host_call=parts.host_call,
        )

    def _open_dump(self, parts: TierParts) -> "RegionDump | None":
        if self.dump is None:
            return None
        from dbt.backend.dump import RegionDump
        from dbt.inspector.disassembly import disassembler

        left_out = self.optimizations.describe()
        title = f", without {left_out}" if left_out else ""
        try:
            return RegionDump(self.dump, disassembler, parts.symbolize, title)
        except OSError as error:
            parts.notice(f"cannot write regions to {self.dump}: {error.strerror}; the run goes on without")
            return None


def path_text(name: str, path: str | PathLike[str]) -> str:
    """Return a path as text. Raise TypeError, which names the argument, for what is no path."""
    if isinstance(path, str):
        return path
    try:
        return os.fsdecode(path)
    except TypeError:
        raise TypeError(f"{name} is a path, as str or os.PathLike, and {path!r} is none") from None


def check_receivers(console: "Console | None", notice: Callable[[str], None], observer: Observer) -> None:
    """Raise ValueError for receivers of output that cannot be called as they will be during a run."""
    if console is not None:
        missing = [name for name in _CONSOLE_METHODS if not callable(getattr(console, name, None))]
        if missing:
            raise ValueError(
                f"the console {console!r} has no method {', '.join(missing)}: "
                "it is an object with the methods of dbt.host.console.Console, such as a CaptureConsole"
            )
    if not callable(notice):
        raise ValueError(f"notice is a function that takes a line of text, and {notice!r} cannot be called")
    if not isinstance(observer, Observer):
        raise ValueError(f"observer is an object of a class derived from Observer, and {observer!r} is none")


def check_limits(fuel: int | None, timeout: float | None) -> None:
    """Raise ValueError for limits of a run that make no sense."""
    if fuel is not None and (not isinstance(fuel, int) or isinstance(fuel, bool) or fuel < 0):
        raise ValueError(f"fuel is a number of instructions, 0 or more, or None, and {fuel!r} is none of them")
    if timeout is not None and (
        not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or not timeout >= 0  # nan is not
    ):
        raise ValueError(f"timeout is a number of seconds, 0 or more, or None, and {timeout!r} is none of them")


def _check_memory(memory: int | Sequence[RamRegion]) -> None:
    if isinstance(memory, Sequence) and all(isinstance(region, RamRegion) for region in memory):
        RamLayout.of(memory)
        return
    if not isinstance(memory, int) or isinstance(memory, bool):
        raise ValueError(f"memory is a number of bytes or a list of RamRegion, and {memory!r} is neither")
    if memory < PAGE_SIZE:
        raise ValueError(f"memory={memory} is too small: a machine has at least {PAGE_SIZE} bytes of RAM")
    if memory > MAX_MEMORY:
        raise ValueError(
            f"memory={memory} is too large: a machine has at most {MAX_MEMORY} bytes of RAM ({MAX_MEMORY >> 30} GiB)"
        )
    if memory % PAGE_SIZE:
        raise ValueError(f"memory={memory} is not a multiple of {PAGE_SIZE}, the size of a page")


def open_jail(files: str | None) -> "FileJail | None":
    """Return the jail for the directory whose files a guest may open, or None without one. Raise OSError."""
    if files is None:
        return None
    from dbt.host.jail import FileJail

    return FileJail(files)
