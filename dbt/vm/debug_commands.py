"""The commands of gdb's ``monitor``: what a debugger's user can ask of the machine itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dbt.abi.addresses import Gpa, Gva
from dbt.engine.shadow_tables import ShadowPage
from dbt.gdb.target import TargetError
from isa.arm.state import SCTLR_M, Mode
from isa.arm.vectors import ExceptionKind

if TYPE_CHECKING:
    from dbt.vm.debugger import Debugger
    from dbt.vm.history import History

#: The exceptions that can be caught, by the words of the command.
_CAUGHT: Mapping[str, tuple[ExceptionKind, ...]] = {
    "undef": (ExceptionKind.UNDEFINED,),
    "abort": (ExceptionKind.DATA_ABORT, ExceptionKind.PREFETCH_ABORT),
    "svc": (ExceptionKind.SUPERVISOR_CALL,),
    "irq": (ExceptionKind.IRQ, ExceptionKind.FIQ),
}
#: A function that returns True if the user wants a command to be given up.
Interrupted = Callable[[], bool]
_MOST_LINES = 400
_STALE = "gdb still shows the old registers: say maintenance flush register-cache"
_ASID = 0xFF
_MOST_WATCHED, _END = 1 << 12, 1 << 32


class _Command(NamedTuple):
    usage: str
    help: str
    run: Callable[[Debugger, Sequence[str], Interrupted], str]


def run_command(debugger: Debugger, words: Sequence[str], interrupted: Interrupted) -> str:
    """Do a command and return its answer. A command that does not exist or has wrong words is explained.

    ``interrupted`` is asked again and again by those that take long.
    """
    command = _COMMANDS.get(words[0]) if words else None
    if command is None:
        return _help(debugger, (), interrupted) if not words else f"there is no command {words[0]}: see monitor help"
    try:
        return command.run(debugger, words[1:], interrupted)
    except _WrongUse:
        return f"usage: monitor {command.usage}"


class _WrongUse(Exception):
    """Raised for words that a command does not understand."""


def _help(debugger: Debugger, words: Sequence[str], interrupted: Interrupted) -> str:
    return "\n".join(f"monitor {command.usage:<42} {command.help}" for command in _COMMANDS.values())


def _info(debugger: Debugger, words: Sequence[str], interrupted: Interrupted) -> str:
    machine = debugger.machine
    cpu = machine.cpu
    lines = (
        f"processor  {machine.cpu_model}, {Mode(cpu.mode).name.lower()} mode, "
        f"MMU {'on' if cpu['sctlr'] & SCTLR_M else 'off'}, ASID {cpu['contextidr'] & _ASID}, TTBR0 {cpu['ttbr0']:#x}",
        f"RAM        {machine.ram.layout}",
        f"tier       {machine.tier_name}",
        f"time       {_when(debugger, (), interrupted)}",
        f"at         {machine.describe_pc(cpu.pc)}",
        f"waiting    {'for an interrupt' if machine.vcpu.is_waiting else 'no'}",
        f"caught     {', '.join(sorted(kind.value for kind in debugger.caught)) or 'no exceptions'}",
        f"memory     by {'physical' if debugger.physical else 'virtual'} addresses",
    )
    return "\n".join(lines)


def _when(debugger: Debugger, words: Sequence[str], interrupted: Interrupted) -> str:
    machine = debugger.machine
    nanoseconds = machine.timeline.nanoseconds
    here = f"{machine.icount} instructions, {nanoseconds / 1e9:.9f} s of the guest's time"
    if (history := debugger.history) is None:
        return here
    return f"{here}, in a history from {history.oldest} to {history.newest} instructions"


def _history(debugger: Debugger) -> History:
    if debugger.history is None:
        raise TargetError("this run has no history: start it with dbt run --gdb ... --history")
    return debugger.history


def _branch(debugger: Debugger, words: Sequence[str], interrupted: Interrupted) -> str:
    history = _history(debugger)
    if not history.is_past:
        return "the guest is at the newest point of its history already"
    from dbt.vm.history import HistoryError

    try:
        history.branch()
    except HistoryError as error:
        raise TargetError(str(error)) from None
    return f"what came after {debugger.machine.icount} instructions is forgotten: the guest goes on from here"


def _seek(debugger: Debugger, words: Sequence[str], interrupted: Interrupted) -> str:
    icount, history = _number(words[0]) if len(words) == 1 else -1, _history(debugger)
    if icount < 0:
        raise _WrongUse
    if not history.oldest <= icount <= history.newest:
        raise TargetError(f"the history goes from {history.oldest} to {history.newest} instructions")
    if not debugger.seek(icount, interrupted):
        return f"interrupted after {debugger.machine.icount} instructions"
    return f"here {icount} instructions have been executed; {_STALE}"


def _last_write(debugger: Debugger, words: Sequence[str], interrupted: Interrupted) -> str:
    gva, size = _address(words[:1]), _number(words[1]) if len(words) == 2 else 4
    if len(words) > 2 or not 0 < size <= _MOST_WATCHED or gva + size > _END:
        raise _WrongUse
    history = _history(debugger)
    from dbt.vm.history import SearchInterrupted

    try:
        hit = debugger.last_write(gva, size, interrupted)
    except SearchInterrupted as error:
        return f"{error}; {_STALE}"
    if hit is None:
        return f"nothing has written to {gva:#x} since {history.oldest} instructions, where the history begins"
    machine = debugger.machine
    ago = machine.icount - hit.icount
    return f"{gva:#x} was last written after {hit.icount} instructions, {ago} ago, at {machine.describe_pc(hit.pc)}"


def _pages(debugger: Debugger, words: Sequence[str], interrupted: Interrupted) -> str:
    if words:
        gva = _address(words)
        gpa = debugger.translate(gva)
        return f"{gva:#010x} is not mapped to RAM" if gpa is None else f"{gva:#010x} is at {gpa:#010x}"
    lines = [line for _, pages in debugger.machine.tier.shadow_pages() for line in _merged(pages)]
    more = [f"... and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else []
    return "\n".join(["virtual               physical   rights", *lines[:_MOST_LINES], *more])


class _Run(NamedTuple):
    """Virtual pages from ``start`` to ``end`` (not included), whose physical addresses are so much lower."""

    start: int
    end: int
    distance: int
    rights: str


def _merged(pages: Iterator[ShadowPage]) -> Iterator[str]:
    """Yield a line for each run of pages that are mapped in order, with equal rights."""
    runs: list[_Run] = []
    for gva, gpa, size, rights in pages:
        last = runs[-1] if runs else None
        if last is not None and (last.end, last.distance, last.rights) == (gva, gva - gpa, rights):
            runs[-1] = last._replace(end=gva + size)
        else:
            runs.append(_Run(gva, gva + size, gva - gpa, rights))
    for run in runs:
        yield f"{run.start:08x}-{run.end - 1:08x}     {run.start - run.distance:08x}   {run.rights}"


def _callouts(debugger: Debugger, words: Sequence[str], interrupted: Interrupted) -> str:
    counts = {name: count for name, count in debugger.machine.tier.callouts.items() if count}
    lines = [f"{count:>12}  {name}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1])]
    return "\n".join(lines) or "no callouts"


def _reset(debugger: Debugger, words: Sequence[str], interrupted: Interrupted) -> str:
    debugger.restart()
    image = debugger.machine.image
    is_loaded = image is not None and bool(image.segments)  # a restored guest has no file
    what = "the guest is loaded again" if is_loaded else "RAM keeps what it holds"
    return f"reset: {what}; {_STALE}"


def _snapshot(debugger: Debugger, words: Sequence[str], interrupted: Interrupted) -> str:
    if words:
        raise _WrongUse
    return f"saved to {debugger.save()} at instruction {debugger.machine.icount}"


def _catch(debugger: Debugger, words: Sequence[str], interrupted: Interrupted) -> str:
    if not words or any(word not in (*_CAUGHT, "none") for word in words):
        raise _WrongUse
    if words == ["none"]:
        debugger.caught.clear()
    for word in words:
        debugger.caught.update(_CAUGHT.get(word, ()))
    return f"caught: {', '.join(sorted(kind.value for kind in debugger.caught)) or 'no exceptions'}"


def _physical(debugger: Debugger, words: Sequence[str], interrupted: Interrupted) -> str:
    if list(words) not in (["on"], ["off"]):
        raise _WrongUse
    debugger.physical = words[0] == "on"
    return f"memory is read and written by {'physical' if debugger.physical else 'virtual'} addresses"


def _step_interrupts(debugger: Debugger, words: Sequence[str], interrupted: Interrupted) -> str:
    if list(words) not in (["on"], ["off"]):
        raise _WrongUse
    debugger.steps_into_interrupts = words[0] == "on"
    return f"a step that is interrupted {'ends at the handler' if words[0] == 'on' else 'goes on after the handler'}"


def _limit(debugger: Debugger, words: Sequence[str], interrupted: Interrupted) -> str:
    gva = _address(words[:1])
    match words[1:]:
        case ["any"]:
            debugger.limits.pop(gva, None)
            return f"a breakpoint at {gva:#x} stops the guest in any address space"
        case [("contextidr" | "ttbr0") as register, value]:
            debugger.limits[gva] = register, _number(value)
        case ["here"]:
            debugger.limits[gva] = "ttbr0", debugger.machine.cpu["ttbr0"]
        case _:
            raise _WrongUse
    where = "stops the guest where {} is {:#x}".format(*debugger.limits[gva])
    return f"a breakpoint at {gva:#x} {where}"


def _read(debugger: Debugger, words: Sequence[str], interrupted: Interrupted) -> str:
    gpa, size = _address(words[:1]), _number(words[1]) if len(words) == 2 else 64
    if len(words) > 2 or not 0 < size <= 4096:
        raise _WrongUse
    try:
        data = debugger.machine.read(Gpa(gpa), size)
    except ValueError as error:
        raise TargetError(str(error)) from None
    rows = (data[at : at + 16] for at in range(0, size, 16))
    return "\n".join(f"{gpa + 16 * number:08x}  {row.hex(' ', -4)}" for number, row in enumerate(rows))


def _address(words: Sequence[str]) -> Gva:
    if len(words) != 1:
        raise _WrongUse
    found = _number(words[0])
    if not 0 <= found < 1 << 32:
        raise _WrongUse
    return Gva(found)


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise _WrongUse from None


_COMMANDS: Mapping[str, _Command] = {
    "help": _Command("help", "this list", _help),
    "info": _Command("info", "what the machine is, and where it stands", _info),
    "when": _Command("when", "instructions executed, and the guest's time", _when),
    "last-write": _Command("last-write ADDRESS [SIZE]", "who wrote last to an address", _last_write),
    "seek": _Command("seek ICOUNT", "go to an instruction of the history, back or forward", _seek),
    "branch": _Command("branch", "forget what came after this moment, and go on from here", _branch),
    "snapshot": _Command("snapshot", "save the machine to the file of --save", _snapshot),
    "pages": _Command("pages [ADDRESS]", "the mappings in use, or where an address is in RAM", _pages),
    "callouts": _Command("callouts", "how often sensitive instructions were executed", _callouts),
    "system_reset": _Command("system_reset", "load the guest again and reset", _reset),
    "catch": _Command("catch undef|abort|svc|irq|none ...", "stop at the handlers of exceptions", _catch),
    "physical": _Command("physical on|off", "read and write memory by physical addresses", _physical),
    "stepirq": _Command("stepirq on|off", "let steps end at the handlers of interrupts, or not", _step_interrupts),
    "xp": _Command("xp ADDRESS [SIZE]", "show memory at a physical address", _read),
    "limit": _Command(
        "limit ADDRESS here|contextidr N|ttbr0 N|any", "let a breakpoint stop one address space only", _limit
    ),
}
