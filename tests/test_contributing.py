"""The how-tos of CONTRIBUTING.md apply to the sources as they are, and commands of documents do what they show.

A listing under a line with a path is a file: a new one, or with ``diff`` a change to one. A ``console`` listing has
commands after ``$``, each with the output that it must have, in which ``...`` stands for anything. A comment behind a
command says that it ``fails``, or ``needs`` a program without which it is left out. The commands take minutes:
``make long``. At the end of an example, ruff and mypy look at what it has changed.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.long import long_only

ROOT = Path(__file__).resolve().parents[1]
#: What the commands need of the sources.
COPIED = ("dbt", "guests/images", "isa", "pyproject.toml", "tests", "tools", "typings")
#: What looks at the Python files that an example has changed, where it is installed.
CHECKS = (("ruff", "check"), ("ruff", "format", "--check"), ("mypy",))
TIMEOUT_S = 600

_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_LISTING = re.compile(r"(?:^`([\w./-]+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"\$ (?P<text>.+?)(?:   # (?P<what>needs|fails) ?(?P<program>\S*))?$")


@pytest.fixture(autouse=True)
def _hot_as_for_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBT_HOT_AFTER")


@dataclass(frozen=True)
class Listing:
    """``title`` is the file's path in the repository, or empty."""

    title: str
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """``output`` is a pattern; ``needs`` a program, or empty."""

    text: str
    needs: str
    fails: bool
    output: re.Pattern[str]


def listings_of(text: str) -> list[Listing]:
    return [Listing(*match.groups(default="")) for match in _LISTING.finditer(text)]


def howtos() -> dict[str, list[Listing]]:
    """The listings of each section of CONTRIBUTING.md that changes files, by its title, and of other documents."""
    parts = _SECTION.split((ROOT / "CONTRIBUTING.md").read_text())
    sections = {title: listings_of(text) for title, text in zip(parts[1::2], parts[2::2], strict=True)}
    found = {title: listings for title, listings in sections.items() if any(one.title for one in listings)}
    return found | {"docs/concepts.md": listings_of((ROOT / "docs" / "concepts.md").read_text())}


HOWTOS = howtos()


def changed(before: str, diff: str) -> str:
    """The file after a change: the lines without a plus must stand in it, together and once."""
    lines = diff.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if not line.startswith("+"))
    new = "".join(line[1:] for line in lines if not line.startswith("-"))
    assert before.count(old) == 1, f"it has {before.count(old)} times\n{old}"
    return before.replace(old, new)


def commands(text: str) -> Iterator[Command]:
    for part in re.split(r"^(?=\$ )", text, flags=re.MULTILINE)[1:]:
        first, _, output = part.partition("\n")
        match = _COMMAND.fullmatch(first)
        assert match is not None, first
        expected = ".*?".join(map(re.escape, output.split("...")))
        pattern = re.compile(expected, re.DOTALL)
        yield Command(match["text"], match["program"] or "", match["what"] == "fails", pattern)


@pytest.mark.parametrize("title", HOWTOS)
def test_the_changes_apply(title: str) -> None:
    files: dict[str, str] = {}
    for listing in HOWTOS[title]:
        if listing.language == "diff":
            before = files.get(listing.title) or (ROOT / listing.title).read_text()
            files[listing.title] = changed(before, listing.text)
        elif listing.title:
            assert listing.title.startswith("build/") or not (ROOT / listing.title).exists()
            files[listing.title] = listing.text
        else:
            assert all(command.text for command in commands(listing.text))
    for name, text in files.items():
        if name.endswith(".py"):
            ast.parse(text)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources, with the commands ``python`` and ``dbt`` for it in its folder ``bin``."""
    tree = tmp_path / "tree"
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree / name)
    for folder in ("bin", "build"):
        (tree / folder).mkdir()
    for name, arguments in (("python", ""), ("dbt", " -P -m dbt")):
        path = tree / "bin" / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return tree


@dataclass(frozen=True)
class Shell:
    """Runs commands in a copy of the sources."""

    tree: Path

    def run(self, command: str) -> tuple[int, str]:
        """Return the status and what was written to standard output and standard error."""
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.tree,
            env=os.environ
            | {
                "PATH": f"{self.tree / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": str(self.tree),
                "DBT_CACHE_DIR": str(self.tree / "build" / "cache"),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        return done.returncode, done.stdout


@long_only
@pytest.mark.parametrize("title", HOWTOS)
def test_the_commands_do_what_they_show(title: str, tree: Path) -> None:
    shell = Shell(tree)
    for listing in HOWTOS[title]:
        if listing.title:
            path = tree / listing.title
            path.write_text(changed(path.read_text(), listing.text) if listing.language == "diff" else listing.text)
            continue
        for command in commands(listing.text):
            if command.needs and shutil.which(command.needs) is None:
                continue
            status, output = shell.run(command.text)
            shown = f"$ {command.text}\n{output}"
            assert (status != 0) == command.fails, shown
            assert command.output.search(output), f"{shown}\ninstead of\n{command.output.pattern}"
    sources = sorted({listing.title for listing in HOWTOS[title] if listing.title.endswith(".py")})
    for tool, *options in CHECKS if sources else ():
        if importlib.util.find_spec(tool) is not None:
            status, output = shell.run(shlex.join(["python", "-m", tool, *options, *sources]))
            assert status == 0, f"{tool} of {sources}\n{output}"
