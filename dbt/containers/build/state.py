"""A stage in the middle of its build: the image so far, and what its next one is to have."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from dbt.containers.images.image import Image, Layer

_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHELL: Final = ("/bin/sh", "-c")
#: Arguments that every build may be given without ARG, and which are no part of what identifies a step.
PREDEFINED: Final = frozenset(
    name for one in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY") for name in (one, one.lower())
)
_EMPTY: Final[Mapping[str, Any]] = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False, "AttachStderr": False,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": [], "Cmd": None, "Image": "", "Volumes": None,
    "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": None,
}  # fmt: skip


class Arguments:
    """What ARG has declared, and what the user has given."""

    def __init__(self, given: Mapping[str, str | None]) -> None:
        self._given = given
        self._meta: dict[str, str | None] = {}
        self._declared: dict[str, str | None] = {}
        self._used: set[str] = set()

    def declare_before_stages(self, name: str, value: str | None) -> None:
        self._meta[name] = value
        self._used.add(name)

    def begin_stage(self) -> None:
        self._declared = {}

    def declare(self, name: str, value: str | None) -> None:
        """Have an argument from here on. Without a value, it has that from before the stages."""
        self._declared[name] = self._meta.get(name) if value is None else value
        self._used.add(name)

    def before_stages(self) -> dict[str, str]:
        """Return what FROM may use."""
        return self._values(self._meta)

    def in_stage(self) -> dict[str, str]:
        """Return what has been declared in the stage, as far as it has values."""
        return self._values(self._declared)

    def _values(self, declared: Mapping[str, str | None]) -> dict[str, str]:
        given = {name: self._given[name] for name in declared if self._given.get(name) is not None}
        return {name: value for name, value in {**declared, **given}.items() if value is not None}

    def predefined(self) -> dict[str, str]:
        """Return those that are given without ARG."""
        return {
            name: value
            for name, value in self._given.items()
            if value is not None and name in PREDEFINED and name not in self._declared
        }

    def left_over(self) -> list[str]:
        """Return what was given for nothing."""
        return sorted(set(self._given) - self._used - PREDEFINED)


@dataclass
class State:
    """A stage. ``config`` has docker's names. ``image`` is None as long as the stage is from scratch and empty."""

    image: Image | None = None
    config: dict[str, Any] = field(default_factory=lambda: dict(copy.deepcopy(_EMPTY)))
    author: str = ""
    has_command: bool = False
    is_missing_cache: bool = False

    @classmethod
    def of(cls, image: Image | None) -> State:
        """Return the state of a stage that begins with an image."""
        state = cls(image)
        if image is not None:
            document = image.json()
            state.config |= copy.deepcopy(document.get("config") or {})
            state.author = str(document.get("author") or "")
        state.config["OnBuild"] = None
        state.config["Env"] = list(state.config.get("Env") or [])
        if not any(entry.startswith("PATH=") for entry in state.config["Env"]):
            state.config["Env"].append(_PATH)
        return state

    @property
    def id(self) -> str:
        return self.image.id if self.image else ""

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.image.layers if self.image else ()

    @property
    def shell(self) -> list[str]:
        return list(self.config.get("Shell") or _SHELL)

    @property
    def variables(self) -> dict[str, str]:
        """The environment by names."""
        found: dict[str, str] = {}
        for entry in self.config["Env"]:
            name, _, value = entry.partition("=")
            found.setdefault(name, value)
        return found

    def set_variable(self, name: str, value: str) -> None:
        entries = self.config["Env"]
        for number, entry in enumerate(entries):
            if entry.partition("=")[0] == name:
                entries[number] = f"{name}={value}"
                return
        entries.append(f"{name}={value}")

    def with_command(self, command: Sequence[str], **changes: Any) -> dict[str, Any]:
        """Return the configuration of a container that does a step."""
        return copy.deepcopy(self.config) | {"Cmd": list(command)} | changes

    def comment(self, text: str, is_spaced: bool = True) -> dict[str, Any]:
        """Return the configuration of a container that does nothing but to stand for a step."""
        nothing = ["#(nop) ", text] if is_spaced else [f"#(nop) {text}"]
        return self.with_command([*self.shell, *nothing])

    def document(self, container: dict[str, Any], container_id: str, layer: Layer | None) -> bytes:
        """Return the configuration of the image that a step has made. ``layer`` is None if it has changed no file."""
        base = self.image.json() if self.image else {}
        diff_ids = [one.diff_id for one in self.layers] + ([layer.diff_id] if layer else [])
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        entry: dict[str, Any] = {"created": now, "created_by": " ".join(container.get("Cmd") or [])}
        entry |= {"author": self.author} if self.author else {}
        entry |= {} if layer else {"empty_layer": True}
        found: dict[str, Any] = {
            "architecture": base.get("architecture") or "arm",
            "config": self.config,
            "container": container_id,
            "container_config": container,
            "created": now,
            "docker_version": "20.10.24",
            "history": [*(base.get("history") or []), entry],
            "os": base.get("os") or "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        variant = base.get("variant", "" if base else "v5")
        found |= {"variant": variant} if variant else {}
        found |= {"author": self.author} if self.author else {}
        return json.dumps(found, sort_keys=True).encode()
