"""The registers of CP15, as the manuals (DDI 0406 B4.1, DDI 0198, DDI 0301) and start-up code expect them."""

from __future__ import annotations

import pytest

from dbt.abi.addresses import Gva
from dbt.abi.exits import Undefined, Unsupported, WaitForInterrupt
from dbt.host.console import CaptureConsole
from dbt.host.guest_notices import NOTICES_PER_KIND
from dbt.vm.machine import Machine
from isa.arm.a32 import cp14, cp15
from isa.arm.a32.coprocessor import WRITE
from isa.arm.state import LAYOUT, PSR_F, PSR_I, Architecture, Mode
from tests.assembler import assemble
from tests.oracle.privileged import CODE, TIERS, Guest
from tests.vm.programs import EXIT

SCTLR, VBAR = "0 c1 c0 0", "0 c12 c0 0"
TPIDRURW, TPIDRURO, TPIDRPRW = (f"0 c13 c0 {opc2}" for opc2 in (2, 3, 4))


@pytest.fixture(params=TIERS)
def guest(request: pytest.FixtureRequest) -> Guest:
    return Guest(request.param)


def test_every_word_is_one_of_the_state() -> None:
    registers = (*cp15.REGISTERS, *cp14.REGISTERS)
    assert {register.word.partition("+")[0] for register in registers if register.word} <= LAYOUT.words.keys()


def test_no_register_is_there_twice_in_one_version() -> None:
    for registers in (cp15.REGISTERS, cp14.REGISTERS):
        for version in Architecture:
            places = [register.place for register in registers if version in register.architectures]
            assert len(set(places)) == len(places), version


def test_sctlr_keeps_what_it_has_and_refuses_what_we_have_not(guest: Guest) -> None:
    assert guest.read(SCTLR) == 0x00450078
    assert guest.write(SCTLR, 0x1806) is None
    assert guest.read(SCTLR) == 0x00450078 | 0x1806
    for bit, word in ((25, "big-endian"), (30, "Thumb")):
        refused = guest.write(SCTLR, 1 << bit)
        assert isinstance(refused, Unsupported)
        assert word in refused.what
    assert guest.read(SCTLR) == 0x00450078 | 0x1806


def test_what_a_processor_has_not_stays_as_it_is() -> None:
    for cpu, reset, changeable in (
        ("arm926", 0x00050078, 0x0000F307),
        ("arm1176", 0x00050078, 0x30E0FB07),
        ("cortex-a8", 0x00C50078, 0x30007C07),
    ):
        guest = Guest(cpu=cpu)
        assert guest.read(SCTLR) == reset
        guest.store(0, *[0x00000C02] * 4)
        assert guest.write(SCTLR, 0xBDFFFF7E) is None  # all but M, B, EE and TE
        assert guest.read(SCTLR) == reset & ~changeable | changeable & 0xFFFFFFFE


def test_vbar_is_aligned(guest: Guest) -> None:
    guest.write(VBAR, 0x1234567F)
    assert guest.read(VBAR) == 0x12345660


@pytest.mark.parametrize("register", ["0 c15 c0 0", "7 c0 c0 0", "0 c9 c12 0"])
def test_what_is_not_there_is_undefined(guest: Guest, register: str) -> None:
    assert guest.read(register) == guest.write(register, 0) == Undefined(Gva(CODE))


def test_what_came_later_is_undefined() -> None:
    for register, first in (
        (VBAR, "cortex-a8"),
        (TPIDRURW, "arm1176"),
        ("0 c0 c1 0", "arm1176"),
        ("0 c2 c0 2", "arm1176"),
    ):
        there = [cpu for cpu in ("arm926", "arm1176", "cortex-a8") if isinstance(Guest(cpu=cpu).read(register), int)]
        assert there[0] == first and len(there) == (1 if first == "cortex-a8" else 2)


def test_read_only_and_write_only(guest: Guest) -> None:
    assert guest.write("0 c0 c0 0", 1) == Undefined(Gva(CODE))
    assert guest.read("0 c8 c7 0") == Undefined(Gva(CODE))
    assert guest.write("0 c8 c7 0", 0) is None


@pytest.mark.parametrize(("cpu", "midr"), [("arm926", 0x41069265), ("arm1176", 0x410FB767), ("cortex-a8", 0x410FC080)])
def test_the_processor_says_what_it_is(cpu: str, midr: int) -> None:
    assert Guest(cpu=cpu).read("0 c0 c0 0") == midr


def test_thread_registers_in_user_mode(guest: Guest) -> None:
    guest.cpu.switch_mode(Mode.USER)
    assert guest.write(TPIDRURW, 7) is None
    assert guest.read(TPIDRURW) == 7
    assert guest.read(TPIDRURO) == 0
    assert guest.write(TPIDRURO, 1) == guest.read(TPIDRPRW) == guest.write(TPIDRPRW, 1) == Undefined(Gva(CODE))


