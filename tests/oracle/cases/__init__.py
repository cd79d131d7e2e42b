"""Single instructions and blocks: a case is code and a state, an outcome is the state that it ends in.

:class:`Generator` makes cases from the patterns of the instruction set, and :func:`parse` reads them from lines of
text. A machine runs a case and gives its outcome: :class:`UnicornMachine` is the oracle; :class:`TierMachine` and
:class:`RegionMachine` are under test. :class:`Campaign` runs both, asks :func:`explanation` about what differs, and
raises a :class:`Mismatch` with the simplest case that shows what is not explained.
"""

from __future__ import annotations

from tests.oracle.cases.campaign import (
    Campaign,
    Mismatch,
    compared_insns,
    defined_cases,
    differ,
    straight_line_insns,
)
from tests.oracle.cases.case import CODE, Case, Outcome
from tests.oracle.cases.differences import explanation
from tests.oracle.cases.generator import Generator
from tests.oracle.cases.region_machine import CaseCode, RegionMachine
from tests.oracle.cases.shrink import shrink
from tests.oracle.cases.text import CaseSyntaxError, disassemble, format_case, parse, read_cases
from tests.oracle.cases.tier_machine import TIERS, TierMachine
from tests.oracle.cases.unicorn_machine import UnicornMachine

__all__ = [
    "CODE",
    "TIERS",
    "Campaign",
    "Case",
    "CaseCode",
    "CaseSyntaxError",
    "Generator",
    "Mismatch",
    "Outcome",
    "RegionMachine",
    "TierMachine",
    "UnicornMachine",
    "compared_insns",
    "defined_cases",
    "differ",
    "disassemble",
    "explanation",
    "format_case",
    "parse",
    "read_cases",
    "shrink",
    "straight_line_insns",
]
