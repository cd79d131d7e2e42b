"""Imports point one way: a package may import those of its own layer's left, never of its right."""

from __future__ import annotations

import ast
import re
from pathlib import Path

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


def test_imports_point_one_way() -> None:
    wrong = []
    for module, path in modules():
        for name in imports(module, path):
            top = name.split(".", maxsplit=1)[0]
            if top in ("isa", "dbt") and rank(name) > rank(module):
                wrong.append(f"{module} imports {name}, which is to its right")
            allowed = CONFINED.get(top)
            if allowed is not None and not module.startswith(allowed):
                wrong.append(f"{module} imports {top}")
    assert not wrong, "\n".join(wrong)


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


def _may_import(module: str, name: str) -> bool:
    """Whether a module of the tests may import this."""
    parts = name.split(".")
    if parts[0] == "tools":
        return False
    if parts[0] == "tests" and any(part.startswith(("test_", "mutate_", "measure_")) for part in parts):
        return module.startswith("tests.mutants.")  # which are about these tests
    if name.startswith(tuple(f"{package}." for package in ORACLE)) and not module.startswith("tests.oracle."):
        inside = ROOT / Path(*parts[:4])
        return not (inside.is_dir() or inside.with_suffix(".py").exists())
    return True


def test_tests_import_libraries_only() -> None:
    """A module with tests may be changed, split or left out without a look at who else uses it."""
    found = [(module, name) for module, path in files_of("tests") for name in imports(module, path)]
    assert not [f"{module} imports {name}" for module, name in found if not _may_import(module, name)]


def test_tools_import_no_tests() -> None:
    """What the fuzzer shares with the tests is in the oracle, and the fuzzer with it: tests/oracle/fuzz.py."""
    found = [(module, name) for module, path in files_of("tools") for name in imports(module, path)]
    assert not [f"{module} imports {name}" for module, name in found if name.partition(".")[0] == "tests"]
