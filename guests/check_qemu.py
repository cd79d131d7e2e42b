#!/usr/bin/env python3
"""Runs the guests under qemu-system-arm and compares console and exit code with the manifest.

    check_qemu.py [--cpu MODEL] [--full] [guest ...]

QEMU is the oracle for the expected outputs, so this imports nothing of the project. The kernels of bench/ check their
own results; they run for one round, or with --full as long as in the benchmark. A kernel is named bench/NAME.

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
CPUS = {"armv4t": "arm926", "armv5te": "arm926", "armv6k": "arm1176", "armv7-a": "cortex-a8"}
FLAT_CPUS = ("arm926", "arm1176", "cortex-a8")


def qemu_command(guest: dict, name: str, image: Path, cpu: str) -> list[str]:
    command_line = "".join(",arg=" + word.replace(",", ",,") for word in (name, *guest["arguments"]))
    load = ["-kernel", str(image)]
    if "base" in guest:  # the loader device sets the PC too
        load = ["-device", f"loader,file={image},addr={guest['base']:#x},cpu-num=0"]
    return [
        *("qemu-system-arm", "-M", "versatilepb", "-cpu", cpu, "-m", "128", "-no-reboot"),
        *("-display", "none", "-monitor", "none", "-audiodev", "none,id=n0"),
        *("-chardev", "stdio,id=console,mux=on", "-serial", "chardev:console"),
        *("-semihosting-config", f"enable=on,target=native,chardev=console{command_line}"),
        *load,
    ]


def kernels(full: bool) -> dict[str, dict]:
    """Entries like the manifest's for the benchmark's kernels."""
    return {
        f"bench/{image.stem}": {
            "images": [str(image.relative_to(GUESTS))],
            "cpus": [CPUS["armv7-a"]],
            "arguments": [] if full else ["1"],
            "console": f"{image.stem}: ok\n".encode(),
            "exit_code": 0,
        }
        for image in sorted((GUESTS / "bench" / "images").glob("*.elf"))
    }


def check(guest: dict, name: str, image: Path, cpu: str) -> str | None:
    """What is wrong, or None."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            run = subprocess.run(
                qemu_command(guest, name, image, cpu),
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
    if run.stdout != guest["console"]:
        return f"the console is not what the manifest expects: {console}"
    if left_behind:
        return f"left behind {left_behind}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the guests under qemu-system-arm.")
    parser.add_argument("--cpu", help="model for all images, in place of one that fits the architecture")
    parser.add_argument("--full", action="store_true", help="run the kernels as long as the benchmark does")
    parser.add_argument("guests", nargs="*", metavar="guest")
    options = parser.parse_args()

    guests = tomllib.loads((GUESTS / "manifest.toml").read_text())
    for guest in guests.values():
        guest["console"] = (GUESTS / guest["expected"]).read_bytes()
    guests |= kernels(options.full)
    if unknown := set(options.guests) - set(guests):
        parser.error(f"there is no such guest: {', '.join(sorted(unknown))}")

    runs = []
    for name, guest in guests.items():
        if options.guests and name not in options.guests:
            continue
        for image in guest["images"]:
            march = image.removeprefix(f"images/{name}-").rpartition("-")[0]
            cpus = guest.get("cpus") or ([CPUS[march]] if march in CPUS else FLAT_CPUS)
            for cpu in [options.cpu] if options.cpu else cpus:
                runs.append((guest, name, GUESTS / image, cpu))

    failures = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for (_, _, image, cpu), wrong in zip(runs, pool.map(lambda run: check(*run), runs), strict=True):
            if wrong:
                failures += 1
                print(f"{image.name} on {cpu}: {wrong}")
    print(f"{len(runs)} runs, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
