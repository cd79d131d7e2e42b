"""What documents and docstrings name exists: files, links, modules and what is in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "guests" / "README.md"])
SOURCES = sorted(path for folder in ("dbt", "isa") for path in (ROOT / folder).rglob("*.py"))

_PATH = re.compile(r"`((?:isa|dbt|tests|tools|guests|docs)/[\w./-]*)`")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
_ROLE = re.compile(r":(?:mod|class|func|meth|data|attr|exc):`~?((?:dbt|isa)\.[\w.]+)`")


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
