"""Containers in networks: what they are to each other, and what they reach."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from dbt.containers.network.host_files import HostNames
from dbt.containers.network.membership import HostName, Membership, Switchboard
from dbt.containers.network.networks import Networks
from dbt.containers.network.records import Attachment
from dbt.containers.runtime.container_vm import ContainerVm
from dbt.containers.runtime.spec import Process
from dbt.host.net_option import Forward
from tests.containers.runtime.boxes import NEEDS_BUSYBOX, Boxes, Said, all_of, busybox_layer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = NEEDS_BUSYBOX
SHELL = Process((), ("PATH=/bin:/sbin:/usr/bin:/usr/sbin",))


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boxes]:
    folder = tmp_path_factory.mktemp("boxes")
    made = Boxes(folder, (busybox_layer(folder),))
    yield made
    made.close()


class Box(NamedTuple):
    """A container that runs."""

    vm: ContainerVm
    place: Membership

    async def sh(self, script: str) -> Said:
        session = await self.vm.exec(replace(SHELL, argv=("sh", "-c", script)))
        session.end_input()
        return await all_of(session)


class Net:
    """An engine's networks, and containers in them."""

    def __init__(self, boxes: Boxes, folder: Path, host: HostNames = HostNames()) -> None:  # noqa: B008
        self.boxes = boxes
        self.networks = Networks(str(folder / "networks.db"), list)
        self.said: list[str] = []
        self.board = Switchboard(self.networks, self.said.append, lambda: host)

    @asynccontextmanager
    async def box(
        self, name: str, networks: Sequence[str] = ("bridge",), ports: Sequence[Forward] = (), script: str = "cat"
    ) -> AsyncIterator[Box]:
        spec = self.boxes.spec(process=replace(SHELL, argv=("sh", "-c", script)))
        attachments = [Attachment(network, (name, spec.id[:12])) for network in networks]
        place = await self.board.join(spec.id, HostName(name), attachments, ports)
        try:
            spec = replace(spec, interfaces=place.interfaces, files=place.files, host_name=name)
            vm = await self.boxes.runtime.start(spec, place)
            try:
                yield Box(vm, place)
            finally:
                await vm.stop()
        finally:
            await place.leave()


@pytest.fixture
def net(boxes: Boxes, tmp_path: Path) -> Iterator[Net]:
    made = Net(boxes, tmp_path)
    yield made
    made.networks.close()


def test_a_container_has_the_addresses_of_its_network(boxes: Boxes, net: Net) -> None:
    async def run() -> None:
        async with net.box("web") as one:
            show = "cat /sys/class/net/eth0/address; ip -4 addr show eth0 | grep inet; ip route; cat /etc/hosts"
            said = await one.sh(show)
            lines = said.output.decode().splitlines()
            assert lines[0] == "02:42:ac:11:00:02"
            assert lines[1].split()[:4] == ["inet", "172.17.0.2/16", "brd", "172.17.255.255"]
            assert lines[2].split()[:5] == ["default", "via", "172.17.0.1", "dev", "eth0"]
            assert lines[-1] == "172.17.0.2\tweb"
            assert (await one.sh("ping -c 1 -W 5 172.17.0.1")).code == 0
            assert (await one.sh("cat /proc/net/if_inet6 | grep -v ' lo$'")).output == b""

    boxes.run(run())


def test_containers_reach_each_other_by_name(boxes: Boxes, net: Net) -> None:
    net.networks.create("net")

    async def run() -> None:
        async with net.box("web", ["net"]) as web, net.box("client", ["net"]) as client:
            await asyncio.sleep(0.5)  # so that the machines rest, which have to hear of frames nevertheless
            ping = await client.sh("ping -c 1 -W 1 web")
            assert ping.code == 0, ping
            assert b"172.18.0.2" in ping.output
            assert (await web.sh("ping -c 1 -W 10 client")).code == 0
            await web.sh("mkdir /www; head -c 300000 /dev/urandom > /www/file; httpd -p 80 -h /www")
            got = await client.sh("wget -q -O - http://web/file | sha256sum")
            assert got.output == (await web.sh("sha256sum < /www/file")).output
            assert (await web.sh("cat /etc/resolv.conf")).output == b"nameserver 127.0.0.11\noptions ndots:0\n"

    boxes.run(run())
