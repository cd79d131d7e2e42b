"""Conversion of texts from the command line. CommandError names the option with a wrong text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from dbt.abi.addresses import Gpa, Gva
from dbt.abi.layout import PAGE_SIZE
from dbt.board.boards import MAX_MEMORY
from dbt.board.clock import END_OF_EPOCHS, INSN_NS_CHOICES
from dbt.cli.status import CommandError, Status
from dbt.frontend.optimizations import Optimizations

if TYPE_CHECKING:
    from dbt.host.drive import Drive
    from dbt.host.ninep.share import Share
    from dbt.host.vsock_option import Vsock

T = TypeVar("T")
Name = TypeVar("Name", bound=str)

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def optional(parse: Callable[[str, str], T], option: str, text: str | None) -> T | None:
    """Return ``parse`` of an option's text, or None if the option is absent."""
    return None if text is None else parse(option, text)


def parse_size(option: str, text: str) -> int:
    """Return the bytes of a size such as ``128M``, with K, M or G for powers of 1024. It must be whole pages."""
    digits, unit = (text[:-1], _UNITS[text[-1].upper()]) if text[-1:].upper() in _UNITS else (text, 1)
    size = _number(digits, option, text, "a size: write for example 128M or 1G") * unit
    if not PAGE_SIZE <= size <= MAX_MEMORY or size % PAGE_SIZE:
        raise _wrong(option, text, "a multiple of 4K from 4K to 2G")
    return size


def parse_gpa(option: str, text: str) -> Gpa:
    """Return a guest physical address such as ``0x8000`` or ``32768``."""
    return Gpa(_address(option, text))


def parse_gva(option: str, text: str) -> Gva:
    """Return a guest virtual address such as ``0x8000`` or ``32768``."""
    return Gva(_address(option, text))


def _address(option: str, text: str) -> int:
    value = _number(text, option, text, "an address: write for example 0x8000")
    if not 0 <= value <= 0xFFFFFFFF:
        raise _wrong(option, text, "an address of 32 bits")
    return value


def parse_count(option: str, text: str, of: str = "instructions") -> int:
    """Return a count such as ``1000000`` or ``1_000_000``. ``of`` says what is counted."""
    value = _number(text, option, text, f"a number of {of}")
    if value < 0:
        raise _wrong(option, text, f"a number of {of}: it is negative")
    return value


