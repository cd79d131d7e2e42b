"""Accesses to devices without an operating system: a program on the board that makes one kind of them many times."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from dbt_command import DBT

_IMAGE: Final = Path(__file__).resolve().parents[2] / "guests/io/images/board_io.elf"
#: The board has a source of random numbers in both engines, whose registers are read.
_QEMU: Final = (
    *("qemu-system-arm", "-M", "virt,highmem=off", "-cpu", "cortex-a15,vfp=off,neon=off", "-m", "128", "-nographic"),
    *("-global", "virtio-mmio.force-legacy=false", "-nic", "none", "-device", "virtio-rng-device"),
)
DONE: Final = b"done"
IDLE: Final = "nothing"


class Access(NamedTuple):
    """A kind of access: the guest's name for it, how many rounds, the accesses of each, and the limit for one in us."""

    kind: str
    title: str
    rounds: int
    accesses: int
    most_us: float


ACCESSES: Final = (
    Access("console", "PL011, polled (1 MB)", 1 << 20, 2, 0.1),
    Access("gic", "GIC: pend, acknowledge and end", 1_000_000, 3, 0.1),
    Access("timer", "generic timer, reprogrammed", 3_000_000, 2, 0.1),
    Access("virtio", "virtio register, read", 300_000, 1, 3.0),
)


def dbt_command(kind: str, rounds: int) -> list[str]:
    return [*DBT, "run", "--board", "virt", "--rng", "seed=1", str(_IMAGE), kind, str(rounds)]


def qemu_command(kind: str, rounds: int) -> list[str]:
    words = ",".join(f"arg={word}" for word in ("board_io", kind, str(rounds)))
    return [*_QEMU, "-semihosting-config", f"enable=on,target=native,{words}", "-kernel", str(_IMAGE)]
