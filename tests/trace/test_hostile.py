"""A trace may come from anybody: whatever is in it, it is read, or what is wrong is said, and nothing takes forever."""

from __future__ import annotations

import copy
import json
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dbt.backend.unpack import unpack
from dbt.cli.trace import stats_lines
from dbt.trace.export import FORMATS
from dbt.trace.html import report
from dbt.trace.log import LogWriter, RecordKind, TraceError, read_log
from dbt.trace.model import Trace
from dbt.trace.panes import panes_of
from dbt.trace.stitched_panes import stitched_panes
from dbt.trace.why import tiers_of
from tests.cli.command import dbt, paragraph
from tests.trace.recordings import program, record

#: Values that some field does not expect.
WRONG: tuple[Any, ...] = (None, -1, 1 << 70, 3, 0, "", "\x1b[31m<b>", [], {}, [[1, 2, 3, 4]], 1.5, True, 10**30, [None])


@pytest.fixture
def good(tmp_path: Path, only_handlers: Path) -> Path:
    record(tmp_path / "good", program(), block_counters=True)
    return tmp_path / "good"


def use_everything(path: Path) -> None:
    """All that the commands make of a trace; only TraceError may come out."""
    trace = Trace(str(path))
    report(trace, stats_lines(trace))
    for make, _ in FORMATS.values():
        make(trace)
    for region in trace.regions:
        panes_of(trace, region)
    if trace.stitched is not None:
        stitched_panes(trace, trace.stitched.blocks)
        for block in trace.stitched.blocks:
            list(tiers_of(trace, trace.gva_of(block.gpa)))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values in a JSON document."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(inner, (*path, key))


def changed(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    document = copy.deepcopy(document)
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return document


def region_parts(content: bytes) -> tuple[bytes, bytes]:
    (size,) = struct.unpack_from("<I", content)
    return content[4 : 4 + size], content[4 + size :]


def compile_record(content: bytes, change: Callable[[Any, int], Any]) -> bytes:
    """A REGION whose compile record has both parts changed."""
    about, made = region_parts(content)
    (size,) = struct.unpack_from("<I", made)
    parts = [json.loads(zlib.decompress(part)) for part in (made[4 : 4 + size], made[4 + size :])]
    first, second = (zlib.compress(json.dumps(change(part, n)).encode()) for n, part in enumerate(parts))
    return struct.pack("<I", len(about)) + about + struct.pack("<I", len(first)) + first + second


def mutate(kind: RecordKind, content: bytes, generator: random.Random) -> bytes:
    """The record with one value that is not what it should be."""

    def change(document: Any) -> Any:
        return changed(document, generator.choice(list(leaves(document))), generator.choice(WRONG))

    match kind:
        case RecordKind.MEMORY | RecordKind.BLOCK_COUNTERS:
            return zlib.compress(json.dumps(change(json.loads(zlib.decompress(content)))).encode())
        case RecordKind.REGION if generator.random() < 0.5:
            wanted = generator.randrange(2)
            return compile_record(content, lambda part, number: change(part) if number == wanted else part)
        case RecordKind.REGION:
            about, made = region_parts(content)
            text = json.dumps(change(json.loads(about))).encode()
            return struct.pack("<I", len(text)) + text + made
        case RecordKind.STITCHED:
            text, code = region_parts(zlib.decompress(content))
            if generator.random() < 0.5:
                text = json.dumps(change(json.loads(text))).encode()
            damaged = bytearray(code)
            damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
            return zlib.compress(struct.pack("<I", len(text)) + text + damaged)
        case RecordKind.EVENTS | RecordKind.COUNTS:
            damaged = bytearray(content)
            damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
            return bytes(damaged)
        case _:
            return json.dumps(change(json.loads(content))).encode()


@pytest.mark.parametrize("seed", range(4))
def test_wrong_values_with_right_checksums(good: Path, tmp_path: Path, seed: int) -> None:
    records = read_log(str(good)).records
    generator = random.Random(seed)
    refused = 0
    for number in range(60):
        at = generator.randrange(len(records))
        kind, content = records[at]
        path = tmp_path / "bad"
        log = LogWriter(str(path))
        for place, (other, data) in enumerate(records):
            log.append(other, mutate(kind, content, generator) if place == at else data)
        log.close()
        try:
            use_everything(path)
        except TraceError as error:
            assert str(path) in str(error) and len(str(error)) < 1000
            refused += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, mutation {number}, {kind.name}: {error!r}") from error
    assert refused > 10


def test_a_compressed_part_that_becomes_gigabytes(good: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more than 1 MB"):
        unpack(zlib.compress(bytes(2 << 20)), 1 << 20)
    with pytest.raises(ValueError, match="not complete"):
        unpack(zlib.compress(b"abc")[:-1])
    bomb = zlib.compressobj(9)
    packed = b"".join(bomb.compress(bytes(1 << 24)) for _ in range(20)) + bomb.flush()
    log = LogWriter(str(tmp_path / "bad"))
    for kind, content in read_log(str(good)).records:
        log.append(kind, packed if kind is RecordKind.MEMORY else content)
    log.close()
    with pytest.raises(TraceError, match="more than 256 MB"):
        Trace(str(tmp_path / "bad"))


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "no translation trace" in paragraph(dbt("trace", "top", tmp_path / "pipe"), 121)
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(64 << 30)
    assert "no translation trace" in paragraph(dbt("trace", "top", tmp_path / "sparse"), 121)


def test_no_escape_sequence_reaches_the_terminal(good: Path, tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path / "bad"))
    for kind, content in read_log(str(good)).records:
        if kind is RecordKind.HEADER:
            header = json.loads(content)
            header["symbols"] = [[0, "\x1b]0;owned\x07\x9b31m", 1 << 20]]
            header["command"]["program"] = header["tier"] = "\x1b[2J"
            log.append(kind, json.dumps(header).encode())
        else:
            log.append(kind, content)
    log.close()
    for command in (["top"], ["why"], ["block", "#1"], ["stats"]):
        done = dbt("trace", command[0], tmp_path / "bad", *command[1:])
        text = done.stdout + done.stderr
        assert text and not set("\x1b\x07\x9b") & set(text if isinstance(text, str) else text.decode())
