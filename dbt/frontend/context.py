"""The translation context: everything that translated code depends on besides the guest's own words.

Code that was translated under one context must never run under another. So the context is one frozen value, and it is
part of every key: of the regions that are installed, of files and records in the cache directory, of requests to the
compiler, and, by :attr:`TranslationContext.decoding`, of decoded ops. A new mode, a hook or a breakpoint that changes
what code is generated becomes a field here, and cannot be forgotten in one of the keys.

The number of the semihosting SVC is not part of it: no region contains an SVC, and handlers read the number from
CpuState.
"""

# There is no "from __future__ import annotations" here: NamedTuple would compile each annotation at each start.

from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from dbt.abi.addresses import Gpa
from dbt.frontend.optimizations import ALL, Optimizations
from dbt.memory.ram import RamLayout, RamRegion
from isa.arm.cpus import ANY


class InstructionSet(StrEnum):
    """The instruction sets that guests' code is translated from."""

    A32 = "a32"


_TEXT = (
    r"(?P<instruction_set>[a-z0-9]+) architecture (?P<architecture>\d+) alignment (?P<alignment>[01]) "
    r"mmu (?P<mmu>[01]) ram (?P<ram>[0-9a-fr+,]+) records (?P<records>[01]) counters (?P<counters>[01]) "
    r"without (?P<without>[a-z_,]*)"
)


class WrongContext(ValueError):
    """Raised for a text that does not describe a translation context."""


class TranslationContext(NamedTuple):
    """What code was, or is to be, translated under.

    ``architecture`` is the version that the CPU model implements (:class:`isa.arm.cpus.CpuModel`): words that only
    later versions define are undefined instructions. ``checks_alignment`` is SCTLR.A, and ``has_mmu`` is SCTLR.M.
    ``ram`` says where RAM is. ``compile_records`` says whether regions say how they were made
    (:mod:`dbt.backend.compile_record`), and ``block_counters`` whether they count their blocks.
    """

    ram: RamLayout
    architecture: int = ANY.architecture
    checks_alignment: bool = False
    has_mmu: bool = False
    compile_records: bool = False
    block_counters: bool = False
    optimizations: Optimizations = ALL
    instruction_set: InstructionSet = InstructionSet.A32

    @property
    def decoding(self) -> tuple[InstructionSet, int]:
        """The part that decoded ops depend on. Handlers take account of the rest when they are executed."""
        return self.instruction_set, self.architecture

    def is_within_reach(self, other: "TranslationContext") -> bool:
        """Return True if a guest comes from one context into the other by writing SCTLR.

        Regions compare SCTLR at their entries, so those of one context do no harm in the other.
        """
        return self._replace(checks_alignment=other.checks_alignment, has_mmu=other.has_mmu) == other

    def describe(self) -> str:
        """Return the context as one line of text. Two contexts are equal if and only if their texts are."""
        ram = ",".join(f"{region.base:x}+{region.size:x}{'r' * region.read_only}" for region in self.ram.regions)
        return (
            f"{self.instruction_set} architecture {self.architecture} alignment {self.checks_alignment:d} "
            f"mmu {self.has_mmu:d} ram {ram} records {self.compile_records:d} counters {self.block_counters:d} "
            f"without {self.optimizations.describe()}"
        )

    @classmethod
    def parse(cls, text: str) -> "TranslationContext":
        """Return the context that :meth:`describe` made ``text`` of. Raises WrongContext."""
        return _parse(text)


@lru_cache(64)
def _parse(text: str) -> TranslationContext:
    import re

    found = re.fullmatch(_TEXT, text)
    if found is None:
        raise WrongContext(f"{text[:200]!r} is not a translation context")
    try:
        return TranslationContext(
            _ram_layout(found["ram"].split(",")),
            int(found["architecture"]),
            found["alignment"] == "1",
            found["mmu"] == "1",
            found["records"] == "1",
            found["counters"] == "1",
            Optimizations.without(*filter(None, found["without"].split(","))),
            InstructionSet(found["instruction_set"]),
        )
    except ValueError as error:
        raise WrongContext(f"{text[:200]!r} is not a translation context: {error}") from error


def _ram_layout(texts: Sequence[str]) -> RamLayout:
    """Return the layout of regions such as ``8000+1000``, or ``8000+1000r`` for a read-only one. Raises ValueError."""
    regions = []
    for text in texts:
        base, size = text.removesuffix("r").split("+")
        regions.append(RamRegion(Gpa(int(base, 16)), int(size, 16), text.endswith("r")))
    return RamLayout(tuple(regions))
