"""Definitions of virtual machines: what a file may say, and what a person hears about one that is wrong."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from dbt.cli.run_options import RunOptions
from dbt.cli.vm.machines import OptionMachines
from dbt.daemon.definition import Definition, Share, plain, read_definition
from dbt.daemon.errors import DefinitionError
from tests.cli.command import ROOT

_UUID = UUID("12345678-1234-4234-8234-123456789abc")


def _checked(machine: dict[str, Any], **more: Any) -> Definition:
    given = {"name": "x", "uuid": str(_UUID), "directory": "/d", "machine": machine, **more}
    return OptionMachines().check(read_definition(given))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"machine": {}}, "the definition is wrong: there is no name"),
        ({"name": "a"}, "the definition is wrong: there is no machine"),
        ({"name": "a/b", "machine": {}}, "at name: this is to begin with a letter"),
        ({"name": "a", "machine": {}, "share": {"weight": 0}}, "at share.weight: expected int >= 1"),
        ({"name": "a", "machine": {}, "share": {"cap": 2}}, "at share.cap: expected float <= 1"),
        ({"name": "a", "machine": {}, "share": {"wait": 1}}, "at share: there is no wait; there is weight"),
        ({"name": "a", "machine": {}, "autostrat": True}, "there is no autostrat; there is autostart"),
        ({"name": "a", "machine": {}, "uuid": "7"}, "at uuid: invalid UUID"),
        ({"name": "a", "machine": {}, "directory": "d"}, "'d' is no path that begins with /"),
        ({"name": "a", "machine": {}, "limits": {"memory": 1 << 64}}, "at limits.memory: expected int <="),
        ({"name": "a", "machine": {"kernel": "k", "memory": 1.5}}, "at machine.memory: expected bool | int | text"),
        ({"name": "a", "machine": {"net": ["hub:x", 1]}}, "at machine.net[1]: expected text, got int"),
        ({"name": "a", "machine": {"kernel": "k\0"}}, "a text in it has a zero byte"),
        ([], "expected a section, got a list"),
    ],
)
def test_what_is_wrong_is_named(given: object, text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        read_definition(given)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("machine", "text"),
    [
        ({}, "PROGRAM is missing"),
        (
            {"kernel": "k", "memry": "1M"},
            "section machine of the definition is wrong: there is no memry; there is memory",
        ),
        ({"kernel": "k", "balloon": "yes"}, "at balloon: expected bool, got text"),
        ({"kernel": "k", "net": "hub:x"}, "at net: expected a list, got text"),
        ({"kernel": "k", "net": ["hob:x"]}, "net hob:x: this is not user"),
        ({"kernel": "k", "drive": ["disk.img"]}, "drive disk.img: this is not file=F"),
        ({"kernel": "k", "console": "raw"}, "console = 'raw' is for a terminal"),
        ({"kernel": "k", "timeout": 5}, "there is no timeout"),
        ({"kernel": "k", "incoming": "unix:x"}, "there is no incoming"),
        ({"program": "p", "xen": True, "xenstore": "x"}, "xenstore = 'x': XenStore is at a unix socket"),
    ],
)
def test_a_wrong_option_of_the_machine_is_named(machine: dict[str, Any], text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        _checked(machine)
    assert text in str(caught.value)


def test_paths_begin_at_the_directory_of_the_file() -> None:
    machine = {
        "kernel": "k",
        "initrd": "/i",
        "drive": ["file=a,,b,overlay=../o,snapshot", "file=/abs"],
        "share": ["s:tag,ro"],
        "net": ["unix:n", "hub:h"],
        "vsock": "3,unix:v",
    }
    assert _checked({"program": "p", "root": "r"}).machine == {"program": "/d/p", "root": "/d/r"}
    assert _checked({"program": "p", "xen": True, "xenstore": "unix:x"}).machine["xenstore"] == "unix:/d/x"
    found = _checked(machine).machine
    assert (found["kernel"], found["initrd"], found["vsock"]) == ("/d/k", "/i", "3,unix:/d/v")
    assert found["drive"] == ["file=/d/a,,b,overlay=/o,snapshot", "file=/abs"]
    assert found["share"] == ["/d/s:tag,ro"]
    assert isinstance(found["net"], list)
    assert [text.partition(",")[0] for text in found["net"]] == ["unix:/d/n", "hub:h"]


def test_two_machines_differ_in_addresses_and_random_numbers_and_each_stays_the_same() -> None:
    machine = {"kernel": "k", "net": ["hub:a", "hub:b,mac=52:54:00:00:00:01"]}
    first, again = _checked(machine), _checked(machine)
    other = _checked(machine, uuid="12345678-1234-4234-8234-123456789abd")
    assert first.machine == again.machine
    assert isinstance(first.machine["net"], list) and isinstance(other.machine["net"], list)
    assert first.machine["net"][0] != other.machine["net"][0]
    assert first.machine["net"][1] == other.machine["net"][1] == "hub:b,mac=52:54:00:00:00:01"
    assert first.machine["rng"] != other.machine["rng"]
    assert OptionMachines().check(first) == first


def test_a_definition_is_the_same_after_a_way_through_json() -> None:
    definition = _checked({"kernel": "k", "balloon": True, "insn-ns": 8}, share={"weight": 3, "cap": 0.5})
    assert read_definition(msgspec.json.decode(msgspec.json.encode(plain(definition)))) == definition


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "lab").glob("*.toml")), ids=lambda path: path.stem)
def test_the_definitions_of_the_lab_are_right(path: Path) -> None:
    found = tomllib.loads(path.read_text())
    definition = _checked(**found, uuid=str(_UUID), directory=str(path.parent))
    assert definition.name == path.stem
    assert definition.machine["kernel"] == str(ROOT / "build" / "virt" / "vmlinuz")


def test_the_definition_in_the_documentation_is_right() -> None:
    (example,) = re.findall(r"^```toml\n(.+?)^```$", (ROOT / "docs" / "vms.md").read_text(), re.M | re.DOTALL)
    assert _checked(**tomllib.loads(example)).share == Share(weight=256, cap=0.5)


def test_each_option_of_run_is_one_of_a_machine_or_of_a_run() -> None:
    """A new option comes into definitions by itself: whoever adds one that makes sense for a run alone says so."""
    of_machines = {name.replace("-", "_") for name in OptionMachines().option_schemas()}
    assert of_machines < set(RunOptions._fields)
    assert {"kernel", "drive", "net", "memory", "balloon_size", "tier"} <= of_machines
    assert not of_machines & {"fuel", "timeout", "gdb", "record", "json", "serial", "realtime"}
