"""The device tree that a kernel is given: the board's own, or the user's with the boot's choices."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import fdt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbt.abi.addresses import Gpa
from dbt.board.devicetree import Chosen, DeviceTreeError, board_tree, patch_tree

RAM = 64 << 20
CHOSEN = Chosen(RAM, b"console=ttyAMA0", (Gpa(0x2000000), 0x2000123))


def words(tree: Any, path: str, name: str) -> list[int]:
    return list(tree.get_property(name, path).data)


def check_chosen(data: bytes) -> Any:
    tree = fdt.parse_dtb(data)
    assert words(tree, "/memory@0", "reg") == [0, RAM]
    assert tree.get_property("device_type", "/memory@0").value == "memory"
    assert tree.get_property("bootargs", "/chosen").value == "console=ttyAMA0"
    assert words(tree, "/chosen", "linux,initrd-start") == [0x2000000]
    assert words(tree, "/chosen", "linux,initrd-end") == [0x2000123]
    return tree


def test_the_board() -> None:
    tree = check_chosen(board_tree(CHOSEN))
    assert tree.get_property("compatible", "/").value == "arm,versatile-pb"
    for path, compatible, base in (
        ("interrupt-controller@10140000", "arm,versatile-vic", 0x10140000),
        ("timer@101e2000", "arm,sp804", 0x101E2000),
        ("uart@101f1000", "arm,pl011", 0x101F1000),
    ):
        assert tree.get_property("compatible", f"/amba/{path}").value == compatible
        assert words(tree, f"/amba/{path}", "reg") == [base, 0x1000]


def test_every_reference_in_it_leads_somewhere() -> None:
    tree = fdt.parse_dtb(board_tree(CHOSEN))
    nodes = [tree.get_node(path) for path, _, _ in tree.walk()]
    handles = [node.get_property("phandle").value for node in nodes if node.exist_property("phandle")]
    assert len(handles) == len(set(handles))
    for node in nodes:
        for name in ("clocks", "interrupt-parent"):
            assert not node.exist_property(name) or set(node.get_property(name).data) <= set(handles)
    for alias in tree.get_node("/aliases").props:
        assert tree.exist_node(alias.value)


def test_a_device_that_is_not_there_has_no_node() -> None:
    tree = fdt.parse_dtb(board_tree(CHOSEN, lambda gpa: gpa == 0x101F1000))
    assert [node.name for node in tree.get_node("/amba").nodes] == ["uart@101f1000"]
    assert not tree.exist_node("/core-module@10000000")
    nothing = fdt.parse_dtb(board_tree(CHOSEN, lambda gpa: False))
    assert not nothing.get_node("/amba").nodes and not nothing.exist_property("stdout-path", "/chosen")


def some_tree(cells: tuple[int, int] = (1, 1)) -> Any:
    tree = fdt.FDT(entries=[])
    tree.set_property("#address-cells", cells[0])
    tree.set_property("#size-cells", cells[1])
    tree.set_property("bootargs", "old", "/chosen")
    tree.set_property("linux,initrd-start", 1, "/chosen")
    tree.set_property("linux,initrd-end", 2, "/chosen")
    tree.set_property("reg", [0, 1, 2, 3], "/memory")
    tree.set_property("odd", b"\0\1\2", "/device@1")
    tree.set_property("empty", None, "/device@1")
    return tree


def blob(tree: Any) -> bytes:
    return bytes(tree.to_dtb(version=17, last_comp_version=16, boot_cpuid_phys=0))


def test_a_tree_of_the_user_keeps_the_rest() -> None:
    tree = some_tree()
    tree.entries = [{"address": 0x1000, "size": 0x2000}]
    patched = check_chosen(patch_tree(blob(tree), CHOSEN))
    assert not patched.exist_node("/memory")
    assert bytes(patched.get_property("odd", "/device@1").data) == b"\0\1\2"
    assert patched.exist_property("empty", "/device@1")
    assert [tuple(entry.values()) for entry in patched.entries[-1:]] == [(0x1000, 0x2000)]
    # What one tree reserves is not in the next one.
    assert patch_tree(blob(some_tree()), CHOSEN).count(struct.pack(">QQ", 0x1000, 0x2000)) == 0


def test_what_the_boot_does_not_have() -> None:
    tree = fdt.parse_dtb(patch_tree(blob(some_tree()), Chosen(RAM)))
    assert tree.get_property("bootargs", "/chosen").value == "old"
    assert not tree.exist_property("linux,initrd-start", "/chosen")


def test_wide_addresses() -> None:
    tree = fdt.parse_dtb(patch_tree(blob(some_tree((2, 2))), CHOSEN))
    assert words(tree, "/memory@0", "reg") == [0, 0, 0, RAM]
    with pytest.raises(DeviceTreeError, match="#address-cells = 3"):
        patch_tree(blob(some_tree((3, 1))), CHOSEN)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "truncated"),
        (bytes(100), "no device tree blob: it begins with 0x00000000, not 0xd00dfeed"),
        (board_tree(CHOSEN)[:-1], "truncated: it says"),
        (struct.pack(">10I", 0xD00DFEED, 40, 40, 40, 40, 17, 16, 0, 0, 0), "damaged"),
    ],
)
def test_what_is_no_tree(data: bytes, said: str) -> None:
    with pytest.raises(DeviceTreeError, match=said):
        patch_tree(data, CHOSEN)


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_a_damaged_tree_is_a_tree_or_an_error(data: st.DataObject) -> None:
    damaged = bytearray(board_tree(CHOSEN))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(DeviceTreeError):
        patch_tree(bytes(damaged), CHOSEN)


@pytest.mark.skipif(shutil.which("dtc") is None, reason="dtc (device-tree-compiler) is not installed")
def test_dtc_reads_it() -> None:
    for data in (board_tree(CHOSEN), patch_tree(blob(some_tree()), CHOSEN)):
        done = subprocess.run(["dtc", "-I", "dtb", "-O", "dts"], input=data, capture_output=True, check=False)
        assert done.returncode == 0 and b'bootargs = "console=ttyAMA0"' in done.stdout


IMAGES = os.environ.get("DBT_LINUX_IMAGES")


@pytest.mark.skipif(
    IMAGES is None, reason="DBT_LINUX_IMAGES names no directory with zImage and initramfs-armel.cpio.gz"
)
@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="qemu-system-arm is not installed")
def test_linux_boots_with_it_under_qemu(tmp_path: Path) -> None:
    assert IMAGES is not None
    tree = tmp_path / "board.dtb"
    tree.write_bytes(board_tree(Chosen(128 << 20)))
    command = [
        *("qemu-system-arm", "-M", "versatilepb", "-m", "128", "-nographic", "-no-reboot", "-audiodev", "none,id=none"),
        *("-kernel", f"{IMAGES}/zImage", "-initrd", f"{IMAGES}/initramfs-armel.cpio.gz", "-dtb", str(tree)),
        *("-append", "console=ttyAMA0 autoreboot"),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    assert b"=== TESTS DONE ===" in done.stdout, done.stdout[-2000:]
