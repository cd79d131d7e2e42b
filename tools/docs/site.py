"""Pages of the documentation site that are not files of docs/: those of the root, and those made from the code.

mkdocs calls the functions named ``on_...``. README and its like stay where readers of the repository look for them. A
link from them to a page leads to that page; one to any other file of the repository becomes its name.
"""

from __future__ import annotations

import argparse
import json
import os
import posixpath
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]

#: Files of the repository that are pages, and where.
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")
_HELP_WIDTH = 100


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to those that mkdocs has found."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    for page, text in (("cli.md", command_line()), ("instructions.md", instructions()), ("choices.md", choices())):
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Have the links lead to pages, wherever the file that has them is."""
    source = Path(page.file.abs_src_path) if page.file.abs_src_path else None
    if source is None:
        return markdown
    folder = source.relative_to(ROOT).parent.as_posix()

    def replace(match: re.Match[str]) -> str:
        target = match["target"]
        if not target or "://" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        if not (ROOT / path).exists():
            return match[0]  # mkdocs reports it
        destination = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if destination is None:
            return match["text"] if match["text"].startswith("`") else f"{match['text']} (`{path}`)"
        relative = posixpath.relpath(destination, posixpath.dirname(page.file.src_uri) or ".")
        return f"{match['image']}[{match['text']}]({relative}{match['anchor'] or ''})"

    return _LINK.sub(replace, markdown)


# -- pages made from the code ----------------------------------------------------------------------


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _parsers(command)


def command_line() -> str:
    """What each command's ``--help`` prints."""
    from dbt.cli.parser import make_parser

    os.environ["COLUMNS"] = str(_HELP_WIDTH)
    names = [parser.prog.split()[-1] for parser in _parsers(make_parser([]))][1:]
    parsers: list[argparse.ArgumentParser] = [make_parser([])]
    for name in names:
        parsers += [parser for parser in _parsers(make_parser([name])) if parser.prog.split()[1:2] == [name]]
    sections = [f"## {parser.prog}\n\n```text\n{parser.format_help().rstrip()}\n```\n" for parser in parsers]
    return "# Command line\n\nThis page is what `--help` of each command prints.\n\n" + "\n".join(sections)


def instructions() -> str:
    """A table of the specification, as ``dbt isa`` has it."""
    command = [sys.executable, "-P", "-m", "dbt", "isa", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    rows = json.loads(done.stdout)
    lines = [
        "# Instructions",
        "",
        f"The specification in `isa/` has {len(rows)} instructions; `dbt isa` prints the same list. *Since* is the",
        "version of the architecture that introduced the instruction. The section is that of the ARM Architecture",
        "Reference Manual ARMv7-A/R (DDI 0406C). The [glossary](glossary.md#sensitive) explains the classes.",
        "",
        "| instruction | syntax | section | since | class |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        syntax = row["syntax"].replace("|", "\\|")
        lines.append(f"| {row['name']} | `{syntax}` | {row['section']} | ARMv{row['since']} | {row['class']} |")
    return "\n".join(lines) + "\n"


def choices() -> str:
    """A table of :mod:`isa.arm.choices`."""
    from isa.arm.choices import CHOICES

    def cell(text: str) -> str:
        return text.replace("|", "\\|").replace("<", "&lt;")

    lines = [
        "# Choices",
        "",
        "The architecture leaves some behaviour open. This table lists every case, what dbt does, and why. It is made",
        "from `isa/arm/choices.py`. The place in the code that makes a choice names it in a comment, `choice: NAME`.",
        "",
        "| name | the manual calls it | where | what dbt does | why |",
        "| --- | --- | --- | --- | --- |",
    ]
    for choice in CHOICES:
        row = (f"`{choice.name}`", choice.freedom.value, choice.where, choice.chosen, choice.why)
        lines.append("| " + " | ".join(map(cell, row)) + " |")
    return "\n".join(lines) + "\n"
