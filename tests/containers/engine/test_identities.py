"""Containers go on from one booted Linux, and no two that run at a time have an identity in common."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.containers.engine.asking import create, demultiplexed
from tests.containers.engine.engines import TestEngine, engine_in
from tests.containers.engine.images import HAS_BUSYBOX, add_images
from tests.long import LONG

#: A second or so each, and they exist until the last one has said what it is.
_CONTAINERS = 120 if LONG else 6
_AT_ONCE = 4
#: Random numbers of the kernel and of the program, what the kernel calls this start of the system, and each card.
_SAYS = """
for one in uuid boot_id; do echo $one $(cat /proc/sys/kernel/random/$one); done
echo drawn $(head -c 16 /dev/urandom | od -An -tx1)
echo stack $(grep stack /proc/self/maps | cut -d' ' -f1)
echo name $(hostname)
for card in /sys/class/net/eth*; do echo card $(cat $card/address); done
echo over; exec sleep 100000
"""


@pytest.mark.skipif(not HAS_BUSYBOX, reason="DBT_CONTAINER_IMAGES is no directory with busybox-armel.tar")
def test_no_two_containers_have_an_identity_in_common(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    folder.mkdir(0o700)
    add_images(folder)
    with engine_in(folder) as engine, ThreadPoolExecutor(_AT_ONCE) as threads:
        engine.ask("POST", "/networks/create", {"Name": "own", "Internal": True})
        said = list(threads.map(lambda number: _said(engine, f"box-{number}"), range(_CONTAINERS)))
        assert len(engine.ask("GET", "/containers/json").json) == _CONTAINERS
    found: dict[str, list[str]] = {}
    for text in said:
        for line in text.splitlines()[:-1]:
            kind, _, value = line.partition(" ")
            found.setdefault(kind, []).append(value)
    kinds = ("uuid", "boot_id", "drawn", "name", "stack", "card")
    assert {kind: len(values) for kind, values in found.items()} == dict.fromkeys(kinds, _CONTAINERS)
    for kind in ("uuid", "boot_id", "drawn", "name", "card"):
        assert len(set(found[kind])) == len(found[kind]), kind
    assert len(set(found["stack"])) > 1  # a few bits of an address may well be the same


def _said(engine: TestEngine, name: str) -> str:
    create(engine, name, "sh", "-c", _SAYS, Image="busybox", HostConfig={"NetworkMode": "own"})
    assert engine.ask("POST", f"/containers/{name}/start").status == 204
    while True:
        log = engine.ask("GET", f"/containers/{name}/logs?stdout=1&stderr=1").body
        text = b"".join(data for _, data in demultiplexed(log)).decode()
        if text.endswith("over\n"):
            return text
