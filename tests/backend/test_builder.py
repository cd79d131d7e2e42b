"""The builder: what it writes does what it says, and values of wrong types are refused before LLVM sees them."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterator

import pytest

from dbt.backend.builder import Builder, HandlerBuilder, define
from dbt.backend.link import link_object
from dbt.backend.llvm import compile_object
from dbt.backend.lower import module_text
from dbt.frontend.optimizations import PASSES


def test_types_are_checked() -> None:
    f = define("f", {"a": "i32", "b": "i64", "p": "ptr"})
    refused: dict[str, Callable[[], object]] = {
        "i64 where": lambda: f["a"] + f["b"],
        "is i32 where i64 is wanted": lambda: f.variable("i64", f["a"]),
        "no pointer": lambda: f["a"].at(4),
        "is i32 where i1 is wanted": lambda: f.split(f["a"], "x", "y"),
        "has 8 bytes": lambda: f.store_native("budget", f["a"]),
        "has 4 bytes": lambda: f.load_native("page_gva", "ptr"),
    }
    for message, wrong in refused.items():
        with pytest.raises(TypeError, match=message):
            wrong()


def test_nothing_is_written_where_control_does_not_come() -> None:
    f = define("f", {})
    f.ret()
    with pytest.raises(AssertionError, match="control does not come"):
        f.ret()


def test_a_handler_passes_on_what_is_not_changed() -> None:
    f = HandlerBuilder("h")
    f.tail_to("leave", budget=f["budget"] - 1)
    line = next(line for line in f.text().split("\n") if "musttail" in line)
    assert "i64 %t1" in line and "i32 %n" in line and "ptr %cpu" in line


def maximum() -> Builder:
    """The largest of the first n numbers (u64) at the pointer, or 0."""
    f = define("maximum", {"n": "i64"}, "i64")
    best = f.variable("i64", 0)
    with f.count(0, f["n"], type_="i64") as i:
        here = f.cpu.element("i64", i).load("i64")
        with f.when(best.get().ult(here), likely=True):
            best.set(here)
    f.ret(best.get())
    return f


def bits() -> Builder:
    """How many bits of n are 1; 64 where n is 0."""
    f = define("bits", {"n": "i64"}, "i64")
    with f.when(f["n"].eq(0)):
        f.ret(f.value("i64", 64))
    left, count = f.variable("i64", f["n"]), f.variable("i32", 0)
    with f.repeat() as loop:
        with f.when(left.get().eq(0)):
            loop.leave()
        odd = left.get().to("i1")
        left.set(left.get() >> 1)
        with f.when(~odd):
            loop.again()
        count.set(count.get() + 1)
    f.ret(count.get().to("i64"))
    return f


def rounds() -> Builder:
    """How many pairs i < n, j < i there are with an even sum."""
    f = define("rounds", {"n": "i64"}, "i64")
    total = f.variable("i64", 0)
    with f.count(0, f["n"], type_="i64") as i, f.count(0, i, type_="i64") as j:
        total.set(total.get() + (i + j).has(1).choose(0, 1, "i64"))
    f.ret(total.get())
    return f


@pytest.fixture(scope="module")
def call() -> Iterator[Callable[[str, int], int]]:
    """Call one of the functions above with an array of numbers and n."""
    text = "".join(f.text() for f in (maximum(), bits(), rounds()))
    code, symbols = link_object(compile_object(module_text(text), PASSES, 2))
    memory = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    prototype = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)
    functions = {name: prototype(address + symbols[name]) for name in ("maximum", "bits", "rounds")}
    numbers = (ctypes.c_uint64 * 4)(3, 1 << 63, 7, 1 << 63 | 1)
    yield lambda name, n: int(functions[name](ctypes.addressof(numbers), n))


@pytest.mark.parametrize(
    ("name", "n", "result"),
    [
        ("maximum", 0, 0),
        ("maximum", 1, 3),
        ("maximum", 3, 1 << 63),
        ("maximum", 4, 1 << 63 | 1),
        ("bits", 0, 64),
        ("bits", 1, 1),
        ("bits", 0xF0F0, 8),
        ("bits", (1 << 64) - 1, 64),
        ("rounds", 0, 0),
        ("rounds", 5, 4),
        ("rounds", 100, sum((i + j) % 2 == 0 for i in range(100) for j in range(i))),
    ],
)
def test_control(call: Callable[[str, int], int], name: str, n: int, result: int) -> None:
    assert call(name, n) == result
