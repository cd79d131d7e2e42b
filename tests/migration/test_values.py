"""Values of a state are encoded as in snapshots, and nothing is decoded that could not be one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dbt import CaptureConsole, Machine
from dbt.hypervisor.migration.values import decode, encode
from dbt.snapshot import plain
from dbt.vm.state import are_same
from dbt.vm.state import encode as text_of


@pytest.mark.parametrize("board", ["versatile", "virt", "xen"])
def test_a_machines_values_have_one_encoding(board: str) -> None:
    with Machine(1 << 20, "threaded", board=board, console=CaptureConsole()) as machine:
        values = machine.values()
        data = encode(values)
        assert data == plain.encode(values)
        assert decode(data) == plain.decode(data)
        assert are_same(decode(data), values)


@pytest.mark.parametrize(
    "value", [{3: b"x", 1: b"y"}, "\udc80", {"é": 1, "z": [True, None, -5, 1 << 63, -(1 << 63)]}, [[]] * 20, {}]
)
def test_values_of_all_kinds(value: Any) -> None:
    assert encode(value) == plain.encode(value)
    assert decode(encode(value)) == value


@pytest.mark.parametrize(
    "data",
    [
        msgspec.msgpack.encode(1.5),
        msgspec.msgpack.encode([{"a": 0.0}]),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(5, b"x")),
        bytes.fromhex("d6ff00000000"),  # a time
        bytes.fromhex("cc05"),  # a number that has a shorter form
        bytes.fromhex("82a16201a16101"),  # keys that are not sorted
        bytes.fromhex("82a16101a16101"),
        b"\x91" * 17 + b"\xc0",
        b"\x91" * 5000 + b"\xc0",
        b"\xdd\xff\xff\xff\xff",
        b"\xc0\xc0",
        b"",
    ],
    ids=lambda data: data[:8].hex(),
)
def test_what_is_no_plain_value(data: bytes) -> None:
    with pytest.raises(plain.NotPlain):
        decode(data)


def test_values_are_the_same_if_their_types_are() -> None:
    same = [(1, 1), ([1, (2,)], (1, [2])), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), (b"", b""), (None, None)]
    other = [(1, True), (0, False), ([1], [True]), ({"a": 1}, {"a": True}), ({1: 1}, {True: 1}), ("", b"")]
    other += [([1], [1, 2]), ({"a": 1}, {"b": 1}), ({"a": 1}, {"a": 1, "b": 1}), ([None], [0]), ({"a": 1}, ["a"])]
    for values, expected in ((same, True), (other, False)):
        for mine, theirs in values:
            assert are_same(mine, theirs) is are_same(theirs, mine) is expected, (mine, theirs)
            assert (text_of(mine) == text_of(theirs)) is expected
