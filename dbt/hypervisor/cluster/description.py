"""Clusters described by a file in TOML: hubs, machines, and what is typed at each.

    seed = 1

    [hubs.lan]
    latency_us = 500
    loss = 0.01

    [machines.client]
    kernel = "zImage"
    initrd = "initramfs.cpio.gz"
    append = "console=ttyAMA0 rdinit=/bin/sh"
    memory = "64M"
    hubs = ["lan"]
    script = [["# ", "ip addr add 10.0.0.2/24 dev eth0"]]

Paths are relative to the file's directory.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbt.hypervisor.cluster.cluster import Cluster, shown_of
from dbt.hypervisor.cluster.network import Hub
from dbt.vm.machine import Machine

if TYPE_CHECKING:
    from dbt.host.console import Console
    from dbt.host.drive import Drive
    from dbt.hypervisor.carrier import Boot
    from dbt.vm.options import HostOptions

_LARGEST = 1 << 20
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
#: The fields of each table, with their types.
_TOP = {"seed": int, "domains_us": int, "share_core": bool, "hubs": dict, "machines": dict, "domain_devices": list}
_DOMAIN_DEVICE = {
    **dict.fromkeys(("kind", "front", "back"), str),
    "number": int,
    **dict.fromkeys(("front_nodes", "back_nodes"), dict),
}
_HUB = {"latency_us": int, "loss": (int, float), "seed": int}
_MACHINE = {
    **dict.fromkeys(("program", "kernel", "initrd", "dtb", "append", "memory", "cpu", "board"), str),
    **dict.fromkeys(("hubs", "devices", "disks", "script"), list),
    **dict.fromkeys(("rng_seed", "epoch"), int),
    "insn_ns": (int, float),
}
#: What is given to the class of machines as it is.
_AS_THEY_ARE = ("cpu", "board", "devices", "epoch", "insn_ns")


class DescriptionError(ValueError):
    """Raised for a file that describes no cluster. The message is one paragraph, which names the file and the field."""


@dataclass(frozen=True, slots=True)
class MachineDescription:
    """A machine: what it boots and has, as the file says, and the number of the machine among all of them."""

    name: str
    number: int
    fields: Mapping[str, Any]
    folder: Path

    @property
    def script(self) -> list[tuple[bytes, bytes]]:
        """Texts that the guest is expected to write, and lines that are typed then."""
        return [(text.encode(), f"{line}\n".encode()) for text, line in self.fields.get("script", ())]

    @property
    def drives(self) -> list[Drive]:
        """Its disks. What the guest writes is part of its state, and the files stay as they are."""
        from dbt.host.drive import Drive

        return [Drive(str(self.folder / path), snapshot=True) for path in self.fields.get("disks", ())]

    def boot(self) -> Boot:
        """Return the function that makes the machine."""

        def make(console: Console) -> Machine:
            machine = self._make(console)
            try:
                self._load(machine)
            except BaseException:
                machine.close()
                raise
            return machine

        return make

    def _make(self, console: Console) -> Machine:
        from dbt.host.net_option import Net

        fields = self.fields
        nets = [
            Net(f"hub:{hub}", mac=bytes((2, 0, 0, 0, self.number + 1 & 0xFF, card)))
            for card, hub in enumerate(fields.get("hubs", ()))
        ]
        more: dict[str, Any] = {name: fields[name] for name in _AS_THEY_ARE if name in fields}
        if "memory" in fields:
            more["memory"] = _size(fields["memory"])
        seed = fields.get("rng_seed", self.number + 1)
        return Machine(console=console, nets=nets, drives=self.drives, rng_seed=seed, **more)

    def _load(self, machine: Machine) -> None:
        fields = self.fields
        if "program" in fields:
            machine.load(str(self.folder / fields["program"]))
            return
        paths: dict[str, Any] = {name: str(self.folder / fields[name]) for name in ("initrd", "dtb") if name in fields}
        machine.load_kernel(str(self.folder / fields["kernel"]), append=fields.get("append", ""), **paths)


@dataclass(frozen=True, slots=True)
class Description:
    """What a file says of a cluster."""

    seed: int
    domains_us: int | None
    share_core: bool
    hubs: Mapping[str, Hub]
    machines: tuple[MachineDescription, ...]
    domain_devices: tuple[Mapping[str, Any], ...]

    def build(
        self, seed: int | None = None, cores: int = 1, shown: Callable[[str, bytes], None] | None = None
    ) -> Cluster:
        """Return the cluster. ``shown`` is called with the name of a machine and what its guest writes.

        Raise ValueError or OSError for machines that cannot be made.
        """
        cluster = Cluster(self.hubs, self.seed if seed is None else seed, cores, self.domains_us, self.share_core)
        try:
            for machine in self.machines:
                cluster.add(machine.name, machine.boot(), machine.script, shown_of(shown, machine.name))
            for device in self.domain_devices:
                if cluster.domains is None:
                    raise ValueError("a device that one domain serves another needs domains_us")
                cluster.domains.share(**device)
        except BaseException:
            cluster.close()
            raise
        return cluster

    def hosts(self) -> dict[str, HostOptions]:
        """Return what a saved cluster has to be given when it is restored: the disks of each machine."""
        return {machine.name: {"drives": machine.drives} for machine in self.machines}


def read_description(path: str | PathLike[str]) -> Description:
    """Return what a file says. Raise DescriptionError, or OSError."""
    file = Path(path)
    with open(file, "rb") as opened:
        data = opened.read(_LARGEST + 1)
    try:
        if len(data) > _LARGEST:
            raise DescriptionError(f"it has more than {_LARGEST} bytes")
        found = tomllib.loads(data.decode())
        top = _checked(found, _TOP, "the file")
        hubs = {name: Hub(**_checked(hub, _HUB, f"hubs.{name}")) for name, hub in top.get("hubs", {}).items()}
        machines = top.get("machines", {})
        if not machines:
            raise DescriptionError("it has no machines: write a table [machines.NAME] for each")
        return Description(
            top.get("seed", 0),
            top.get("domains_us"),
            top.get("share_core", False),
            hubs,
            tuple(
                MachineDescription(name, number, _checked_machine(fields, f"machines.{name}"), file.parent)
                for number, (name, fields) in enumerate(machines.items())
            ),
            tuple(map(_checked_device, top.get("domain_devices", []))),
        )
    except (ValueError, RecursionError) as error:  # TOML and UTF-8 too
        raise DescriptionError(f"{file} describes no cluster: {error}") from None


def _checked(found: Any, fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise DescriptionError(f"{where} is no table")
    for name, value in found.items():
        if name not in fields:
            raise DescriptionError(f"{where} has a field {name!r}, which is none of {', '.join(fields)}")
        if not isinstance(value, fields[name]) or isinstance(value, bool) != (fields[name] is bool):
            raise DescriptionError(f"{name} in {where} is {value!r:.100}, which is of another kind than it has to be")
    return found


def _checked_machine(found: Any, where: str) -> dict[str, Any]:
    fields = _checked(found, _MACHINE, where)
    if ("program" in fields) == ("kernel" in fields):
        raise DescriptionError(f"{where} has to have either a program or a kernel")
    for name in ("hubs", "devices", "disks"):
        if not all(isinstance(one, str) for one in fields.get(name, ())):
            raise DescriptionError(f"{name} in {where} is no list of texts")
    for line in fields.get("script", ()):
        if not isinstance(line, list) or len(line) != 2 or not all(isinstance(text, str) for text in line):
            raise DescriptionError(
                f"{line!r:.100} in the script of {where} is not a pair: what the guest writes, and what is typed then"
            )
    if "memory" in fields:
        _size(fields["memory"])
    return fields


def _checked_device(found: Any) -> dict[str, Any]:
    fields = _checked(found, _DOMAIN_DEVICE, "domain_devices")
    if missing := [name for name in ("kind", "front", "back", "number") if name not in fields]:
        raise DescriptionError(f"one of the domain_devices has no {missing[0]}")
    return fields


def _size(text: str) -> int:
    """Return a number of bytes, of which K, M and G are units."""
    unit = _UNITS.get(text[-1:].upper(), 1)
    digits = text[:-1] if unit > 1 else text
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 12):
        raise DescriptionError(f"{text!r:.40} is no size, such as 64M")
    return int(digits) * unit
