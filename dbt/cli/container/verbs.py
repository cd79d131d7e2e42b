"""What the short commands do: each is a few requests of docker's API."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import quote

from dbt.cli.container.connection import ask, connect
from dbt.cli.container.streams import Frames, carry, terminal, write
from dbt.cli.status import CommandError, Status
from dbt.daemon.client import RequestFailed

_NOT_EXECUTED, _NOT_FOUND = 126, 127
_MISSING: Final = ("executable file not found", "no such file or directory")
_UNITS: Final = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def run(parsed: argparse.Namespace) -> int:
    """Make a container, start it, and be at its streams until its end unless it is detached."""
    body = _wishes(parsed)
    query = {"name": parsed.name} if parsed.name else {}
    try:
        with connect() as client:
            made = client.ask("POST", "/containers/create", body, **query)
    except RequestFailed as error:
        if error.status != 404:
            raise CommandError(f"{error}.", Status.FAILURE) from None
        pull_image(parsed.image)
        made = ask("POST", "/containers/create", body, **query)
    for warning in made["Warnings"]:
        print(f"dbt: {warning}", file=sys.stderr)
    path = f"/containers/{made['Id']}"
    if parsed.detach:
        _start(path)
        print(made["Id"])
        return Status.DONE
    return _run_attached(path, parsed.interactive, parsed.tty, parsed.rm)


def _run_attached(path: str, has_input: bool, has_terminal: bool, is_removed: bool) -> int:
    with connect() as streams, connect() as waiting, contextlib.ExitStack() as opened:
        early = streams.hijack(f"{path}/attach", stream=1, stdin=int(has_input), stdout=1, stderr=1)
        answer = waiting.begin("POST", f"{path}/wait", condition="removed" if is_removed else "next-exit")
        if (code := _start(path)) is not None:
            return code
        if has_terminal and os.isatty(0):
            opened.enter_context(terminal(lambda rows, columns: _resize(path, rows, columns)))
        carry(streams.socket, early, has_input, has_terminal)
        found = json.loads(b"".join(answer))
        status = found["StatusCode"]
        assert isinstance(status, int)
        return status


def _start(path: str) -> int | None:
    """Start a container. Return None, or the status of a program that could not be executed."""
    try:
        with connect() as client:
            client.ask("POST", f"{path}/start")
    except RequestFailed as error:
        text = str(error)
        if any(one in text for one in _MISSING):
            print(f"dbt: {text}", file=sys.stderr)
            return _NOT_FOUND
        if "permission denied" in text:
            print(f"dbt: {text}", file=sys.stderr)
            return _NOT_EXECUTED
        raise CommandError(f"{text}.", Status.FAILURE) from None
    return None


def _resize(path: str, rows: int, columns: int) -> None:
    with contextlib.suppress(CommandError):  # it has just ended, or has not begun
        ask("POST", f"{path}/resize", h=rows, w=columns)


def _wishes(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the body of the request for a container."""
    ports: dict[str, list[dict[str, str]]] = {}
    for text in parsed.publish:
        *places, inner = text.rsplit(":", 2)
        name = inner if "/" in inner else f"{inner}/tcp"
        address, port = (["", *places] if len(places) < 2 else places)[-2:] if places else ("", "")
        ports.setdefault(name, []).append({"HostIp": address, "HostPort": port})
    host = {
        "AutoRemove": parsed.rm,
        "Binds": [_bind(text) for text in parsed.volume],
        "NetworkMode": parsed.network or "default",
        "PortBindings": ports,
        "RestartPolicy": _policy(parsed.restart),
        "Memory": _size(parsed.memory),
        "NanoCpus": _billionths(parsed.cpus),
    }
    attached = not parsed.detach
    return {
        "Image": parsed.image,
        "Cmd": parsed.argv or None,
        "Entrypoint": None if parsed.entrypoint is None else [parsed.entrypoint],
        "Env": [one if "=" in one else f"{one}={os.environ.get(one, '')}" for one in parsed.env],
        "WorkingDir": parsed.workdir or "",
        "User": parsed.user or "",
        "Hostname": parsed.hostname or "",
        "Tty": parsed.tty,
        "OpenStdin": parsed.interactive,
        "StdinOnce": parsed.interactive and attached,
        "AttachStdin": parsed.interactive and attached,
        "AttachStdout": attached,
        "AttachStderr": attached,
        "ExposedPorts": {name: {} for name in ports},
        "Labels": {"dbt.record": parsed.record} if parsed.record else {},
        "HostConfig": host,
    }


def _bind(text: str) -> str:
    """Return a bind whose source on this host is an absolute path. A name without a slash is a volume's."""
    source, colon, rest = text.partition(":")
    return f"{os.path.abspath(source)}{colon}{rest}" if "/" in source or source in (".", "..") else text


def _policy(text: str | None) -> dict[str, Any]:
    name, _, most = (text or "no").partition(":")
    return {"Name": name, "MaximumRetryCount": int(most) if most.isdigit() else 0}


def _size(text: str | None) -> int:
    if not text:
        return 0
    number, unit = (text[:-1], text[-1].lower()) if not text[-1].isdigit() else (text, "b")
    if not number.isdigit() or unit not in _UNITS:
        raise CommandError(f"--memory {text}: write a number and b, k, m or g, as 64m.", Status.USAGE)
    return int(number) * _UNITS[unit]


def _billionths(text: str | None) -> int:
    try:
        return int(float(text or 0) * 10**9)
    except ValueError:
        raise CommandError(f"--cpus {text}: write a number, as 0.5.", Status.USAGE) from None


