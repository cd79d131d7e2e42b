"""The messages between a machine and the compiler's process, as bytes.

Both sides run as the same user, but neither trusts the other. A message of a wrong length, or with a field that makes
no sense, raises WrongMessage. That ends the compiler or costs a request, and never the guest.

Every message to the compiler begins with its kind and the number of the machine. Integers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

from dbt.abi.addresses import Gpa, Gva, Hva, MappedPage
from dbt.abi.layout import OPS_PER_PAGE, PAGE_SIZE, TARGET_ENTRIES
from dbt.backend.compiled import CompiledRegion, Refused, WrongRegion
from dbt.codecache.region_store import StoreCounts
from dbt.frontend.context import TranslationContext, WrongContext

_LENGTH = struct.Struct("<I")
#: The largest length of a message, in bytes. A longer one is refused.
_LONGEST = 64 << 20
_HEAD = struct.Struct("<BI")
_PAGE = struct.Struct("<I")
_REQUEST = struct.Struct("<IIIB?II")
_RESULT = struct.Struct("<Id?qqqi")


class WrongMessage(ValueError):
    """Raised for a message that makes no sense."""


class Kind(IntEnum):
    """The kinds of messages to the compiler."""

    MACHINE = 0  # there is a machine of this number
    PAGE = 1  # what the words of one of its code pages are, and their flags
    TARGETS = 2  # where its indirect branches went
    COMPILE = 3  # a region is wanted
    FORGET = 4  # the machine is no more


@dataclass(frozen=True, slots=True)
class MachineNotice:
    """``code_pages`` is the HVA of its code pages, by which branch targets name ops. If ``keep``, its regions go to the
    cache directory, which the variables of ``environment`` say.
    """

    code_pages: Hva
    keep: bool
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PageNotice:
    """``words`` are the bytes of a physical page, ``flags`` a byte for each word (WORD_EXECUTED and so on)."""

    page: int
    words: bytes
    flags: bytes


@dataclass(frozen=True, slots=True)
class TargetNotice:
    """``entries``: a u64 each, an op's address in the low half and where the branch there went to in the high half."""

    entries: bytes


@dataclass(frozen=True, slots=True)
class CompileRequest:
    """A request for the region around an address. ``gpa`` identifies it, and ``named`` are the bytes there.

    With the MMU on, ``pages`` has the mappings of pages in which code has been executed, else it is None.
    ``backlog`` requests backlog mode, because other regions wait.
    """

    gpa: Gpa
    gva: Gva
    context: TranslationContext
    pages: tuple[MappedPage, ...] | None = None
    backlog: bool = False
    named: bytes = b""

    def in_backlog(self) -> CompileRequest:
        """Return the request in backlog mode."""
        return replace(self, backlog=True)


@dataclass(frozen=True, slots=True)
class CompileResult:
    """The answer to the request ``number``, which took so many seconds. ``store`` says whether the region was kept."""

    number: int
    seconds: float
    region: CompiledRegion | Refused
    store: StoreCounts


Notice = MachineNotice | PageNotice | TargetNotice | tuple[int, CompileRequest] | None


def framed(body: bytes) -> bytes:
    """Return a message as it is sent, with its length before it."""
    return _LENGTH.pack(len(body)) + body


def take_messages(received: bytearray) -> Iterator[bytes]:
    """Take the whole messages from the front of what was received. Raises WrongMessage."""
    while len(received) >= _LENGTH.size:
        (size,) = _LENGTH.unpack_from(received)
        if size > _LONGEST:
            raise WrongMessage(f"a message of {size} bytes")
        if len(received) < _LENGTH.size + size:
            return
        body = bytes(received[_LENGTH.size : _LENGTH.size + size])
        del received[: _LENGTH.size + size]
        yield body


# -- to the compiler ---------------------------------------------------------------------------------


def pack_machine(machine: int, notice: MachineNotice) -> bytes:
    variables = "\0".join(f"{name}={value}" for name, value in notice.environment.items())
    head = _HEAD.pack(Kind.MACHINE, machine) + struct.pack("<Q?", notice.code_pages, notice.keep)
    return framed(head + variables.encode(errors="surrogateescape"))


