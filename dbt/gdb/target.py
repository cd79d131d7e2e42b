"""What the remote protocol needs of a machine. It knows nothing else of one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum, IntEnum
from typing import NamedTuple, Protocol

from dbt.abi.addresses import Gva


class TargetError(Exception):
    """Raised if the machine cannot do what is asked. The message is for the user of the debugger."""


class StopSignal(IntEnum):
    """The signals, by gdb's numbers, as which it shows why the guest has stopped."""

    INTERRUPT = 2  # by the debugger's user
    ILLEGAL = 4  # the guest did something that neither it nor the machine can handle
    TRAP = 5  # a breakpoint, a watchpoint, the end of a step
    FAULT = 11  # the same as ILLEGAL, for an access to memory


class BreakpointKind(Enum):
    """The kinds of breakpoints by the names in stop replies. For a machine they are the same."""

    SOFTWARE = "swbreak"
    HARDWARE = "hwbreak"


class WatchKind(Enum):
    """The kinds of watchpoints by the names in stop replies."""

    WRITE = "watch"
    READ = "rwatch"
    ACCESS = "awatch"


class LogEnd(Enum):
    """The ends of the history of a run, by their names in stop replies."""

    OLDEST = "begin"
    NEWEST = "end"


class Stop(NamedTuple):
    """Why the guest has stopped.

    ``what`` is the breakpoint's or watchpoint's kind, and ``address`` that of the watchpoint. ``message`` is for the
    user; it may be empty. ``exit_code`` is given if the guest has ended, and ``log_end`` if its history has.
    """

    signal: StopSignal
    what: BreakpointKind | WatchKind | None = None
    address: Gva | None = None
    message: str = ""
    exit_code: int | None = None
    log_end: LogEnd | None = None


class Register(NamedTuple):
    """A register of 32 bits. ``number`` is the one in the protocol. ``type`` is one of gdb's names.

    Registers with a ``group`` are not saved around calls that the user makes.
    """

    name: str
    number: int
    type: str = "uint32"
    group: str = ""


#: A condition of a breakpoint: the guest stops if it is true.
Condition = Callable[[], bool]


class Target(Protocol):
    """A machine as a debugger sees it. Methods raise TargetError.

    Virtual CPUs are numbered from 1 on. Memory is that of the virtual addresses of the guest's present page tables.
    """

    @property
    def goes_back(self) -> bool:
        """Return True if the guest can be run backwards: :meth:`step_back` and :meth:`resume_back`."""

    @property
    def vcpus(self) -> Sequence[int]: ...
    @property
    def features(self) -> Mapping[str, Sequence[Register]]:
        """The registers by the names of gdb's features. The first feature is the core's."""

    def describe_vcpu(self, vcpu: int) -> str:
        """Return a few words on what a virtual CPU does, for a list of threads."""

    def read_register(self, vcpu: int, number: int) -> int: ...
    def write_register(self, vcpu: int, number: int, value: int) -> None: ...

    def read_memory(self, address: int, size: int) -> bytes:
        """Return memory, less of it if the rest cannot be read, but at least one byte."""

    def write_memory(self, address: int, data: bytes) -> None: ...

    def insert_breakpoint(self, kind: BreakpointKind, gva: Gva, conditions: Collection[Condition]) -> None:
        """Stop the guest in front of an instruction, if a condition is true or if there is none."""

    def remove_breakpoint(self, kind: BreakpointKind, gva: Gva) -> None: ...
    def insert_watchpoint(self, kind: WatchKind, gva: Gva, size: int) -> None: ...
    def remove_watchpoint(self, kind: WatchKind, gva: Gva, size: int) -> None: ...
    def detach(self) -> None:
        """Remove all breakpoints and watchpoints, and what else stops the guest: the debugger leaves."""

    def resume(self, interrupted: Callable[[], bool]) -> Stop:
        """Let the guest run until it stops. ``interrupted`` is asked again and again; if it returns True, it stops."""

    def step(self, start: Gva, end: Gva, interrupted: Callable[[], bool]) -> Stop:
        """Execute an instruction, and further ones while the PC is in [``start``, ``end``)."""

    def step_back(self) -> Stop:
        """Undo an instruction."""

    def resume_back(self, interrupted: Callable[[], bool]) -> Stop:
        """Let the guest run backwards until it stops, at the oldest moment of its history if nothing else stops it.

        A breakpoint stops it in front of its instruction, and a watchpoint behind the access.
        """

    def is_ended(self) -> bool:
        """Look after the machine's console while the guest is stopped. Return True if its user wants the run to end."""

    def restart(self) -> None:
        """Load the guest again, as at the start."""

    def monitor(self, words: Sequence[str], interrupted: Callable[[], bool]) -> str:
        """Do a command of the user that is not gdb's own. Return the answer, as lines of text.

        If ``interrupted`` returns True, a command that takes long is given up.
        """
