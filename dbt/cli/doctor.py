"""``dbt doctor``: prints a table of what this host has and of what works."""

from __future__ import annotations

import mmap
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import dbt
from dbt.cli.report import print_table
from dbt.cli.statistics import statistics
from dbt.codecache.contents import entries
from dbt.codecache.handlers import cached_image_name
from dbt.codecache.interpreter import python_command, python_environment
from dbt.codecache.store import (
    WrongCacheSize,
    cache_directory,
    cache_limit,
    check_folder,
    load_file,
    make_cache_directory,
)
from dbt.codecache.trust import UntrustedCacheError
from dbt.host.console import CaptureConsole
from dbt.vm.machine import Machine
from dbt.vm.result import StopReason

_LIBRARIES = ("llvmlite", "capstone", "keystone-engine", "rich", "fdt", "zstandard", "blake3")
_MIN_PYTHON = (3, 11)
_DISTRIBUTION = "dbt-arm"
#: How the module begins by which setuptools finds the checkout if it is not on sys.path. See pyproject.toml.
_EDITABLE_HOOK = "__editable___dbt_arm_"
#: Seconds that the default tier is given for its guest, with the start of its compiler.
_TIME_LIMIT = 60
#: mov r4, #100; loop: subs r4, r4, #1; bne loop; mov r0, #0x18; ldr r1, =0x20026; svc 0x123456
_GUEST = bytes.fromhex("6440a0e3 014054e2 fdffff1a 1800a0e3 00109fe5 563412ef 26000200")
_GUEST_ICOUNT = 204
#: loop: add r5, r5, #1; b loop
_COUNTER = bytes.fromhex("015085e2 fdffffea")
_COUNTED_AT_ONCE = 10_000_000

Check = Callable[[], str]


class Problem(Exception):
    """Raised by a check that fails. The text says what is wrong, and the remedy."""


def diagnose() -> int:
    """Print the table. Return 0 if everything works, else 1. What the host has not, and nobody has to have, is ``less``
    and no failure.
    """
    from dbt.cli.doctor_host import checks

    rows, bad = [], False
    for name, check in _checks():
        try:
            rows.append(("ok", name, check()))
        except Exception as error:  # Whatever is wrong with a host is what this command is to tell.
            bad = True
            text = str(error) if isinstance(error, Problem) else f"{type(error).__name__}: {error}"
            rows.append(("BAD", name, text))
    for name, find in checks():
        there, missing = find()
        rows.append(("less" if missing else "ok", name, there))
        rows += [("", "", f"without {one}") for one in missing]
    print_table(f"dbt {dbt.__version__}", rows, to_stdout=True)
    return int(bad)


def _checks() -> Iterator[tuple[str, Check]]:
    yield "host", _check_host
    yield "Python", _check_python
    for library in _LIBRARIES:
        yield library, lambda name=library: _check_library(name)  # type: ignore[misc]
    yield "package dbt", _check_package
    yield "executable memory", _check_executable_memory
    yield "cache", _check_cache
    with _usable_cache():
        yield "tier reference", lambda: _check_tier("reference")
        yield "tier threaded", lambda: _check_tier("threaded")
        yield "tier stitched", _check_stitched_tier
        yield "tier auto", _check_default_tier


def _check_host() -> str:
    if platform.machine() != "x86_64" or sys.platform != "linux":
        raise Problem(f"{platform.machine()} with {sys.platform}: dbt needs x86-64 with Linux")
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as cpuinfo:
        models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    return f"{models[0] if models else 'x86-64'}, {len(os.sched_getaffinity(0))} CPUs, Linux {platform.release()}"


def _check_python() -> str:
    version = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    if sys.version_info < _MIN_PYTHON:
        raise Problem(f"{version}: dbt needs 3.11 or later")
    return version