def parse_seconds(option: str, text: str) -> float:
    """Return a positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise _wrong(option, text, "a positive number of seconds")
    return value


def parse_epoch(option: str, text: str) -> int:
    """Return a time of day in seconds since 1970, which is given as ``now`` or as such a number."""
    if text == "now":
        import time

        return int(time.time())
    wanted = "'now' or a number of seconds since 1970, below 2^32"
    epoch = _number(text, option, text, wanted)
    if not 0 <= epoch < END_OF_EPOCHS:
        raise _wrong(option, text, wanted)
    return epoch


def parse_insn_ns(option: str, text: str) -> float:
    """Return the time of an instruction in nanoseconds."""
    for insn_ns in INSN_NS_CHOICES:
        if text == str(insn_ns):
            return insn_ns
    wanted = f"one of the nanoseconds that divide 1000: {', '.join(map(str, INSN_NS_CHOICES))}"
    raise _wrong(option, text, wanted)


def parse_choice(option: str, text: str, choices: Sequence[Name]) -> Name:
    """Return the text, which must be one of some names."""
    found = next((name for name in choices if name == text), None)
    if found is None:
        raise CommandError(f"{option} {text}: this is none of {', '.join(choices)}.", Status.USAGE)
    return found


def parse_switch(option: str, text: str) -> bool:
    """Return True for ``on`` and False for ``off``."""
    return parse_choice(option, text, ("on", "off")) == "on"


def parse_optimizations(option: str, text: str) -> Optimizations:
    """Return all optimizations except those named in a text such as ``literals,instcombine``."""
    try:
        return Optimizations.without(*(name.strip() for name in text.split(",")))
    except ValueError as error:
        raise CommandError(f"{option} {text}: {error}.", Status.USAGE) from None


def parse_rng(option: str, text: str) -> int:
    """Return the number in a text such as ``seed=7``."""
    wanted = "seed=N with a whole number below 2^63"
    name, _, digits = text.partition("=")
    seed = _number(digits, option, text, wanted)
    if name != "seed" or not 0 <= seed < 1 << 63:
        raise _wrong(option, text, wanted)
    return seed


def parse_drive(option: str, text: str) -> Drive:
    """Return the disk of a text such as ``file=disk.img,readonly``. A comma in a name is written twice, as for QEMU."""
    from dbt.host.drive import Backing, Drive

    given: dict[str, str] = {}
    backing: list[Backing] = []
    for part in text.replace(",,", "\0").split(","):
        name, _, value = part.replace("\0", ",").partition("=")
        if name == "backing" and value:
            backing.append(Backing(value))
        elif name == "backing-format" and backing:
            backing[-1] = backing[-1]._replace(format=value)
        elif name in given:
            raise CommandError(f"{option} {text}: {name} is there twice.", Status.USAGE)
        else:
            given[name] = value
    path = given.pop("file", "")
    if not path:
        raise _wrong(option, text, "file=F with the name of a file, and options behind it")
    serial, overlay, format_ = given.pop("serial", ""), given.pop("overlay", ""), given.pop("format", "raw")
    switches = {name: given.pop(name, "off") for name in ("readonly", "snapshot")}
    if given:
        message = f"{option} {text}: there is no option {next(iter(given))} there. See `dbt run --help`."
        raise CommandError(message, Status.USAGE)
    read_only, snapshot = (parse_switch(f"{option} {name}", value or "on") for name, value in switches.items())
    drive = Drive(path, read_only, snapshot, serial, overlay, format_, tuple(backing))
    if fault := drive.fault():
        raise CommandError(f"{option} {text}: {fault}.", Status.USAGE)
    return drive


def parse_share(option: str, text: str) -> Share:
    """Return the shared directory of a text such as ``DIR:TAG,ro``. A comma in a name is written twice."""
    from dbt.host.ninep.share import DEFAULT_TAG, Share

    head, *rest = (part.replace("\0", ",") for part in text.replace(",,", "\0").split(","))
    if rest not in ([], ["ro"]):
        raise CommandError(f"{option} {text}: behind the directory and its tag only `,ro` can stand.", Status.USAGE)
    path, colon, tag = head.rpartition(":")
    if not colon:
        path, tag = head, DEFAULT_TAG
    if not path or not tag:
        raise _wrong(option, text, "DIR or DIR:TAG with the name of a directory, and `,ro` behind it")
    return Share(path, tag, bool(rest))


def parse_vsock(option: str, text: str) -> Vsock:
    """Return the socket device of a text such as ``3,unix:PATH``."""
    from dbt.host.vsock_option import FIRST_CID, LAST_CID, Vsock

    number, _, end = text.partition(",")
    wanted = f"CID,unix:PATH or CID,none, with a CID from {FIRST_CID} to {LAST_CID}"
    cid = _number(number, option, text, wanted)
    if not FIRST_CID <= cid <= LAST_CID or not (end == "none" or (end.startswith("unix:") and end != "unix:")):
        raise _wrong(option, text, wanted)
    return Vsock(cid, end)


def check_smp(option: str, text: str) -> None:
    """Raise CommandError for a wish for more processors than one."""
    if _number(text, option, text, "a number of processors") != 1:
        raise CommandError(f"{option} {text}: a machine has one processor.", Status.USAGE)


def _number(digits: str, option: str, text: str, wanted: str) -> int:
    try:
        return int(digits, 0)
    except ValueError:
        raise _wrong(option, text, wanted) from None


def _wrong(option: str, text: str, wanted: str) -> CommandError:
    return CommandError(f"{option} {text}: this is not {wanted}.", Status.USAGE)
