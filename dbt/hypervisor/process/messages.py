"""What a host and the process of a machine say to each other, as checked values.

The host asks, and the process answers each request but :class:`Interrupt` with one message. A host believes nothing
that a process says: types and bounds are checked when a message is decoded, and what the values mean by who uses them.
A process believes its host. So what the host sends may be pickled, and is handed through as bytes; what a process sends
is never unpickled by the host, nor by another process, but for what it says before its guest executes anything.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from dbt.vm.result import StopReason

#: The longest message. What a guest prints in a turn is cut to less by its console, and a state goes in a file.
LONGEST: Final = 8 << 20
#: The largest count of anything, so that sums stay far below what a database or another language can hold.
MOST: Final = (1 << 62) - 1

#: The most files with one message: those of all network cards.
MOST_FILES: Final = 64

Count = Annotated[int, Meta(ge=0, le=MOST)]
Signed = Annotated[int, Meta(ge=-MOST, le=MOST)]
Text = Annotated[str, Meta(max_length=1 << 16)]
Numbers = Annotated[list[Annotated[int, Meta(ge=0, lt=1 << 32)]], Meta(max_length=1 << 20)]
Frames = Annotated[list[Annotated[bytes, Meta(max_length=65_535)]], Meta(max_length=4096)]
HubFrames = Annotated[dict[Text, Frames], Meta(max_length=64)]


class _Message(Struct, tag=True, array_like=True, forbid_unknown_fields=True):
    """Each message begins with the name of its class."""


# -- from the host ---------------------------------------------------------------------------------


class Preload(_Message):
    """To a zygote: where modules are found, which to import besides those that all machines need, and how strict the
    jails of compilers are.
    """

    path: list[str]
    modules: list[str]
    jail: str


class Spawn(_Message):
    """To a zygote: fork a process for a machine. The socket to it comes along. ``directory`` is where its lease is to
    be, or empty if it ends with its host. ``jail`` is a :class:`dbt.hypervisor.jail.measures.Strictness`.
    """

    name: str
    uuid: str
    directory: str
    jail: str


class Model(_Message):
    """To a zygote: have a model of the memory of machines (:mod:`dbt.hypervisor.process.originals`). The answer to a
    :class:`Heap` comes along.
    """


class ForkAhead(_Message):
    """To a zygote: have a process for the next machine from now on before it is asked for. The answer to a
    :class:`Written` comes along.
    """


class HaveCode(_Message):
    """To a zygote: let machines begin with the code of a model (:mod:`dbt.engine.warm_code`). The answer to a
    :class:`Code` comes along.
    """


class Reap(_Message):
    """To a zygote: end a process that it has forked, if it has not ended, and say how it did."""

    pid: int


class Behaviour(_Message):
    """How a machine begins, and goes on without a host: see :class:`dbt.hypervisor.carrier.Conduct`."""

    rate: int
    cap: int
    core_time: float | None
    period_ms: int
    goes_on: bool
    holds_frames: bool


class Boot(_Message):
    """Make a machine by a pickled function."""

    boot: bytes
    behaviour: Behaviour


class Restore(_Message):
    """Make a machine in a saved state, whose values and RAM come along as two files.

    ``arguments`` are those of :class:`Booted`. ``identity`` is pickled, or empty; so are ``nets`` and ``recording``,
    the path and the origin of a recording, whose file comes along as the third one. RAM is zero but for ``parts``, if
    they are known: address and size of each.
    """

    arguments: bytes
    identity: bytes
    nets: bytes
    behaviour: Behaviour
    recording: bytes = b""
    parts: list[tuple[int, int]] | None = None


class EndRecording(_Message):
    """Record where the machine is, as its end. It is closed next."""


class Execute(_Message):
    """Execute a turn: see :class:`dbt.hypervisor.carrier.Terms`. Before, let time pass up to ``wait_until``, and give
    the guest what was typed, and the frames that have come from each hub. What its port has written before ``kept``
    is nobody's any more, or, without that, all that the host has.
    """

    units: int
    seconds: float
    goes_on: bool
    origin_ns: int | None
    ahead: int | None
    instructions: int | None
    memory: int | None
    wait_until: int | None
    typed: bytes
    frames: dict[str, list[bytes]]
    kept: int | None = None


class Interrupt(_Message):
    """Let the present turn end soon, if there is one."""


class LimitDevices(_Message):
    """See :func:`dbt.hypervisor.limits.limit_devices`: the pickled limits."""

    limits: bytes


class Plug(_Message):
    """Connect network cards to sockets, which come along: see :meth:`dbt.hypervisor.carrier.Vm.plug`."""

    cards: list[int]


class PressPowerKey(_Message):
    """See :meth:`dbt.vm.controlled_machine.ControlledMachine.press_power_key`."""

    reboots: bool


class SetMemory(_Message):
    """See :func:`dbt.hypervisor.limits.set_memory`."""

    size: int


class WaitUntil(_Message):
    """Let time pass, as for a waiting guest."""

    tick: int


class Save(_Message):
    """Return the state, as two files that come along."""


class Written(_Message):
    """Send which pages of its heap the process has for itself now, as a file."""


class Heap(_Message):
    """Give back memory, and send what the process still has for itself of its heap, as a file."""


class Code(_Message):
    """Send the code that was decoded and stitched, as a file if there can be one."""


class Hash(_Message):
    """Return the state hash."""


class Registers(_Message):
    """Return R0 to R15, and the instructions that have retired."""


class Read(_Message):
    """Return bytes of RAM."""

    address: int
    size: int


class Write(_Message):
    """Change bytes of RAM."""

    address: int
    data: bytes


class Leave(_Message):
    """A migration begins: say where there is RAM."""


class DiskFiles(_Message):
    """Return the files to which the guest writes, so that the host can put on the disk what is in them."""


class CopyDisks(_Message):
    """Begin to note what the guest writes to its disks, and return all files that they are on."""


class ChangedBlocks(_Message):
    """Return what the guest has written to its disks since this was asked the last time."""


class Values(_Message):
    """Return the state but RAM, as a file that comes along."""


class Epoch(_Message):
    """Begin to note which pages change (:class:`dbt.memory.epochs.Epoch`), and return those that may not be zero. With
    ``ends``, do not note it any more.
    """

    ends: bool


class DirtyPages(_Message):
    """Return which pages have changed since the epoch began. If it ``renews`` the epoch, that begins now."""

    renews: bool


class Content(_Message):
    """Return a copy of pages, in packed runs (:class:`dbt.snapshot.format.Runs`)."""

    runs: bytes


class Release(_Message):
    """Give disks and networks back, and do not execute the guest
    (:meth:`~dbt.vm.controlled_machine.ControlledMachine.release`). Unless it ``keeps_networks``, their connections are
    closed. If it ``keeps_disks``, nobody else can have them. The answer has the content of ``pages``, as packed runs.
    """

    pages: bytes
    keeps_networks: bool
    keeps_disks: bool


class NetworkEnd(_Message):
    """An end of a network card that is handed over: see :class:`dbt.host.network.Handover`. Its file comes along."""

    received: Annotated[bytes, Meta(max_length=1 << 17)]
    waiting: Annotated[bytes, Meta(max_length=2 << 20)]


class Claim(_Message):
    """Have disks and networks, and go on with those that are handed over. They come along."""

    ends: list[NetworkEnd | None]


class Permit(_Message):
    """Let the guest be executed. Also tell the networks where it is now, if it ``announces`` it."""

    announces: bool


class Doubt(_Message):
    """Be kept, also without a host, and do not execute the guest because of ``why``. With ``releases``, give disks and
    networks back.
    """

    why: str
    releases: bool


class Prepare(_Message):
    """Make a machine for a state that is to come. Encoded values of an earlier one come along. See :class:`Restore`."""

    arguments: bytes
    behaviour: Behaviour


class HoldMemory(_Message):
    """Have the content of a file in RAM that comes along. It is zero but for ``parts``: address and size of each."""

    parts: list[tuple[int, int]]


class PutPages(_Message):
    """Have other ``content`` in ``pages``, by their numbers."""

    pages: list[int]
    content: bytes


class TakeOver(_Message):
    """Be in a state: encoded values, which are in a file that comes along if they are empty here, and ``late`` pages
    that RAM has not got yet. ``pending`` is on its way to the guest. Have disks and networks then, as after
    :class:`Claim`.
    """

    values: bytes
    late: PutPages
    pending: list[tuple[str, bytes]]
    ends: list[NetworkEnd | None]


class End(_Message):
    """Give everything back, and end. There is no answer."""


class Attach(_Message):
    """A new host takes over."""

    behaviour: Behaviour


ToZygote = Preload | Spawn | Model | HaveCode | ForkAhead | Reap
ToVm = (
    Boot
    | Restore
    | EndRecording
    | Execute
    | Interrupt
    | LimitDevices
    | Plug
    | PressPowerKey
    | SetMemory
    | WaitUntil
    | Save
    | Written
    | Heap
    | Code
    | Hash
    | Registers
    | Read
    | Write
    | Leave
    | DiskFiles
    | CopyDisks
    | ChangedBlocks
    | Values
    | Epoch
    | DirtyPages
    | Content
    | Release
    | Claim
    | Permit
    | Doubt
    | Prepare
    | HoldMemory
    | PutPages
    | TakeOver
    | Behaviour
    | Attach
    | End
)

# -- to the host -----------------------------------------------------------------------------------


class Ready(_Message):
    """A zygote can fork, or what was asked for is done."""


class Spawned(_Message):
    """A zygote has forked a process."""

    pid: Annotated[int, Meta(gt=0)]


class Reaped(_Message):
    """How a process has ended, as its exit status, or the negative number of a signal. None if it is nobody's."""

    status: int | None


