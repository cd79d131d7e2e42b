"""The definition of a virtual machine: what its TOML file says, as one checked value.

The options of the section ``machine`` are those of ``dbt run``. They are checked by whoever makes the machine
(:class:`dbt.daemon.machines.MachineMaker`), so that they are in one place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import Annotated, Any, Final, Literal, TypeVar, cast
from uuid import UUID

import msgspec
from msgspec import Meta

from dbt.daemon.errors import DefinitionError
from dbt.hypervisor.credit import DEFAULT_WEIGHT, MAX_WEIGHT, LatencyClass
from dbt.hypervisor.limits import MOST, LimitChanges
from dbt.vm.device_limits import DiskLimits, NetLimits, Rate

#: A name can be part of a path and of a web address as it is. In Python, $ also stands before a newline at the end.
NAME_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}$(?!\n)"
#: What is said of another one.
OF_NAMES: Final = "this is to begin with a letter, a digit or _, and to have at most 64 letters, digits and _ . + -"
_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<place>.*)`)?$", re.DOTALL)

#: What msgspec says, and what a person is told.
_WORDS = (
    ("`", ""),
    ("Invalid enum value", "there is no such value as"),
    ("Object missing required field", "there is no"),
    (" | null", ""),
    ("object", "a section"),
    ("array", "a list"),
    ("str", "text"),
)

#: The value of an option of ``dbt run``: a text or a number for one with a value, true for a flag, a list for one that
#: may be given several times.
OptionValue = str | int | bool | list[str]
#: Less than the limits of devices can be.
PerSecond = Annotated[int, Meta(ge=1, lt=1 << 48)]
Latency = Literal["interactive", "normal", "batch"]
GuestType = Literal["full", "pv"]

T = TypeVar("T")


class Share(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``share``: the domain's share of the host, as ``dbt vm schedinfo`` changes it."""

    weight: Annotated[int, Meta(ge=1, le=MAX_WEIGHT)] = DEFAULT_WEIGHT
    cap: Annotated[float, Meta(gt=0, le=1)] | None = None
    latency: Latency = "normal"


class MachineLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """The section ``limits``. None is no limit.

    ``memory`` is how many bytes of the host the machine's RAM may take. The others are what each disk and network card
    may do in a second of the guest's time: ``disk_bytes`` and ``disk_operations`` are read and written, and
    ``net_sent`` and ``net_received`` bits of frames. The verbs memtune, blkdeviotune and domiftune change them.
    """

    memory: Annotated[int, Meta(ge=1, le=MOST)] | None = None
    disk_bytes: PerSecond | None = None
    disk_operations: PerSecond | None = None
    net_sent: PerSecond | None = None
    net_received: PerSecond | None = None


class Definition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a virtual machine before it runs.

    ``directory`` is where the relative paths of its options begin; a file's own directory, if nothing else is said.
    ``type`` is "pv" for a domain of Xen, "full" for a board with devices, or None for what the options say.
    """

    name: Annotated[str, Meta(pattern=NAME_PATTERN)]
    machine: dict[str, OptionValue]
    uuid: UUID | None = None
    type: GuestType | None = None
    autostart: bool = False
    directory: str = "/"
    share: Share = Share()
    limits: MachineLimits = MachineLimits()

    @property
    def limits_of_domain(self) -> LimitChanges:
        """The limits of the domain. All are given, but for one of memory that is none: a cap of 1 is none."""
        share, most = self.share, self.limits
        return {
            "weight": share.weight,
            "cap": 1 if share.cap is None else share.cap,
            "latency": LatencyClass[share.latency.upper()],
            "memory": most.memory,
            "disks": DiskLimits(_rate(most.disk_bytes), _rate(most.disk_operations)),
            "nets": NetLimits(_rate(most.net_sent), _rate(most.net_received)),
        }

    def with_options(self, **options: OptionValue) -> Definition:
        """Return the definition with other values of options of its machine."""
        return msgspec.structs.replace(self, machine={**self.machine, **options})

    def with_machine_of(self, other: Definition) -> Definition:
        """Return the definition with the machine of another one. Name, UUID, share and limits are this one's."""
        return msgspec.structs.replace(self, machine=other.machine, type=other.type, directory=other.directory)


def _rate(per_second: int | None) -> Rate | None:
    return None if per_second is None else Rate(per_second)


def read_definition(data: object) -> Definition:
    """Return the definition that plain values describe, as TOML and JSON give them. Raise DefinitionError."""
    names = [name for kind in (Definition, Share, MachineLimits) for name in kind.__struct_encode_fields__]
    if isinstance(data, dict) and isinstance(options := data.get("machine"), dict):
        for name, value in options.items():  # where msgspec says of a mapping what is wrong, and not where
            checked(value, cast(Any, OptionValue), "the definition", names, f"machine.{name}")
    definition = checked(data, Definition, "the definition", names)
    if has_zero(data):
        raise DefinitionError("the definition is wrong: a text in it has a zero byte")
    if not os.path.isabs(definition.directory):
        raise DefinitionError(
            f"the definition is wrong at directory: {definition.directory!r} is no path that begins with /"
        )
    return definition


def has_zero(value: object) -> bool:
    """True if a text has a character that no name and no path can have."""
    if isinstance(value, dict):
        return any(has_zero(one) for pair in value.items() for one in pair)
    if isinstance(value, list):
        return any(map(has_zero, value))
    return isinstance(value, str) and "\0" in value


def checked(data: object, kind: type[T], what: str, names: Collection[str], at: str = "") -> T:
    """Return plain values as a ``kind``. Raise DefinitionError, which names the field, if they are none. ``names`` are
    those of the fields that there are, and ``at`` is where the values are in a whole.
    """
    try:
        return msgspec.convert(data, kind, strict=True)
    except msgspec.ValidationError as error:
        found = _PLACE.match(str(error))
        assert found is not None
        place = f"{at}{found['place'] or ''}".lstrip(".")
        raise DefinitionError(
            f"{what} is wrong{f' at {place}' if place else ''}: {_plain(found['what'], names)}"
        ) from None


def _plain(text: str, names: Collection[str]) -> str:
    """Return a message of msgspec in words."""
    if "matching regex" in text:
        return OF_NAMES
    if "unknown field" in text:
        from difflib import get_close_matches

        unknown = text.split("`")[1]
        near = get_close_matches(unknown, names, n=1)
        return f"there is no {unknown}" + (f"; there is {near[0]}" if near else f", but {', '.join(sorted(names))}")
    for word, better in _WORDS:
        text = text.replace(word, better)
    return text[:1].lower() + text[1:]


def plain(definition: Definition) -> dict[str, Any]:
    """Return a definition as plain values, from which :func:`read_definition` makes it again."""
    found = msgspec.to_builtins(definition)
    assert isinstance(found, dict)
    return found
