"""Accesses to a board's registers and what QEMU's answers, as text: an oracle that is not our code.

A file of ``registers/BOARD/`` is a sequence of lines, for a board that has just been switched on:

    at 0x10140000               offsets are from here
    w 0x010 0x00000030          write a word (w1, w2: a byte, a halfword)
    r 0x010 -> 0x00000030       read a word (r1, r2); what QEMU read
    r 0x018 -> 0x2 but 0x0: why what QEMU read, what it should be, and by which authority
    r 0x1000 -> abort           there is nothing, and the access is aborted (virt)
    p 0x060 0x00000001          read a word again and again until it has this value
    devices disk rng            virtio devices that the board is to have (virt); no line, no devices

Places may be in RAM too, from 0x41200000 on, so that a device that accesses RAM can be driven. The disk has 64 sectors;
its word N is N * 0x9E3779B1 modulo 2^32. The directory of 9p is
made by :func:`tests.devices.virtio.shared.make_share`.

``python -m tests.devices.register_cases [FILE ...]`` runs the files, or else all of them, under qemu-system-arm. It
writes down what QEMU read in every line, also where there was an answer before. A new file, or line, needs no answers:
``r 0x010 ->`` is filled in.
"""

from __future__ import annotations

import argparse
import re
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dbt import Machine
from dbt.host.console import CaptureConsole
from dbt.host.drive import Drive
from dbt.host.net_option import Net
from dbt.host.ninep.share import Share
from dbt.vm.machine import TierName
from tests.assembler import assemble
from tests.devices.virtio.shared import make_share

FOLDER = Path(__file__).parent / "registers"
FILES = sorted(FOLDER.glob("*/*.txt"))
IDS = [f"{path.parent.name}-{path.stem}" for path in FILES]
#: Places of code and table from the origin on. QEMU has the device tree of virt in the first MB of RAM.
_CODE, _TABLE = 0x10000, 0x20000
_ORIGINS = {"versatile": 0, "virt": 0x41000000}
#: What a read gives that is aborted; no device has this value.
ABORTED = 0x0ABADABA
_ACCESS = re.compile(
    r"(?P<kind>[rwp])(?P<size>[124]?) +(?P<offset>\w+) +(?:-> *)?(?P<value>\w*)(?: but (?P<ours>\w+): .+)?"
)


@dataclass(frozen=True)
class Access:
    """``value`` is what is written or waited for, or what our device should read; None if nobody knows yet.

    ``kind`` is r, w or p.
    """

    line: int
    kind: str
    gpa: int
    size: int
    value: int | None

    @property
    def is_read(self) -> bool:
        return self.kind == "r"

    def __str__(self) -> str:
        return f"line {self.line}: {self.kind} of {self.size} bytes at {self.gpa:#010x}"


def devices_of(text: str) -> list[str]:
    """The virtio devices that the board is to have, the first one in the highest slot."""
    lines = (line.split() for line in text.splitlines())
    return [name for words in lines if words[:1] == ["devices"] for name in words[1:]]


def disk_content() -> bytes:
    """What is on the disk."""
    return b"".join(struct.pack("<I", number * 0x9E3779B1 & 0xFFFFFFFF) for number in range(64 * 128))


def parse(text: str) -> Iterator[Access]:
    base = 0
    for number, line in enumerate(text.splitlines(), 1):
        content = line.split("#")[0].strip()
        if content.startswith("at "):
            base = int(content[3:], 0)
        elif content and not content.startswith("devices "):
            match = _ACCESS.fullmatch(content)
            assert match is not None, f"line {number}: {line}"
            value = match["ours"] or match["value"]
            yield Access(
                number,
                match["kind"],
                base + int(match["offset"], 0),
                int(match["size"] or 4),
                ABORTED if value == "abort" else int(value, 0) if value else None,
            )


#: How often QEMU is asked until it answers within one second of the host's.
_ATTEMPTS = 50

