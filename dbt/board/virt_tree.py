"""The device tree of the board ``virt``: that of QEMU 7.2 (hw/arm/virt.c), for the devices that are here.

QEMU's has more: fw_cfg, flash, PCIe with the frame for its interrupts (v2m), and a bus for devices of the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dbt.abi.addresses import Gpa
from dbt.board.board import PAGE
from dbt.board.devicetree import Chosen, TreeNode, Value, make_tree
from dbt.board.virt import (
    CLOCK,
    CLOCK_SPI,
    GPIO,
    GPIO_SPI,
    INTERRUPT_CONTROLLER,
    POWER_KEY_PIN,
    UART,
    UART_SPI,
    VIRTIO,
    VIRTIO_SPI,
)
from dbt.devices.virtio.attached import SLOT_SIZE, SLOTS

_CLOCK, _CPU, _GIC, _GPIO = 0x8000, 0x8001, 0x8002, 0x8004
#: Kinds of interrupts, and when they are raised (Linux, dt-bindings/interrupt-controller/arm,gic.yaml).
_SPI, _PPI = 0, 1
_RISING, _HIGH, _ON_CPU_0 = 1, 4, 1 << 8
#: The generic timer's private interrupts, counted from 16: secure, non-secure, virtual, hypervisor.
_TIMERS = (13, 14, 11, 10)
_KEY_POWER = 116  # Linux, input-event-codes.h
_PSCI = {"cpu_suspend": 0x84000001, "cpu_off": 0x84000002, "cpu_on": 0x84000003, "migrate": 0x84000005}
_CPU_NAMES = {"arm926": "arm,arm926ej-s", "arm1176": "arm,arm1176jzf-s", "any": "arm,cortex-a15"}
_SEED_BYTES, _KASLR_BYTES = 32, 8


def virt_tree(chosen: Chosen, present: Callable[[Gpa], bool], cpu: str, seed: int) -> bytes:
    """Return the tree, with a node for each device that is ``present`` at an address. ``cpu`` is the processor.

    rng-seed and kaslr-seed, of which Linux makes its first random numbers, follow from ``seed``.
    """
    properties: dict[str, Value] = {
        "interrupt-parent": _GIC,
        "model": "linux,dummy-virt",
        "#size-cells": 2,
        "#address-cells": 2,
        "compatible": "linux,dummy-virt",
    }
    return make_tree(TreeNode("/", properties, [*_devices(present), *_processor(cpu), _chosen(present, seed)]), chosen)


def _chosen(present: Callable[[Gpa], bool], seed: int) -> TreeNode:
    properties: dict[str, Value] = {**seeds(seed)}
    if present(UART):
        properties["stdout-path"] = f"/pl011@{UART:x}"
    return TreeNode("chosen", properties)


def seeds(seed: int) -> dict[str, bytes]:
    """Return what the tree gives a kernel for its first random numbers, by the names of the properties."""
    from hashlib import sha256

    sizes = {"rng-seed": _SEED_BYTES, "kaslr-seed": _KASLR_BYTES}
    return {name: sha256(f"{name} {seed}".encode()).digest()[:size] for name, size in sizes.items()}


def _reg(base: Gpa, size: int) -> list[int]:
    return [0, base, 0, size]


def _devices(present: Callable[[Gpa], bool]) -> Iterator[TreeNode]:
    compatible = ["arm,psci-1.0", "arm,psci-0.2", "arm,psci"]
    yield TreeNode("psci", {**_PSCI, "method": "hvc", "compatible": compatible})
    for slot in range(SLOTS):
        base = Gpa(VIRTIO + slot * SLOT_SIZE)
        if present(base):
            properties: dict[str, Value] = {"dma-coherent": None, "interrupts": [_SPI, VIRTIO_SPI + slot, _RISING]}
            yield TreeNode(
                f"virtio_mmio@{base:x}", {**properties, "reg": _reg(base, SLOT_SIZE), "compatible": "virtio,mmio"}
            )
    if present(GPIO):
        key: dict[str, Value] = {"gpios": [_GPIO, POWER_KEY_PIN, 0], "linux,code": _KEY_POWER}
        key["label"] = "GPIO Key Poweroff"
        yield TreeNode("gpio-keys", {"compatible": "gpio-keys"}, [TreeNode("poweroff", key)])
        pins: dict[str, Value] = {"phandle": _GPIO, "gpio-controller": None, "#gpio-cells": 2}
        yield _primecell("pl061", GPIO, GPIO_SPI, ["apb_pclk"], pins)
    if present(CLOCK):
        yield _primecell("pl031", CLOCK, CLOCK_SPI, ["apb_pclk"], {})
    if present(UART):
        yield _primecell("pl011", UART, UART_SPI, ["uartclk", "apb_pclk"], {})
    if present(INTERRUPT_CONTROLLER):
        yield _controller()


def _primecell(name: str, base: Gpa, interrupt: int, clocks: list[str], more: dict[str, Value]) -> TreeNode:
    properties: dict[str, Value] = {
        **more,
        "clock-names": list(clocks),
        "clocks": [_CLOCK] * len(clocks),
        "interrupts": [_SPI, interrupt, _HIGH],
        "compatible": [f"arm,{name}", "arm,primecell"],
        "reg": _reg(base, PAGE),
    }
    return TreeNode(f"{name}@{base:x}", properties)


def _controller() -> TreeNode:
    size = 0x10000
    base = INTERRUPT_CONTROLLER
    properties: dict[str, Value] = {
        "phandle": _GIC,
        "reg": [*_reg(base, size), *_reg(Gpa(base + size), size)],
        "compatible": "arm,cortex-a15-gic",
        "ranges": None,
        "#size-cells": 2,
        "#address-cells": 2,
        "interrupt-controller": None,
        "#interrupt-cells": 3,
    }
    return TreeNode(f"intc@{base:x}", properties)


def _processor(cpu: str) -> Iterator[TreeNode]:
    yield TreeNode("pmu", {})
    core = TreeNode("core0", {"cpu": _CPU})
    places = TreeNode("cpu-map", {}, [TreeNode("socket0", {}, [TreeNode("cluster0", {}, [core])])])
    properties: dict[str, Value] = {"phandle": _CPU, "reg": 0, "device_type": "cpu"}
    properties["compatible"] = _CPU_NAMES.get(cpu, f"arm,{cpu}")
    yield TreeNode("cpus", {"#size-cells": 0, "#address-cells": 1}, [places, TreeNode("cpu@0", properties)])
    interrupts = [word for number in _TIMERS for word in (_PPI, number, _HIGH | _ON_CPU_0)]
    yield TreeNode("timer", {"interrupts": interrupts, "always-on": None, "compatible": "arm,armv7-timer"})
    clock: dict[str, Value] = {"phandle": _CLOCK, "clock-output-names": "clk24mhz", "clock-frequency": 24_000_000}
    yield TreeNode("apb-pclk", {**clock, "#clock-cells": 0, "compatible": "fixed-clock"})
