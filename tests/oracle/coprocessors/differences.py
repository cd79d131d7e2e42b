"""Where we do not answer as QEMU 7.2 does, each with the reason. Everything else must be as QEMU has it.

Sections are those of the ARMv7-A manual (ARM DDI 0406C).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

#: Places that QEMU answers as whole ranges, because early processors had something there: they read as zero and ignore
#: writes. The manual reserves them. Those of c15 are the implementation's, and we have them too.
_RANGES = re.compile(
    r"(mrc|mcr|set) p15, (?!0, c3, c0, 0)\d, c3, .*"
    r"|(mrc|mcr|set) p15, \d, c10, c[0148], .*"
    r"|(mrc|mcr|set) p15, (?!4, c15, c0, 0)\d, c15, .*"
    r"|mcr p15, 0, c7, .*: svc"
)


@dataclass(frozen=True, slots=True)
class Difference:
    """Lines of QEMU's that match ``lines``, and what is in their place: ``ours`` as in :func:`re.sub`, or nothing."""

    reason: str
    lines: str
    ours: str | None


DIFFERENCES = (
    Difference(
        "ID_MMFR0.VMSA is 3, because there is no LPAE.", r"(mrc p15, 0, c0, c1, 4: svc 0x10[12]0110)5", r"\g<1>3"
    ),
    Difference(
        "Without LPAE there are neither TTBR0, TTBR1 and PAR of 64 bits, nor AMAIR0 and AMAIR1 (B3.6, B4.1).",
        r"(mrrc|mcrr|set) p15, [01], c(2|7):.*|(mrc|mcr|set) p15, 0, c10, c3, [01]:.*",
        None,
    ),
    Difference(
        "Without LPAE, TTBCR has N alone: PD0 and PD1 are the Security Extensions' (B4.1.153).",
        r"(set p15, 0, c2, c0, 2: 0xffffffff -> )0xffc73f87",
        r"\g<1>0x7",
    ),
    Difference(
        "FCSEIDR has the process ID alone (B4.1.64); QEMU keeps all bits.",
        r"(set p15, 0, c13, c0, 0: 0xffffffff -> )0xffffffff",
        r"\g<1>0xfe000000",
    ),
    Difference(
        "DBGDEVID, 1 and 2 are at c7, c2 to c0, 7 (C11.11.22); QEMU has left out CRm.",
        r"mrc p14, 0, c7, c0, ([012])(: svc .*)",
        r"mrc p14, 0, c7, c\1, 7\2",
    ),
    *(
        Difference(
            "Reserved bits of SCTLR do not change (B4.1.130); nor do RR, HA, FI, WXN and UWXN, which are not there.",
            rf"(set p15, 0, c1, c0, 0: bit {bit}) changes",
            r"\g<1> stays",
        )
        for bit in (3, 4, 5, 6, 8, 9, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 26, 27, 31)
    ),
)


def is_of_a_range(line: str) -> bool:
    """Return True for a line about one of many places that QEMU answers alike, without looking at them."""
    return _RANGES.fullmatch(line) is not None


def expected_of(line: str) -> Iterator[str]:
    """Yield the line that we should give in place of QEMU's, if there is to be one."""
    for known in DIFFERENCES:
        match = re.fullmatch(known.lines, line)
        if match is not None:
            if known.ours is not None:
                yield match.expand(known.ours)
            return
    yield line
