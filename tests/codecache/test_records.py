"""The format of kept records: whatever happens to a file, only what was written comes out of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dbt.codecache.records import are_whole, pack_records, unpack_records

RECORDS = [b"", b"one", bytes(range(40))]


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_what_is_packed_comes_out(records: list[bytes]) -> None:
    data = pack_records(records)
    assert list(unpack_records(data)) == records
    assert are_whole(data)


def test_every_flipped_bit_is_noticed() -> None:
    data = pack_records(RECORDS)
    for place in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            assert not are_whole(bytes(flipped)), (place, bit)
            found = list(unpack_records(bytes(flipped)))
            assert all(record in RECORDS for record in found), (place, bit)


def test_damage_in_a_record_leaves_the_others() -> None:
    data = bytearray(pack_records(RECORDS))
    data[data.index(b"one")] ^= 1
    assert list(unpack_records(bytes(data))) == [RECORDS[0], RECORDS[2]]


def test_every_truncation_is_noticed() -> None:
    data = pack_records(RECORDS)
    for size in range(len(data)):
        assert not are_whole(data[:size]), size
        found = list(unpack_records(data[:size]))
        assert found == RECORDS[: len(found)], size


@given(st.binary(max_size=200))
def test_what_is_appended_is_noticed(tail: bytes) -> None:
    data = pack_records(RECORDS) + tail
    assert are_whole(data) == (not tail)
    assert list(unpack_records(data))[:3] == RECORDS


@given(st.binary(max_size=200))
def test_a_foreign_file_holds_nothing(data: bytes) -> None:
    assert list(unpack_records(data)) == []
    assert not are_whole(data)
