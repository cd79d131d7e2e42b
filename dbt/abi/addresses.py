"""The three kinds of address, as types that mypy distinguishes. At run time each is an int.

A guest virtual address becomes a physical one by the guest's page tables, and a physical one a host address by the
machine's memory map. Functions that do so take one kind and return the other; nothing else converts.
"""

# There is no "from __future__ import annotations" here: NamedTuple would compile each annotation at each start.
from typing import NamedTuple, NewType

#: A guest virtual address, which the program uses. It has 32 bits.
Gva = NewType("Gva", int)
#: A guest physical address, which the bus and the RAM use. It has 32 bits.
Gpa = NewType("Gpa", int)
#: The first guest physical address.
GPA_0 = Gpa(0)
#: A host virtual address, which is an address in this process. It has 64 bits.
Hva = NewType("Hva", int)


class MappedPage(NamedTuple):
    """A page and where it is mapped to, as page numbers: addresses without their lowest 12 bits.

    ``virtual`` is the page of a GVA, and ``physical`` the page of its GPA.
    """

    virtual: int
    physical: int
