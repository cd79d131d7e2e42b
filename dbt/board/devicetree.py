"""Flattened device trees (Devicetree Specification 0.4), which describe the board to a kernel.

Either the board's own tree is made here, or the user's is patched: its memory becomes the machine's RAM, and /chosen
gets the command line and the place of the initial RAM disk. This is the only module that knows the ``fdt`` library and
its defects: it may raise any exception for a damaged tree, and shares one list of reserved memory between all trees
that it reads.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from dbt.abi.addresses import GPA_0, Gpa
from dbt.board.boards import VERSATILE
from dbt.devices.virtio.attached import SLOT_SIZE, SLOTS

if TYPE_CHECKING:
    from fdt import FDT, Node

_MAGIC = 0xD00DFEED
_HEADER = struct.Struct(">10I")
_VERSION, _COMPATIBLE_VERSION = 17, 16

# What other nodes refer to, by phandle.
_VIC, _SIC, _XTAL, _PCLK, _TIMCLK = 1, 2, 3, 4, 5

Value = int | str | bytes | list[int] | list[str] | None


class DeviceTreeError(ValueError):
    """Raised for bytes that are no usable device tree. The text says why, and completes a sentence that begins "it"."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The properties of /chosen, and size and base of the memory. An empty ``bootargs`` keeps the tree's own.
    ``initrd`` is [start, end) of the RAM disk.
    """

    memory: int
    bootargs: bytes = b""
    initrd: tuple[Gpa, int] | None = None
    memory_base: Gpa = GPA_0


class TreeNode(NamedTuple):
    """A node of a tree: texts, words and lists of them by the names of properties, and None for one without a value."""

    name: str
    properties: Mapping[str, Value]
    nodes: Sequence[TreeNode] = ()


@dataclass(frozen=True, slots=True)
class _Peripheral:
    """A device on the AMBA bus. Its interrupt is at the VIC, or with ``sic`` at the SIC. Clocks are given by name."""

    name: str
    base: Gpa
    compatible: tuple[str, ...]
    interrupt: int | None
    clocks: Mapping[str, int]
    sic: bool = False


_UART_CLOCKS = {"uartclk": _XTAL, "apb_pclk": _PCLK}
_TIMER_CLOCKS = {"timer0": _TIMCLK, "timer1": _TIMCLK, "apb_pclk": _PCLK}
#: Versatile/PB's devices (ARM DUI 0224, tables 4-1 and 4-2); names, clocks and bindings are those of Linux'
#: arch/arm/boot/dts/versatile-ab.dts. The RTC is a PL031, as on QEMU's board, whatever that file says.
_PERIPHERALS = (
    _Peripheral("sctl", Gpa(0x101E0000), ("arm,primecell",), None, {"apb_pclk": _PCLK}),
    _Peripheral("watchdog", Gpa(0x101E1000), ("arm,sp805", "arm,primecell"), 0, {"wdog_clk": _XTAL, "apb_pclk": _PCLK}),
    _Peripheral("timer", Gpa(0x101E2000), ("arm,sp804", "arm,primecell"), 4, _TIMER_CLOCKS),
    _Peripheral("timer", Gpa(0x101E3000), ("arm,sp804", "arm,primecell"), 5, _TIMER_CLOCKS),
    _Peripheral("rtc", Gpa(0x101E8000), ("arm,pl031", "arm,primecell"), 10, {"apb_pclk": _PCLK}),
    _Peripheral("uart", Gpa(0x101F1000), ("arm,pl011", "arm,primecell"), 12, _UART_CLOCKS),
    _Peripheral("uart", Gpa(0x101F2000), ("arm,pl011", "arm,primecell"), 13, _UART_CLOCKS),
    _Peripheral("uart", Gpa(0x101F3000), ("arm,pl011", "arm,primecell"), 14, _UART_CLOCKS),
    _Peripheral("uart", Gpa(0x10009000), ("arm,pl011", "arm,primecell"), 6, _UART_CLOCKS, sic=True),
)
_SYSREGS, _SIC_BASE, _VIC_BASE = Gpa(0x10000000), Gpa(0x10003000), Gpa(0x10140000)
_PAGE = 0x1000
#: The first of the SIC's inputs that virtio devices share, and how many these are (:mod:`dbt.board.versatile`).
_VIRTIO_INPUT, _VIRTIO_INPUTS = 27, 4


def _every_device(gpa: Gpa) -> bool:
    return True


def board_tree(chosen: Chosen, present: Callable[[Gpa], bool] = _every_device) -> bytes:
    """Return the Versatile/PB's tree, with a node for each device at whose address one is ``present``."""
    import fdt

    tree = fdt.FDT(entries=[])
    tree.root = _node(
        "/",
        {
            "model": "ARM Versatile PB",
            "compatible": "arm,versatile-pb",
            "#address-cells": 1,
            "#size-cells": 1,
            "interrupt-parent": _VIC,
        },
        _node("aliases", _aliases(present)),
        _node("chosen", {"stdout-path": "serial0:115200n8"} if present(_PERIPHERALS[5].base) else {}),
        _node("xtal24mhz", {**_clock("fixed-clock", _XTAL), "clock-frequency": 24_000_000}),
        *([_core_module()] if present(_SYSREGS) else []),
        _divided("timclk", _TIMCLK, 24),
        _divided("pclk", _PCLK, 1),
        _node("amba", {"compatible": "simple-bus", **_CELLS, "ranges": None}, *_amba(present)),
    )
    return _finish(tree, chosen)


