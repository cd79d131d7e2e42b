"""The verbs of `dbt vm` about saved machines, disks and the limits of devices."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from dbt.cli.status import CommandError, Status
from dbt.cli.values import parse_count, parse_size
from dbt.cli.vm.connection import ask, of_domain
from dbt.cli.vm.paths import absolute_drive
from dbt.cli.vm.verbs import print_columns, show


def with_file(name: str, verb: str, path: str, done: str, as_json: bool) -> int:
    """Save or dump a domain to a file."""
    answer = ask("POST", of_domain(name, verb), {"path": os.path.abspath(path)})
    return show(answer, as_json, f"domain {name} {done} {path}")


def restore(path: str, as_json: bool) -> int:
    answer = ask("POST", "/v1/restore", {"path": os.path.abspath(path)})
    return show(answer, as_json, f"domain {answer['name']} goes on from {path}")


def create_snapshot(name: str, snapshot: str | None, as_json: bool) -> int:
    answer = ask("POST", of_domain(name, "snapshots"), {"name": snapshot})
    return show(answer, as_json, f"snapshot {answer['name']} of domain {name} made")


def list_snapshots(name: str, as_json: bool) -> int:
    found = ask("GET", of_domain(name, "snapshots"))
    if as_json:
        return show(found, True)
    rows = [(one["name"], time.strftime("%F %T", time.localtime(one["created"])), one["state"]) for one in found]
    print_columns(("name", "created", "state"), rows)
    return Status.DONE


def revert(name: str, snapshot: str, as_json: bool) -> int:
    answer = ask("POST", of_domain(name, "snapshots", snapshot, "revert"))
    return show(answer, as_json, f"domain {name} goes on from its snapshot {snapshot}")


def delete_snapshot(name: str, snapshot: str, as_json: bool) -> int:
    ask("DELETE", of_domain(name, "snapshots", snapshot))
    return show({"domain": name, "snapshot": snapshot}, as_json, f"snapshot {snapshot} of domain {name} deleted")


def clone(name: str, other: str, as_json: bool) -> int:
    answer = ask("POST", of_domain(name, "clone"), {"name": other})
    return show(answer, as_json, f"domain {other} is as {name}")


def change_disk(name: str, drive: str, verb: str, as_json: bool) -> int:
    """Give the domain a disk, or take it: the text of --drive, or the path of its file."""
    if not drive:
        raise CommandError("the path of the disk is empty.", Status.USAGE)
    text = absolute_drive(_as_drive(drive), os.getcwd())
    ask("POST", of_domain(name, *verb.split("/")), {"drive": text})
    done = "has" if verb == "disks" else "does not have"
    return show({"domain": name, "drive": text}, as_json, f"domain {name} {done} {text} from its next start on")


def _as_drive(text: str) -> str:
    """Return the text of --drive for a text of it, or for a path, whose commas are written twice there."""
    if os.path.lexists(text):
        return f"file={text.replace(',', ',,')}"
    return text if any(part.startswith("file=") for part in text.split(",")) else f"file={text}"


def set_memory(name: str, size: str, as_json: bool) -> int:
    number = parse_size("SIZE", size)
    ask("POST", of_domain(name, "memory"), {"size": number})
    return show({"domain": name, "size": number}, as_json, f"the guest of {name} is asked to have {size} of memory")


def change_memory_limit(name: str, limit: str | None, as_json: bool) -> int:
    """Change the limit of memory, if one is given, and show it."""
    change = {} if limit is None else {"memory": 0 if limit == "0" else parse_size("--hard-limit", limit)}
    most = ask("POST", of_domain(name, "limits"), change)["memory"]
    return show({"memory": most}, as_json, f"memory: {'none' if most is None else f'{most} bytes'}")


def change_limits(name: str, given: Mapping[str, tuple[str, str | None]], as_json: bool) -> int:
    """Change the limits that are given, by their options and texts, and show those of the same devices."""
    change = {
        field: parse_count(option, text, "a second") for field, (option, text) in given.items() if text is not None
    }
    found = ask("POST", of_domain(name, "limits"), change)
    limits = {field: found[field] for field in given}
    if as_json:
        return show(limits, True)
    print_columns(
        ("", ""), [(f"{field}:", "none" if rate is None else f"{rate} a second") for field, rate in limits.items()]
    )
    return Status.DONE
