"""Finding the pointers that a loop follows: registers that are base addresses and were loaded from memory or chosen.

A load by such a register waits for the load before it. With the entry of the shadow page table, which the address
selects, two more loads would be in that chain. So regions guess the entry: see
:meth:`dbt.backend.region_memory.RegionMemory._guessed_entry`.

An address that was chosen, by a conditional move, waits for what the condition compares, which may have been loaded. A
store by it is in the chain if the next pointer is loaded from where it may have stored.
"""

from __future__ import annotations

from collections.abc import Collection

from dbt.frontend.forming import Place, Region
from dbt.frontend.graph import graph_of, nested_loops
from isa.ir.queries import registers_chosen, registers_loaded, registers_moved
from isa.ir.uop import Uop


def followed_pointers(region: Region) -> dict[Place, frozenset[int]]:
    """Return, for each block in a loop, the registers that its innermost loop sets to what it has loaded, or to copies
    of that, or to the value of another register if a condition holds.
    """
    found: dict[Place, frozenset[int]] = {}
    for loop in nested_loops(graph_of(region)):
        insns = [insn.uops for place in loop for insn in region.blocks[place].insns]
        loaded = set[int]().union(*map(registers_loaded, insns))
        moves = [move for uops in insns for move in registers_moved(uops)]
        while more := {to for to, source in moves if source in loaded} - loaded:
            loaded |= more
        chosen = set[int]().union(*map(registers_chosen, insns))
        found.update(dict.fromkeys(loop, frozenset(loaded | chosen)))
    return found


def base_register(address: Uop, among: Collection[int]) -> int | None:
    """Return a register of ``among`` that is a term of an address, the first one if there are several, else None."""
    terms = (address, *address.args)
    numbers = (term.args[0].number for term in terms if term.op == "get_reg")
    return next((number for number in numbers if number is not None and number in among), None)
