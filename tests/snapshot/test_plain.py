"""Plain values as bytes: what was encoded comes back, another MessagePack agrees, and all else is refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbt.devices.state import Plain
from dbt.snapshot.plain import MAX_DEPTH, NotPlain, decode, encode
from tests.long import LONG
from tests.snapshot.images import same

INTEGERS = st.one_of(
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.sampled_from([sign * (1 << bit) + off for bit in range(63) for sign in (1, -1) for off in (-1, 0, 1)]),
)
LEAVES = st.one_of(st.none(), st.booleans(), INTEGERS, st.text(max_size=40), st.binary(max_size=300))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=20),
        st.dictionaries(st.text(max_size=8), inner, max_size=20),
        st.dictionaries(INTEGERS, inner, max_size=20),
    ),
    max_leaves=40,
)


@given(VALUES)
@settings(deadline=None, max_examples=500 if LONG else 150)
def test_what_was_encoded_comes_back(value: Plain) -> None:
    data = encode(value)
    assert same(decode(data), value)
    assert same(msgspec.msgpack.decode(data, strict=True), value)


@given(VALUES)
@settings(deadline=None)
def test_forms_are_the_shortest(value: Plain) -> None:
    assert len(encode(value)) == len(msgspec.msgpack.encode(value))


@pytest.mark.parametrize("size", [0, 15, 16, 31, 32, 255, 256, 65535, 65536])
def test_lengths(size: int) -> None:
    for value in ("x" * size, b"x" * size, [None] * size, dict.fromkeys(range(size))):
        data = encode(value)
        assert same(decode(data), value)
        assert data == msgspec.msgpack.encode(value)


def test_equal_mappings_have_equal_bytes() -> None:
    assert encode({"b": 1, "a": 2}) == encode({"a": 2, "b": 1})


def test_texts_with_single_surrogates_come_back() -> None:
    for text in ("\udcff", "\ud800\udc00", "\U00010000"):
        assert decode(encode(text)) == text


@given(st.binary(max_size=60))
@settings(deadline=None, max_examples=2000)
def test_other_bytes_are_refused_or_are_the_only_encoding(data: bytes) -> None:
    try:
        value = decode(data)
    except NotPlain:
        return
    assert encode(value) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",  # nothing
        b"\xc1",  # never used
        b"\xca\0\0\0\0",  # a float
        b"\xd4\x05\x01",  # an extension
        b"\x01\x01",  # more than a value
        b"\xcc\x7f",  # too long a form
        b"\xd0\x01",
        b"\xd9\x01a",
        b"\xdc\0\0",
        b"\xde\0\0",
        b"\xc5\0\x01a",
        b"\xdd\xff\xff\xff\xff" + bytes(20),  # lengths that are not there
        b"\xdf\xff\xff\xff\xff" + bytes(20),
        b"\xc6\xff\xff\xff\xff" + bytes(20),
        b"\xdb\xff\xff\xff\xff" + bytes(20),
        b"\xa1\xff",  # no UTF-8
        b"\x82\x01\x01\x01\x02",  # a key twice
        b"\x82\x02\x01\x01\x02",  # keys that are not sorted
        b"\x82\xa1b\x01\xa1a\x02",
        b"\x82\x01\x01\xa1a\x02",  # keys of two kinds
        b"\x82\xa1a\x01\x01\x02",
        b"\x81\xc0\x01",  # None, a list and True as keys
        b"\x81\x91\x01\x01",
        b"\x81\xc3\x01",
        b"\x91" * 100_000,
    ],
)
def test_what_is_no_encoding_is_refused(data: bytes) -> None:
    with pytest.raises(NotPlain):
        decode(data)


def test_depth_and_number_of_values_are_limited() -> None:
    deep: Plain = None
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert decode(encode(deep)) == deep
    with pytest.raises(NotPlain):
        decode(encode([deep]))
    assert decode(encode([0] * 9), max_values=10) == [0] * 9
    with pytest.raises(NotPlain):
        decode(encode([0] * 10), max_values=10)


@pytest.mark.parametrize("value", [1.0, (1,), {1: 1, "a": 1}, {True: 1}, {None: 1}, bytearray(b"a"), 1 << 64])
def test_what_is_not_plain_is_not_encoded(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode(value)
