"""Addresses have types: nothing in dbt/ calls a plain number a GVA, a GPA, an HVA or a PC."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Words of a name that say that a value is an address.
KINDS = {word + plural for word in ("gva", "gpa", "hva", "pc") for plural in ("", "s")}
#: The start of a name of a function that returns an address, such as ``gva_of``.
NAMED = re.compile(rf"_?({'|'.join(KINDS)})_(of|near|at)\b")
#: What programs that embed a machine call with plain numbers, as (file, class.member). It wraps them at once.
FACADE = {
    ("dbt/vm/guest_access.py", f"GuestAccess.{member}")
    for member in ("pc", "read", "write", "peek_word", "peek_code", "symbolize", "describe_pc")
}


def is_address(name: str) -> bool:
    """Return True if ``name`` is that of an address, such as ``gva`` or ``first_gpa``, and not ``is_pc``."""
    words = name.lower().split("_")
    return words[-1] in KINDS and "is" not in words


def is_bare(annotation: ast.expr | None) -> bool:
    """Return True if the annotation is ``int``, alone, in a union, or as the element of a collection.

    The values of a mapping are not named by the mapping's name, so that only its keys count.
    """
    match annotation:
        case ast.Name(id="int"):
            return True
        case ast.BinOp(left=left, right=right):
            return is_bare(left) or is_bare(right)
        case ast.Subscript(value=ast.Name(id=kind), slice=ast.Tuple(elts=[first, *_])):
            return kind != "Callable" and is_bare(first)
        case ast.Subscript(slice=inner):
            return is_bare(inner)
    return False


def untyped_addresses(node: ast.AST, scope: str = "") -> Iterator[tuple[str, int]]:
    """Yield scope and line of each parameter, field, variable and result that is a bare int and named an address."""
    for child in ast.iter_child_nodes(node):
        here = scope
        match child:
            case ast.ClassDef(name=name):
                here = f"{scope}.{name}".lstrip(".")
            case ast.FunctionDef(name=name, returns=returns) | ast.AsyncFunctionDef(name=name, returns=returns):
                here = f"{scope}.{name}".lstrip(".")
                if (is_address(name) or NAMED.match(name)) and is_bare(returns):
                    yield here, child.lineno
            case ast.arg(arg=name, annotation=annotation) if is_address(name) and is_bare(annotation):
                yield scope, child.lineno
            case ast.AnnAssign(target=ast.Name(id=name) | ast.Attribute(attr=name), annotation=annotation):
                if is_address(name) and is_bare(annotation):
                    yield scope, child.lineno
        yield from untyped_addresses(child, here)


def test_no_address_is_a_bare_int() -> None:
    found = [
        (str(path.relative_to(ROOT)), scope, line)
        for path in sorted((ROOT / "dbt").rglob("*.py"))
        for scope, line in untyped_addresses(ast.parse(path.read_text()))
    ]
    wrong = [f"{path}:{line}: {scope}" for path, scope, line in found if (path, scope) not in FACADE]
    assert not wrong, "annotate these with Gva, Gpa or Hva of dbt.abi.addresses: " + ", ".join(wrong)
    assert {(path, scope) for path, scope, _ in found} == FACADE, "an exception that is none"


@pytest.mark.parametrize(
    "source",
    [
        "def f(gva: int): ...",
        "def f(*, first_gpa: int | None = None): ...",
        "async def f(pcs: tuple[int, ...]): ...",
        "def gpa_of(op: Hva) -> int: ...",
        "def to_gva(self, gpa: Gpa) -> int: ...",
        "class C:\n    gpa: int",
        "class C:\n    def f(self):\n        self._hvas: dict[int, str] = {}",
        "def f():\n    def g(pc: int): ...",
    ],
)
def test_a_bare_int_is_found(source: str) -> None:
    assert len(list(untyped_addresses(ast.parse(source)))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "def f(gva: Gva, gpas: list[Gpa], size: int) -> int: ...",
        "by_gva: dict[Gva, int]",
        "class C:\n    pc: Gva | None",
        "def gpa_of(op: Hva) -> Gpa: ...",
        "find_pc: Callable[[int], Gva]",
    ],
)
def test_a_typed_address_is_left_alone(source: str) -> None:
    assert not list(untyped_addresses(ast.parse(source)))
