"""The whole state of a machine as a value: it is saved, given to another machine, written to a file, and compared.

What a guest can observe is in the values of :func:`dbt.vm.state.observable_state` and in RAM. The other values are what
the machine needs in order to go on in the same way, and what its user knew of it: where it began, its symbols, counts.

Translated code is no state. The machine that goes on makes its own, whatever executes it.

Values may come from anywhere. Each is checked before it is used, and in the end the new machine has to have the very
state that the values describe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbt.abi.addresses import Gpa
from dbt.abi.cpu import CpuState
from dbt.board.board import BoardState
from dbt.board.boards import BOARDS, MAX_MEMORY
from dbt.board.clock import insn_ns_of, plain_insn_ns
from dbt.board.loader import Image
from dbt.board.timeline import Event
from dbt.devices.fields import Fields
from dbt.devices.state import State, StateError
from dbt.frontend.optimizations import ALL
from dbt.host.semihosting import MAX_HANDLES, Layout
from dbt.memory.closing import Closing
from dbt.memory.ram import RamLayout, RamRegion
from dbt.memory.ram_image import RamImage, RamSource
from dbt.vm import vcpu
from dbt.vm.guest import NO_GUEST, Guest
from dbt.vm.options import MachineOptions
from dbt.vm.result import RunResult, StopReason
from dbt.vm.state import OBSERVABLE, Same, are_same, hash_of_pages, observable_state
from isa.arm.cpus import CPUS, CpuModel
from isa.arm.state import BANKS, LAYOUT, PSR_E, PSR_F, PSR_I, PSR_MODE, PSR_T, SCTLR_REFUSED, WRITABLE, state_size

if TYPE_CHECKING:
    from dbt.vm.machine import Machine
    from dbt.vm.parts import Parts

#: Bytes of the largest table of symbols, of a command line, and of a message: more than any program has.
_LARGEST_SYMBOLS, _LONGEST_LINE, _LONGEST_MESSAGE = 64 << 20, 1 << 20, 1 << 16
_MACHINE = frozenset({"memory", "cpu", "epoch", "insn_ns", "semihosting", "board", "rng_seed", "devices"})
_GUEST = frozenset(
    {"cpu", "semihosting", "is_kernel", "path", "entry", "registers", "command_line", "layout", "symbols", "identity"}
)
_ENDED = frozenset({"code", "message"})
_PROVED = frozenset({"registers", "lines", "ram"})
_HANDLE = frozenset({"name", "mode", "position", "length", "version"})
_NAMES = OBSERVABLE | {
    *("machine", "guest", "vcpu", "received", "handles", "ended", "proved"),
    *("drives", "nets", "shares", "vsock"),
}
_REGION = 3


@dataclass(frozen=True, slots=True)
class VmState(Closing):
    """A machine's state: ``values`` are plain values by name, and ``ram`` is what RAM holds.

    :meth:`close`, or the end of a ``with`` block, releases the memory. Machines that were restored from it stay.
    """

    values: State
    ram: RamImage

    @property
    def icount(self) -> int:
        """The instructions that had retired."""
        icount = self.values["icount"]
        assert isinstance(icount, int)
        return icount

    def hash(self) -> str:
        """Return the state hash, which is that of the machine (:func:`dbt.vm.state.state_hash`)."""
        return hash_of_pages({name: self.values[name] for name in OBSERVABLE}, self.ram.nonzero_pages())

    def close(self) -> None:
        """Release the memory now. The state cannot be restored any more. A second call does nothing."""
        self.ram.close()


# -- to save -------------------------------------------------------------------------------------


def save(machine: Machine, parts: Parts, guest: Guest) -> VmState:
    """Return the state of a machine that is not running."""
    return VmState(values_of(machine, parts, guest), RamImage.of(parts.ram))


def values_of(machine: Machine, parts: Parts, guest: Guest) -> State:
    """Return all of the state but RAM."""
    options = machine.options
    ended, proved = parts.loop.ended, parts.storm.proved
    values: dict[str, Any] = {
        **observable_state(machine),
        "machine": {
            "memory": [list(region) for region in machine.ram.layout.regions],
            "cpu": options.cpu,
            "epoch": options.epoch,
            "insn_ns": plain_insn_ns(options.insn_ns),
            "semihosting": options.semihosting,
            "board": options.board_model.name,
            "rng_seed": options.rng_seed,
            "devices": list(options.devices),
        },
        "guest": {
            "cpu": guest.cpu_model,
            "semihosting": guest.semihosting,
            "is_kernel": guest.is_kernel,
            "path": "" if guest.image is None else guest.image.path,
            "entry": None if guest.image is None else guest.image.entry,
            "registers": list(guest.registers),
            "command_line": guest.command_line,
            "layout": list(guest.layout),
            "symbols": machine.symbols.packed(),
            "identity": parts.identity.digest(),
        },
        "vcpu": parts.vcpu.save(),
        "received": parts.semihosting.received,
        "handles": parts.semihosting.save_handles(),
        "drives": parts.attachments.save(),
        "nets": len(options.nets),
        "shares": parts.attachments.save_shares(),
        "vsock": parts.attachments.cid,
        "ended": None if ended is None else {"code": ended.exit_code, "message": ended.message},
        "proved": None if proved is None else dict(zip(("registers", "lines", "ram"), proved, strict=True)),
    }
    return values


# -- to restore ----------------------------------------------------------------------------------


def machine_options(values: State) -> dict[str, Any]:
    """Return the arguments of :class:`dbt.vm.machine.Machine` that belong to the state. Raise StateError for values
    that are none.
    """
    fields = Fields(values, "the saved state", _NAMES).sub("machine", _MACHINE)
    regions = fields.get("memory")
    if type(regions) is not list or not regions or not all(map(_is_region, regions)):
        raise fields.wrong("memory", "a list of regions of RAM")
    cpu = None if fields.is_none("cpu") else fields.choice("cpu", CPUS.__contains__)
    semihosting = None if fields.is_none("semihosting") else fields.flag("semihosting")
    board, rng_seed = fields.choice("board", BOARDS.__contains__), fields.number("rng_seed", 1 << 63)
    devices = fields.get("devices")
    if type(devices) is not list or not all(type(name) is str for name in devices):
        raise fields.wrong("devices", "a list of names")
    layout = [RamRegion(Gpa(base), size, read_only) for base, size, read_only in regions]
    is_plain = layout == [RamRegion(BOARDS[board].ram_base, layout[0].size)] and layout[0].size <= MAX_MEMORY
    memory, epoch, plain = layout[0].size if is_plain else layout, fields.number("epoch"), fields.get("insn_ns")
    try:
        insn_ns = insn_ns_of(plain)
        MachineOptions(
            memory,
            "auto",
            None,
            epoch,
            "async",
            ALL,
            None,
            cpu,
            semihosting,
            False,
            insn_ns,
            board,
            rng_seed,
            tuple(devices),
            (),
            (),
            (),
            None,
        ).check()
    except ValueError as error:
        raise StateError(f"machine in the saved state is none that can be made: {error}") from None
    return {
        "memory": memory,
        "cpu": cpu,
        "epoch": epoch,
        "insn_ns": insn_ns,
        "semihosting": semihosting,
        "board": board,
        "rng_seed": rng_seed,
        "devices": devices,
    }


def layout_of(values: State) -> RamLayout:
    """Return where the machine has RAM whose saved values these are. Raise StateError for values that are none."""
    memory = machine_options(values)["memory"]
    return RamLayout.of(memory, BOARDS[values["machine"]["board"]].ram_base)  # type: ignore[index,call-overload]


def _is_region(region: object) -> bool:
    return (
        type(region) is list
        and len(region) == _REGION
        and [type(part) for part in region] == [int, int, bool]
        and all(0 <= part <= 1 << 32 for part in region[:2])
    )


def prepare(parts: Parts, values: State, become: Callable[[Guest], None]) -> None:
    """Let a machine have loaded the guest of these values, of which a later state will be restored.

    Raise StateError for values that it cannot have.
    """
    guest_fields = Fields(values, "the saved state", _NAMES).sub("guest", _GUEST)
    become(_guest(guest_fields))
    parts.attachments.check_shape(values.get("drives"), values.get("nets"))
    parts.identity.restore(guest_fields.data("identity", 64))


def rehearse(machine: Machine, parts: Parts) -> None:
    """Give a machine that is as after a reset the state that it has. In a forked process, what is done for the first
    time takes three times as long, because memory is copied for it; and for :func:`restore` somebody waits.
    """
    found = observable_state(machine)
    parts.peripherals.board.restore(BoardState(found["devices"], parts.vcpu.timeline.save()))  # type: ignore[arg-type]
    again = observable_state(machine)
    assert all(are_same(found[name], again[name]) for name in OBSERVABLE), "what is restored is what was saved"


def restore(
    machine: Machine,
    parts: Parts,
    values: State,
    ram: RamSource,
    become: Callable[[Guest], None],
    same: Same = are_same,
) -> None:
    """Give a state to a machine that has been made for it and has run nothing. Raise StateError.

    ``become`` makes the machine one that has loaded this guest, and ``same`` compares plain values. Empty slots for
    disks may be filled. After an error the machine has a part of the state, and must be given up.
    """
    values, told = parts.attachments.fill_slots(values)
    fields = Fields(values, "the saved state", _NAMES)
    guest_fields = fields.sub("guest", _GUEST)
    become(_guest(guest_fields))
    parts.attachments.check(fields.get("drives"), fields.number("nets"))
    parts.attachments.check_shares(fields.get("shares"))
    parts.attachments.check_vsock(fields.number("vsock", 1 << 32))
    parts.identity.restore(guest_fields.data("identity", 64))
    cpu, lines = parts.cpu, fields.number("lines", 1 << 32)
    if lines & ~(PSR_I | PSR_F):
        raise fields.wrong("lines", "a set of interrupt lines")
    _restore_registers(cpu, CPUS[machine.cpu_model], fields)
    vcpu_fields = fields.sub("vcpu", vcpu.FIELDS)
    parts.vcpu.restore(fields.number("icount"), fields.flag("reset"), vcpu_fields)
    parts.peripherals.board.restore(BoardState(fields.get("devices"), _events(fields)))
    parts.attachments.check_open_files()
    cpu.set_native("interrupt_lines", lines)
    host = parts.semihosting
    host.restore_handles(fields.items("handles", MAX_HANDLES, _HANDLE))
    host.received = fields.number("received")
    errno = fields.get("semihosting")
    if type(errno) is not list or not errno or type(errno[0]) is not int or not 0 <= errno[0] < 1 << 31:
        raise fields.wrong("semihosting", "an error number and handles")
    host.errno = errno[0]
    parts.loop.ended = _ended(fields, machine)
    parts.storm.restore(_proved(fields))
    if ram.layout != machine.ram.layout:
        raise StateError("the saved RAM is that of another machine than the saved values")
    ram.map_into(machine.ram)
    found = observable_state(machine)
    if not same(found, {name: values[name] for name in found}):
        name = next(name for name in sorted(found) if not are_same(found[name], values[name]))
        raise StateError(f"{name} in the saved state does not belong to the rest: {values[name]!r:.200}")
    for receiver in told:
        parts.peripherals.board.receivers[receiver]([b""])
    parts.attachments.announce()


def _guest(fields: Fields) -> Guest:
    symbols = fields.data("symbols", _LARGEST_SYMBOLS)
    entry = None if fields.is_none("entry") else fields.number("entry", 1 << 32)
    layout = fields.numbers("layout", len(NO_GUEST.layout), (1 << 32) + 1)
    if len(layout) != len(NO_GUEST.layout):
        raise fields.wrong("layout", f"a list of {len(NO_GUEST.layout)} addresses")
    if entry is not None and entry & 3:
        raise fields.wrong("entry", "the address of an A32 instruction")
    return Guest(
        fields.choice("cpu", CPUS.__contains__),
        fields.flag("semihosting"),
        fields.flag("is_kernel"),
        None if entry is None else Image(fields.text("path", _LONGEST_LINE), Gpa(entry), (), is_elf=bool(symbols)),
        symbols,
        tuple(fields.numbers("registers", 15, 1 << 32)),
        fields.data("command_line", _LONGEST_LINE),
        Layout(*layout),
    )


def _restore_registers(cpu: CpuState, model: CpuModel, fields: Fields) -> None:
    """Set all architectural state. A processor of the model can be in no other state than those that are accepted."""
    size = state_size(model.architecture)
    data = fields.data("processor", size)
    if len(data) != size:
        raise fields.wrong("processor", f"{size} bytes")
    words, before = memoryview(data.ljust(LAYOUT.size, b"\0")).cast("I"), cpu.words
    for name, writable in {**WRITABLE, "sctlr": cpu["sctlr_writable"] & ~SCTLR_REFUSED}.items():
        slot = LAYOUT[name]
        for index in range(slot.index, slot.index + slot.count):
            if (words[index] ^ before[index]) & ~writable:
                raise StateError(f"{name} in the saved state is {words[index]:#x}, which {model.name} cannot have")
    cpu.words[:] = words
    psr = cpu["psr"]
    if cpu.pc & 3:
        raise StateError(f"the PC in the saved state is {cpu.pc:#x}, which is not the address of an A32 instruction")
    if psr & PSR_MODE not in BANKS or psr & (PSR_T | PSR_E):  # choice: no-thumb, no-big-endian
        raise StateError(f"the CPSR in the saved state is {psr:#x}, which this machine cannot have")


def _events(fields: Fields) -> list[Event]:
    events = fields.get("events")
    if type(events) is not list or not all(type(event) is list for event in events):
        raise fields.wrong("events", "a list of events")
    try:
        return [Event(*event) for event in events]
    except TypeError:
        raise fields.wrong("events", "a list of events") from None


def _ended(fields: Fields, machine: Machine) -> RunResult | None:
    if fields.is_none("ended"):
        return None
    ended = fields.sub("ended", _ENDED)
    code, message = ended.number("code", 256), ended.text("message", _LONGEST_MESSAGE)
    return RunResult(StopReason.EXITED, code, machine.icount, machine.cpu.pc, message)


def _proved(fields: Fields) -> tuple[bytes, int, str] | None:
    if fields.is_none("proved"):
        return None
    proved = fields.sub("proved", _PROVED)
    return proved.data("registers", LAYOUT.size), proved.number("lines", 1 << 32), proved.text("ram", 200)
