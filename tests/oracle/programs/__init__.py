"""Whole programs in small machines: a CPU, RAM, one device and a tier, of which each kind has a name in KINDS.

:class:`ProgramWriter` writes random programs; MECHANISM_PROGRAMS and :func:`flag_program` aim at what regions do in
ways of their own. :func:`run_side_by_side` and :func:`compare_random_program` run one program in several machines and
raise a :class:`ProgramMismatch` where their states differ, and :func:`advance_side_by_side` goes on with machines that
are there already.
"""

from __future__ import annotations

from tests.oracle.programs.compare import (
    ProgramMismatch,
    advance_side_by_side,
    compare_random_program,
    require_same_state,
    run_side_by_side,
    same_state,
)
from tests.oracle.programs.eager import EagerRegionTier
from tests.oracle.programs.eager_stitched import EagerStitchedTier
from tests.oracle.programs.flag_programs import FIRST, flag_program
from tests.oracle.programs.machines import DEVICE, ENTRY, KINDS, RAM_SIZE, WITHOUT, SmallMachine, SoonHotTier
from tests.oracle.programs.mechanism_programs import CUTS, MECHANISM_PROGRAMS
from tests.oracle.programs.random_programs import DATA, ProgramWriter

__all__ = [
    "CUTS",
    "DATA",
    "DEVICE",
    "ENTRY",
    "FIRST",
    "KINDS",
    "MECHANISM_PROGRAMS",
    "RAM_SIZE",
    "WITHOUT",
    "EagerRegionTier",
    "EagerStitchedTier",
    "ProgramMismatch",
    "ProgramWriter",
    "SmallMachine",
    "SoonHotTier",
    "advance_side_by_side",
    "compare_random_program",
    "flag_program",
    "require_same_state",
    "run_side_by_side",
    "same_state",
]
