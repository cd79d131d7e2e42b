"""What stitching takes of the host's memory: a guest is run in a process of its own in two tiers, which are compared.

python -m tests.engine.stitched_memory program|linux threaded|stitched
"""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from dbt import Machine
from dbt.host.console import CaptureConsole
from dbt.vm.result import StopReason
from tests.assembler import assemble

#: The most bytes for each guest instruction that is stitched, with all that the tier keeps about it.
MOST_BYTES = 96
_BASE, _PAGE = 0x10000, 4096
#: Pages of code of the program, and how often each of them is executed.
_PAGES, _ROUNDS = 60, 40
#: Functions as compilers make them: a frame, a loop over memory, a sum with carry, choices, calls and a table.
_FUNCTION = """
f{n}: push {{r4, r5, r6, lr}} ; sub sp, sp, #16 ; mov r4, r0 ; ldr r5, [r7, #4 * {n}] ; str r4, [sp, #4] ; mov r6, #3
loop{n}: ldr r1, [r7, r6, lsl #2] ; add r1, r1, r5, ror #{shift} ; cmp r1, r4 ; movhi r1, r4 ; strb r1, [sp, #8]
      ldrh r2, [sp, #8] ; adds r3, r1, r2 ; adc r3, r3, #{n} ; str r3, [r7, r6, lsl #2] ; subs r6, r6, #1 ; bne loop{n}
      tst r3, #1 ; beq even{n} ; mul r0, r3, r4 ; eor r0, r0, r0, lsr #{shift} ; b end{n}
even{n}: ldrsh r0, [sp, #4] ; rsb r0, r0, r3, lsl #2 ; bic r0, r0, #0xff
end{n}: stmia r7!, {{r0, r1, r2}} ; ldmdb r7!, {{r1, r2, r3}} ; umull r2, r3, r0, r1 ; and r0, r2, #0xff
      add sp, sp, #16 ; pop {{r4, r5, r6, pc}}
"""
_COUNT = 24
_PAGE_OF_CODE = (
    f"push {{r4, lr}} ; {' ; '.join(f'bl f{n}' for n in range(_COUNT))} ; pop {{r4, pc}}\n"
    + "".join(_FUNCTION.format(n=n, shift=n + 1) for n in range(_COUNT))
)  # fmt: skip
_MAIN = f"""
        mov sp, #0xf000 ; mov r11, #{_ROUNDS}
again:  mov r10, #{_PAGES} ; ldr r9, =next ; ldr r8, ={_BASE} ; mov r7, #0xc000
next:   mov r0, r10 ; blx r8 ; add r8, r8, #{_PAGE} ; subs r10, r10, #1 ; bne next
        subs r11, r11, #1 ; bne again
        ldr r1, =0x20026 ; mov r0, #0x18 ; svc #0x123456
"""


def program(tier: Any) -> Machine:
    machine = Machine(1 << 20, tier=tier, console=CaptureConsole())
    page = assemble(_PAGE_OF_CODE, _BASE)
    assert len(page) <= _PAGE
    for number in range(_PAGES):
        machine.write(_BASE + number * _PAGE, page)
    machine.load_bytes(assemble(_MAIN, 0x8000), 0x8000)
    return machine


def linux(tier: Any) -> Machine:
    from tests.linux.booting import boot

    return boot(tier, CaptureConsole(), "versatile-pb.dtb", "autoreboot")


def growth(guest: str) -> tuple[int, dict[str, float]]:
    """Return how many instructions of a guest were stitched, and for each of them the bytes that the process is larger
    than one that executes the same by handlers: as ``resident``, which counts what is there at two addresses twice,
    and as ``taken`` from the host, both with the host's page tables.
    """
    found = {tier: _run(guest, tier) for tier in ("threaded", "stitched")}
    insns = found["stitched"]["insns"]
    more = {name: 1024 * (number - found["threaded"][name]) for name, number in found["stitched"].items()}
    return insns, {name: (more[name] + more["tables"]) / insns for name in ("resident", "taken")}


def _run(guest: str, tier: str) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.engine.stitched_memory", guest, tier]
    found: dict[str, int] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=600).stdout)
    return found


def main(guest: str, tier: str) -> None:
    """Run a guest to its end, and print what the process has of memory then, in KiB (proc(5))."""
    with {"program": program, "linux": linux}[guest](tier) as machine:
        assert machine.run(timeout=600).reason is StopReason.EXITED
        gc.collect()
        text = "".join(Path("/proc/self", file).read_text() for file in ("status", "smaps_rollup"))
        sizes = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
        stitching = machine.tier.stitching
    found = {
        "insns": 0 if stitching is None else stitching.insns,
        "resident": sizes["RssAnon"] + sizes["RssShmem"],  # what is of files depends on what else the host runs
        "taken": sizes["Pss_Anon"] + sizes["Pss_Shmem"],
        "tables": sizes["VmPTE"],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
