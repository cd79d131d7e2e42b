"""``dbt snapshot``: shows what a snapshot is of, checks it, and compares two."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict

from dbt.abi.layout import PAGE_SHIFT
from dbt.board.clock import insn_ns_of, ticks_per_second
from dbt.cli.report import print_table
from dbt.cli.status import Status
from dbt.inspector.symbols import printable
from dbt.snapshot.difference import PageDifference, SnapshotDifference, ValueDifference, diff_snapshots, registers
from dbt.snapshot.info import SnapshotInfo
from dbt.snapshot.info import verify as verify_snapshot
from dbt.snapshot.snapshots import read_snapshot

#: The version of the objects that ``--json`` prints.
JSON_SCHEMA = 1
#: So many characters of a value are printed, and so many pages without ``--json``.
_LONGEST_VALUE, _MOST_PAGES = 60, 64
#: Values that nobody reads as such.
_OPAQUE = 64


def _print_json(answer: Mapping[str, object]) -> int:
    json.dump({"schema": JSON_SCHEMA, **answer}, sys.stdout, indent=1)
    print()
    return Status.DONE


# -- info and verify -------------------------------------------------------------------------------


def print_info(path: str, as_json: bool) -> int:
    """Print what a snapshot is of, as a table or as a JSON object."""
    info = SnapshotInfo.read(path)
    if as_json:
        return _print_json(_info_json(info))
    print_table(f"snapshot {printable(path)}", _info_rows(info), to_stdout=True)
    return Status.DONE


def verify(path: str, files: str | None, as_json: bool) -> int:
    """Check a snapshot and its parents, and say that they are good. What is wrong is an error."""
    info = verify_snapshot(path, files)
    checked = (info.file, *info.parents)
    tried = not info.attached and (files is not None or not info.open_files)
    if as_json:
        return _print_json({"files": [asdict(file) for file in checked], "restored": tried})
    for file in checked:
        print(f"{printable(file.path)}: good, {_bytes(file.size)}")
    if info.attached:
        print(f"no machine was restored, because this one has {', '.join(info.attached)}: see `dbt run --restore`")
    elif not tried:
        names = ", ".join(info.open_files)
        print(printable(f"no machine was restored, because the guest has files open: {names}. Give --files DIR"))
    return Status.DONE


def _info_json(info: SnapshotInfo) -> dict[str, object]:
    return {
        "file": asdict(info.file),
        "parents": [asdict(file) for file in info.parents],
        "format": info.format,
        "ram": [{"base": base, "size": size, "read_only": only} for base, size, only in info.layout.regions],
        "icount": info.value("icount"),
        "seconds": _guest_seconds(info),
        "board": info.value("machine", "board"),
        "cpu": _cpu_model(info),
        "kernel": info.value("guest", "is_kernel"),
        "registers": registers(info.values),
        "open_files": info.open_files,
        "attached": info.attached,
    }


def _info_rows(info: SnapshotInfo) -> Iterator[tuple[str, str]]:
    file = info.file
    yield "digest", file.digest
    yield "format", f"{info.format}, written by dbt {printable(file.dbt)}"
    yield "size", _bytes(file.size)
    for parent in info.parents:
        yield "parent", f"{printable(parent.path)}, {_bytes(parent.size)}, {parent.digest[:16]}"
    yield "RAM", f"{info.layout}, {_bytes(info.layout.size)}"
    cleared = f", and {file.cleared:,} that are zero" if file.cleared else ""
    yield "pages", f"{file.pages:,} of {info.ram_pages:,}, {_bytes(file.pages << PAGE_SHIFT)}{cleared}"
    if isinstance(model := _cpu_model(info), str):
        kind = "kernel" if info.value("guest", "is_kernel") else "program"
        yield "guest", f"a {kind} on {printable(model)}"
    if isinstance(board := info.value("machine", "board"), str):
        yield "board", printable(board)
    if isinstance(icount := info.value("icount"), int):
        yield "instructions", f"{icount:,}"
    if (seconds := _guest_seconds(info)) is not None:
        yield "guest's time", f"{seconds:.3f} s"
    found = registers(info.values)
    if found:
        yield "PC, CPSR", f"{found['r15']:#010x}, {found['cpsr']:#010x}"
    for name in info.open_files:
        yield "open file", printable(name)
    if info.attached:
        yield "needs", ", ".join(info.attached)


def _cpu_model(info: SnapshotInfo) -> object:
    """Return the processor: the one that was chosen, or else that of the guest."""
    return info.value("machine", "cpu") or info.value("guest", "cpu")


def _guest_seconds(info: SnapshotInfo) -> float | None:
    now = info.value("now")
    try:
        return now / ticks_per_second(insn_ns_of(info.value("insn_ns"))) if isinstance(now, int) else None
    except ValueError:
        return None


def _bytes(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB" if size >= 1 << 20 else f"{size / 1024:,.1f} KiB"


# -- diff ------------------------------------------------------------------------------------------


def print_diff(path: str, other: str, as_json: bool) -> int:
    """Print what differs between two snapshots. Return 1 if anything does, as diff(1) does."""
    with read_snapshot(path) as one, read_snapshot(other) as two:
        found = diff_snapshots(one, two)
    if as_json:
        _print_json(_diff_json(found))
    else:
        for line in _diff_lines(found):
            print(printable(line))
    return int(bool(found))


def _diff_json(found: SnapshotDifference) -> dict[str, object]:
    def values(differences: Iterable[ValueDifference]) -> list[dict[str, object]]:
        return [{"name": one.name, "values": [_jsonable(one.one), _jsonable(one.other)]} for one in differences]

    return {
        "registers": values(found.registers),
        "devices": values(found.devices),
        "others": values(found.others),
        "pages": [asdict(page) for page in found.pages],
    }


def _jsonable(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_jsonable(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _jsonable(held) for key, held in value.items()}
    return value


def _diff_lines(found: SnapshotDifference) -> Iterator[str]:
    if not found:
        yield "they are the same"
    yield from _value_lines("registers", found.registers, is_hex=True)
    yield from _value_lines("devices", found.devices)
    yield from _value_lines("others", found.others)
    if found.pages:
        yield f"pages ({len(found.pages):,})"
        yield from map(_page_line, found.pages[:_MOST_PAGES])
        if len(found.pages) > _MOST_PAGES:
            yield f"  ... and {len(found.pages) - _MOST_PAGES:,} more; --json has all"


def _value_lines(title: str, differences: Sequence[ValueDifference], is_hex: bool = False) -> Iterator[str]:
    if not differences:
        return
    yield f"{title} ({len(differences):,})"
    width = min(32, max(len(one.name) for one in differences))
    for one in differences:
        yield f"  {one.name:<{width}}  {_show(one.one, is_hex)} -> {_show(one.other, is_hex)}"


def _show(value: object, is_hex: bool) -> str:
    if value is None:
        return "none"
    if isinstance(value, int) and is_hex:
        return f"{value:08x}"
    if isinstance(value, bytes) and len(value) > _OPAQUE:
        return f"{len(value):,} bytes"
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _page_line(page: PageDifference) -> str:
    name = f"  {', '.join(page.symbols)}" if page.symbols else ""
    plural = "s" * (page.bytes != 1)
    return f"  {page.gpa:#010x}  {page.bytes:>4} byte{plural} from {page.first:#010x} to {page.last:#010x}{name}"
