"""Three Linux machines, a client, a router and a server, as one deterministic system."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dbt import Machine, Net
from dbt.host.console import Console
from dbt.hypervisor.carrier import Boot
from dbt.hypervisor.cluster import (
    Cluster,
    ClusterRecorder,
    ClusterReplay,
    ClusterState,
    Hub,
    first_difference,
)
from tests.linux.debian import DISK, KERNEL, NEEDS_DEBIAN, TIMEOUT

pytestmark = NEEDS_DEBIAN
_HUBS = {"lan": Hub(500, loss=0.1), "wan": Hub(2000)}
_PLACES = {"client": ("lan",), "router": ("lan", "wan"), "server": ("wan",)}
_SETTING_UP = [
    (b"# ", b"export PATH=/bin; /bin/busybox --install -s /bin; mount -t proc proc /proc; cd /lib/modules\n"),
    (b"# ", b"for m in virtio_mmio failover net_failover virtio_net; do insmod $m.ko; done; echo up $((1+1))\n"),
]
#: Linux finds the last card first, so eth1 of the router is at the hub lan.
_COMMANDS = {
    "server": b"ip addr add 10.0.2.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.1",
    "router": b"ip addr add 10.0.1.1/24 dev eth1; ip addr add 10.0.2.1/24 dev eth0; ip link set eth0 up; "
    b"ip link set eth1 up; echo 1 > /proc/sys/net/ipv4/ip_forward",
    "client": b"ip addr add 10.0.1.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.1.1; "
    b"until ping -c 1 -W 1 10.0.2.2; do :; done; ping -c 10 -i 0.2 10.0.2.2; echo done $((1+1))",
}


def booting(name: str, number: int) -> Boot:
    def make(console: Console) -> Machine:
        nets = [Net(f"hub:{hub}", mac=bytes((2, 0, 0, 0, number, card))) for card, hub in enumerate(_PLACES[name])]
        machine = Machine(64 << 20, console=console, cpu="cortex-a15", nets=nets, rng_seed=number)
        machine.load_kernel(KERNEL, initrd=DISK, append="console=ttyAMA0 rdinit=/bin/sh quiet")
        return machine

    return make


def run_until(cluster: Cluster, text: bytes, *names: str) -> None:
    cluster.run(timeout=TIMEOUT, until=lambda: all(text in cluster[name].console.output for name in names))
    assert all(text in cluster[name].console.output for name in names), cluster[names[0]].console.output[-2000:]


@pytest.fixture(scope="module")
def booted() -> Iterator[ClusterState]:
    """The cluster when all machines are at their shells."""
    with Cluster(_HUBS, seed=1, cores=2) as cluster:
        for number, name in enumerate(_PLACES):
            cluster.add(name, booting(name, number), _SETTING_UP)
        run_until(cluster, b"up 2\r\n", *_PLACES)
        with cluster.save() as state:
            yield state


def ping(cluster: Cluster) -> dict[str, str]:
    """Let the client ping the server. Return the hashes at the end."""
    for name, command in _COMMANDS.items():
        cluster[name].console.send(command + b"\n")
    run_until(cluster, b"done 2\r\n", "client")
    assert b"bytes from 10.0.2.2" in cluster["client"].console.output
    return cluster.hashes()


def test_a_rerun_and_a_replay_give_the_same_three_hashes(booted: ClusterState, tmp_path: Path) -> None:
    with booted.restore(cores=2) as cluster:
        recorder = ClusterRecorder(cluster, tmp_path / "run")
        hashes = ping(cluster)
        recorder.end()
    with booted.restore(cores=1) as cluster:
        assert ping(cluster) == hashes
    with booted.restore(cores=2) as cluster:
        ClusterReplay(cluster, tmp_path / "run").run()
        assert cluster.hashes() == hashes


def test_another_seed_of_one_network_differs_and_the_tool_says_where_first(
    booted: ClusterState, tmp_path: Path
) -> None:
    found = []
    for seed in (1, 2):
        with booted.restore(cores=2) as cluster:
            cluster.network.hubs = {**_HUBS, "lan": _HUBS["lan"]._replace(seed=seed)}
            recorder = ClusterRecorder(cluster, tmp_path / str(seed))
            found.append(ping(cluster))
            recorder.end()
    assert found[0] != found[1]
    said = first_difference(tmp_path / "1", tmp_path / "2")
    assert said.startswith("at ") and "sends its frame" in said and "lost" in said


def test_the_cluster_goes_back(booted: ClusterState) -> None:
    with booted.restore(cores=2) as cluster:
        began = cluster.now_ns
        cluster.keep_history(every_s=0.5)
        hashes = ping(cluster)
        end = cluster.now_ns
        cluster.go_back(began + (end - began) // 2_000 * 1_000)
        assert cluster.hashes() != hashes
        cluster.run(seconds=(end - cluster.now_ns) / 1e9)
        assert cluster.hashes() == hashes
        assert cluster["client"].console.output.count(b"10 packets transmitted") == 1