# R4 goes through the table of (access, address, value), R5 through the results. An access is its size, 16 more for a
# write, 32 more to poll, which is given up after some time; 0 ends the table. The results are written to a file by
# semihosting.
_PROGRAM = """
    mov r12, #BASE
PREPARE
    add r4, r12, #0x20000
    add r5, r12, #0x100000
next:
    ldmia r4!, {r0, r1, r2}
    cmp r0, #0
    beq done
    cmp r0, #1
    ldrbeq r3, [r1]
    cmp r0, #2
    ldrheq r3, [r1]
    cmp r0, #4
    ldreq r3, [r1]
    cmp r0, #8
    strlo r3, [r5], #4
    cmp r0, #17
    strbeq r2, [r1]
    cmp r0, #18
    strheq r2, [r1]
    cmp r0, #20
    streq r2, [r1]
    cmp r0, #36
    bne next
    mov r6, #0x4000000
poll:
    ldr r3, [r1]
    cmp r3, r2
    beq next
    subs r6, r6, #1
    bne poll
    b next
done:
    add r4, r12, #0x100000
    sub r7, r5, r4
    sub sp, r4, #64
    add r0, r12, #0x20000
    sub r0, r0, #8
    str r0, [sp]
    mov r0, #5
    str r0, [sp, #4]
    mov r0, #3
    str r0, [sp, #8]
    mov r0, #1
    mov r1, sp
    svc #0x123456
    str r0, [sp]
    str r4, [sp, #4]
    str r7, [sp, #8]
    mov r0, #5
    mov r1, sp
    svc #0x123456
    mov r0, #0x18
    mov r1, #0x20000
    orr r1, r1, #0x26
    svc #0x123456
"""
#: Sets vectors of which that of data aborts lets the program go on behind the access.
_PREPARE = {
    "versatile": "",
    "virt": f"""
    ldr r0, =0xe25ef004     @ subs pc, lr, #4
    str r0, [r12, #20]
    ldr r0, =0xe59f3000     @ ldr r3, [pc]
    str r0, [r12, #16]
    ldr r0, ={ABORTED:#x}
    str r0, [r12, #24]
    mcr p15, 0, r12, c12, c0, 0
    """,
}
_FILE = "out"  # its name is in the eight bytes before the table


_MACHINES = {
    "versatile": ("-M", "versatilepb"),
    "virt": (
        *("-M", "virt,highmem=off", "-cpu", "cortex-a15,vfp=off,neon=off"),
        *("-global", "virtio-mmio.force-legacy=false"),
    ),
}
_QEMU = (
    # Time goes by instructions: a nanosecond each.
    *("qemu-system-arm", "-icount", "shift=0,sleep=off", "-semihosting"),
    *("-rtc", "base=2026-01-01T00:00:00,clock=vm"),
    *("-display", "none", "-serial", "null", "-monitor", "none", "-audiodev", "none,id=n0"),
)


def _image_of(accesses: list[Access], board: str) -> bytes:
    """The program that makes the accesses."""
    table = b"".join(
        struct.pack(
            "<3I",
            access.size + {"r": 0, "w": 16, "p": 32}[access.kind],
            access.gpa,
            access.value if not access.is_read and access.value is not None else 0,
        )
        for access in accesses
    )
    base = _ORIGINS[board]
    code = assemble(_PROGRAM.replace("BASE", str(base)).replace("PREPARE", _PREPARE[board]), base + _CODE)
    return code.ljust(_TABLE - _CODE - 8, b"\0") + _FILE.encode().ljust(8, b"\0") + table + bytes(12)


def _in_qemu(devices: list[str]) -> Iterator[str]:
    """QEMU's options for virtio devices."""
    for device in devices:
        if device == "disk":
            yield from (
                "-drive",
                "file=disk,format=raw,if=none,id=d",
                "-device",
                "virtio-blk-device,drive=d,serial=disk",
            )
        elif device == "console":
            yield from ("-device", "virtio-serial-device,max_ports=2", "-chardev", "null,id=c")
            yield from ("-device", "virtconsole,chardev=c")
        elif device == "net":
            yield from ("-netdev", "user,id=n,restrict=on", "-device", "virtio-net-device,netdev=n")
        elif device == "9p":
            yield from ("-fsdev", "local,id=f,path=share,security_model=none")
            yield from ("-device", "virtio-9p-device,fsdev=f,mount_tag=share")
        else:
            more = ",free-page-reporting=on" if device == "balloon" else ""
            yield from ("-device", f"virtio-{device}-device{more}")


