"""What the monitor says to clients that only look at a machine: boards, disks, registers. The forms are QEMU's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dbt.abi.version import VERSION
from dbt.board.boards import BOARDS
from dbt.host.drive import Drive
from dbt.vm.machine import Machine
from isa.arm.state import PSR_MODE, PSR_T

#: What QEMU says of a machine to which nobody has given another one.
UUID = "00000000-0000-0000-0000-000000000000"
#: The unit of st_blocks, in bytes.
_BLOCK = 512
_PER_LINE = 4
_MODES: Mapping[int, str] = {
    0x10: "usr", 0x11: "fiq", 0x12: "irq", 0x13: "svc", 0x17: "abt", 0x1B: "und", 0x1F: "sys",
}  # fmt: skip


def version() -> Mapping[str, Any]:
    """Return the version in the form that clients expect. The numbers are dbt's."""
    major, minor, micro = (int(part) for part in VERSION.split(".")[:3])
    return {"qemu": {"micro": micro, "minor": minor, "major": major}, "package": f"dbt {VERSION}"}


def accelerator() -> Mapping[str, Any]:
    """Return what ``query-kvm`` answers: the host's processor does not execute the guest's code itself."""
    return {"enabled": False, "present": False}


def machines() -> list[Mapping[str, Any]]:
    """Return what ``query-machines`` answers: the boards."""
    return [
        {
            "hotpluggable-cpus": False,
            "name": board.name,
            "numa-mem-supported": False,
            "default-cpu-type": f"{board.kernel_cpu}-arm-cpu",
            "cpu-max": 1,
            "deprecated": False,
        }
        for board in BOARDS.values()
    ]


def disks(machine: Machine) -> list[Mapping[str, Any]]:
    """Return what ``query-block`` answers, without what is of QEMU's block layer alone."""
    return [
        {
            "io-status": "ok",
            "device": f"virtio{number}",
            "locked": False,
            "removable": False,
            "inserted": {"node-name": f"virtio{number}", **_inserted(drive, size)},
            "type": "unknown",
        }
        for number, (drive, size) in enumerate(machine.attachments.disks())
    ]


def _inserted(drive: Drive, size: int) -> Mapping[str, Any]:
    limits = dict.fromkeys(("iops", "iops_rd", "iops_wr", "bps", "bps_rd", "bps_wr"), 0)
    backing = {"backing_file": drive.backing[0].path} if drive.backing else {}
    return {
        **limits,
        **backing,
        "detect_zeroes": "off",
        "image": {
            "virtual-size": size,
            "filename": drive.path,
            "format": drive.format,
            "actual-size": _allocated(drive.path),
            "dirty-flag": False,
        },
        "ro": drive.read_only,
        "backing_file_depth": len(drive.backing),
        "drv": drive.format,
        "write_threshold": 0,
        "encrypted": False,
        "cache": {"no-flush": False, "direct": False, "writeback": True},
        "file": drive.path,
    }


def _allocated(path: str) -> int:
    """Return how many bytes of the host's disk a file takes, 0 if it has no such name any more."""
    try:
        return os.stat(path).st_blocks * _BLOCK
    except OSError:
        return 0


def disks_in_words(machine: Machine) -> str:
    """Return what ``info block`` says."""
    return "\n".join(_in_words(number, drive) for number, (drive, _) in enumerate(machine.attachments.disks()))


def _in_words(number: int, drive: Drive) -> str:
    read_only = ", read-only" if drive.read_only else ""
    lines = [f"virtio{number}: {drive.path} ({drive.format}{read_only})", "    Cache mode:       writeback"]
    if drive.backing:
        lines.append(f"    Backing file:     {drive.backing[0].path} (chain depth: {len(drive.backing)})")
    return "".join(f"{line}\n" for line in lines)


def registers_in_words(machine: Machine) -> str:
    """Return what ``info registers`` says."""
    cpu = machine.cpu
    names = [f"R{number:02d}={cpu.r[number]:08x}" for number in range(16)]
    lines = [" ".join(names[first : first + _PER_LINE]) for first in range(0, len(names), _PER_LINE)]
    psr = cpu.cpsr
    flags = "".join(letter if psr >> bit & 1 else "-" for letter, bit in zip("NZCV", (31, 30, 29, 28), strict=True))
    mode = _MODES.get(psr & PSR_MODE, "???")
    lines.append(f"PSR={psr:08x} {flags} {'T' if psr & PSR_T else 'A'} {mode}{32 if psr & 0x10 else 26}")
    return "\nCPU#0\n" + "".join(f"{line}\n" for line in lines)