class Failed(_Message):
    """What was asked for cannot be done: the name of an exception, and its text."""

    kind: Text
    text: Text


class Card(_Message):
    """A network card, of a machine whose guest has not executed anything: see :class:`dbt.host.net_option.Net`."""

    end: Text
    mac: Annotated[bytes, Meta(max_length=6)]


class Booted(_Message):
    """The machine is made, and its guest has executed nothing, so this can be believed. ``arguments`` are pickled, for
    another process of the same domain. ``missing`` are the measures of the jail that the host does not give, each with
    the reason. ``is_recorded``: it waits for an :class:`EndRecording` at its end.
    """

    ticks_per_second: Annotated[int, Meta(ge=1_000_000, le=10_000_000_000)]
    hears_outside: bool
    has_limits: bool
    cards: Annotated[list[Card], Meta(max_length=64)]
    arguments: Annotated[bytes, Meta(max_length=1 << 20)]
    missing: Annotated[dict[Text, Text], Meta(max_length=16)]
    is_recorded: bool = False


class Done(_Message):
    """A turn is over: see :class:`dbt.hypervisor.carrier.Outcome`. ``reason`` is empty if the process has failed.

    ``printed`` is what the guest has written to its console since the last message, after ``lost`` bytes that were too
    many to keep. ``unread`` is how much of what was typed it has not read. ``frames`` are what it has sent to each hub.
    ``disk_failures`` has a line for each disk with a request that the host could not do.
    """

    reason: Annotated[str, Meta(max_length=32)]
    message: Text
    exit_code: Annotated[int, Meta(ge=0, le=255)] | None
    instructions: Count
    charged: Count
    host_ns: Count
    wait_ns: Count | None
    now: Count
    resets: bool
    ahead: Signed | None
    printed: bytes
    lost: Count
    unread: Count
    frames: HubFrames
    disk_failures: Annotated[list[Text], Meta(max_length=64)]


