"""The file .dockerignore: which paths of a context are no part of it."""

from __future__ import annotations

import posixpath
import re

from dbt.containers.build.trees import pattern


def is_ignored(document: str, path: str) -> bool:
    """Return True if a path, or a directory that it is in, is excluded. The last line that matches decides."""
    found = False
    for line in document.splitlines():
        text = line.strip()
        if not text or line.startswith("#"):
            continue
        is_exception = text.startswith("!")
        rule = posixpath.normpath(text.removeprefix("!").strip()).lstrip("/")
        match = _rule(rule)
        parents = [path.rsplit("/", count)[0] for count in range(1, path.count("/") + 1)]
        if found == is_exception and any(match.fullmatch(one) for one in (path, *parents)):
            found = not is_exception
    return found


def _rule(rule: str) -> re.Pattern[str]:
    """Return what a line matches, in which ``**`` stands for any number of directories."""
    parts = []
    for part in rule.split("/"):
        parts.append("(?:[^/]+/)*" if part == "**" else pattern(part).pattern + "/")
    return re.compile("".join(parts).removesuffix("/") + ("[^/]+" if rule.endswith("**") else ""), re.DOTALL)
