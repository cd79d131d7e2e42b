"""Processes that are forked from one that has no machine: a model, and others with its code or without.

It prints a line for each of the others: its name, whether it has adopted code, the instructions that it has stitched,
and its state hash.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from dbt.engine.native import NativeCode
from dbt.engine.region_tier import RegionTier
from dbt.engine.tier import JitMode
from dbt.engine.warm_code import WarmCode
from dbt.memory.ram_image import RamImage
from dbt.vm.machine import Machine
from dbt.vm.state import state_hash
from dbt.vm.vm_state import VmState
from tests.assembler import assemble

RAM_SIZE = 1 << 20
#: It calls functions in two pages, changes an instruction of one, and copies the other one to a third page.
_GUEST = (
    assemble("""
        mov r6, #0x3F0 ; add r6, r6, #0xF
        mov r7, #0x1000
        mov r8, #0x2000
        again: bl . + 0xFF4
        bl . + 0xFF8
        tst r6, #0x3F
        bne next
        ldr r0, [r7, #4]
        eor r0, r0, #0x00400000
        str r0, [r7, #4]
        ldm r7, {r0-r3}
        stm r8, {r0-r3}
        next: subs r6, r6, #1
        bne again
        b .
    """).ljust(0x1000, b"\0")
    + assemble("""
        add r4, r4, r6
        add r4, r4, r6, lsl #3
        add r5, r5, #1
        bx lr
        eor r5, r5, r4
        bx lr
    """).ljust(0x1000, b"\0")
    + assemble("add r4, r4, #1 ; nop ; nop ; bx lr")
)
#: How many instructions the model executes, which is before the guest changes code, and the others at once.
_MODEL, _PART = 500, 1000


def _forked(work: Callable[[], None]) -> None:
    sys.stdout.flush()
    if os.fork() == 0:
        work()
        sys.stdout.flush()
        os._exit(0)
    assert os.wait()[1] == 0


def _machine(state: VmState, jit: JitMode = "off") -> tuple[Machine, RegionTier]:
    machine = Machine.restore(VmState(state.values, state.ram), jit=jit)
    assert isinstance(machine.tier, RegionTier)
    return machine, machine.tier


def main() -> None:
    with Machine(RAM_SIZE, jit="off") as machine:
        machine.load_bytes(_GUEST, base=0, entry=0)
        values = machine.values()
        template = VmState(values, RamImage.of(machine.ram))
        other = VmState(values, RamImage.copy_of(machine.ram))
    native = NativeCode.share(print)
    native.share_initial_ops()
    given = os.memfd_create("given", os.MFD_ALLOW_SEALING)

    def model() -> None:
        machine, tier = _machine(template)
        machine.run(fuel=_MODEL)
        file, at = tier.warm_code(), 0
        assert file is not None
        while piece := os.pread(file, 1 << 20, at):
            at += os.pwrite(given, piece, at)

    def other_one(
        name: str, state: VmState, before: int = 0, writes: bool = False, rests: bool = False, jit: JitMode = "off"
    ) -> None:
        machine, tier = _machine(state, jit)
        machine.run(fuel=before)
        if writes:
            machine.write(0x1000, _GUEST[0x1000:0x1004])
        has_adopted = tier.adopt_warm_code()
        for part in range(8):
            machine.run(fuel=_PART)
            if rests and part % 3 == 1:
                tier.rest(deep=True)
        machine.run(fuel=20_000 - machine.icount)
        assert machine.r[6] == 0 and machine.read(0x2000, 4) == _GUEST[0x1000:0x1004], machine.r[6]
        assert tier.stitching is not None
        print(name, has_adopted, tier.stitching.insns, state_hash(machine))

    _forked(lambda: other_one("nothing", template))
    _forked(model)
    native.warm_code = WarmCode(given)
    _forked(lambda: other_one("warm", template))
    _forked(lambda: other_one("rests", template, rests=True))
    _forked(lambda: other_one("compiles", template, jit="sync"))
    _forked(lambda: other_one("another-template", other))
    _forked(lambda: other_one("has-executed", template, before=100))
    _forked(lambda: other_one("was-written", template, writes=True))
    try:
        os.pwrite(given, b"x", 0)
    except OSError as error:
        print("sealed", error.strerror)


if __name__ == "__main__":
    main()
