"""The board xen: its device tree beside the one that Xen 4.17.5 gave to a domain (domu.dtb), RAM, and the console."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fdt
import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.board.devicetree import Chosen
from dbt.board.xen_tree import xen_tree
from dbt.cli.options import make_machine
from dbt.cli.run_options import RunOptions
from dbt.cli.status import CommandError
from dbt.host.console import CaptureConsole
from dbt.hypervisor.xen.interface import Errno, Request
from dbt.memory.ram import RamRegion
from dbt.vm.result import StopReason
from tests.assembler import assemble
from tests.xen.guests import RAM, SELF, Caller, domain_machine

#: What the toolstack says, and Xen itself does not.
TOOLSTACK = {("/", "model"), ("/", "compatible"), ("/", "interrupt-parent"), ("/cpus/cpu@0", "enable-method")}
#: The UART that Xen emulates for a domain which it has started itself.
UART = "/sbsa-uart@22000000"


def properties(tree: Any) -> dict[tuple[str, str], object]:
    """Return the properties of a tree by node and name."""
    found: dict[tuple[str, str], object] = {}
    for path, _, held in tree.walk():
        for one in held:
            found[path, one.name] = list(one.data) if hasattr(one, "data") else None
    return found


def test_the_tree_is_that_of_xen() -> None:
    theirs = properties(fdt.parse_dtb((Path(__file__).parent / "domu.dtb").read_bytes()))
    arguments = b"console=ttyAMA0 rdinit=/init-dump autooff"
    chosen = Chosen(0x8000000, arguments, (Gpa(0x47800000), 0x479DDB44), Gpa(RAM))
    mine = properties(fdt.parse_dtb(xen_tree(chosen, "cortex-a15")))
    assert {key for key in theirs if key[0] == UART} == theirs.keys() - mine.keys()
    assert mine.keys() - theirs.keys() == TOOLSTACK
    del theirs["/chosen", "linux,initrd-start"], theirs["/chosen", "linux,initrd-end"]  # have 64 bits there
    assert {key: mine[key] for key in theirs if key[0] != UART} == {k: v for k, v in theirs.items() if k[0] != UART}


def test_ram_has_what_the_toolstack_made() -> None:
    with domain_machine() as machine:
        assert machine.ram.layout.covers(Gpa(0x38000000), 64 << 12)
        assert machine.ram.layout.main == RamRegion(Gpa(RAM), 1 << 20)
    with pytest.raises(ValueError, match="a machine with the board xen also has the RAM"):
        Machine([RamRegion(Gpa(RAM), 1 << 20)], board="xen", console=CaptureConsole())


def test_xen_is_an_option() -> None:
    options = RunOptions.parse(["--xen", "--kernel", "k"])
    assert options is not None and options.board == "xen"
    options = RunOptions.parse(["--xen", "--board", "virt", "--kernel", "k"])
    assert options is not None
    with pytest.raises(CommandError, match="--xen is the board xen"):
        make_machine(options)


def test_another_immediate_ends_the_run() -> None:
    with domain_machine() as machine:
        machine.load_bytes(assemble(".word 0xe140ea72", RAM + 0x10000), RAM + 0x10000, RAM + 0x10000)
        result = machine.run(fuel=10)
        assert result.reason is StopReason.FAULT and "HVC #0xea2, for which Xen destroys a domain" in result.message


def test_the_ring_of_the_console() -> None:
    """Output goes to the console, once; indices that make no sense give no more than the ring holds."""
    page, console = 0x39000000, CaptureConsole()
    with domain_machine(console=console) as machine:
        caller = Caller(machine)
        assert caller.call(34, 1, caller.put("HHIQ", SELF, 0, 18, 0)) == 0
        port = caller.get("HHIQ")[3]
        machine.memory.write_ram(Gpa(page + 1024 + 2046), b"he")
        machine.memory.write_ram(Gpa(page + 1024), b"llo")
        caller.put("IIII", 0, 0, 2046, 2051, at=page + 3072)
        assert caller.events(4, "I", port) == 0 and caller.events(4, "I", port) == 0
        assert caller.get("IIII", page + 3072) == (0, 0, 2051, 2051)
        machine.run(fuel=0)
        assert console.output == b"hello"
        caller.put("IIII", 5, 0, 7, 0xFFFFFFFF, at=page + 3072)
        assert caller.events(4, "I", port) == 0 and machine.board.console.room == 0
        machine.run(fuel=0)
        assert len(console.output) == 5 + 2048
        caller.put("IIII", 1020, 1020, 0, 0, at=page + 3072)
        machine.board.console.push(b"typed")
        assert machine.memory.read_ram(Gpa(page + 1020), 4) + machine.memory.read_ram(Gpa(page), 1) == b"typed"
        assert caller.get("IIII", page + 3072) == (1020, 1025, 0, 0)


def test_input_stays_if_the_guest_has_no_place_for_it() -> None:
    with domain_machine() as machine:
        caller = Caller(machine)
        machine.board.console.push(b"typed")
        assert caller.call(18, 1, 4, 0xFFFFFFF0) == -Errno.EFAULT
        assert caller.call(18, 1, 4, RAM) == 4 and caller.call(18, 1, 4, RAM + 4) == 1
        assert machine.memory.read_ram(Gpa(RAM), 5) == b"typed"


def test_a_page_that_is_given_back_is_zero_and_can_be_populated_again() -> None:
    with domain_machine() as machine:
        caller = Caller(machine)
        machine.memory.write_ram(Gpa(0x40040000), b"old")
        caller.put("QQ", 0x40040, 0x40040, at=0x40080000)
        extents = ("QQIIHxxxxxx", 0x40080000, 1, 0, 0, SELF)
        assert caller.call(12, 3, caller.put("H", SELF)) == 256
        assert caller.call(12, 1, caller.put(*extents)) == 1
        assert caller.call(12, 1, caller.put(*extents)) == 0, "twice"
        assert machine.memory.read_ram(Gpa(0x40040000), 3) == bytes(3)
        assert caller.call(12, 3, caller.put("H", SELF)) == 255
        assert caller.call(12, 6, caller.put(*extents)) == 1
        assert caller.call(12, 6, caller.put(*extents)) == 0, "no more than it had"
        assert caller.call(12, 3, caller.put("H", SELF)) == 256


def test_any_reason_ends_the_domain() -> None:
    """Xen takes the lower eight bits, and ends the domain for a reason that it does not know, too."""
    with domain_machine() as machine:
        caller = Caller(machine)
        for reason, request in (
            (0, Request.POWER_OFF),
            (0x101, Request.REBOOT),
            (3, Request.CRASH),
            (99, Request.CRASH),
        ):
            assert caller.call(29, 2, caller.put("I", reason)) is request
        assert caller.call(29, 2, caller.put("I", 2)) == 1, "a suspension that is cancelled"
        assert caller.call(29, 4, caller.put("HxxI", SELF, 0)) == -3
        assert caller.call(29, 4, caller.put("HxxI", 0, 0)) == -1, "another domain's"
