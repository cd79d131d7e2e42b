"""The board ``virt``: its device tree, where a kernel and what goes with it are put, programs, state."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.board.boards import default_board
from dbt.board.loader import ImageError
from dbt.cli.options import make_machine
from dbt.cli.run_options import RunOptions
from dbt.cli.status import CommandError
from dbt.devices.state import StateError
from dbt.host.console import CaptureConsole
from dbt.memory.ram import RamRegion
from dbt.vm.options import TIERS, TierName
from dbt.vm.recording import identify
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.programs import make_elf

BASE = 0x40000000
CPU = "cortex-a15"
#: Without a network card, whose firmware is in a package of its own.
QEMU = (
    *("qemu-system-arm", "-M", "virt,highmem=off", "-cpu", "cortex-a15,vfp=off,neon=off"),
    *("-display", "none", "-nic", "none"),
)
needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="QEMU is not installed")
#: Nodes that only QEMU's tree has, because its board has devices that ours does not have.
QEMU_HAS = {
    "/platform-bus@c000000",
    "/fw-cfg@9020000",
    "/pcie@10000000",
    "/flash@0",
    "/intc@8000000/v2m@8020000",
}
#: Properties whose values differ: random numbers.
RANDOM = {("/chosen", "rng-seed"), ("/chosen", "kaslr-seed")}
#: Says hello by the UART and by semihosting, and exits.
HELLO = """
    ldr r4, =0x09000000 ; mov r0, #'U' ; str r0, [r4]
    adr r1, text ; mov r0, #4 ; svc 0x123456
    ldr r1, =0x20026 ; mov r0, #0x18 ; svc 0x123456
text:
    .asciz "hello\\n"
