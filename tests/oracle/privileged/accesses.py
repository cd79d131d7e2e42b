"""The ways to access a page, each as one step: read, write, execute, with privilege and without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.oracle.privileged.program import Step
from tests.oracle.privileged.tables import Poke

READ_OFFSET, WRITE_OFFSET = 0x10, 0x14  # an offset in a KB of the frames, whose beginning is code


@dataclass(frozen=True)
class Access:
    name: str
    mode: str
    code: str
    offset: int


ACCESSES = (
    *(Access(f"read in {mode}", mode, "ldr r1, [r0]", READ_OFFSET) for mode in ("usr", "svc")),
    *(Access(f"write in {mode}", mode, "str r1, [r0]", WRITE_OFFSET) for mode in ("usr", "svc")),
    *(Access(f"execute in {mode}", mode, "mov pc, r0", 0) for mode in ("usr", "svc")),
    Access("ldrt in svc", "svc", "ldrt r1, [r0]", READ_OFFSET),
    Access("strt in irq", "irq", "strt r1, [r0]", WRITE_OFFSET),
)


def access(
    name: str,
    va: int,
    pa: int,
    pokes: Sequence[Poke],
    state: Mapping[str, int],
    accesses: Sequence[Access] = ACCESSES,
) -> Iterator[Step]:
    """Yield every access to the KB at ``va``, which is at ``pa`` if the access succeeds."""
    cleared = [*pokes, (pa + WRITE_OFFSET, 0)]
    for kind in accesses:
        values = {"r0": va + kind.offset, **state}
        watch = {"stored": pa + WRITE_OFFSET} if kind.offset == WRITE_OFFSET else {}
        yield Step(f"{name}: {kind.name}", kind.code, kind.mode, state=values, pokes=cleared, watch=watch)
