"""Guests whose kernel runs in user mode: minios, and one of which only the hypercalls are there."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from dbt import Machine
from dbt.abi.addresses import Gpa
from tests.xen.guests import RAM, SELF, Caller, domain_machine

_MINIOS = (Path(__file__).resolve().parents[2] / "guests" / "images" / "minios-pv.elf").read_bytes()
PAGE = 0x1000
#: Where the tests' guest has its tables: the kernel's root, three pages for second-level tables, two for a process.
KERNEL_ROOT, LEAF_PAGE, OTHER_LEAF, USER_ROOT, DATA = (
    RAM + 0x20000,
    RAM + 0x30000,
    RAM + 0x31000,
    RAM + 0x40000,
    RAM + 0x50000,
)
READ, WRITE = 0x023 | 1 << 6, 0x033 | 1 << 6
TABLE, KERNEL_TABLE = 1, 1 | 1 << 5


def minios(**options: Any) -> Machine:
    machine = domain_machine(**{"memory": 8 << 20, **options})
    machine.load_bytes(_MINIOS)
    return machine


class Guest(Caller):
    """A guest that is a kernel in user mode, as far as hypercalls are concerned."""

    def table(self, at: int, *entries: int) -> None:
        self.machine.memory.write_ram(Gpa(at), struct.pack(f"<{len(entries)}I", *entries))

    def begin(self) -> object:
        return self.call(48, self.put("4I", KERNEL_ROOT, 0, 0, 0))

    def update(self, at: int, entry: int) -> object:
        return self.call(49, self.put("QQ", at, entry), 1, 0, SELF)

    def extended(self, command: int, address: int = 0) -> object:
        return self.call(50, self.put("IxxxxQQ", command, address // PAGE, 0), 1, 0, SELF)

    def word(self, at: int) -> int:
        return int.from_bytes(self.machine.memory.read_ram(Gpa(at), 4), "little")
