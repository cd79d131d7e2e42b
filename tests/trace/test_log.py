"""The file of a trace: whatever happens to it, it is read as far as it goes, or what is wrong is said."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from dbt.cli.app import run_app
from dbt.trace.log import VERSION, LogWriter, RecordKind, TraceError, read_log
from dbt.trace.model import Trace
from tests.cli.command import COMMAND, dbt, environment, paragraph
from tests.guests import GUESTS
from tests.trace.recordings import program
from tests.waiting import wait_until


def write(path: Path, records: list[tuple[RecordKind, bytes]]) -> bytes:
    log = LogWriter(str(path))
    for kind, content in records:
        log.append(kind, content)
    log.close()
    return path.read_bytes()


RECORDS = [(RecordKind.HEADER, b"{}"), (RecordKind.NOTE, b"x" * 100), (RecordKind.END, b"")]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "t", RECORDS)
    log = read_log(str(tmp_path / "t"))
    assert log.records == RECORDS and log.missing == 0


def test_a_file_cut_off_anywhere_is_read_up_to_its_last_whole_record(tmp_path: Path) -> None:
    data = write(tmp_path / "t", RECORDS)
    ends = [len(write(tmp_path / "u", RECORDS[:count])) for count in range(len(RECORDS) + 1)]
    for length in range(len(data)):
        (tmp_path / "t").write_bytes(data[:length])
        whole = sum(end <= length for end in ends) - 1
        if whole < 1:
            with pytest.raises(TraceError, match=r"no (translation trace|header)"):
                read_log(str(tmp_path / "t"))
            continue
        log = read_log(str(tmp_path / "t"))
        assert log.records == RECORDS[:whole] and log.missing == length - ends[whole]


def test_a_flipped_bit_is_seen_wherever_it_is(tmp_path: Path) -> None:
    data = write(tmp_path / "t", RECORDS)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "t").write_bytes(damaged)
        try:
            log = read_log(str(tmp_path / "t"))
        except TraceError as error:
            assert str(tmp_path / "t") in str(error)
        else:  # a length that goes beyond the end: as if it had been cut off there
            assert log.missing and log.records == RECORDS[: len(log.records)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "this is no translation trace"),
        (b"\x7fELF" + bytes(100), "this is no translation trace"),
        (b"DBTTRACE\x63\0\0\0", "a trace of version 99"),
        (b"DBTTRACE" + bytes([VERSION, 0, 0, 0]), "the trace has no header"),
    ],
)
@pytest.mark.parametrize("command", [["stats"], ["top"], ["why"], ["block"], ["export"], ["html"], ["view"], ["diff"]])
def test_what_is_no_trace_is_said_in_one_paragraph(
    content: bytes, says: str, command: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    more = {"block": ["#1"], "diff": [str(path)]}.get(command[0], [])
    text = paragraph(dbt("trace", *command, path, *more), 121)
    assert says in text and str(path) in text


def test_a_trace_that_is_not_there(tmp_path: Path) -> None:
    assert "it cannot be read: No such file" in paragraph(dbt("trace", "top", tmp_path / "none"), 121)


def test_contents_that_cannot_be_understood(tmp_path: Path) -> None:
    write(tmp_path / "t", [(RecordKind.HEADER, b"{}"), (RecordKind.NOTE, b"no JSON")])
    with pytest.raises(TraceError, match="cannot be understood"):
        Trace(str(tmp_path / "t"))


def has_regions_and_counts(path: Path) -> bool:
    """Whether a trace that is being written has got as far as that."""
    try:
        trace = Trace(str(path))
    except TraceError:
        return False
    return bool(trace.regions and trace.counts)


def test_a_run_that_is_killed_leaves_what_it_had_recorded(tmp_path: Path) -> None:
    path = tmp_path / "t"
    guest = GUESTS / "bench" / "images" / "crc32.elf"
    command = [*COMMAND, "run", "--record-trace", str(path), str(guest), "1000000"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: has_regions_and_counts(path), "regions and counts in the trace")
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    trace = Trace(str(path))
    assert not trace.is_complete and trace.totals["insns threaded"] > 0
    assert trace.icount >= trace.regions[-1].icount > 0 and trace.nanoseconds >= trace.regions[-1].time
    for arguments in (["stats"], ["top"], ["why"], ["export"]):
        done = dbt("trace", *arguments, path)
        assert done.returncode == 0 and done.stdout
        assert b"did not end in an orderly way" in done.stderr


def test_where_the_disk_is_full_the_run_goes_on(tmp_path: Path) -> None:
    guest = tmp_path / "guest.elf"
    guest.write_bytes(program())
    done = dbt("run", "--record-trace", "/dev/full", guest)
    assert "cannot be written: No space left on device" in paragraph(done, 125)
    done = dbt("run", "--record-trace", tmp_path / "no" / "trace", guest)
    assert "cannot be written: No such file" in paragraph(done, 120)


def test_an_error_while_writing_is_told_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append, left = LogWriter.append, [3]

    def fail(log: LogWriter, kind: RecordKind, content: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        append(log, kind, content)

    monkeypatch.setattr(LogWriter, "append", fail)
    guest, path = tmp_path / "guest.elf", str(tmp_path / "t")
    guest.write_bytes(program())
    status = run_app(["run", "--jit", "sync", "--record-trace", path, str(guest)])
    assert status == 0 and not Trace(path).is_complete