def make_tree(root: TreeNode, chosen: Chosen) -> bytes:
    """Return a tree as bytes, with the machine's memory and /chosen."""
    import fdt

    tree = fdt.FDT(entries=[])
    tree.root = _made(root)
    return _finish(tree, chosen)


def _made(node: TreeNode) -> Node:
    return _node(node.name, node.properties, *map(_made, node.nodes))


def patch_tree(data: bytes, chosen: Chosen) -> bytes:
    """Return a copy of the tree ``data`` with the machine's memory and /chosen. Raise DeviceTreeError if it is
    unusable.
    """
    return _finish(_parse(data), chosen)


# -- the board's tree ----------------------------------------------------------------------------

_CELLS: Mapping[str, Value] = {"#address-cells": 1, "#size-cells": 1}


def _node(name: str, properties: Mapping[str, Value], *nodes: Node) -> Node:
    """Return a node. Texts, words and lists of them become properties; None is a property without a value."""
    import fdt

    node = fdt.Node(name)
    for key, value in properties.items():
        node.set_property(key, value)
    for child in nodes:
        node.append(child)
    return node


def _clock(compatible: str, phandle: int) -> dict[str, Value]:
    return {"compatible": compatible, "#clock-cells": 0, "phandle": phandle}


def _divided(name: str, phandle: int, divisor: int) -> Node:
    factor: dict[str, Value] = {"clock-div": divisor, "clock-mult": 1, "clocks": _XTAL}
    return _node(name, {**_clock("fixed-factor-clock", phandle), **factor})


def _core_module() -> Node:
    """Return the core module's node. Linux resets the board through it, and takes its scheduler's clock from
    ``sysreg``.
    """
    compatible = ["arm,core-module-versatile", "syscon", "simple-mfd"]
    return _node("core-module@10000000", {"compatible": compatible, "reg": [_SYSREGS, 0x200], **_CELLS})


def _uarts(present: Callable[[Gpa], bool]) -> Iterator[_Peripheral]:
    return (row for row in _PERIPHERALS if row.name == "uart" and present(row.base))


def _aliases(present: Callable[[Gpa], bool]) -> dict[str, Value]:
    return {f"serial{number}": f"/amba/uart@{row.base:x}" for number, row in enumerate(_uarts(present))}


def _amba(present: Callable[[Gpa], bool]) -> Iterator[Node]:
    controller: dict[str, Value] = {"interrupt-controller": None, "#interrupt-cells": 1}
    if present(_VIC_BASE):
        vic: dict[str, Value] = {"compatible": "arm,versatile-vic", "reg": [_VIC_BASE, _PAGE], "phandle": _VIC}
        yield _node(f"interrupt-controller@{_VIC_BASE:x}", {**controller, **vic, "valid-mask": 0xFFFFFFFF})
    if present(_SIC_BASE):
        sic: dict[str, Value] = {"compatible": "arm,versatile-sic", "reg": [_SIC_BASE, _PAGE], "phandle": _SIC}
        masks: dict[str, Value] = {"interrupts": 31, "clear-mask": 0xFFFFFFFF, "valid-mask": 0x7FE003FF}
        yield _node(f"interrupt-controller@{_SIC_BASE:x}", {**controller, **sic, **masks})
    if present(_SYSREGS):
        compatible = ["arm,versatile-sysreg", "syscon", "simple-mfd"]
        yield _node(f"sysreg@{_SYSREGS:x}", {"compatible": compatible, "reg": [_SYSREGS, _PAGE]})
    if present(VERSATILE.virtio_base) and present(_SIC_BASE):
        yield from _virtio_slots()
    for row in _PERIPHERALS:
        if present(row.base) and (present(_SIC_BASE) or not row.sic):
            yield _node(f"{row.name}@{row.base:x}", _properties(row))


