"""The table of the devices that native code serves, in CpuState: an entry for each page with such a device.

An entry has four words: the page's number plus 1 (0: none), the GPA at which the device's registers begin, the number
of its class and the address of its block (:mod:`dbt.devices.shared`). A page of which it is known that Python serves it
has class 0. Pages that share an entry replace each other.
"""

from __future__ import annotations

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SHIFT

WINDOWS = 16
WINDOW_WORDS = 4
KEY, BASE, DEVICE_CLASS, DEVICE = range(WINDOW_WORDS)


def window_number(page: int) -> int:
    """Return the number of a page's entry. Native code computes the same.

    The devices of a board that a guest accesses often have entries of their own.
    """
    return page + 3 * (page >> 3) + 9 * (page >> 12) & WINDOWS - 1


def window_word(gpa: Gpa) -> int:
    """Return the first word of the entry of the page of a GPA."""
    return window_number(gpa >> PAGE_SHIFT) * WINDOW_WORDS
