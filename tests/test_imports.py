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
    "dbt.memory",
    "dbt.frontend",
    "dbt.backend",
    "dbt.codecache",
    "dbt.engine",
    "dbt.devices",
    "dbt.board",
    "dbt.host",
    "dbt.inspector",
    "dbt.vm",
    "dbt.debug",
    "dbt.trace",
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
