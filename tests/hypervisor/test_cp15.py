"""The registers of CP15, as ARMv7's manual (B4.1) and start-up code expect them."""

from __future__ import annotations

import pytest

from dbt.hypervisor.callouts import Callouts
from dbt.hypervisor.cp15 import REGISTERS
from dbt.runtime.cpu import CpuState
from dbt.runtime.exits import LeaveGuest, Undefined, Unsupported, VmExit, WaitForInterrupt
from isa.state import LAYOUT, Mode

PC = 0x100
SCTLR = (0, 1, 0, 0)
VBAR = (0, 12, 0, 0)
TPIDRURW, TPIDRURO, TPIDRPRW = ((0, 13, 0, opc2) for opc2 in (2, 3, 4))

Place = tuple[int, int, int, int]


class Guest:
    def __init__(self, mode: Mode) -> None:
        self.cpu = CpuState()
        self.callouts = Callouts(self.cpu)
        self.cpu.switch_mode(mode)

    def read(self, place: Place) -> int | VmExit:
        try:
            return self.callouts.coprocessor_read(PC, 15, *place)
        except LeaveGuest as leave:
            return leave.exit

    def write(self, place: Place, value: int) -> VmExit | None:
        try:
            self.callouts.coprocessor_write(PC, 15, *place, value)
        except LeaveGuest as leave:
            return leave.exit
        return None


@pytest.fixture
def kernel() -> Guest:
    return Guest(Mode.SUPERVISOR)


@pytest.fixture
def user() -> Guest:
    return Guest(Mode.USER)


def test_every_word_is_one_of_the_state() -> None:
    assert {register.word for register in REGISTERS.values() if register.word} <= LAYOUT.words.keys()


def test_sctlr_keeps_what_it_has_and_refuses_what_we_have_not(kernel: Guest) -> None:
    assert kernel.read(SCTLR) == 0x00C50078
    assert kernel.write(SCTLR, 0x1806) is None
    assert kernel.read(SCTLR) == 0x00C50078 | 0x1806
    for bit, word in ((0, "MMU"), (25, "big-endian"), (30, "Thumb")):
        refused = kernel.write(SCTLR, 1 << bit)
        assert isinstance(refused, Unsupported)
        assert word in refused.what
    assert kernel.read(SCTLR) == 0x00C50078 | 0x1806


def test_vbar_is_aligned(kernel: Guest) -> None:
    kernel.write(VBAR, 0x1234567F)
    assert kernel.read(VBAR) == 0x12345660


@pytest.mark.parametrize("place", [(0, 15, 0, 0), (7, 0, 0, 0), (0, 9, 12, 0)])
def test_what_is_not_there_is_undefined(kernel: Guest, place: Place) -> None:
    assert kernel.read(place) == kernel.write(place, 0) == Undefined(PC)


def test_read_only_and_write_only(kernel: Guest) -> None:
    assert kernel.write((0, 0, 0, 0), 1) == Undefined(PC)
    assert kernel.read((0, 8, 7, 0)) == Undefined(PC)
    assert kernel.write((0, 8, 7, 0), 0) is None


def test_thread_registers_in_user_mode(user: Guest) -> None:
    assert user.write(TPIDRURW, 7) is None
    assert user.read(TPIDRURW) == 7
    assert user.read(TPIDRURO) == 0
    assert user.write(TPIDRURO, 1) == user.read(TPIDRPRW) == user.write(TPIDRPRW, 1) == Undefined(PC)


def test_barriers_are_all_that_user_mode_has_of_c7(user: Guest) -> None:
    written = {place for place in REGISTERS if place[1] in (7, 8) and user.write(place, 0) is None}
    assert written == {(0, 7, 5, 4), (0, 7, 10, 4), (0, 7, 10, 5)}


def test_arm926_waits_by_cp15(kernel: Guest) -> None:
    assert kernel.write((0, 7, 0, 4), 0) == WaitForInterrupt(PC)


def test_the_arm926_cache_loop_ends(kernel: Guest) -> None:
    clean = kernel.read((0, 7, 10, 3))
    assert isinstance(clean, int)
    assert clean >> 30 & 1  # the Z flag, by MRC with Rt = PC
