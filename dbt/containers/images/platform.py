"""Platforms: what a user asks for, and whether an image is for that. Texts and answers are dockerd's."""

from __future__ import annotations

import json
import re
from typing import Final, NamedTuple

from dbt.containers.images.config import ImageConfig
from dbt.containers.images.errors import ImageNotFound, InvalidPlatform

#: What a platform that names no architecture has.
_ARCHITECTURE: Final = "arm"
_COMPONENT: Final = re.compile(r"[A-Za-z0-9_-]+")
_PATTERN: Final = "^[A-Za-z0-9_-]+$"
#: What Go calls systems and architectures: a single word has to be one of these.
_SYSTEMS: Final = frozenset({
    "aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "js", "linux", "nacl", "netbsd", "openbsd",
    "plan9", "solaris", "windows", "zos",
})  # fmt: skip
_ARCHITECTURES: Final = frozenset({
    "386", "amd64", "amd64p32", "arm", "armbe", "arm64", "arm64be", "loong64", "mips", "mipsle", "mips64", "mips64le",
    "mips64p32", "mips64p32le", "ppc", "ppc64", "ppc64le", "riscv", "riscv64", "s390", "s390x", "sparc", "sparc64",
    "wasm",
})  # fmt: skip
#: Other names of architectures: what they are called, and the variant that some of them mean.
_ALIASES: Final = {
    "i386": ("386", ""),
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", None),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}


class Platform(NamedTuple):
    """What an image runs on, as in "linux/arm/v5"."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


def parse_platform(text: str) -> Platform:
    """Return the platform that a user names, by its usual names. Raise InvalidPlatform."""
    parts = text.split("/")
    if len(parts) > 3:
        raise InvalidPlatform(f"{_quoted(text)}: cannot parse platform specifier: invalid argument")
    for part in parts:
        if not _COMPONENT.fullmatch(part):
            raise InvalidPlatform(
                f"{_quoted(part)} is an invalid component of {_quoted(text)}: platform specifier component must match "
                f"{_quoted(_PATTERN)}: invalid argument"
            )
    words = [part.lower() for part in parts]
    system = "darwin" if words[0] == "macos" else words[0]
    if len(words) == 1 and system in _SYSTEMS:
        return Platform(system, _ARCHITECTURE)
    if len(words) == 1:
        found = Platform("linux", *_architecture(words[0], ""))
        if found.architecture not in _ARCHITECTURES:
            raise InvalidPlatform(f"{_quoted(text)}: unknown operating system or architecture: invalid argument")
    else:
        found = Platform(system, *_architecture(words[1], words[2] if len(words) == 3 else ""))
    return found._replace(variant="") if len(words) < 3 and found[1:] == ("arm", "v7") else found


def _architecture(name: str, variant: str) -> tuple[str, str]:
    """Return an architecture and its variant by their usual names."""
    name, meant = _ALIASES.get(name, (name, None))
    variant = variant if meant is None else meant
    if name == "arm":
        return name, f"v{variant}" if variant in ("5", "6", "7", "8") else variant or "v7"
    return name, "" if name == "arm64" and variant in ("8", "v8") else variant


def check_wanted(name: str, config: ImageConfig, wanted: Platform) -> None:
    """Raise ImageNotFound if an image, which was found by ``name``, is for another platform than the wanted one."""
    actual = Platform(config.os, config.architecture, config.variant)
    if not _is_for(actual, wanted):
        raise ImageNotFound(
            f"image with reference {name} was found but does not match the specified platform: wanted {wanted}, "
            f"actual: {actual}"
        )


def _is_for(actual: Platform, wanted: Platform) -> bool:
    """Return whether an image for a variant of arm runs on what is wanted, as older ones do on newer processors."""
    if actual.os != wanted.os or actual.architecture != "arm" or wanted.architecture not in ("arm", "arm64"):
        return False
    newest = _version(wanted.variant or ("v7" if wanted.architecture == "arm" else "v8"))
    return actual.variant in ("", wanted.variant) or 5 <= _version(actual.variant) <= newest


def _version(variant: str) -> int:
    """Return which version of the architecture a variant of arm is, or 0 if it is none."""
    found = re.fullmatch(r"v([0-9]{1,4})", variant)
    return int(found[1]) if found else 0


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
