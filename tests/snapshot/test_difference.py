"""What differs between two states, by name."""

from __future__ import annotations

from dbt import CaptureConsole, Machine
from dbt.abi.addresses import Gpa, Gva
from dbt.snapshot.difference import diff_snapshots, registers
from isa.arm.state import Mode
from tests.snapshot.machines import SUDOKU, minios


def test_equal_states_do_not_differ() -> None:
    with minios(100_000) as machine, machine.save() as one, machine.save() as other:
        assert not diff_snapshots(one, other)


def test_registers_are_named() -> None:
    with minios(100_000) as machine, machine.save() as one:
        machine.r[3] ^= 5
        machine.cpu.set_banked(13, Mode.IRQ, 0x1234)
        machine.cpu.set_banked(9, Mode.FIQ, 0x99)
        machine.cpu["ttbr0"] ^= 0x4000
        with machine.save() as other:
            found = diff_snapshots(one, other)
            assert {one.name for one in found.registers} == {"r3", "sp_irq", "r9_fiq", "ttbr0"}
            changed = {one.name: one.other for one in found.registers}
            assert changed["sp_irq"] == 0x1234
            assert not found.pages
            assert not found.devices
            names = registers(one.values)
            assert names["cpsr"] == registers(other.values)["cpsr"] == machine.cpsr
            assert "spsr_svc" in names


def test_devices_are_named_by_their_fields() -> None:
    with minios(600_000) as machine, machine.save() as one:
        machine.run(fuel=200_000)
        with machine.save() as other:
            found = diff_snapshots(one, other)
    names = [one.name for one in found.devices]
    assert any(name.startswith("timers 0 and 1.timers[0].") for name in names), names
    assert {"icount", "now"} <= {one.name for one in found.others}
    assert found.pages


def test_pages_have_the_symbols_of_what_differs() -> None:
    with Machine(memory=1 << 20, tier="reference", console=CaptureConsole()) as machine:
        machine.load(SUDOKU)
        symbols = {symbol.name: symbol for symbol in machine.symbols.symbols}
        main = symbols["main"]
        with machine.save() as one:
            word = machine.read(main.address + 8, 4)
            machine.write(main.address + 8, bytes(byte ^ 0xFF for byte in word))
            machine.write(0xF_F000, b"\1")
            with machine.save() as other:
                found = diff_snapshots(one, other)
    first, second = found.pages
    assert (first.first, first.last, first.bytes) == (main.address + 8, main.address + 11, 4)
    assert first.gpa == main.address & ~0xFFF
    assert first.gva == Gva(first.gpa)
    assert first.symbols == ("main+0x8",)
    assert (second.gpa, second.bytes, second.symbols) == (Gpa(0xF_F000), 1, ())


def test_machines_with_other_ram_are_compared_where_both_have_some() -> None:
    with (
        Machine(memory=1 << 20, tier="reference", console=CaptureConsole()) as small,
        Machine(memory=2 << 20, tier="reference", console=CaptureConsole()) as large,
    ):
        large.write(0x1000, b"1")
        large.write(0x18_0000, b"1")
        with small.save() as one, large.save() as other:
            found = diff_snapshots(one, other)
            assert [page.gpa for page in found.pages] == [0x1000]
            assert "ram" in {value.name for value in found.others}
            assert [page.gpa for page in diff_snapshots(other, one).pages] == [0x1000]
