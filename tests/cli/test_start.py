"""What a short run imports. Each module costs time at every start, so that only what such a run needs is imported."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dbt.codecache.store import cache_directory
from tests.cli.command import ROOT, environment

HELLO = "guests/images/hello-armv7-a-O2.elf"
_SCRIPT = """\
import os, sys
before = set(sys.modules)  # the interpreter's own, and those of how the package is installed
leave = os._exit
def report(status):
    loaded = {name for name, module in sys.modules.items() if vars(module).get("__spec__")}
    print(status, *sorted(loaded - before), file=sys.stderr, flush=True)
    leave(status)
os._exit = report
from dbt.cli import main
sys.argv[1:1] = ["run"]
main()
"""
#: The standard library's modules that take longest to import, and that only rare paths need.
HEAVY = {
    "argparse",
    "ast",
    "hashlib",
    "json",
    "pathlib",
    "random",
    "shutil",
    "subprocess",
    "tempfile",
    "tokenize",
    "urllib.parse",
    "zipfile",
}
#: The rooms and modules for what such a run does not do: compile, report, record and debug.
UNUSED = (
    "dataclasses",
    "llvmlite",
    "isa.arm.a32",
    "dbt.board.board",
    "dbt.board.versatile",
    "dbt.backend.compiled",
    "dbt.backend.dump",
    "dbt.backend.lower",
    "dbt.cli.parser",
    "dbt.cli.statistics",
    "dbt.codecache.contents",
    "dbt.codecache.hot_list_store",
    "dbt.codecache.records",
    "dbt.codecache.region_store",
    "dbt.codecache.quota",
    "dbt.debug",
    "dbt.devices.device",
    "dbt.devices.shared",
    "dbt.engine.evaluator",
    "dbt.engine.messages",
    "dbt.engine.profile",
    "dbt.engine.unfinished",
    "dbt.engine.worker",
    "dbt.host.endpoint",
    "dbt.host.serial",
    "dbt.host.terminal",
    "dbt.inspector.backtrace",
    "dbt.inspector.fault_report",
    "dbt.qmp",
    "dbt.trace",
    "dbt.vm.recording",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a cache directory with what has been built already, and without code that other tests' runs left to be
    compiled: a run that finds such code imports more.
    """
    folder = tmp_path_factory.mktemp("cache")
    folder.chmod(0o700)
    for pattern in ("handlers-*", "linux-*.snapshot"):
        for path in Path(cache_directory()).glob(pattern):
            shutil.copy2(path, folder)
    return str(folder)


def _imported(cache: str, *arguments: str) -> set[str]:
    """Return the modules that a run with these arguments imports once all that it needs has been built."""
    users = {name: value for name, value in environment().items() if name != "DBT_HOT_AFTER"}
    users["DBT_CACHE_DIR"] = cache
    for _ in range(2):
        command = [sys.executable, "-c", _SCRIPT, *arguments]
        done = subprocess.run(command, capture_output=True, check=True, text=True, cwd=ROOT, env=users)
    status, *modules = done.stderr.split()
    assert status == "0", done.stderr
    return set(modules)


@pytest.fixture(scope="module")
def imported(cache: str) -> set[str]:
    return _imported(cache, HELLO)


def test_a_short_run_imports_no_heavy_modules_of_the_standard_library(imported: set[str]) -> None:
    assert not imported & HEAVY


def test_a_short_run_imports_nothing_for_what_it_does_not_do(imported: set[str]) -> None:
    found = {name for name in imported if any(name == part or name.startswith(f"{part}.") for part in UNUSED)}
    assert not found


def test_a_short_run_imports_few_modules_of_ours(imported: set[str]) -> None:
    """The bound leaves room for a few more. Before it is raised, look whether the new ones can be imported later."""
    ours = {name for name in imported if name.partition(".")[0] in ("dbt", "isa")}
    assert len(ours) <= 108, sorted(ours)


def test_a_program_for_linux_imports_no_heavy_modules_either(cache: str) -> None:
    loaded = _imported(cache, "guests/linux/images/words")
    assert "dbt.linux.template" in loaded
    assert not loaded & HEAVY
    ours = {name for name in loaded if name.partition(".")[0] in ("dbt", "isa")}
    assert len(ours) <= 176, sorted(ours)


def test_a_recording_imports_no_specification(cache: str, tmp_path: Path) -> None:
    loaded = _imported(cache, "--record-trace", str(tmp_path / "trace"), HELLO)
    assert "dbt.trace.recorder" in loaded and "dbt.engine.stitch_log" in loaded
    assert not {name for name in loaded if name.startswith(("isa.arm.a32", "dbt.backend.stencil", "dbt.backend.handl"))}


def test_a_module_that_was_put_off_is_there_for_whoever_uses_it() -> None:
    """A dataclass without a docstring is described with the help of inspect."""
    script = (
        "import sys; from dbt import cli; cli._postpone('inspect'); import dataclasses\n"
        "assert 'ast' not in sys.modules\n"
        "Plain = dataclasses.make_dataclass('Plain', ['x'])\n"
        "import inspect; from inspect import signature\n"
        "print(Plain.__doc__, signature(Plain), inspect.isclass(Plain), 'ast' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True, cwd=ROOT)
    assert done.stdout == "Plain(x: 'typing.Any') (x: 'typing.Any') -> None True True\n"
