"""What differs from run to run in an engine's answers, replaced by what it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

_ID: Final = re.compile(r"(?<![0-9a-zA-Z])(?:[0-9a-f]{64}|[0-9a-f]{12})(?![0-9a-zA-Z])")
_NO_TIME: Final = "0001-01-01T00:00:00Z"
_UNITS = r"(?:seconds?|minutes?|hours?|days?|weeks?)"
_SIZE_KEYS = "Size|VirtualSize|SizeRw|SizeRootFs|LayersSize|SharedSize|UniqueSize|SpaceReclaimed|size|total|current"
_PATH_KEYS = "HostnamePath|HostsPath|LogPath|ResolvConfPath|SandboxKey|Mountpoint|DockerRootDir"
#: In this order. An expression with a group keeps the group.
_EXPRESSIONS: Final = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z| ?[+-]\d\d:?\d\d(?: UTC)?)", "<time>"),
    (r"(?:[LlAa](?:ess|bout) (?:than )?an? (?:second|minute|hour)|\b\d+ {u})(?: ago)?".replace("{u}", _UNITS), "<ago>"),
    (rf"(\.(?:{_SIZE_KEYS}) = )[1-9]\d*", r"\g<1><size>"),
    (r"(\.Pid = )[1-9]\d*", r"\g<1><pid>"),
    (rf'((?:\.| ")(?:{_PATH_KEYS})(?: =|":) ")/[^"]*', r"\g<1><path>"),
    (r"\b1[6-9]\d{17}\b", "<nanoseconds>"),
    (r"\b1[6-9]\d{8}(?:\.\d{9})?\b", "<seconds>"),
    (r"\b(?:[1-9]\d*(?:\.\d+)?|0\.\d+)\s?(?:B|kB|MB|GB|KiB|MiB|GiB)(?![a-zA-Z])", "<size>"),
    (r"\b(?:172|192|10)\.\d+\.\d+\.\d+\b", "<address>"),
    (r"\b02:[0-9a-f]{2}(?::[0-9a-f]{2}){4}\b", "<mac>"),
    (r"\bamd64\b|\barm\b(?:/v\d)?|\bx86_64\b|\barmv\d[a-z]+\b", "<architecture>"),
    (r"\b(file|dir|multi):[0-9a-f]{16,}…?", r"\g<1>:<hash>"),
    (r"(?m)[ \t]+$", ""),
    (r"(?<=\S)[ \t]{2,}(?=\S)", "  "),
)
_COMPILED: Final = tuple((re.compile(pattern), into) for pattern, into in _EXPRESSIONS)


class Masks:
    """Replaces what differs. An id gets a number, so that it is seen where two are the same.

    ``places`` are texts, as directories, and what stands for them.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = sorted(places.items(), key=lambda item: -len(item[0]))
        self._ids: list[str] = []

    def masked(self, text: str) -> str:
        """Return a text with what differs replaced."""
        for place, name in self._places:
            text = text.replace(place, name)
        text = text.replace(_NO_TIME, "<no time>")
        text = _ID.sub(self._numbered(), text)
        for pattern, into in _COMPILED:
            text = pattern.sub(into, text)
        return text

    def _numbered(self) -> Callable[[re.Match[str]], str]:
        def number(found: re.Match[str]) -> str:
            text = found[0]
            for index, known in enumerate(self._ids):
                if known.startswith(text) or text.startswith(known):
                    self._ids[index] = max(known, text, key=len)
                    return f"<id {index}>" if len(text) == 64 else f"<short id {index}>"
            self._ids.append(text)
            return f"<id {len(self._ids) - 1}>" if len(text) == 64 else f"<short id {len(self._ids) - 1}>"

        return number
