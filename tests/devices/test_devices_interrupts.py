"""The interrupt controllers, against the manuals of PL190 (DDI 0181) and of the board (DUI 0224)."""

from __future__ import annotations

from dbt.board.versatile import PASSED_ON
from dbt.devices.pl190 import Pl190
from dbt.devices.sic import Sic
from tests.devices.virtual_time import Line

IRQ_STATUS, FIQ_STATUS, RAW, SELECT, ENABLE, ENABLE_CLEAR = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14
SOFT, SOFT_CLEAR, VECTOR, DEFAULT, ADDRESS, CONTROL = 0x18, 0x1C, 0x30, 0x34, 0x100, 0x200


def make_vic() -> tuple[Pl190, Line, Line]:
    irq, fiq = Line(), Line()
    return Pl190(irq, fiq), irq, fiq


def set_vector(vic: Pl190, slot: int, source: int, address: int) -> None:
    vic.write(ADDRESS + 4 * slot, 4, address)
    vic.write(CONTROL + 4 * slot, 4, 0x20 | source)


def test_an_input_is_raw_until_enabled_then_an_irq_or_if_selected_an_fiq() -> None:
    vic, irq, fiq = make_vic()
    vic.line(5)(True)
    assert vic.read(RAW, 4) == 1 << 5 and vic.read(IRQ_STATUS, 4) == 0 and not irq.level
    vic.write(ENABLE, 4, 1 << 5)
    assert vic.read(IRQ_STATUS, 4) == 1 << 5 and irq.level and not fiq.level
    vic.write(SELECT, 4, 1 << 5)
    assert vic.read(IRQ_STATUS, 4) == 0 and vic.read(FIQ_STATUS, 4) == 1 << 5 and fiq.level and not irq.level
    vic.line(5)(False)
    assert vic.read(RAW, 4) == 0 and not fiq.level


def test_an_fiq_must_be_enabled() -> None:
    vic, _, fiq = make_vic()
    vic.write(SELECT, 4, 1)
    vic.line(0)(True)
    assert vic.read(FIQ_STATUS, 4) == 0 and not fiq.level
    vic.write(ENABLE, 4, 1)
    assert fiq.level


def test_software_interrupts_are_like_inputs() -> None:
    vic, irq, _ = make_vic()
    vic.write(ENABLE, 4, 0x8000_0001)
    vic.write(SOFT, 4, 0x8000_0000)
    vic.write(SOFT, 4, 0x0000_0002)
    assert vic.read(SOFT, 4) == 0x8000_0002 == vic.read(RAW, 4) and vic.read(IRQ_STATUS, 4) == 0x8000_0000
    assert irq.level
    vic.write(SOFT_CLEAR, 4, 0x8000_0000)
    assert vic.read(SOFT, 4) == 2 and not irq.level


def test_enable_bits_are_set_and_cleared_apart() -> None:
    vic, _, _ = make_vic()
    vic.write(ENABLE, 4, 0xF0)
    vic.write(ENABLE, 4, 0x0F)
    vic.write(ENABLE_CLEAR, 4, 0x3C)
    assert vic.read(ENABLE, 4) == 0xC3 and vic.read(ENABLE_CLEAR, 4) == 0


def test_the_vector_of_the_most_urgent_interrupt_is_read() -> None:
    vic, _, _ = make_vic()
    vic.write(DEFAULT, 4, 0xDEF0)
    set_vector(vic, 2, 9, 0x9000)
    set_vector(vic, 7, 4, 0x4000)
    vic.write(ENABLE, 4, 0xFFFFFFFF)
    assert vic.read(VECTOR, 4) == 0xDEF0
    for source, address in ((1, 0xDEF0), (4, 0x4000), (9, 0x9000)):
        vic.line(source)(True)
        assert vic.read(VECTOR, 4) == address
    assert vic.in_service == 1 << 16 | 1 << 7 | 1 << 2