class Arrived(_Message):
    """Something has come from outside for a guest that waits. Nobody has asked."""


class Saved(_Message):
    """The state comes along: the file of its values, and that of its RAM."""


class Files(_Message):
    """So many files come along."""

    count: Annotated[int, Meta(ge=0, le=MOST_FILES)]


class DisksToCopy(_Message):
    """All files of disks come along. ``counts`` says how many each disk is on."""

    counts: Annotated[list[Annotated[int, Meta(ge=0, le=MOST_FILES)]], Meta(max_length=MOST_FILES)]


class Changed(_Message):
    """The pieces of files that were written, as runs of consecutive ones: the first of each, and how many."""

    files: Annotated[list[Numbers], Meta(max_length=MOST_FILES)]


class Layout(_Message):
    """Where a machine has RAM: base, size, and whether it can only be read; and whether its network cards have their
    connections.
    """

    is_connected: bool
    regions: Annotated[list[tuple[Count, Count, bool]], Meta(max_length=1024)]


class Released(_Message):
    """A machine has given its disks and networks back. For each network card, what another process goes on with.
    ``pending`` is on its way to the guest: receivers and data. ``values`` are all of the state but RAM, encoded, and in
    the first file that comes along if they are empty here. ``content`` is that of the pages that were asked for.
    """

    content: bytes
    values: bytes
    pending: Annotated[list[tuple[Text, Annotated[bytes, Meta(max_length=1 << 20)]]], Meta(max_length=2048)]
    ends: Annotated[list[NetworkEnd | None], Meta(max_length=64)]


class Value(_Message):
    """An answer in bytes."""

    data: bytes


class Words(_Message):
    """R0 to R15, and the instructions retired."""

    registers: Annotated[list[Annotated[int, Meta(ge=0, lt=1 << 32)]], Meta(min_length=16, max_length=16)]
    icount: Count


class Attached(_Message):
    """What has become of a machine until a new host attaches, which knows the machine itself from another place
    (:func:`dbt.hypervisor.process.lease.read_machine`). ``ended`` is the last turn, if the guest cannot go on after it.

    ``printed`` is what is kept of its console's output, and ``written`` how much there was.
    """

    uuid: Text
    ended: Done | None
    doubt: Text
    printed: bytes
    written: Count


FromZygote = Ready | Spawned | Reaped | Failed
FromVm = (
    Booted
    | Failed
    | Done
    | Arrived
    | Saved
    | Value
    | Words
    | Ready
    | Attached
    | Files
    | DisksToCopy
    | Changed
    | Layout
    | Released
)

#: The reasons for which a turn may end, by the texts that stand for them.
REASONS: Final = {reason.value: reason for reason in StopReason}

encode = msgspec.msgpack.Encoder().encode
