"""Imports point one way: a package may import those of its own layer's left, never of its right."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From what knows nothing to what knows everything. A module belongs to the longest prefix that
# matches it, and each room stands here once.
ROOMS = (
    "isa.ir",
    "isa.arm",
    "isa.arm.a32",
    "dbt.abi",
    "dbt.assembler",
    "dbt.memory",
    "dbt.devices",
    "dbt.frontend",
    "dbt.backend",
    "dbt.codecache",
    "dbt.engine",
    "dbt.hypervisor.xen",
    "dbt.board",
    "dbt.host",
    "dbt.inspector",
    "dbt.gdb",
    "dbt.vm",
    "dbt.snapshot",
    "dbt.hypervisor.migration",
    "dbt.linux",
    "dbt.hypervisor",
    "dbt.qmp",
    "dbt.debug",
    "dbt.trace",
    "dbt.daemon",
    "dbt.containers",
    "dbt.containers.images",
    "dbt.containers.network",
    "dbt.containers.runtime",
    "dbt.containers.build",
    "dbt.containers.engine",
    "dbt",
)
#: The only rooms that know these libraries.
CONFINED = {
    "llvmlite": ("dbt.backend.llvm", "dbt.cli"),
    "unicorn": (),
    "rich": ("dbt.cli", "dbt.trace.view"),
    "textual": ("dbt.trace.view",),
    "jinja2": ("dbt.trace.html",),
    "elftools": ("dbt.trace",),
    "fdt": ("dbt.board.devicetree",),
    "blake3": ("dbt.snapshot", "dbt.hypervisor.migration", "dbt.linux", "dbt.backend.digest"),
    "zstandard": ("dbt.snapshot", "dbt.host.qcow2", "dbt.containers.images", "dbt.linux"),
    "msgspec": ("dbt.hypervisor", "dbt.daemon", "dbt.containers", "dbt.cli.vm.machines"),
    "h11": ("dbt.daemon.http_server",),
    "httpx": ("dbt.containers.images.registry",),
}


def modules() -> list[tuple[str, Path]]:
    found = []
    for package in ("isa", "dbt"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found.append((name.removesuffix(".__init__"), path))
    return found


def rank(module: str) -> int:
    ranks = [
        (len(prefix), level)
        for level, prefix in enumerate(ROOMS)
        if module == prefix or module.startswith(prefix + ".")
    ]
    return max(ranks)[1]


def imports(module: str, path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module is not None
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_imports_point_one_way(module: str, path: Path) -> None:
    for name in imports(module, path):
        top = name.split(".", maxsplit=1)[0]
        if top in ("isa", "dbt"):
            assert rank(name) <= rank(module), f"{module} imports {name}, which is to its right"
        allowed = CONFINED.get(top)
        assert allowed is None or module.startswith(allowed), f"{module} imports {top}"


def test_each_package_is_a_room() -> None:
    """A new package has a place in the order. The command line's belongs to the top room."""
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for room in ("isa", "dbt")
        for path in (ROOT / room).glob("*/__init__.py")
    }
    assert packages - {"dbt.cli"} <= set(ROOMS)


def test_the_isa_needs_the_standard_library_only() -> None:
    import sys

    for module, path in modules():
        if module.startswith("isa"):
            tops = {name.split(".", maxsplit=1)[0] for name in imports(module, path)}
            assert tops <= sys.stdlib_module_names | {"isa"}, module


def test_architecture_lists_the_rooms() -> None:
    table = (
        (ROOT / "ARCHITECTURE.md")
        .read_text()
        .split("| room | what it is for |\n", maxsplit=1)[1]
        .split("\n\n", maxsplit=1)[0]
    )
    assert tuple(re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)) == ROOMS


# -- tests and tools -------------------------------------------------------------------------------

#: The oracle's packages. Their modules import each other; everybody else imports the packages.
ORACLE = ("tests.oracle.cases", "tests.oracle.programs", "tests.oracle.privileged")


def files_of(folder: str) -> list[tuple[str, Path]]:
    paths = sorted((ROOT / folder).rglob("*.py"))
    return [(".".join(path.relative_to(ROOT).with_suffix("").parts), path) for path in paths]


@pytest.mark.parametrize(("module", "path"), files_of("tests"), ids=[name for name, _ in files_of("tests")])
def test_tests_import_libraries_only(module: str, path: Path) -> None:
    """A module with tests may be changed, split or left out without a look at who else uses it."""
    for name in imports(module, path):
        parts = name.split(".")
        assert parts[0] != "tools", f"{module} imports {name}"
        if parts[0] == "tests":
            assert not any(part.startswith(("test_", "mutate_", "measure_")) for part in parts), (
                f"{module} imports {name}"
            )
        for package in ORACLE:
            if name.startswith(f"{package}.") and not module.startswith("tests.oracle."):
                inside = ROOT / Path(*parts[:4])
                assert not (inside.is_dir() or inside.with_suffix(".py").exists()), f"{module} imports {name}"


@pytest.mark.parametrize(("module", "path"), files_of("tools"), ids=[name for name, _ in files_of("tools")])
def test_tools_import_no_tests(module: str, path: Path) -> None:
    """What the fuzzer shares with the tests is in the oracle, and the fuzzer with it: tests/oracle/fuzz.py."""
    assert not [name for name in imports(module, path) if name.partition(".")[0] == "tests"]
