"""One virtual CPU on which single instructions and routines of the privileged architecture are tried."""

from __future__ import annotations

from functools import partial

from dbt.abi.addresses import Gpa
from dbt.abi.exits import Budget, VmExit
from dbt.engine.reference import ReferenceTier
from dbt.engine.threaded import ThreadedTier
from isa.arm.cpus import CPUS
from isa.arm.state import Mode
from tests.assembler import assemble
from tests.oracle.bare import BareMachine, MakeTier

TIERS: dict[str, MakeTier] = {
    "reference": ReferenceTier,
    "threaded": ThreadedTier,
    "stitched": partial(ThreadedTier, stitch=True),
}
CODE = 0x8000


class Guest(BareMachine):
    """A virtual CPU in supervisor mode, with ``ram`` bytes of RAM and its code at CODE."""

    def __init__(self, tier: str = "reference", cpu: str = "any", ram: int = 1 << 20) -> None:
        super().__init__(TIERS[tier], ram, model=CPUS[cpu])

    def store(self, gpa: int, *words: int) -> None:
        for number, word in enumerate(words):
            self.memory.write_ram(Gpa(gpa + 4 * number), word.to_bytes(4, "little"))

    def execute(self, source: str, mode: Mode | None = None) -> VmExit | None:
        """Execute the instructions of ``source``. Return the exit that stopped them early, if there was one."""
        code = assemble(source, CODE)
        self.memory.write_ram(Gpa(CODE), code)
        self.cpu.r[15] = CODE
        if mode is not None:
            self.cpu.switch_mode(mode)
        exit_, _ = self.tier.run(len(code) // 4)
        return None if isinstance(exit_, Budget) else exit_

    def read(self, register: str, mode: Mode | None = None) -> int | VmExit:
        """Return a CP15 register's value by MRC. ``register`` is ``opc1, crn, crm, opc2`` as in assembly."""
        opc1, crn, crm, opc2 = register.split()
        exit_ = self.execute(f"mrc p15, #{opc1}, r0, {crn}, {crm}, #{opc2}", mode)
        return self.cpu.r[0] if exit_ is None else exit_

    def write(self, register: str, value: int, mode: Mode | None = None) -> VmExit | None:
        opc1, crn, crm, opc2 = register.split()
        self.cpu.r[0] = value
        return self.execute(f"mcr p15, #{opc1}, r0, {crn}, {crm}, #{opc2}", mode)
