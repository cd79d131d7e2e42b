"""``dbt cache``: shows, checks and removes what the cache directory holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from dbt.cli.report import print_table, say
from dbt.cli.status import CommandError, Status
from dbt.codecache.contents import Entry, Kind, damage, entries, remove
from dbt.codecache.handlers import image_key
from dbt.codecache.store import cache_directory, cache_limit, check_folder
from dbt.codecache.trust import UntrustedCacheError

#: The version of the object that ``dbt cache info --json`` prints.
JSON_SCHEMA = 1


def _report_distrust() -> bool:
    """Return True, and say so, if the directory is not used because somebody else could have written to it."""
    try:
        check_folder()
    except UntrustedCacheError as error:
        say(f"{error}.")
        return True
    return False


# -- info ----------------------------------------------------------------------------------------


def print_info(json: bool) -> int:
    """Print what there is to standard output, as a table or as a JSON object."""
    _report_distrust()
    groups = _group(entries())
    if json:
        _print_json(groups)
    else:
        print_table(f"cache {cache_directory()}", _rows(groups), to_stdout=True)
    return Status.DONE


def _group(found: Iterable[Entry]) -> Mapping[str, list[Entry]]:
    """Return the entries by what they are for this version of dbt on this host."""
    current = image_key()
    groups: dict[str, list[Entry]] = {
        "handlers": [],
        "regions": [],
        "hot_lists": [],
        "linux_guests": [],
        "other_versions": [],
        "leftovers": [],
    }
    for entry in found:
        if entry.kind is Kind.LEFTOVER:
            groups["leftovers"].append(entry)
        elif entry.key != current:
            groups["other_versions"].append(entry)
        else:
            groups[entry.kind.value].append(entry)
    return groups


def _rows(groups: Mapping[str, list[Entry]]) -> Iterator[tuple[str, str]]:
    handlers, regions, hot_lists, linux, others, leftovers = groups.values()
    yield "handlers", _amount(handlers) if handlers else "none: the next run builds them"
    yield "regions", _amount(regions)
    if hot_lists:
        yield "hot code", f"{_amount(hot_lists)}, of programs with code to compile: see `dbt translate --help`"
    if linux:
        yield "Linux guests", _amount(linux)
    yield "other versions", _amount(others)
    if leftovers:
        yield "leftovers", f"{_amount(leftovers)}, being written or of processes that were killed"
    limited = [entry for entry in (*regions, *hot_lists, *others) if entry.kind in (Kind.REGIONS, Kind.HOT_LIST)]
    yield "limit", f"{_bytes(cache_limit())} for regions, of which {_bytes(_size(limited))} are used"
    if regions:
        yield "oldest region", f"used {_time(min(entry.used for entry in regions))}"
        yield "newest region", f"used {_time(max(entry.used for entry in regions))}"


def _print_json(groups: Mapping[str, list[Entry]]) -> None:
    import json

    answer: dict[str, object] = {"schema": JSON_SCHEMA, "directory": str(cache_directory()), "limit": cache_limit()}
    for name, group in groups.items():
        used = [int(entry.used) for entry in group]
        answer[name] = {
            "files": len(group),
            "bytes": _size(group),
            "oldest": min(used, default=None),
            "newest": max(used, default=None),
        }
    print(json.dumps(answer))


def _size(group: Iterable[Entry]) -> int:
    return sum(entry.size for entry in group)


def _amount(group: list[Entry]) -> str:
    return f"{_files(len(group))}, {_bytes(_size(group))}" if group else "none"


def _files(count: int) -> str:
    return f"{count:,} file{'s' * (count != 1)}"


def _bytes(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB" if size >= 1 << 20 else f"{size >> 10:,} KiB"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")


# -- clear ---------------------------------------------------------------------------------------


def clear(regions_only: bool) -> int:
    """Remove every file of dbt's, or all but the handlers."""
    try:
        check_folder()
    except UntrustedCacheError as error:
        raise CommandError(f"{error}. Nothing is removed.", Status.FAILURE) from None
    found = [entry for entry in entries() if not (regions_only and "handlers-" in entry.name)]
    _remove(found)
    print(f"removed {_files(len(found))}, {_bytes(_size(found))}" if found else "there is nothing to remove")
    return Status.DONE


def _remove(found: Iterable[Entry]) -> None:
    refused, reason = 0, ""
    for entry in found:
        try:
            remove(entry)
        except OSError as error:
            refused, reason = refused + 1, str(error.strerror)
    if refused:
        message = f"{cache_directory()}: {_files(refused)} cannot be removed: {reason}."
        raise CommandError(message, Status.FAILURE)


# -- verify --------------------------------------------------------------------------------------


def verify(repair: bool) -> int:
    """Check every file, name the damaged ones, and with ``repair`` remove them.

    Return 1 if damaged files stay or if the directory is not used, else 0.
    """
    if _report_distrust():
        return 1
    damaged, checked = [], 0
    for entry in sorted(entries(), key=lambda entry: entry.name):
        if entry.kind is Kind.LEFTOVER:
            continue
        checked += 1
        if what := damage(entry):
            damaged.append(entry)
            print(f"{entry.name}: {what}")
    print(f"checked {_files(checked)}: {f'{len(damaged):,} damaged' if damaged else 'good'}")
    if not damaged:
        return Status.DONE
    if not repair:
        say("a damaged file is not used, but replaced when its turn comes. `dbt cache verify --repair` removes it.")
        return 1
    _remove(damaged)
    print(f"removed {_files(len(damaged))}")
    return Status.DONE
