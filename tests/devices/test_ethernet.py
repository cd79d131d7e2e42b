"""Checksums of TCP and UDP: against a sum that is made in the plain way, and frames that have none. Long segments."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import pytest

from dbt.devices.ethernet import LONGEST_FRAME, MOST_SEGMENTS, ChecksumError, joined, segments, with_checksum
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


# -- segments that are joined ----------------------------------------------------------------------


def stream(content: bytes, version: int, size: int = 1448, flags: int = 0x10, options: int = 3) -> list[bytes]:
    """Return the segments of a connection that have so many bytes of a content each. The last one has these flags."""
    frame = bytearray(segment(content, version, options))
    frame[TCP[version] + 13] = flags
    return segments(bytes(frame), size)


TCP = {4: 34, 6: 54}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flags", [0x10, 0x18, 0x11, 0x50])
@pytest.mark.parametrize("size", [1449, 2896, 10_001])
def test_segments_are_joined(version: int, flags: int, size: int) -> None:
    """The frame is that of which they are the parts. Its checksum is left to be filled in."""
    content = Random(size).randbytes(size)
    frames = stream(content, version, flags=flags)
    found = joined([b"another", *frames, b"another"], 1, LONGEST_FRAME)
    assert found is not None and (found.segments, found.size) == (len(frames), 1448)
    tcp = TCP[version]
    assert found.frame[tcp + 32 :] == content and found.frame[tcp + 13] == flags
    assert segments(found.frame, 1448) == frames
    addresses = found.frame[tcp - (8 if version == 4 else 32) : tcp]
    length = len(found.frame) - tcp
    assert int.from_bytes(found.frame[tcp + 16 : tcp + 18], "big") == plain_sum(
        addresses + b"\0\6" + length.to_bytes(2, "big")
    )
    assert with_checksum(found.frame) == stream(content, version, size, flags)[0]


def repaired(frame: bytes, *changes: tuple[int, int]) -> bytes:
    """Return a frame of IPv4 with other bytes at some places, and right checksums."""
    changed = bytearray(frame)
    for place, byte in changes:
        changed[place] = byte
    changed[24:26] = bytes(2)
    changed[24:26] = (0xFFFF - plain_sum(bytes(changed[14:34]))).to_bytes(2, "big")
    return with_checksum(bytes(changed))


@pytest.mark.parametrize(
    "place", [0, 6, 15, 20, 22, 26, 30, *range(34, 47), 48, 49, *range(52, 66)], ids=lambda place: f"byte {place}"
)
@pytest.mark.parametrize("which", [0, 1])
def test_segments_with_different_headers_are_not_joined(place: int, which: int) -> None:
    """Addresses, type of service, whether they may be fragmented, time to live, ports, numbers, flags, window, urgent
    pointer, options: a bit of one of them is another.
    """
    frames = stream(Random(1).randbytes(2896), 4)
    changed = frames[which][place] ^ (0x40 if place == 20 else 4)
    frames[which] = repaired(frames[which], (place, changed))
    assert joined(frames, 0, LONGEST_FRAME) is None


@pytest.mark.parametrize("flags", [0x00, 0x02, 0x12, 0x14, 0x18, 0x11, 0x30, 0x90])
def test_the_first_segment_has_no_flags_but_ack(flags: int) -> None:
    frames = stream(Random(1).randbytes(2896), 4)
    frames[0] = repaired(frames[0], (47, flags))
    assert joined(frames, 0, LONGEST_FRAME) is None


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("which", [0, 1])
def test_segments_with_wrong_checksums_are_not_joined(version: int, which: int) -> None:
    tcp = TCP[version]
    for place in (tcp + 16, tcp + 40, *((24,) if version == 4 else ())):
        frames = stream(Random(1).randbytes(2896), version)
        frames[which] = frames[which][:place] + bytes([frames[which][place] ^ 1]) + frames[which][place + 1 :]
        assert joined(frames, 0, LONGEST_FRAME) is None


def test_where_a_long_segment_ends() -> None:
    """With a flag, a shorter segment, one that is missing, as many bytes or segments as may be, or no frame at all."""
    content = Random(1).randbytes(14_480)
    frames = stream(content, 4)

    def count(some: list[bytes], most: int = LONGEST_FRAME) -> int:
        found = joined(some, 0, most)
        assert found is None or len(found.frame) <= most
        return found.segments if found else 1

    assert count(frames) == 10 and count(frames[:1]) == 1
    assert count([*frames[:4], *frames[5:]]) == 4
    assert count([*frames[:4], repaired(frames[4], (47, 0x18)), *frames[5:]]) == 5
    assert [count(frames, most) for most in (66 + 2 * 1448 - 1, 66 + 2 * 1448, 8192)] == [1, 2, 5]
    short = stream(content[:1448], 4, 1000)
    assert count([*short, *frames[1:]]) == 2, "the second one has 448 bytes"
    assert count([short[0], *frames]) == 1
    many = stream(bytes(MOST_SEGMENTS), 4, 1)
    many += [repaired(one, (19, 128 + number), (41, 128 + number)) for number, one in enumerate(many)]
    assert count(many) == count(many[1:]) == MOST_SEGMENTS == len(many) // 2
    empty = repaired(frames[0][:66], (16, 0), (17, 52))
    assert count([empty, *frames]) == count([frames[0], empty]) == 1


@pytest.mark.parametrize(
    ("step", "flags", "is_joined"), [(0, 0x40, True), (0, 0, True), (1, 0, True), (2, 0x40, False)]
)
def test_identities(step: int, flags: int, is_joined: bool) -> None:
    """They count, or are equal."""
    frames = stream(Random(1).randbytes(4344), 4)
    some = [repaired(one, (18, 0), (19, 7 + number * step), (20, flags)) for number, one in enumerate(frames)]
    found = joined(some, 0, LONGEST_FRAME)
    assert (found is not None and found.segments == 3) is is_joined


@pytest.mark.parametrize("version", [4, 6])
def test_only_plain_headers_are_joined(version: int) -> None:
    """Without options of IP, a tag of a VLAN, or bytes behind the packet."""
    frames = stream(Random(1).randbytes(2896), version)
    assert joined([one + b"\0" for one in frames], 0, LONGEST_FRAME) is None
    tagged = bytearray(segment(bytes(2896), version, 3, vlan=True))
    tagged[TCP[version] + 4 + 13] = 0x10
    assert joined(segments(bytes(tagged), 1448), 0, LONGEST_FRAME) is None
    header = bytes(4) + b"\xff\xff\xff\0" + bytes(4) + b"\x50\x10" + bytes(6)
    optional = packet(6, header + bytes(2896), version, vlan=False, options=1)[0]
    assert joined(segments(optional, 1448), 0, LONGEST_FRAME) is None


@pytest.mark.parametrize("seed", range(2))
def test_what_is_joined_is_divided_again(seed: int) -> None:
    """Whatever is in the frames: if some are joined, their parts are these frames."""
    random, came = Random(seed), 0
    for _ in range(1000):
        version = random.choice((4, 6))
        frames = stream(random.randbytes(random.choice((500, 900))), version, 300, random.choice((0x10, 0x18)), 1)
        which = random.randrange(len(frames))
        changed = bytearray(frames[which])
        if random.random() < 0.7:
            changed[random.randrange(12, TCP[version] + 24)] = random.randrange(256)
        frames[which] = bytes(changed)[
            : random.choice((len(changed), len(changed), random.randrange(14, len(changed))))
        ]
        if (found := joined(frames, 0, LONGEST_FRAME)) is not None:
            came += 1
            assert segments(found.frame, found.size) == frames[: found.segments]
    assert 200 < came < 900
