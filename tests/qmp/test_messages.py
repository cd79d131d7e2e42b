"""Finding messages in what a client sends: in any pieces, and whatever it is."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from dbt.qmp.messages import MAX_DEPTH, MAX_MESSAGE, Malformed, MessageReader


def read(data: bytes, piece: int | None = None) -> list[Any]:
    reader, size = MessageReader(), piece or max(len(data), 1)
    return [found for at in range(0, len(data), size) for found in reader.feed(data[at : at + size])]


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        (b'{"a": 1}', [{"a": 1}]),
        (b'{"a": 1}{"b": [2, {}]} \r\n{}', [{"a": 1}, {"b": [2, {}]}, {}]),
        (b'{"a":\n[1,\r\n2]}', [{"a": [1, 2]}]),
        (b"{'a': 'b\"c'}", [{"a": 'b"c'}]),
        (b'{"a": "it\\\'s"}', [{"a": "it's"}]),
        (b'{"a": "}{][\\"\\\\"}', [{"a": '}{]["\\'}]),
        (b'"text" 5 true\n[1]', ["text", 5, True, [1]]),
        ('{"a": "é"}'.encode(), [{"a": "é"}]),
        (b" \r\n\t", []),
        (b'{"a": 1', []),
        (b'{"a": \xff{"b": 2}', [Malformed("JSON parse error, a byte that is not UTF-8"), {"b": 2}]),
        (b'\xff{"b": 2}', [{"b": 2}]),
    ],
)
def test_messages_are_found_in_pieces_of_any_size(data: bytes, messages: list[Any]) -> None:
    for piece in (None, 1, 3):
        assert read(data, piece) == messages


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": }', b'{"a": 1, "a": 2}', b'{"a": NaN}', b'{"a": 1e400}', b"}", b"]", b"zork\n", b'{"a" 1}', b"{]",
        b'{"a": "\xc3"}', b'{"a": "\n', b'{"a": "\x00"}', b'{"a": "\\q"}', b"{'a': \"b'}\n", b"5}", b'{"a": -}',
        b"[" * (MAX_DEPTH + 1), b'{"a": "' + b"x" * MAX_MESSAGE, b'{"a": ' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_message_is_told_once_and_the_next_line_counts(data: bytes) -> None:
    for piece in (None, 1, 7):
        first, *rest = read(data + b'\n{"b": 2}\n', piece)
        assert isinstance(first, Malformed) and rest[-1:] == [{"b": 2}] and len(rest) <= 2
        assert len(first.why) < 100 and "\n" not in first.why


def test_the_limits_are_those_that_are_told() -> None:
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert read(deep) == [json.loads(deep)]
    text = b'{"a": "' + b"x" * (MAX_MESSAGE - 9) + b'"}'
    assert len(text) == MAX_MESSAGE and read(text, 1000) == [json.loads(text)]


def test_no_bytes_raise_or_take_the_reader_out_of_step() -> None:
    rng = random.Random(5)
    words = [
        b'{"execute"',
        b": ",
        b"'",
        b'"',
        b"\\",
        b"}",
        b"]",
        b"[",
        b"{",
        b"\n",
        b"\xff",
        b"\xc3",
        b"1e",
        b"nul",
        b",",
    ]
    for _ in range(3000):
        data = b"".join(rng.choices(words, k=rng.randrange(12)))
        if rng.random() < 0.3:
            data += rng.randbytes(rng.randrange(9))
        found = read(data, rng.choice((None, 1, 2)))
        assert found == read(data)
        assert read(data + b'\xff\n{"b": 2}\n')[-1] == {"b": 2}
