"""Machines that are domains of Xen, and a guest's memory as its hypercalls need it."""

from __future__ import annotations

import struct
from typing import Any, Protocol

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.board.board import Board
from dbt.board.xen import RESERVED
from dbt.host.console import CaptureConsole
from dbt.hypervisor.xen.domain import XenDomain
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import RamRegion

RAM = 0x40000000
SELF = 0x7FF0
#: A page of the guest's for arguments.
ARGUMENTS = RAM + 0x10000
MEMORY = 1 << 20
#: The frames of a control block and of event words, where tests have queues of events.
CONTROL, ARRAY = 0x40020, 0x40021
assert RamRegion(Gpa(0x38000000), 64 << 12) in RESERVED


def domain_machine(tier: Any = "reference", **options: Any) -> Machine:
    """Return a machine that is a domain. Without an MMU, virtual addresses are physical ones."""
    options = {"memory": MEMORY, "console": CaptureConsole(), "board": "xen", "cpu": "cortex-a15", **options}
    return Machine(tier=tier, **options)


class Domain(Protocol):
    """A machine that is a domain, or what is like it for hypercalls."""

    @property
    def memory(self) -> GuestMemory: ...
    @property
    def board(self) -> Board: ...


class Caller:
    """Makes hypercalls of a machine's guest, whose arguments it puts into RAM."""

    def __init__(self, machine: Domain) -> None:
        self.machine = machine

    @property
    def domain(self) -> XenDomain:
        domain = self.machine.board.hypervisor
        assert domain is not None
        return domain

    def put(self, form: str, *values: int, at: int = ARGUMENTS) -> int:
        """Write a structure, and return its address."""
        self.machine.memory.write_ram(Gpa(at), struct.pack(f"<{form}", *values))
        return at

    def get(self, form: str, at: int = ARGUMENTS) -> tuple[int, ...]:
        """Return the members of a structure in RAM."""
        return struct.unpack(f"<{form}", self.machine.memory.read_ram(Gpa(at), struct.calcsize(f"<{form}")))

    def call(self, number: int, *args: int) -> object:
        return self.domain.call(number, [*args, *(0,) * (5 - len(args))])

    def events(self, command: int, form: str, *values: int) -> object:
        """Do an operation on event channels with a structure as its argument."""
        return self.call(32, command, self.put(form, *values))

    def open(self, remote: int = SELF) -> int:
        """Return a new port, which a domain may bind to."""
        assert self.events(6, "HHI", SELF, remote, 0) == 0
        return self.get("HHI")[2]

    def bind(self, remote: int) -> int:
        """Return a new port that is bound to another one of the guest's."""
        assert self.events(0, "HxxII", SELF, remote, 0) == 0
        return self.get("HxxII")[2]


def use_queues(caller: Caller) -> None:
    """Let events come by queues (FIFO)."""
    assert caller.events(11, "QIIB7x", CONTROL, 0, 0, 0) == 0
    assert caller.get("QIIB7x")[3] == 17
    assert caller.events(12, "Q", ARRAY) == 0