def _check_library(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        raise Problem(f"it is missing: pip install {name}") from None


def _check_package() -> str:
    """dbt-core and others install a package of this name too: the files are those of the last one installed."""
    from importlib.metadata import packages_distributions

    others = sorted({name for name in packages_distributions().get("dbt", []) if name != _DISTRIBUTION})
    if others:
        raise Problem(
            f"{', '.join(others)} has a package dbt too, and two of them cannot share an environment: "
            "install this one into a virtual environment of its own (python3 -m venv DIR)"
        )
    if any(name.startswith(_EDITABLE_HOOK) for name in sys.modules):
        raise Problem(
            "it is installed by an import hook, and a directory named dbt beside a script hides it: "
            "in the checkout, run pip install -e . again"
        )
    return os.path.dirname(os.path.abspath(dbt.__file__ or ""))


def _check_executable_memory() -> str:
    """Check that memory can be executed, which a hardened host may forbid."""
    handle = os.memfd_create("dbt-doctor")
    try:
        os.ftruncate(handle, mmap.PAGESIZE)
        mmap.mmap(handle, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
    except OSError as error:
        raise Problem(f"the host forbids it ({error.strerror}): use --tier reference") from None
    finally:
        os.close(handle)
    return "allowed, never writable at the same time"


def _check_cache() -> str:
    directory = cache_directory()
    try:
        make_cache_directory()
        check_folder()
        sizes = [entry.size for entry in entries()]
        limit = cache_limit()
    except (WrongCacheSize, UntrustedCacheError) as error:
        raise Problem(str(error)) from None
    except OSError as error:
        raise Problem(f"{directory}: {error.strerror}; set DBT_CACHE_DIR to a directory you may write") from None
    if not os.access(directory, os.W_OK):
        raise Problem(f"{directory} is not writable: set DBT_CACHE_DIR to a directory you may write")
    state = "warm" if os.path.exists(f"{directory}/{cached_image_name()}") else "the next run builds the translator"
    return f"{directory}: {len(sizes)} files, {sum(sizes) >> 10} KiB; limit {limit >> 20} MiB; {state}"


@contextmanager
def _usable_cache() -> Iterator[None]:
    """Let the tiers build the translator once, and not each of them, where the cache directory cannot be used."""
    try:
        _check_cache()
    except Problem:
        with _own_cache() as directory, _environment(DBT_CACHE_DIR=directory):
            yield
    else:
        yield


@contextmanager
def _own_cache() -> Iterator[str]:
    """Make a cache directory that is gone afterwards, with the translator's image if there is one."""
    with tempfile.TemporaryDirectory(prefix="dbt-doctor-") as directory:
        with suppress(OSError):  # then one is built
            image = load_file(cached_image_name())
            Path(directory, cached_image_name()).write_bytes(image)
        yield directory


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Change the environment of this process for a while."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _check_tier(name: Literal["reference", "threaded"]) -> str:
    with Machine(memory=1 << 20, tier=name, console=CaptureConsole()) as machine:
        return _run_guest(machine)


def _check_stitched_tier() -> str:
    with Machine(memory=1 << 20, tier="stitched", measures=True, console=CaptureConsole()) as machine:
        ran = _run_guest(machine)
        inside, activity = machine.retired["stitched"], machine.tier.stitching
        if activity is None or not inside:
            raise Problem(f"{ran}, but stitched none of its code: use --tier threaded, or --without stitching")
        return f"{ran}, {inside} of them in {activity.code_bytes} bytes of code stitched for {activity.insns}"


def _run_guest(machine: Machine) -> str:
    """Run the guest to its end, and return what was seen. Raise Problem if that is not what it should be."""
    machine.load_bytes(_GUEST, base=0x8000)
    result = machine.run(timeout=10)
    if result.reason is not StopReason.EXITED or result.icount != _GUEST_ICOUNT:
        raise Problem(f"a small guest ended wrongly after {result.icount} instructions: {result.message}")
    return f"runs a guest of {result.icount} instructions"


def _check_default_tier() -> str:
    """Try the tier in a process of its own, because an error of LLVM ends the process. The cache is not touched."""
    with _own_cache() as directory:
        return _run_trial({**python_environment(), "DBT_CACHE_DIR": directory, "DBT_CACHE_SIZE": "0"})


def _run_trial(environment: Mapping[str, str]) -> str:
    command = python_command("from dbt.cli.doctor import try_default_tier; try_default_tier()")
    remedy = "use --tier threaded, or --jit off"
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIME_LIMIT, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        raise Problem(f"a small guest did not end within {_TIME_LIMIT} s: {remedy}") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise Problem(f"its process ended with status {done.returncode} ({lines[0]}): {remedy}")
    return done.stdout.decode().strip()


def try_default_tier() -> None:
    """Run a loop until a region of it was compiled by the worker and executed, and print what was done."""
    deadline = time.monotonic() + _TIME_LIMIT / 2
    with Machine(memory=1 << 20, console=CaptureConsole()) as machine:
        machine.load_bytes(_COUNTER, base=0x8000)
        while True:
            machine.run(fuel=_COUNTED_AT_ONCE)
            found = statistics(machine)
            compiled, inside = found["regions"]["compiled"], found["instructions"].get("region", 0)
            if compiled and inside:
                break
            if time.monotonic() > deadline:
                sys.exit(f"no region was compiled and executed in {machine.icount:,} instructions")
        if machine.r[5] != (machine.icount + 1) // 2 % (1 << 32):
            sys.exit(f"a loop counted to {machine.r[5]:,} in {machine.icount:,} instructions")
        print(f"compiles regions: {compiled}, in which {inside:,} of {machine.icount:,} instructions were executed")
