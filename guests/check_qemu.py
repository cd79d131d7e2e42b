#!/usr/bin/env python3
"""Runs the guests under qemu-system-arm and compares console and exit code with the manifest.

    check_qemu.py [--cpu MODEL] [--bench] [guest ...]

QEMU is the oracle for the expected outputs, so this imports nothing of the project. --bench runs the long
versions and looks at the exit code alone: each guest checks its own results.

What is peculiar to QEMU 7.2, and what the guests do about it:

- Without a character device for semihosting, SYS_WRITE goes to stdout and SYS_WRITE0 and SYS_WRITEC go to stderr.
  Here all of it goes to one device, shared with the UART, and so arrives in order.
- SYS_ISTTY is 1 for the console only when it is a terminal. When it is not, newlib asks for SYS_ERRNO: the text is
  the same, but not the icount.
- versatilepb ignores accesses to addresses where nothing is. A data abort without the MMU must come from
  alignment (SCTLR.A), as in exceptions.s.
- With the MMU off all memory is strongly ordered, and ARMv7 hardware faults on any access that is not aligned;
  QEMU does not. The guests are compiled to make none.
- Code that is stored to memory runs without cache maintenance.
- Semihosting works in privileged modes only.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

GUESTS = Path(__file__).resolve().parent
TIMEOUT = 300  # seconds

# A model that fits the architecture, and nothing newer where QEMU has it. Flat images must run on all of these.
CPUS = {"armv4t": "arm926", "armv5te": "arm926", "armv7-a": "cortex-a8"}
FLAT_CPUS = ("arm926", "arm1176", "cortex-a8")


def qemu_command(guest: dict, name: str, image: Path, cpu: str, arguments: list[str]) -> list[str]:
    command_line = "".join(",arg=" + word.replace(",", ",,") for word in (name, *arguments))
    load = ["-kernel", str(image)]
    if "base" in guest:  # the loader device sets the PC too
        load = ["-device", f"loader,file={image},addr={guest['base']:#x},cpu-num=0"]
    return [
        *("qemu-system-arm", "-M", "versatilepb", "-cpu", cpu, "-m", "128"),
        *("-display", "none", "-monitor", "none", "-audiodev", "none,id=n0"),
        *("-chardev", "stdio,id=console,mux=on", "-serial", "chardev:console"),
        *("-semihosting-config", f"enable=on,target=native,chardev=console{command_line}"),
        *load,
    ]


def check(guest: dict, name: str, image: Path, cpu: str, bench: bool) -> str | None:
    """What is wrong, or None."""
    arguments = guest["bench_args"] if bench else guest["arguments"]
    with tempfile.TemporaryDirectory() as directory:
        try:
            run = subprocess.run(
                qemu_command(guest, name, image, cpu, arguments),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"still running after {TIMEOUT} s"
        left_behind = os.listdir(directory)
    console = run.stdout.decode(errors="replace")
    if run.returncode != guest["exit_code"]:
        return f"exit code {run.returncode}, should be {guest['exit_code']}: {console[-200:]}"
    if not bench and run.stdout != (GUESTS / guest["expected"]).read_bytes():
        return f"the console differs from {guest['expected']}: {console}"
    if left_behind:
        return f"left behind {left_behind}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the guests under qemu-system-arm.")
    parser.add_argument("--cpu", help="model for all images, in place of one that fits the architecture")
    parser.add_argument("--bench", action="store_true", help="run with bench_args")
    parser.add_argument("guests", nargs="*", metavar="guest")
    options = parser.parse_args()

    manifest = tomllib.loads((GUESTS / "manifest.toml").read_text())
    if unknown := set(options.guests) - set(manifest):
        parser.error(f"not in the manifest: {', '.join(sorted(unknown))}")

    runs = []
    for name, guest in manifest.items():
        if (options.guests and name not in options.guests) or (options.bench and "bench_args" not in guest):
            continue
        for image in guest["images"]:
            march = image.removeprefix(f"images/{name}-").rpartition("-")[0]
            for cpu in [options.cpu] if options.cpu else [CPUS[march]] if march in CPUS else FLAT_CPUS:
                runs.append((guest, name, GUESTS / image, cpu, options.bench))

    failures = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for (_, _, image, cpu, _), wrong in zip(runs, pool.map(lambda run: check(*run), runs), strict=True):
            if wrong:
                failures += 1
                print(f"{image.name} on {cpu}: {wrong}")
    print(f"{len(runs)} runs, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
