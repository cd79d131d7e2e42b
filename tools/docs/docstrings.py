"""Docstrings for the documentation site: the little reStructuredText that they have becomes Markdown.

Roles such as :class:`griffe.Extension` become links where the site has the target, and simple tables become tables.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc|const):`(?P<target>[^`]+)`")
_LITERAL = re.compile(r"``(?P<text>[^`]+)``")
_RULE = re.compile(r"^(=+)( +=+)+$")


def _link(match: re.Match[str], scope: str) -> str:
    target = match["target"].lstrip("~")
    full = target if "." in target or not scope else f"{scope}.{target}"
    return f'<autoref identifier="{full}" optional><code>{target}</code></autoref>'


def _literals(line: str) -> str:
    """Code in a line has single backticks in Markdown, and none in a listing."""
    return _LITERAL.sub(r"\g<text>" if line.startswith("    ") else r"`\g<text>`", line)


def _row(line: str, starts: list[int]) -> list[str]:
    ends = [*starts[1:], len(line)]
    return [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]


def _tables(text: str) -> str:
    """Replace tables between rules of ``=``."""
    out: list[str] = []
    starts: list[int] | None = None
    rows: list[list[str]] = []
    for line in text.splitlines():
        if _RULE.match(line.strip()) and starts is None:
            starts = [match.start() for match in re.finditer("=+", line)]
            rows = []
        elif _RULE.match(line.strip()) and starts is not None:
            out += ["", "| " * len(starts) + "|", "| --- " * len(starts) + "|"]
            out += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
            out.append("")
            starts = None
        elif starts is not None:
            row = _row(line, starts)
            if row[0] or not rows:
                rows.append(row)
            else:  # the second line of a row
                rows[-1] = [f"{a} {b}".strip() for a, b in zip(rows[-1], row, strict=True)]
        else:
            out.append(line)
    return "\n".join(out)


class Markdown(Extension):
    """Rewrites the docstring of each object that is loaded."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is None:
            return
        scope = obj.path if obj.is_class or obj.is_module else obj.path.rpartition(".")[0]
        text = _ROLE.sub(lambda match: _link(match, scope), obj.docstring.value)
        obj.docstring.value = _tables("\n".join(map(_literals, text.splitlines())))