def test_barriers_and_prefetching_are_all_that_user_mode_has_of_c7() -> None:
    guest = Guest()
    guest.cpu.switch_mode(Mode.USER)
    places = [register.place for register in cp15.REGISTERS if WRITE in register.access and register.place[1] in (7, 8)]
    written = {place for place in places if guest.write(f"{place[0]} c{place[1]} c{place[2]} {place[3]}", 0) is None}
    assert written == {(0, 7, 5, 4), (0, 7, 10, 4), (0, 7, 10, 5), (0, 7, 12, 5)}


@pytest.mark.parametrize("tier", TIERS)
def test_isr_shows_the_lines_that_are_up(tier: str) -> None:
    guest = Guest(tier, cpu="cortex-a15")
    for lines in (0, PSR_I, PSR_F, PSR_I | PSR_F):
        guest.cpu.set_native("interrupt_lines", lines)
        assert guest.read("0 c12 c1 0") == lines


def test_arm926_waits_by_cp15(guest: Guest) -> None:
    assert guest.write("0 c7 c0 4", 0) == WaitForInterrupt(Gva(CODE))


def test_the_arm926_cache_loop_ends(guest: Guest) -> None:
    for word in (0xEE17FF7A, 0xEE17FF7E):  # mrc p15, 0, pc, c7, c10, 3; c14
        assert guest.execute(f".word {word:#x}") is None
        assert guest.cpu["z"] == 1


#: MCRR p15, opc1, r2, r3, CRm, by what the ARM1176 does with the caches' lines between the two addresses.
RANGES = {(0, 5): False, (0, 6): False, (0, 12): True, (1, 12): True, (2, 12): True, (0, 14): False}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("operation", RANGES)
def test_operations_on_ranges_are_the_arm1176s(operation: tuple[int, int], tier: str) -> None:
    opc1, crm = operation
    for cpu, mode, there in (
        ("arm1176", Mode.SUPERVISOR, True),
        ("arm1176", Mode.USER, RANGES[operation]),
        ("any", Mode.SUPERVISOR, True),
        ("arm926", Mode.SUPERVISOR, False),
        ("cortex-a8", Mode.SUPERVISOR, False),
    ):
        guest = Guest(tier, cpu=cpu)
        assert (guest.execute(f"mcrr p15, #{opc1}, r2, r3, c{crm}", mode) is None) == there, (cpu, mode)


@pytest.mark.parametrize("tier", TIERS)
def test_asking_where_an_address_goes(tier: str) -> None:
    """What MMU test firmware asks; the answers are those of qemu-system-arm -cpu cortex-a8."""
    guest = Guest(tier, cpu="cortex-a8")
    table = 0x4000
    # Sections: all may do all; read-only for users; nothing for users; not there; of a domain that is closed.
    entries = {1: 0x00100C02, 2: 0x00000802, 3: 0x00000402, 4: 0, 5: 0x00000C22, 0: 0x00000C02}
    for megabyte, entry in entries.items():
        guest.store(table + 4 * megabyte, entry)
    guest.write("0 c2 c0 0", table)
    guest.write("0 c3 c0 0", 0b01)
    guest.write("0 c1 c0 0", 0x00C50079)
    expected = {
        1: (0x00123000, 0x00123000, 0x00123000, 0x00123000),
        2: (0x00023000, 0x00023000, 0x00023000, 0x1B),
        3: (0x00023000, 0x00023000, 0x1B, 0x1B),
        4: (0x0B, 0x0B, 0x0B, 0x0B),
        5: (0x13, 0x13, 0x13, 0x13),
    }
    for megabyte, answers in expected.items():
        for operation, answer in enumerate(answers):
            assert guest.write(f"0 c7 c8 {operation}", megabyte << 20 | 0x23456) is None
            non_secure = 0 if answer & 1 else 0x200
            assert guest.read("0 c7 c4 0") == answer | non_secure, (megabyte, operation)
    for number in range(16):
        guest.store(table + 4 * (0x300 + number), 0x01040C02)
    assert guest.write("0 c7 c8 0", 0x30423456) is None
    assert guest.read("0 c7 c4 0") == 0x01000202, "a supersection, of which only bits 31:24 are told"
    assert guest.write("0 c7 c4 0", 0x12345) is None and guest.read("0 c7 c4 0") == 0x12345
    for cpu, there in (("arm1176", True), ("arm926", False)):
        assert isinstance(Guest(tier, cpu=cpu).read("0 c7 c4 0"), int) == there


def test_a_guest_cannot_fill_the_users_terminal_with_unknown_registers() -> None:
    notices: list[str] = []
    accesses = "\n".join(f"mrc p15, 7, r0, c{n}, c{m}, 7" for n in range(4) for m in range(16))
    source = f"b start\n movs pc, lr\n .space 24\n start:\n{accesses}\n{EXIT}"
    with Machine(memory=1 << 20, tier="reference", console=CaptureConsole(), notice=notices.append) as machine:
        machine.load_bytes(assemble(source), base=0)
        assert machine.run(fuel=1000).exit_code == 0
        assert machine.event_counts["undefined"] == 64
    assert len(notices) == NOTICES_PER_KIND + 1
    assert "no more of them are reported" in notices[-1]