def under_qemu(accesses: list[Access], board: str, devices: list[str]) -> list[int]:
    """What the reads give there, in order."""
    start = _ORIGINS[board] + _CODE
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "image").write_bytes(_image_of(accesses, board))
        (Path(directory) / "disk").write_bytes(disk_content())
        make_share(Path(directory))
        subprocess.run(
            [
                *(*_QEMU, *_MACHINES[board], *_in_qemu(devices)),
                *("-device", f"loader,file=image,addr={start:#x},cpu-num=0"),
            ],
            cwd=directory,
            check=True,
            timeout=60,
            capture_output=True,
        )
        results = (Path(directory) / _FILE).read_bytes()
    return _words(results)


def under_dbt(accesses: list[Access], board: str, devices: list[str], tier: TierName) -> tuple[list[int], int]:
    """What the reads give in one of our tiers, in order, and how many accesses native code made."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "image").write_bytes(_image_of(accesses, board))
        console = CaptureConsole()
        disk = Path(directory) / "disk"
        disk.write_bytes(disk_content())
        with Machine(
            tier=tier,
            files=directory,
            semihosting=True,
            insn_ns=1,
            console=console,
            board=board,
            drives=[Drive(str(disk), serial="disk") for name in devices if name == "disk"],
            devices=[name for name in devices if name not in ("disk", "net", "9p")],
            nets=[Net("none") for name in devices if name == "net"],
            shares=[Share(str(make_share(Path(directory)))) for name in devices if name == "9p"],
        ) as machine:
            machine.load_kernel(str(Path(directory) / "image"), base=_ORIGINS[board] + _CODE)
            assert machine.run(fuel=10_000_000).exit_code == 0
            answers = machine.cpu.native("device_answers")
        return _words((Path(directory) / _FILE).read_bytes()), answers


def _words(results: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(results) // 4}I", results))


def recorded(text: str, board: str) -> str:
    """``text`` with what QEMU reads.

    Where a guest sets a clock, QEMU 7.2 keeps the difference to the host's time, in whole seconds, also with
    ``clock=vm`` (``qemu_timedate_diff``). What such a clock says is right only if the host's clock has not come to
    another second since QEMU started. Therefore new answers count only from a run within one second.
    """
    for _ in range(_ATTEMPTS):
        second = int(time.time())
        answers = _with_answers(text, board)
        if answers == text or int(time.time()) == second:
            return answers
    raise TimeoutError(f"the host is too busy: none of {_ATTEMPTS} runs of QEMU took place within one second")


def _with_answers(text: str, board: str) -> str:
    """``text`` with what QEMU reads in one run."""
    accesses = list(parse(text))
    reads = [access for access in accesses if access.is_read]
    lines = text.splitlines()
    for access, value in zip(reads, under_qemu(accesses, board, devices_of(text)), strict=True):
        answer = "abort" if value == ABORTED else f"{value:#0{2 + 2 * access.size}x}"
        lines[access.line - 1] = re.sub(r" ->( *(0x\w+|abort))?", f" -> {answer}", lines[access.line - 1])
    return "\n".join(lines) + "\n"


def main() -> None:
    description = (
        "Run sequences of register accesses under qemu-system-arm and write down what it reads, in every line."
    )
    parser = argparse.ArgumentParser(prog="python -m tests.devices.register_cases", description=description)
    parser.add_argument("files", nargs="*", type=Path, default=FILES, metavar="FILE", help=f"all of {FOLDER} if none")
    paths: list[Path] = parser.parse_args().files
    if missing := [str(path) for path in paths if not path.is_file()]:
        parser.error(f"there is no file {', '.join(missing)}")
    for path in paths:
        path.write_text(recorded(path.read_text(), path.parent.name))
        print(path.name)


if __name__ == "__main__":
    main()
