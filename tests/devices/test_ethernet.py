"""Checksums of TCP and UDP: against a sum that is made in the plain way, and frames that have none. Long segments."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import pytest

from dbt.devices.ethernet import MOST_SEGMENTS, ChecksumError, segments, with_checksum
from tests.devices.packets import ADDRESSES, packet, segment


def plain_sum(data: bytes) -> int:
    """Return the sum of RFC 1071, word by word."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_sums_come_out_even() -> None:
    """Over the pseudo header and the segment with its checksum, the sum is all ones."""
    random = Random(1)
    for number in range(400):
        protocol, vlan = random.choice((6, 17)), bool(number & 1)
        payload = random.randbytes(random.randrange(20, 1500))
        frame, start, pseudo = packet(protocol, payload, random.choice((4, 6)), vlan, random.randrange(3))
        done = with_checksum(frame + b"padding" * (number & 2))
        end = start + len(payload)
        assert plain_sum(pseudo + done[start:end]) == 0xFFFF
        place = start + (16 if protocol == 6 else 6)
        assert done[:place] == frame[:place] and done[place + 2 :] == frame[place + 2 :] + b"padding" * (number & 2)


def test_udp_never_has_the_checksum_zero() -> None:
    """Zero would say that there is none. The last word is such that the sum is all ones."""
    payload = bytes(18)
    frame, start, pseudo = packet(17, payload, 4, vlan=False)
    last = 0xFFFF - plain_sum(pseudo)
    done = with_checksum(frame[:-2] + last.to_bytes(2, "big"))
    assert done[start + 6 : start + 8] == b"\xff\xff"
    tcp, start, pseudo = packet(6, bytes(20), 4, vlan=False)
    done = with_checksum(tcp[:-2] + (0xFFFF - plain_sum(pseudo)).to_bytes(2, "big"))
    assert done[start + 16 : start + 18] == b"\0\0"


def test_frames_without_such_a_checksum() -> None:
    good, start, _ = packet(6, bytes(20), 4, vlan=False)
    fragment = bytearray(good)
    fragment[20] = 0x20
    for frame in (
        b"",
        bytes(14),
        ADDRESSES + b"\x08\x06" + bytes(40),
        packet(1, bytes(20), 4, vlan=False)[0],
        packet(6, bytes(19), 4, vlan=False)[0],
        packet(17, bytes(7), 6, vlan=True)[0],
        good[: start + 10],
        bytes(fragment),
        *(good[:14] + bytes([first]) + good[15:] for first in (0x44, 0x54, 0x4F)),
    ):
        with pytest.raises(ChecksumError):
            with_checksum(frame)


def test_random_frames() -> None:
    random = Random(2)
    for _ in range(2000):
        frame, _, _ = packet(random.choice((6, 17)), random.randbytes(40), random.choice((4, 6)), False, 1)
        changed = bytearray(frame[: random.randrange(len(frame) + 1)])
        for _ in range(3):
            if changed:
                changed[random.randrange(len(changed))] = random.getrandbits(8)
        with suppress(ChecksumError):
            assert len(with_checksum(bytes(changed))) == len(changed)


@pytest.mark.parametrize("vlan", [False, True])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [1, 1447, 1448, 1449, 2896, 10_000])
def test_a_long_segment_of_tcp_is_divided(size: int, version: int, vlan: bool) -> None:
    """What the segments say is read here by hand: numbers, lengths, flags and sums."""
    content = Random(size).randbytes(size)
    frame = segment(content, version, options=3, vlan=vlan)
    found = segments(frame, 1448)
    ip, header = (18 if vlan else 14), (20 if version == 4 else 40)
    tcp = ip + header
    assert len(found) == -(-size // 1448)
    assert b"".join(one[tcp + 32 :] for one in found) == content
    for number, one in enumerate(found):
        first, last = number == 0, number == len(found) - 1
        assert one[:ip] == frame[:ip] and one[tcp + 20 : tcp + 32] == frame[tcp + 20 : tcp + 32]
        assert int.from_bytes(one[tcp + 4 : tcp + 8], "big") == (0xFFFFFF00 + 1448 * number) % (1 << 32)
        assert one[tcp + 13] == 0x10 | 0x08 * last | 0x80 * first
        if version == 4:
            assert int.from_bytes(one[ip + 2 : ip + 4], "big") == len(one) - ip
            identity = int.from_bytes(frame[ip + 4 : ip + 6], "big")
            assert int.from_bytes(one[ip + 4 : ip + 6], "big") == identity + number
            assert plain_sum(one[ip:tcp]) == 0xFFFF
        else:
            assert int.from_bytes(one[ip + 4 : ip + 6], "big") == len(one) - tcp
        addresses = one[tcp - (8 if version == 4 else 32) : tcp]
        assert plain_sum(addresses + bytes([0, 6]) + (len(one) - tcp).to_bytes(2, "big") + one[tcp:]) == 0xFFFF


@pytest.mark.parametrize("seed", range(3))
def test_frames_that_make_no_sense_are_not_divided(seed: int) -> None:
    """Whatever is in the headers, there is an error or frames that are no longer than what was sent."""
    random = Random(seed)
    good, refused = [segment(bytes(300), version, options=2) for version in (4, 6)], 0
    for _ in range(3000):
        frame = bytearray(random.choice(good))
        for _ in range(random.randrange(1, 4)):
            frame[random.randrange(12, 80)] = random.randrange(256)
        frame = frame[: random.choice((len(frame), random.randrange(14, len(frame))))]
        size = random.choice((0, 1, 2, 3, 100, 65535))
        try:
            found = segments(bytes(frame), size)
        except ChecksumError:
            refused += 1
        else:
            assert 0 < len(found) <= MOST_SEGMENTS and max(map(len, found)) <= len(frame)
    assert 300 < refused < 2900


def test_long_headers_are_not_repeated() -> None:
    """A hundred segments with headers of IPv6 that have some kilobytes would be megabytes for one frame."""
    frame = bytearray(segment(bytes(100), 6))
    for options, fits in ((40, True), (250, False)):
        header = bytes([6, options]) + bytes(8 * (options + 1) - 2)
        long = frame[:20] + bytes([60]) + frame[21:54] + header + frame[54:]
        long[18:20] = (len(long) - 54).to_bytes(2, "big")
        if fits:
            assert len(segments(bytes(long), 1)) == 100
        else:
            with pytest.raises(ChecksumError, match="headers"):
                segments(bytes(long), 1)
