"""The comparison of small machines, on which most tests of tiers rest: it notices every difference that a hash does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dbt.abi.addresses import Gpa
from tests.assembler import assemble
from tests.oracle.programs import DEVICE, ENTRY, RAM_SIZE, SmallMachine, same_state

_CODE = "mov r8, #0x10000000 ; str r8, [r8] ; udf #1 ; b ."
_CHANGES: dict[str, Callable[[SmallMachine], object]] = {
    "a register": lambda machine: machine.cpu.r.__setitem__(3, 1),
    "a flag": lambda machine: machine.cpu.__setitem__("n", 1),
    "a register of the MMU": lambda machine: machine.cpu.__setitem__("ttbr0", 0x4000),
    "the first byte": lambda machine: machine.memory.write_ram(Gpa(0), b"\1"),
    "the last byte": lambda machine: machine.memory.write_ram(Gpa(RAM_SIZE - 1), b"\1"),
    "another instruction": lambda machine: machine.advance(1),
    "another exit": lambda machine: machine.exits.append((0, "an exit")),
    "an exit that is another one": lambda machine: machine.exits.__setitem__(0, (0, "an exit")),
    "another access": lambda machine: machine.device.read(DEVICE, 4),
    "the end": lambda machine: setattr(machine, "ended", True),
}


@pytest.mark.parametrize("change", _CHANGES)
def test_a_difference_is_noticed(change: str) -> None:
    machines = [SmallMachine("threaded", assemble(_CODE, ENTRY)) for _ in range(3)]
    for machine in machines:
        machine.advance(3)
    assert machines[0].exits and machines[0].device.accesses
    assert machines[1].agrees(machines[0]) and len({machine.digest() for machine in machines}) == 1
    _CHANGES[change](machines[0])
    assert machines[0].digest() != machines[2].digest()
    assert not machines[2].agrees(machines[0]) and not machines[0].agrees(machines[2])
    assert not same_state(machines) and same_state(machines[1:])
    for machine in machines:
        machine.close()


def test_what_comes_later_is_noticed() -> None:
    """What has been compared before is not looked at again."""
    machines = [SmallMachine("reference", assemble("loop: udf #1 ; b loop", ENTRY)) for _ in range(2)]
    for _ in range(5):
        for machine in machines:
            machine.advance(2)
        assert same_state(machines)
    machines[1].exits[-1] = (machines[1].icount, "another")
    machines[0].advance(2)
    machines[1].advance(2)
    machines[1].exits[-1] = (machines[1].icount, "another")
    assert not same_state(machines)
    for machine in machines:
        machine.close()
