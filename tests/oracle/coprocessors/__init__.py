"""The registers of coprocessors 14 and 15 as QEMU has them: every place is tried. Its answers are in ``expected/``.

program.py       a bare-metal program that tries instructions and notes what became of them
sweep.py         what is tried of each place, and the answers as lines of text
psci.py          calls of the firmware by HVC, tried by the same program
monitors.py      accesses to the performance monitors, likewise
timers.py        accesses to the generic timer, likewise
emulators.py     runs trials in QEMU and in the tiers
differences.py   where we do not answer as QEMU does, and why
refresh.py       asks QEMU again: ``make refresh-oracle``
"""

from __future__ import annotations

from pathlib import Path

CPUS = ("cortex-a15", "cortex-a7")


def expected_file(cpu: str) -> Path:
    return Path(__file__).parent / "expected" / f"{cpu}.txt"
