"""What documents and docstrings name exists: files, links, modules and what is in them. README's examples run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "guests" / "README.md"])
SOURCES = sorted(path for folder in ("dbt", "isa") for path in (ROOT / folder).rglob("*.py"))

README = (ROOT / "README.md").read_text()
_PYTHON = [sys.executable, "-P"]

# A path above a listing may be that of a new file: see tests/test_contributing.py.
_PATH = re.compile(r"`((?:isa|dbt|tests|tools|guests|docs)/[\w./-]*)`(?!:\n\n```)")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
_ROLE = re.compile(r":(?:mod|class|func|meth|data|attr|exc):`~?((?:dbt|isa)\.[\w.]+)`")


@pytest.fixture(autouse=True)
def _hot_as_for_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBT_HOT_AFTER")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def defines(dotted: str) -> bool:
    """Whether ``package.module.Name.attribute`` leads to a module and, as far as its text tells, to what is in it."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:length])
        file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if file.exists():
            text = file.read_text()
            return all(re.search(rf"^\s*(?:def |class )?{name}\b", text, re.MULTILINE) for name in parts[length:])
    return False


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_the_files_that_a_document_names_exist(document: Path) -> None:
    text = document.read_text()
    assert not [name for name in _PATH.findall(text) if not (ROOT / name).exists()]
    if "docs" not in document.relative_to(ROOT).parts:  # the strict build looks after those
        links = [target for target in _LINK.findall(text) if "://" not in target]
        assert not [target for target in links if not (document.parent / target).exists()]


@pytest.mark.parametrize("source", SOURCES, ids=relative)
def test_the_references_of_docstrings_lead_somewhere(source: Path) -> None:
    assert not [name for name in _ROLE.findall(source.read_text()) if not defines(name)]


def run(command: list[str], folder: Path) -> str:
    """Run a command where ``guests/`` is; what it printed."""
    if not (folder / "guests").exists():
        (folder / "guests").symlink_to(ROOT / "guests")
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout.decode()


def test_the_commands_to_try_work(tmp_path: Path) -> None:
    section = README.split("## Try it\n")[1].split("\n## ")[0]
    commands = re.findall(r"^    dbt (.+)$", section, re.MULTILINE)
    assert len(commands) > 10
    for command in commands:
        run([*_PYTHON, "-m", "dbt", *shlex.split(command, comments=True)], tmp_path)


def test_the_example_of_a_fuzzer_works(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "fuzzing.md").read_text()
    (source,) = re.findall(r"^```asm\n(.+?)^```$", text, re.MULTILINE | re.DOTALL)
    (example,) = re.findall(r"^```python\n(.+?)^```$", text, re.MULTILINE | re.DOTALL)
    (command,) = re.findall(r"^    dbt (.+)$", text, re.MULTILINE)
    (tmp_path / "parser.s").write_text(source)
    run([*_PYTHON, "-m", "dbt", *shlex.split(command)], tmp_path)
    printed = run([*_PYTHON, "-c", example.replace("10_000\n\n", "1_000\n\n")], tmp_path)
    assert re.match(r"0x10030: 53 04 .+\n.*strb r2, \[r5, r4\]", printed), printed


def test_the_example_of_many_machines_works(tmp_path: Path) -> None:
    example, _ = re.findall(r"^```python\n(.+?)^```$", (ROOT / "docs" / "domains.md").read_text(), re.M | re.DOTALL)
    *lines, last = run([*_PYTHON, "-c", example], tmp_path).splitlines()
    used = {name: int(units) for name, units in map(str.split, lines)}
    assert used["medium"] == 2 * used["small"]
    assert used["large"] == 4 * used["small"]
    assert last.startswith("0 b'")


def test_the_example_of_a_cluster_works(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```python\n(.+?)^```$", (ROOT / "docs" / "clusters.md").read_text(), re.M | re.DOTALL)
    assert run([*_PYTHON, "-c", example], tmp_path).startswith("True b'")


def test_the_example_in_python_works(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```python\n(.+?)^```$", README, re.MULTILINE | re.DOTALL)
    printed = run([*_PYTHON, "-c", example], tmp_path)
    assert "StopReason.FUEL 100000 " in printed
    assert printed.endswith("\n0\n")
