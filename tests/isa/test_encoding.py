"""The pattern language and the decoder: what is refused, and that decoding undoes encoding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa.arm.a32 import DECODER, INDEX, REGISTRY
from isa.arm.operands import UNCONDITIONAL
from isa.ir.encoding import Decoder, EncodingError, Pattern

#: As A32 has it: the value of cond that is no condition.
RESERVED = {"cond": UNCONDITIONAL}


@dataclass(frozen=True)
class Entry:
    name: str
    pattern: Pattern


def entry(name: str, text: str, where: str = "") -> Entry:
    return Entry(name, Pattern.parse(text, where, reserved=RESERVED))


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("cond:4 0000", "", "8 bits wide"),
        ("cond:4 " + "0" * 29, "", "33 bits wide"),
        ("a:4 a:4 " + "0" * 24, "", "occurs twice"),
        ("a:4 ? " + "0" * 27, "", "cannot read token"),
        ("a:4 " + "0" * 28, "b!=3", "cannot read condition"),
        ("a:4 " + "0" * 28, "a!=16", "does not fit"),
    ],
)
def test_a_malformed_pattern_is_refused(text: str, where: str, message: str) -> None:
    with pytest.raises(EncodingError, match=message):
        Pattern.parse(text, where)


def test_overlapping_patterns_are_refused_and_both_named() -> None:
    wide = entry("wide", "cond:4 0001 a:4 " + "0" * 20)
    narrow = entry("narrow", "cond:4 0001 1111 " + "0" * 20)
    with pytest.raises(EncodingError, match=r"wide.*narrow"):
        Decoder([wide, narrow], INDEX)
    holed = entry("holed", "cond:4 0001 a:4 " + "0" * 20, "a!=15")
    decoder = Decoder([holed, narrow], INDEX)
    assert decoder.decode(0xE1F00000) is narrow
    assert decoder.decode(0xE1E00000) is holed


def test_a_condition_never_matches_the_unconditional_space() -> None:
    pattern = Pattern.parse("cond:4 " + "0" * 28, reserved=RESERVED)
    assert pattern.matches(0xE0000000)
    assert not pattern.matches(0xF0000000)


def test_should_be_bits_are_written_but_not_checked() -> None:
    pattern = Pattern.parse("cond:4 0001 (1111) " + "0" * 20)
    assert pattern.encode({"cond": 14}) == 0xE1F00000
    assert pattern.matches(0xE1000000)


@given(st.integers(0, 2**32 - 1))
def test_every_word_matches_at_most_one_pattern(word: int) -> None:
    matches = [insn for insn in REGISTRY if insn.pattern.matches(word)]
    assert len(matches) <= 1
    assert DECODER.decode(word) is (matches[0] if matches else None)


@given(st.data())
def test_decoding_undoes_encoding(data: st.DataObject) -> None:
    insn = data.draw(st.sampled_from(REGISTRY))

    def is_allowed(name: str, value: int) -> bool:
        return (name, value) not in insn.pattern.excluded

    fields = {
        name: data.draw(st.integers(0, (1 << field.width) - 1).filter(partial(is_allowed, name)))
        for name, field in insn.pattern.fields.items()
    }
    word = insn.pattern.encode(fields)
    assert DECODER.decode(word) is insn
    assert insn.pattern.decode(word) == fields
