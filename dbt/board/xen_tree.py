"""The device tree of a domain of Xen on ARM: what Xen 4.17 gives to a guest, with what the toolstack adds (libxl)."""

from __future__ import annotations

from dbt.board.devicetree import Chosen, TreeNode, Value, make_tree
from dbt.hypervisor.xen import interface

_GIC = 65000
_PPI = 1
#: A level that is active when it is low, on any processor.
_LOW = 0xF08
#: The generic timer's private interrupts, counted from 16: secure, non-secure, virtual.
_TIMERS = (13, 14, 11)
_NAMES = {"any": "arm,cortex-a15", "arm926": "arm,arm926ej-s", "arm1176": "arm,arm1176jzf-s"}


def xen_tree(chosen: Chosen, cpu: str) -> bytes:
    """Return the tree for a guest with the processor ``cpu``."""
    major, minor = interface.VERSION
    properties: dict[str, Value] = {
        "model": f"XENVM-{major}.{minor}",
        "compatible": [f"xen,xenvm-{major}.{minor}", "xen,xenvm"],
        "interrupt-parent": _GIC,
        "#address-cells": 2,
        "#size-cells": 2,
    }
    return make_tree(TreeNode("/", properties, [TreeNode("chosen", {}), *_nodes(cpu)]), chosen)


def _nodes(cpu: str) -> list[TreeNode]:
    methods = ["arm,psci-1.0", "arm,psci-0.2", "arm,psci"]
    psci: dict[str, Value] = {"compatible": methods, "method": "hvc", "cpu_off": 1, "cpu_on": 2}
    core: dict[str, Value] = {"compatible": _NAMES.get(cpu, f"arm,{cpu}"), "device_type": "cpu", "reg": 0}
    core["enable-method"] = "psci"
    controller: dict[str, Value] = {
        "#address-cells": 0,
        "#interrupt-cells": 3,
        "interrupt-controller": None,
        "compatible": "arm,gic-400",
        "reg": [
            *_reg(interface.DISTRIBUTOR, interface.DISTRIBUTOR_SIZE),
            *_reg(interface.CPU_INTERFACE, interface.CPU_INTERFACE_SIZE),
        ],
        "linux,phandle": _GIC,
        "phandle": _GIC,
    }
    timer: dict[str, Value] = {"compatible": "arm,armv7-timer", "interrupt-parent": _GIC}
    timer["interrupts"] = [word for number in _TIMERS for word in (_PPI, number, _LOW)]
    major, minor = interface.VERSION
    hypervisor: dict[str, Value] = {
        "compatible": [f"xen,xen-{major}.{minor}", "xen,xen"],
        "reg": _reg(interface.GRANT_REGION, interface.GRANT_REGION_SIZE),
        "interrupts": [_PPI, interface.EVENT_INTERRUPT - 16, _LOW],
        "interrupt-parent": _GIC,
    }
    return [
        TreeNode("psci", psci),
        TreeNode("cpus", {"#address-cells": 1, "#size-cells": 0}, [TreeNode("cpu@0", core)]),
        TreeNode(f"interrupt-controller@{interface.DISTRIBUTOR:x}", controller),
        TreeNode("timer", timer),
        TreeNode("hypervisor", hypervisor),
    ]


def _reg(base: int, size: int) -> list[int]:
    return [0, base, 0, size]
