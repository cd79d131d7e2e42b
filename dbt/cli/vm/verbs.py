"""What the verbs of ``dbt vm`` ask of the daemon, and how its answers are shown."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any

from dbt.cli.status import CommandError, Status
from dbt.cli.values import parse_choice
from dbt.cli.vm.connection import as_command_error, ask, connect, of_domain
from dbt.daemon.client import RequestFailed

#: The states of domains that have a machine.
_ALIVE = ("running", "blocked", "paused", "migrating", "undecided", "crashed")


def show(answer: object, as_json: bool, text: str = "") -> int:
    """Print an answer as JSON, or a text in its place."""
    if as_json:
        print(json.dumps(answer))
    elif text:
        print(text)
    return Status.DONE


def list_domains(everything: bool, inactive: bool, names: bool, as_json: bool) -> int:
    found = ask("GET", "/v1/domains")
    if not everything:
        found = [domain for domain in found if (domain["state"] in _ALIVE) != inactive]
    if as_json:
        return show(found, True)
    if names:
        print(*(domain["name"] for domain in found), sep="\n", end="\n" if found else "")
        return Status.DONE
    rows = [(domain["name"], _state(domain), str(domain["weight"]), _marks(domain)) for domain in found]
    print_columns(("name", "state", "weight", ""), rows)
    return Status.DONE


def _state(domain: dict[str, Any]) -> str:
    if domain["state"] == "undecided":
        return "paused (undecided)"  # its dominfo says why, and what is to be done
    return "saved" if domain["managed_save"] and domain["state"] == "defined" else str(domain["state"])


def _marks(domain: dict[str, Any]) -> str:
    marks = ("autostart" if domain["autostart"] else "", "" if domain["persistent"] else "transient")
    return " ".join(mark for mark in marks if mark)


def print_columns(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of texts in columns that are as wide as they need to be."""
    table = [*([titles] if any(titles) else []), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(titles))]
    for row in table:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def info(name: str, as_json: bool) -> int:
    found = ask("GET", of_domain(name))
    if as_json:
        return show(found, True)
    shown = {**found, "cap": "none" if found["cap"] is None else found["cap"]}
    print_columns(("", ""), [(f"{key}:".replace("_", " "), _word(value)) for key, value in shown.items()])
    return Status.DONE


def _word(value: object) -> str:
    return {True: "yes", False: "no", None: "none"}.get(value, "") if isinstance(value, bool | None) else str(value)


def stats(names: Sequence[str], as_json: bool) -> int:
    found = [ask("GET", of_domain(name, "stats")) for name in names] if names else ask("GET", "/v1/stats")
    if as_json:
        return show(found, True)
    titles = ("name", "state", "instructions", "cpu s", "turns", "share")
    rows = [
        (one["name"], one["state"], str(one["instructions"]), f"{one['host_ns'] / 1e9:.3f}", str(one["turns"]),
         f"{one['share']:.1%}")
        for one in found
    ]  # fmt: skip
    print_columns(titles, rows)
    return Status.DONE


def define(files: Sequence[str], starts: bool, type_: str | None, as_json: bool) -> int:
    """Define the domains of some files; ``starts``: as transient ones, which are started. ``type_`` is the type of all
    of them, if it is given.
    """
    if type_ is not None:
        parse_choice("--type", type_, ("full", "pv"))
    wanted = [{**_read(file), **({} if type_ is None else {"type": type_})} for file in files]
    answers = []
    for definition in wanted:
        answer = ask("POST", "/v1/create" if starts else "/v1/domains", {"definition": definition})
        answers.append(answer)
        show(answer, False, "" if as_json else f"domain {answer['name']} {'started' if starts else 'defined'}")
    return show(answers if len(answers) > 1 else answers[0], True) if as_json else Status.DONE


def _read(path: str) -> dict[str, Any]:
    """Return what a definition's file says, with its directory."""
    import tomllib

    try:
        with sys.stdin.buffer if path == "-" else open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise CommandError(f"{path}: the definition cannot be read: {error.strerror}.", Status.BAD_INPUT) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: this is no TOML file: {error}.", Status.BAD_INPUT) from None
    if place := _misfit(found):
        text = f"{path}: the definition is wrong at {place}: dates, times, inf and nan are no values of a definition."
        raise CommandError(text, Status.BAD_INPUT)
    directory = os.getcwd() if path == "-" else os.path.dirname(os.path.abspath(path))
    return {"directory": directory, **found}


def _misfit(value: object, place: str = "") -> str:
    """Return where in a file there is a value that TOML has and JSON does not, or an empty text."""
    if isinstance(value, dict):
        inside = ((f"{place}.{key}" if place else key, one) for key, one in value.items())
    elif isinstance(value, list):
        inside = ((f"{place}[{number}]", one) for number, one in enumerate(value))
    else:
        is_plain = isinstance(value, str | int) or (isinstance(value, float) and isfinite(value))
        return "" if is_plain else place
    return next((found for at, one in inside if (found := _misfit(one, at))), "")


def act(names: Sequence[str], verb: str, done: str, as_json: bool, body: object = None) -> int:
    """Do one thing to some domains, one after the other."""
    answers = []
    for name in names:
        answers.append(ask("POST", of_domain(name, verb), body))
        show(None, False, "" if as_json else f"domain {name} {done}")
    return show(answers if len(answers) > 1 else answers[0], True) if as_json else Status.DONE


def undefine(names: Sequence[str], as_json: bool) -> int:
    for name in names:
        ask("DELETE", of_domain(name))
        show(None, False, "" if as_json else f"domain {name} undefined")
    return show(list(names), True) if as_json else Status.DONE


def _is_uuid(text: str) -> bool:
    from uuid import UUID  # which takes as long to import as the answer of the daemon

    try:
        UUID(text)
    except ValueError:
        return False
    return True


def page(as_json: bool) -> int:
    answer = ask("POST", "/v1/page")
    return show(answer, as_json, answer["url"])


def watch(name: str | None, once: bool, as_json: bool) -> int:
    """Print events as they happen, of one domain or of all; with ``once`` only the first."""
    if name is not None and _is_uuid(name):
        name = ask("GET", of_domain(name))["name"]
    try:
        with connect() as client:
            for kind, event in client.listen("/v1/events"):
                if not kind or (name is not None and event["domain"] != name):
                    continue
                detail = f": {event['detail']}" if event["detail"] else ""
                print(json.dumps(event) if as_json else f"{event['domain']} {event['event']}{detail}", flush=True)
                if once:
                    break
    except RequestFailed as error:
        raise as_command_error(error) from None
    return Status.DONE