def test_an_interrupt_in_service_holds_back_those_that_are_not_more_urgent() -> None:
    vic, irq, _ = make_vic()
    set_vector(vic, 3, 3, 0x3000)
    set_vector(vic, 8, 8, 0x8000)
    vic.write(ENABLE, 4, 0x108)
    vic.line(8)(True)
    assert irq.level and vic.read(VECTOR, 4) == 0x8000
    assert not irq.level and vic.read(IRQ_STATUS, 4) == 0x100
    vic.line(3)(True)
    assert irq.level and vic.read(VECTOR, 4) == 0x3000 and not irq.level
    vic.line(3)(False)
    vic.write(VECTOR, 4, 0)
    assert not irq.level
    vic.write(VECTOR, 4, 0)
    assert irq.level
    vic.line(8)(False)
    assert not irq.level
    vic.write(VECTOR, 4, 0)  # Nothing is in service: it changes nothing.
    assert vic.in_service == 0


def test_disabled_and_fast_interrupts_have_no_vector() -> None:
    vic, _, _ = make_vic()
    vic.write(DEFAULT, 4, 0xDEF0)
    set_vector(vic, 0, 0, 0x1000)
    set_vector(vic, 1, 1, 0x2000)
    vic.write(ENABLE, 4, 2)
    vic.write(SELECT, 4, 2)
    vic.write(SOFT, 4, 3)
    assert vic.read(VECTOR, 4) == 0xDEF0 and vic.in_service == 0


def test_the_controller_identifies_itself() -> None:
    vic, _, _ = make_vic()
    identification = [vic.read(offset, 4) for offset in range(0xFE0, 0x1000, 4)]
    assert identification == [0x90, 0x11, 0x04, 0x00, 0x0D, 0xF0, 0x05, 0xB1]


def make_sic() -> tuple[Sic, Line, dict[int, Line]]:
    output, passed_on = Line(), {number: Line() for number in PASSED_ON}
    return Sic(output, passed_on), output, passed_on


STATUS, RAW_STATUS, SIC_ENABLE, SIC_DISABLE = 0x00, 0x04, 0x08, 0x0C
SOFT_SET, SOFT_UNSET, PASS_ON, PASS_OFF = 0x10, 0x14, 0x20, 0x24


def test_enabled_inputs_of_the_secondary_controller_share_one_output() -> None:
    sic, output, _ = make_sic()
    sic.line(6)(True)
    sic.line(3)(True)
    assert sic.read(RAW_STATUS, 4) == 0x48 and sic.read(STATUS, 4) == 0 and not output.level
    sic.write(SIC_ENABLE, 4, 0x40)
    assert sic.read(STATUS, 4) == 0x40 and output.level
    sic.line(6)(False)
    assert sic.read(STATUS, 4) == 0 and not output.level
    sic.write(SIC_ENABLE, 4, 0x08)
    assert sic.read(SIC_ENABLE, 4) == 0x48 and output.level
    sic.write(SIC_DISABLE, 4, 0x08)
    assert sic.read(SIC_ENABLE, 4) == 0x40 and not output.level


def test_some_inputs_can_be_passed_on() -> None:
    sic, output, passed_on = make_sic()
    sic.write(PASS_ON, 4, 0xFFFFFFFF)
    assert sic.read(PASS_ON, 4) == 0x7FE00000
    sic.line(25)(True)
    sic.line(20)(True)
    assert [number for number, line in passed_on.items() if line.level] == [25] and not output.level
    sic.write(PASS_OFF, 4, 1 << 25)
    assert not passed_on[25].level and sic.read(RAW_STATUS, 4) == 1 << 25 | 1 << 20


def test_the_secondary_controller_has_one_software_interrupt() -> None:
    sic, output, _ = make_sic()
    sic.write(SIC_ENABLE, 4, 1)
    sic.write(SOFT_SET, 4, 1)
    assert sic.read(SOFT_SET, 4) == 1 and sic.read(STATUS, 4) == 1 and output.level
    sic.write(SOFT_UNSET, 4, 1)
    assert sic.read(RAW_STATUS, 4) == 0 and not output.level