def pack_page(machine: int, notice: PageNotice) -> bytes:
    return framed(_HEAD.pack(Kind.PAGE, machine) + _PAGE.pack(notice.page) + notice.words + notice.flags)


def pack_targets(machine: int, notice: TargetNotice) -> bytes:
    return framed(_HEAD.pack(Kind.TARGETS, machine) + notice.entries)


def pack_request(machine: int, number: int, request: CompileRequest) -> bytes:
    context = request.context.describe().encode()
    pages = request.pages or ()
    head = _REQUEST.pack(
        number, request.gpa, request.gva, request.backlog, request.pages is not None, len(pages), len(context)
    )
    numbers = struct.pack(f"<{2 * len(pages)}I", *(page for pair in pages for page in pair))
    return framed(b"".join((_HEAD.pack(Kind.COMPILE, machine), head, numbers, context, request.named)))


def pack_forget(machine: int) -> bytes:
    return framed(_HEAD.pack(Kind.FORGET, machine))


def unpack_notice(body: bytes) -> tuple[int, Notice]:
    """Return the number of the machine, and what is said of it; None if it is no more. Raises WrongMessage."""
    try:
        kind, machine = _HEAD.unpack_from(body)
        return machine, _unpack(Kind(kind), body[_HEAD.size :])
    except (struct.error, ValueError, WrongContext) as error:
        raise WrongMessage(str(error)) from error


def _unpack(kind: Kind, rest: bytes) -> Notice:
    match kind:
        case Kind.MACHINE:
            code_pages, keep = struct.unpack_from("<Q?", rest)
            text = rest[9:].decode(errors="surrogateescape")
            variables = dict(item.split("=", 1) for item in text.split("\0")) if text else {}
            return MachineNotice(Hva(code_pages), keep, variables)
        case Kind.PAGE:
            if len(rest) != _PAGE.size + PAGE_SIZE + OPS_PER_PAGE:
                raise WrongMessage("a code page of the wrong length")
            (page,) = _PAGE.unpack_from(rest)
            return PageNotice(page, rest[_PAGE.size : _PAGE.size + PAGE_SIZE], rest[_PAGE.size + PAGE_SIZE :])
        case Kind.TARGETS:
            if len(rest) != 8 * TARGET_ENTRIES:
                raise WrongMessage("branch targets of the wrong length")
            return TargetNotice(rest)
        case Kind.COMPILE:
            number, gpa, gva, backlog, has_pages, count, size = _REQUEST.unpack_from(rest)
            numbers = struct.unpack_from(f"<{2 * count}I", rest, _REQUEST.size)
            pages = tuple(map(MappedPage, numbers[::2], numbers[1::2])) if has_pages else None
            at = _REQUEST.size + 8 * count
            context = TranslationContext.parse(rest[at : at + size].decode())
            return number, CompileRequest(Gpa(gpa), Gva(gva), context, pages, bool(backlog), rest[at + size :])
        case Kind.FORGET:
            return None


# -- from the compiler -------------------------------------------------------------------------------


def pack_start(reason: str = "") -> bytes:
    """Return the first message: that the compiler is ready, or the reason for which it cannot be."""
    return framed(reason.encode(errors="replace"))


def unpack_start(body: bytes) -> str:
    """Return the reason in it, which is empty if the compiler is ready."""
    return body[:1000].decode(errors="replace")


def pack_result(result: CompileResult) -> bytes:
    store = result.store
    refused = isinstance(result.region, Refused)
    head = _RESULT.pack(result.number, result.seconds, refused, store.saved, store.evicted, store.failed, store.error)
    region = result.region
    return framed(head + (region.reason.encode() if isinstance(region, Refused) else region.pack()))


def unpack_result(body: bytes) -> CompileResult:
    """Raises WrongMessage."""
    try:
        number, seconds, refused, saved, evicted, failed, error = _RESULT.unpack_from(body)
        rest = body[_RESULT.size :]
        region = Refused(rest.decode()) if refused else CompiledRegion.unpack(rest)
    except (struct.error, UnicodeDecodeError, WrongRegion) as problem:
        raise WrongMessage(str(problem)) from problem
    return CompileResult(number, seconds, region, StoreCounts(saved, evicted, failed, error))