def execute(parsed: argparse.Namespace) -> int:
    """Run another program in a container."""
    wish = {
        "AttachStdin": parsed.interactive,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": parsed.tty,
        "Cmd": parsed.argv,
        "Env": parsed.env,
        "User": parsed.user or "",
        "WorkingDir": parsed.workdir or "",
    }
    path = f"/exec/{ask('POST', f'{_of(parsed.container)}/exec', wish)['Id']}"
    with connect() as streams, contextlib.ExitStack() as opened:
        early = streams.hijack(f"{path}/start", {"Detach": False, "Tty": parsed.tty})
        if parsed.tty and os.isatty(0):
            opened.enter_context(terminal(lambda rows, columns: _resize(path, rows, columns)))
        carry(streams.socket, early, parsed.interactive, parsed.tty)
    while (code := ask("GET", f"{path}/json")["ExitCode"]) is None:
        time.sleep(0.01)
    assert isinstance(code, int)
    return code


def _of(container: str) -> str:
    return f"/containers/{quote(container, safe='')}"


def ps(parsed: argparse.Namespace) -> int:
    """List containers."""
    found = ask("GET", "/containers/json", all=int(parsed.all))
    if parsed.quiet:
        print("".join(f"{one['Id'][:12]}\n" for one in found), end="")
        return Status.DONE
    rows = [
        (one["Id"][:12], one["Image"], one["Command"][:30], one["Status"], one["Names"][0].removeprefix("/"))
        for one in found
    ]
    _print_table(("CONTAINER ID", "IMAGE", "COMMAND", "STATUS", "NAME"), rows)
    return Status.DONE


def resume(parsed: argparse.Namespace) -> int:
    """Let a container go on, with --force also if it may run elsewhere."""
    id = ask("GET", f"/containers/{quote(parsed.container, safe='')}/json")["Id"]
    ask("POST", f"/dbt/containers/{id}/resume", force=int(parsed.force))
    print(id)
    return Status.DONE


def migrate(parsed: argparse.Namespace) -> int:
    """Move a container to another engine, and print its id."""
    destination = parsed.destination
    if not destination.startswith("tcp:"):
        destination = os.path.abspath(destination.removeprefix("unix:"))
    credentials = os.path.abspath(parsed.tls_creds) if parsed.tls_creds else ""
    id = ask("GET", f"/containers/{quote(parsed.container, safe='')}/json")["Id"]
    ask("POST", f"/dbt/containers/{id}/migrate", destination=destination, tlscreds=credentials)
    print(id)
    return Status.DONE


def images(parsed: argparse.Namespace) -> int:
    """List images."""
    rows = []
    for one in ask("GET", "/images/json"):
        for name in one["RepoTags"] or ["<none>:<none>"]:
            repository, _, tag = name.rpartition(":")
            rows.append((repository, tag, one["Id"].removeprefix("sha256:")[:12], f"{one['Size'] / 1e6:.1f} MB"))
    _print_table(("REPOSITORY", "TAG", "IMAGE ID", "SIZE"), rows)
    return Status.DONE


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in [titles, *rows]) for column in range(len(titles))]
    for row in [titles, *rows]:
        print("   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def logs(parsed: argparse.Namespace) -> int:
    """Write what a container has written."""
    has_terminal = ask("GET", f"{_of(parsed.container)}/json")["Config"]["Tty"]
    frames = Frames()
    query = {"stdout": 1, "stderr": 1, "follow": int(parsed.follow), "timestamps": int(parsed.timestamps)}
    try:
        with connect() as client:
            for piece in client.begin("GET", f"{_of(parsed.container)}/logs", None, tail=parsed.tail or "all", **query):
                if has_terminal:
                    write(1, piece)
                else:
                    frames.take(piece)
    except RequestFailed as error:
        raise CommandError(f"{error}.", Status.FAILURE) from None
    return Status.DONE


def pull(parsed: argparse.Namespace) -> int:
    """Get an image from its registry."""
    pull_image(parsed.image)
    return Status.DONE


def pull_image(name: str) -> None:
    """Get an image from its registry, and say how far it is. Raise CommandError."""
    last = name.rpartition("/")[2]
    query = {"fromImage": name} if ":" in last or "@" in last else {"fromImage": name, "tag": "latest"}
    try:
        with connect() as client:
            for message in _messages(client.begin("POST", "/images/create", None, **query)):
                if "error" in message:
                    raise CommandError(f"{message['error']}.", Status.FAILURE)
                if "progressDetail" not in message or not message["progressDetail"]:
                    name = f"{message['id']}: " if message.get("id") else ""
                    print(f"{name}{message.get('status', '')}", file=sys.stderr)
    except RequestFailed as error:
        raise CommandError(f"{error}.", Status.FAILURE) from None


def _messages(pieces: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    text = b""
    for piece in pieces:
        *lines, text = (text + piece).split(b"\n")
        yield from (json.loads(line) for line in lines if line.strip())
    if text.strip():
        yield json.loads(text)


def stop(parsed: argparse.Namespace) -> int:
    """Let containers end."""
    query = {} if parsed.time is None else {"t": parsed.time}
    return _each(parsed.containers, lambda name: ask("POST", f"{_of(name)}/stop", None, **query))


def remove(parsed: argparse.Namespace) -> int:
    """Remove containers."""
    return _each(parsed.containers, lambda name: ask("DELETE", _of(name), None, force=int(parsed.force), v=1))


def _each(names: Sequence[str], work: Any) -> int:
    """Do something with each, also if it fails with others. Print their names."""
    status: int = Status.DONE
    for name in names:
        try:
            work(name)
            print(name)
        except CommandError as error:
            print(f"dbt: {error}", file=sys.stderr)
            status = error.status
    return status