"""


def machine(**options: Any) -> Machine:
    return Machine(**{"memory": 16 << 20, "tier": "reference", "console": CaptureConsole(), "board": "virt", **options})


def zimage(size: int = 0x1000) -> bytes:
    """A file that has the head of a zImage and loops."""
    loop = (0xEAFFFFFE).to_bytes(4, "little")
    head = b"".join(word.to_bytes(4, "little") for word in (0x016F2818, 0, size))
    return (loop * 9 + head).ljust(size, b"\0")


def nodes(data: bytes) -> dict[str, dict[str, bytes]]:
    """The properties of a tree, as bytes, by path and name (Devicetree Specification 0.4, 5.4)."""
    structure, strings = struct.unpack_from(">II", data, 8)
    found: dict[str, dict[str, bytes]] = {}
    path: list[str] = []
    while (token := struct.unpack_from(">I", data, structure)[0]) != 9:  # FDT_END
        structure += 4
        if token == 1:  # FDT_BEGIN_NODE
            end = data.index(b"\0", structure)
            path.append(data[structure:end].decode())
            found["/".join(path) or "/"] = {}
            structure = end + 4 & ~3
        elif token == 2:  # FDT_END_NODE
            path.pop()
        elif token == 3:  # FDT_PROP
            size, name = struct.unpack_from(">II", data, structure)
            text = data[strings + name : data.index(b"\0", strings + name)].decode()
            found["/".join(path) or "/"][text] = data[structure + 8 : structure + 8 + size]
            structure += 8 + (size + 3 & ~3)
    return found


def loaded_tree(booted: Machine) -> bytes:
    place = booted.r[2]
    return booted.read(place, int.from_bytes(booted.read(place + 4, 4), "big"))


# -- the device tree and the boot protocol -------------------------------------------------------


@needs_qemu
@pytest.mark.parametrize(("memory", "initrd"), [(256, b""), (96, b"disk" * 2000), (512, b"d" * 4097)])
def test_the_tree_is_that_of_qemu_where_both_have_the_device(tmp_path: Path, memory: int, initrd: bytes) -> None:
    """All properties, the command line and the place of the RAM disk among them, and the order of the slots."""
    kernel, disk, dumped = tmp_path / "kernel", tmp_path / "disk", tmp_path / "dtb"
    kernel.write_bytes(zimage())
    disk.write_bytes(initrd)
    given = ("-initrd", str(disk)) if initrd else ()
    subprocess.run(
        [*QEMU, "-machine", f"dumpdtb={dumped}", "-m", str(memory), "-kernel", kernel, "-append", "a b", *given],
        check=True,
        timeout=60,
        capture_output=True,
    )
    with machine(memory=memory << 20, cpu=CPU) as booted:
        booted.load_kernel(kernel, initrd=disk if initrd else None, append="a b")
        ours, theirs = nodes(loaded_tree(booted)), nodes(dumped.read_bytes())
    for path, name in RANDOM:
        assert len(ours[path].pop(name)) == len(theirs[path].pop(name))
    missing = {path for path in theirs if path not in ours}
    assert missing == QEMU_HAS
    assert {path: theirs[path] for path in ours if path in theirs} == ours
    assert [path for path in ours if "virtio" in path] == [path for path in theirs if "virtio" in path]


def test_the_users_tree_wins(tmp_path: Path) -> None:
    """It gets memory, command line and the place of the RAM disk, and keeps everything else."""
    kernel, tree, disk = tmp_path / "kernel", tmp_path / "tree", tmp_path / "disk"
    kernel.write_bytes(zimage())
    disk.write_bytes(b"disk")
    with machine(rng_seed=9) as booted:
        booted.load_kernel(kernel)
        tree.write_bytes(loaded_tree(booted))
    with machine(memory=64 << 20) as booted:
        booted.load_kernel(kernel, dtb=tree, append="mine", initrd=disk)
        before, after = nodes(tree.read_bytes()), nodes(loaded_tree(booted))
    assert after.pop("/memory@40000000")["reg"] == struct.pack(">4I", 0, BASE, 0, 64 << 20)
    assert before.pop("/memory@40000000")["reg"] == struct.pack(">4I", 0, BASE, 0, 16 << 20)
    chosen = after["/chosen"]
    assert chosen.pop("bootargs") == b"mine\0"
    assert chosen.pop("linux,initrd-start") == struct.pack(">I", BASE + (32 << 20))
    assert chosen.pop("linux,initrd-end") == struct.pack(">I", BASE + (32 << 20) + 4)
    assert after == before


def test_a_vmlinux_is_moved_into_the_boards_ram(tmp_path: Path) -> None:
    """An ELF kernel has virtual addresses, of which 0xc0000000 stands for the beginning of RAM."""
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(make_elf(assemble("1: b 1b", 0xC0008000), 0xC0008000))
    with machine() as booted:
        booted.load_kernel(kernel)
        assert booted.pc == BASE + 0x8000


def test_the_random_numbers_follow_from_the_seed(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(zimage())
    trees = []
    for seed in (0, 0, 7):
        with machine(rng_seed=seed) as booted:
            booted.load_kernel(kernel)
            trees.append(loaded_tree(booted))
    assert trees[0] == trees[1] != trees[2]


def test_a_kernel_is_put_where_qemu_puts_it(tmp_path: Path) -> None:
    kernel, disk = tmp_path / "kernel", tmp_path / "disk"
    kernel.write_bytes(zimage())
    disk.write_bytes(b"disk" * 2000)
    with machine(memory=256 << 20) as booted:
        booted.load_kernel(kernel, initrd=disk)
        assert list(booted.r)[:3] == [0, 0xFFFFFFFF, BASE + (128 << 20) + 0x2000]
        assert booted.pc == BASE + 0x10000
        assert booted.read(BASE + (128 << 20), 8000) == b"disk" * 2000
        assert booted.read(booted.r[2], 4) == b"\xd0\x0d\xfe\xed"


def test_what_the_board_cannot_boot_is_refused(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(zimage())
    with machine() as booted, pytest.raises(ImageError, match="the board virt has no ATAGs"):
        booted.load_kernel(kernel, atags=True)
    regions = [RamRegion(Gpa(0), 16 << 20)]
    with machine(memory=regions) as booted, pytest.raises(ImageError, match="kernels in RAM at address 0x40000000"):
        booted.load_kernel(kernel)


def test_an_access_to_nothing_is_an_abort_for_a_kernel_too(tmp_path: Path) -> None:
    """As under QEMU: only old boards have kernels that access what is not there."""
    kernel = tmp_path / "kernel"
    code = assemble("ldr r0, =0x3f000000 ; ldr r0, [r0]", BASE + 0x10000)
    kernel.write_bytes(code)
    with machine() as booted:
        booted.load_kernel(kernel)
        assert booted.run(fuel=10).reason is StopReason.FAULT


# -- programs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", TIERS)
def test_a_program_says_hello(tier: TierName) -> None:
    console = CaptureConsole()
    with machine(tier=tier, console=console) as made:
        made.load_bytes(make_elf(assemble(HELLO, BASE + 0x10000), BASE + 0x10000))
        assert made.r[13] == BASE + (16 << 20)
        assert made.run(fuel=1000).exit_code == 0
    assert bytes(console.output) == b"Uhello\n"


def test_a_flat_binary_goes_into_the_boards_ram(tmp_path: Path) -> None:
    program = tmp_path / "hello.bin"
    program.write_bytes(assemble(HELLO, BASE + 0x8000))
    with machine() as made:
        made.load(program)
        assert made.pc == BASE + 0x8000 and made.run(fuel=1000).exit_code == 0


def test_a_program_for_the_other_board_is_refused() -> None:
    program = make_elf(assemble("nop", 0x8000), 0x8000)
    with machine() as made, pytest.raises(ImageError, match=r"outside the RAM, .* choose another board"):
        made.load_bytes(program)


def test_two_gigabytes_of_ram() -> None:
    with machine(memory=2 << 30) as made:
        made.load_bytes(assemble(HELLO, 0xBFFF0000), 0xBFFF0000)
        assert made.run(fuel=1000).exit_code == 0


# -- options, states, recordings -----------------------------------------------------------------


def test_the_processor_says_which_board_it_is() -> None:
    assert [default_board(cpu).name for cpu in (None, "any", "arm926", "cortex-a8")] == ["versatile"] * 4
    assert [default_board(cpu).name for cpu in ("cortex-a15", "cortex-a7")] == ["virt"] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"board": "vexpress"}, "--board vexpress: this is none of versatile, virt"),
        ({"smp": "2"}, "--smp 2: a machine has one processor"),
        ({"smp": "two"}, "--smp two: this is not a number of processors"),
        ({"rng": "7"}, "--rng 7: this is not seed=N"),
        ({"rng": "seed=-1"}, "--rng seed=-1: this is not seed=N"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        make_machine(RunOptions(program="program", **options))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="there is no board 'vexpress': use one of versatile, virt"):
        machine(board="vexpress")
    with pytest.raises(ValueError, match="rng_seed=-1 is no whole number"):
        machine(rng_seed=-1)


def test_a_saved_machine_has_its_board() -> None:
    with machine(rng_seed=5) as made:
        made.load_bytes(assemble(HELLO, BASE + 0x8000), BASE + 0x8000)
        made.run(fuel=3)
        with made.save() as state, Machine.restore(state, tier="reference", console=CaptureConsole()) as again:
            assert again.options.board == "virt" and again.options.rng_seed == 5
            assert again.options.memory == 16 << 20 and state_hash(again) == state_hash(made)
            assert again.run(fuel=1000).exit_code == 0
        values: Any = dict(state.values)
        values["machine"] = {**values["machine"], "board": "versatile"}
        with pytest.raises(StateError):
            Machine._restored(values, state.ram, {"console": CaptureConsole()})


def test_a_recording_names_the_board() -> None:
    with machine() as made, Machine(16 << 20, console=CaptureConsole()) as other:
        texts = identify(made, "").differences(identify(other, ""))
    assert "the board is virt here and was versatile" in texts