def _virtio_slots() -> Iterator[Node]:
    """Yield the slots for virtio devices. The first device is in the highest slot, and is to be found first."""
    for slot in reversed(range(SLOTS)):
        base = VERSATILE.virtio_base + slot * SLOT_SIZE
        place: dict[str, Value] = {"compatible": "virtio,mmio", "reg": [base, SLOT_SIZE], "dma-coherent": None}
        yield _node(
            f"virtio_mmio@{base:x}",
            {**place, "interrupt-parent": _SIC, "interrupts": _VIRTIO_INPUT + slot % _VIRTIO_INPUTS},
        )


def _properties(row: _Peripheral) -> dict[str, Value]:
    properties: dict[str, Value] = {"compatible": list(row.compatible), "reg": [row.base, _PAGE]}
    if row.sic:
        properties["interrupt-parent"] = _SIC
    if row.interrupt is not None:
        properties["interrupts"] = row.interrupt
    return {**properties, "clocks": list(row.clocks.values()), "clock-names": list(row.clocks)}


# -- any tree ------------------------------------------------------------------------------------


def _parse(data: bytes) -> FDT:
    import fdt

    if len(data) < _HEADER.size:
        raise DeviceTreeError(f"is truncated: {len(data)} bytes do not hold the header of a device tree")
    magic, size, *_ = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise DeviceTreeError(f"is no device tree blob: it begins with {magic:#010x}, not {_MAGIC:#010x}")
    if size > len(data):
        raise DeviceTreeError(f"is truncated: it says that it has {size} bytes, and has {len(data)}")
    fdt.FDT().entries.clear()
    try:
        tree = fdt.parse_dtb(data[:size])
        tree.entries = list(tree.entries)
        tree.to_dtb(version=_VERSION)
    except Exception as error:
        raise DeviceTreeError(f"is damaged: {error or type(error).__name__}") from None
    if tree.root is None:
        raise DeviceTreeError("is damaged: it has no root")
    return tree


def _finish(tree: FDT, chosen: Chosen) -> bytes:
    """Set the memory and /chosen, and return the tree as bytes."""
    for node in [node for node in tree.root.nodes if node.name.partition("@")[0] == "memory"]:
        tree.root.remove_subnode(node.name)
    cells = _cells(tree.root, "#address-cells"), _cells(tree.root, "#size-cells")
    place = zip((chosen.memory_base, chosen.memory), cells, strict=True)
    reg = b"".join(value.to_bytes(4 * count, "big") for value, count in place)
    tree.root.append(_node(f"memory@{chosen.memory_base:x}", {"device_type": "memory", "reg": reg}))
    node = tree.get_node("/chosen", create=True)
    if chosen.bootargs:
        node.set_property("bootargs", chosen.bootargs + b"\0")
    for number, name in enumerate(("linux,initrd-start", "linux,initrd-end")):
        node.remove_property(name)
        if chosen.initrd is not None:
            node.set_property(name, chosen.initrd[number])
    data: bytes = tree.to_dtb(version=_VERSION, last_comp_version=_COMPATIBLE_VERSION)
    return data


def _cells(root: Node, name: str) -> int:
    """Return how many words an address or a size of a child takes. The specification's defaults are 2 and 1 (2.3.5)."""
    found: Any = root.get_property(name)
    default = 2 if name == "#address-cells" else 1
    count = default if found is None else getattr(found, "value", None)
    if count not in (1, 2):
        raise DeviceTreeError(f"has {name} = {count} at its root, where only 1 and 2 make sense for this machine")
    return int(count)
