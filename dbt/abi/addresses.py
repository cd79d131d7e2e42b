"""The three kinds of address as types that mypy tells apart; at run time each is an int.

A guest virtual address becomes a physical one by the guest's page tables, and a physical one a host address by the
machine's memory map. Functions that do so take one kind and return the other; nothing else converts.
"""

from __future__ import annotations

from typing import NewType

#: A guest virtual address: what the program uses, 32 bits.
Gva = NewType("Gva", int)
#: A guest physical address: what the bus and the RAM go by, 32 bits.
Gpa = NewType("Gpa", int)
#: An address in this process, 64 bits.
Hva = NewType("Hva", int)
