"""The messages of the migration protocol, and the checks of what a peer sends. docs/migration.md has them all.

A message is its kind in one byte, the size of its body in four, the lowest first, and the body. The body is a plain
value (:mod:`dbt.snapshot.plain`), but for pages. No memory is taken for a size that the kind of message cannot have.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dbt.abi.layout import PAGE_SHIFT
from dbt.hypervisor.migration.errors import ProtocolError
from dbt.memory.ram import RamLayout, RamRegion
from dbt.snapshot.format import MAX_REGIONS, MAX_VALUES, FormatError, Runs
from dbt.snapshot.plain import NotPlain, decode

if TYPE_CHECKING:
    from dbt.vm.input import Arrival

VERSION: Final = 6
MAGIC: Final = "dbt-migration"
#: The bytes of a migration's number, which is random.
NUMBER_SIZE: Final = 16
HEADER: Final = struct.Struct("<BI")
#: The pages of one message, at most.
BATCH_PAGES: Final = 256
#: What may be on its way to a guest that is moved, at most.
MOST_PENDING: Final = 2048
MOST_PENDING_BYTES: Final = 1 << 20
_RUN_SIZE: Final = 8
_COUNTS: Final = struct.Struct("<II")
_SMALL: Final = 1 << 16


class Kind(IntEnum):
    """The kinds of messages. S is sent by the source, D by the destination."""

    HELLO = 1  # S, D: magic, version; of S also the migration's number, and whether it asks for the standing of one
    OFFER = 2  # S: what machine it is, and how its memory comes
    ACCEPTED = 3  # D
    REFUSED = 4  # D: why; it has given everything up
    PAGES = 5  # S: pages, also those that are zero now
    ROUND = 6  # S: all pages of a round have been sent
    ROUND_HEARD = 7  # D
    STATE = 8  # S: everything else
    VOTE = 9  # D: it has the same root, and can run the machine
    COMMIT = 10  # S
    COMMITTED = 11  # D: the machine runs there
    DONE = 12  # S: it knows
    ABORT = 13  # S: why; the machine stays where it was
    STANDING = 14  # D: how far the migration is that the source has asked for
    BLOCKS = 15  # S: parts of a disk that is copied
    LITTLE_LEFT = 16  # S: RAM can be mapped, because few pages will come from now on
    ROOT = 17  # S: the root of the tree, right behind the state


#: The largest body of each kind.
LIMITS: Final[dict[Kind, int]] = {
    **dict.fromkeys(Kind, _SMALL),
    Kind.OFFER: MAX_VALUES,
    Kind.STATE: MAX_VALUES,
    Kind.PAGES: _COUNTS.size + BATCH_PAGES * (2 * _RUN_SIZE + (1 << PAGE_SHIFT)),
    Kind.BLOCKS: _SMALL + (1 << 20),
}


class Pages(NamedTuple):
    """A message of pages: runs of those that have content, runs of those that are zero, and the content."""

    runs: Runs
    cleared: Runs
    content: memoryview[int]

    def head(self) -> bytes:
        """Return all of the body but the content."""
        runs, cleared = self.runs.pack(), self.cleared.pack()
        return _COUNTS.pack(len(runs) // _RUN_SIZE, len(cleared) // _RUN_SIZE) + runs + cleared

    @classmethod
    def unpack(cls, body: memoryview[int], layout: RamLayout, with_content: bool) -> Pages:
        """Return what a body says. Without ``with_content`` it has none. Raise ProtocolError."""
        if len(body) < _COUNTS.size:
            raise ProtocolError("a message of pages ends before its counts")
        counts = _COUNTS.unpack_from(body)
        bounds = [_COUNTS.size, _COUNTS.size + counts[0] * _RUN_SIZE, _COUNTS.size + sum(counts) * _RUN_SIZE]
        if bounds[-1] > len(body):
            raise ProtocolError(f"a message of pages has {len(body):,} bytes, and its runs alone {bounds[-1]:,}")
        try:
            runs = Runs.unpack(bytes(body[bounds[0] : bounds[1]]), layout, "pages")
            cleared = Runs.unpack(bytes(body[bounds[1] : bounds[2]]), layout, "pages that are zero")
        except FormatError as error:
            raise ProtocolError(f"a message of pages {error}") from None
        content = body[bounds[2] :]
        size = runs.total << PAGE_SHIFT if with_content else 0
        if len(content) != size or runs.total + cleared.total > BATCH_PAGES:
            raise ProtocolError(f"a message of {runs.total} pages has {len(content):,} bytes of content")
        return cls(runs, cleared, content)


def mapping(body: memoryview[int], what: str, **kinds: type) -> dict[str, Any]:
    """Return the plain value of a body, which has exactly these names with values of these types.

    Raise ProtocolError for another body.
    """
    try:
        value = decode(bytes(body))
    except NotPlain as error:
        raise ProtocolError(f"{what} cannot be read: {error}") from None
    if not isinstance(value, dict) or value.keys() != kinds.keys():
        raise ProtocolError(f"{what} has not the fields {', '.join(sorted(kinds))}")
    for name, kind in kinds.items():
        if type(value[name]) is not kind:  # type: ignore[index]
            raise ProtocolError(f"{what} has a field {name} that is no {kind.__name__}")
    return value  # type: ignore[return-value]


def state_values(found: Any, what: str) -> dict[str, Any]:
    """Return the values of a state by name. Raise ProtocolError if they have no names."""
    if not isinstance(found, dict) or not all(type(name) is str for name in found):
        raise ProtocolError(f"{what} has values without names")
    return found


def layout_of(regions: Any) -> RamLayout:
    """Return where a machine has RAM. Raise ProtocolError for what no machine has."""
    try:
        if not 0 < len(regions) <= MAX_REGIONS:
            raise ValueError
        if any([type(part) for part in region] != [int, int, bool] for region in regions):
            raise ValueError
        return RamLayout(tuple(RamRegion(*region) for region in regions))
    except (TypeError, ValueError):
        raise ProtocolError("the offer has RAM where no machine has any") from None


def pending_of(found: list[Any]) -> list[Arrival]:
    """Return what is on its way to a guest. Raise ProtocolError for what makes no sense."""
    from dbt.vm.input import Arrival

    arrivals = list[Arrival]()
    for one in found:
        match one:
            case [str(receiver), bytes(data)]:
                arrivals.append(Arrival(receiver, data))
            case _:
                raise ProtocolError("what is on its way to the guest makes no sense")
    if len(arrivals) > MOST_PENDING or sum(len(one.data) for one in arrivals) > MOST_PENDING_BYTES:
        raise ProtocolError("too much is on its way to the guest")
    return arrivals
