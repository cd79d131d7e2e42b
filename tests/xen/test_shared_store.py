"""One XenStore for several domains: permissions, watches and transactions across them, devices, and ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbt.hypervisor.cluster import Cluster
from dbt.hypervisor.xen.host import XenHost
from dbt.hypervisor.xen.store.server import MOST_WATCHES, Type
from dbt.hypervisor.xen.store.tree import StoreError
from tests.xen.guests import Caller
from tests.xen.pairs import sleepers
from tests.xen.store_client import Client


def host_of(cluster: Cluster) -> XenHost:
    assert cluster.domains is not None
    return cluster.domains.host


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with sleepers(3) as made:
        yield made


@pytest.fixture
def clients(cluster: Cluster) -> list[Client]:
    return [Client(Caller(node.machine)) for node in cluster.nodes.values()]


def test_each_domain_has_its_own_nodes(clients: list[Client]) -> None:
    for number, client in enumerate(clients, 1):
        assert client.ask(Type.READ, b"domid\0") == str(number).encode()
        assert client.ask(Type.IS_DOMAIN_INTRODUCED, b"3\0") == b"T\0"
        assert client.ask(Type.IS_DOMAIN_INTRODUCED, b"4\0") == b"F\0"
    one, two, three = clients
    assert one.ask(Type.WRITE, b"data/x\0secret") == b"OK\0"
    path = b"/local/domain/1/data/x\0"
    assert two.ask(Type.READ, path) == two.ask(Type.WRITE, path + b"y") == two.ask(Type.RM, path) == b"EACCES\0"
    assert two.ask(Type.SET_PERMS, path + b"n2\0") == two.ask(Type.GET_PERMS, path) == b"EACCES\0"
    assert one.ask(Type.SET_PERMS, b"data/x\0n1\0r2\0") == b"OK\0"
    assert two.ask(Type.READ, path) == b"secret"
    assert three.ask(Type.READ, path) == b"EACCES\0" == two.ask(Type.WRITE, path + b"y")


def test_a_watch_hears_of_what_another_domain_changes(cluster: Cluster, clients: list[Client]) -> None:
    """When they stand together, and only of what it may read."""
    one, two, three = clients
    assert one.ask(Type.MKDIR, b"data/x\0") == one.ask(Type.SET_PERMS, b"data/x\0n1\0r2\0") == b"OK\0"
    for client in (two, three):
        assert client.ask(Type.WATCH, b"/local/domain/1/data\0t\0") == b"OK\0"
        client.events.clear()
    one.ask(Type.WRITE, b"data/x\0one")
    one.ask(Type.WRITE, b"data/x\0two")
    one.ask(Type.WRITE, b"data/hidden\0two")
    two.ask(Type.READ, b"domid\0")
    cluster.run(seconds=0.00002)
    for client in (two, three):
        client.ask(Type.READ, b"domid\0")
    assert (two.events, three.events) == ([b"/local/domain/1/data/x\0t\0"], []), "the same is said once"


def test_a_transaction_does_not_starve(clients: list[Client]) -> None:
    """What others change elsewhere does not keep it from its end; what they change under its eyes does."""
    one, two, _ = clients
    number = int(one.ask(Type.TRANSACTION_START, b"\0").rstrip(b"\0"))
    assert one.ask(Type.DIRECTORY, b"data\0", number) == b""
    assert one.ask(Type.WRITE, b"data/x\0one", number) == b"OK\0"
    for value in range(20):
        assert two.ask(Type.WRITE, b"data/y\0%d" % value) == b"OK\0"
    assert one.ask(Type.TRANSACTION_END, b"T\0", number) == b"OK\0"
    assert one.ask(Type.READ, b"data/x\0") == b"one"
    assert one.ask(Type.SET_PERMS, b"data\0n1\0w2\0") == b"OK\0"
    for change in (b"new\0value", b"x/y\0value"):
        number = int(one.ask(Type.TRANSACTION_START, b"\0").rstrip(b"\0"))
        assert one.ask(Type.DIRECTORY, b"data\0", number) != b"EACCES\0"
        assert one.ask(Type.READ, b"data/x\0", number) == b"one"
        answer = two.ask(Type.WRITE, b"/local/domain/1/data/" + change)
        expected = b"EAGAIN\0" if answer == b"OK\0" else b"OK\0"
        assert one.ask(Type.TRANSACTION_END, b"T\0", number) == expected


def test_who_does_not_read_holds_nobody_up(cluster: Cluster, clients: list[Client]) -> None:
    """Events for a domain that does not read them are bounded, and those that come later say less."""
    one, two, _ = clients
    assert one.ask(Type.SET_PERMS, b"data\0n1\0r2\0") == b"OK\0"
    assert two.ask(Type.WATCH, b"/local/domain/1/data\0t\0") == b"OK\0"
    store = host_of(cluster).domains[2].store
    for number in range(1300):
        assert one.ask(Type.WRITE, b"data/%d\0x" % number) == one.ask(Type.RM, b"data/%d\0" % number) == b"OK\0"
    assert 1024 <= len(store.heard) <= 1024 + MOST_WATCHES
    store.restore(store.save())
    two.events.clear()
    for _ in range(40):
        cluster.run(seconds=0.00002)
        two.ask(Type.READ, b"domid\0")
    assert len(two.events) > 1000 and two.events[-1] == b"/local/domain/1/data\0t\0" and not store.heard


def test_the_end_of_a_domain(cluster: Cluster, clients: list[Client]) -> None:
    """Its nodes are gone, and others hear of it; what it was served is given up."""
    assert cluster.domains is not None
    cluster.domains.share("vbd", "domain 1", "domain 2", 51712, {"virtual-device": "51712"}, {"mode": "w"})
    cluster.domains.host.powered_on(1)
    one, two, three = clients
    front, back = "/local/domain/1/device/vbd/51712", "/local/domain/2/backend/vbd/1/51712"
    assert one.ask(Type.READ, b"device/vbd/51712/backend\0") == back.encode()
    assert one.ask(Type.READ, f"{back}/frontend-id\0".encode()) == b"1"
    assert two.ask(Type.READ, b"backend/vbd/1/51712/frontend\0") == front.encode()
    assert two.ask(Type.DIRECTORY, b"backend/vbd\0") == b"1\0"
    assert two.ask(Type.READ, f"{front}/virtual-device\0".encode()) == b"51712"
    assert two.ask(Type.WRITE, f"{front}/state\0".encode() + b"6") == b"EACCES\0"
    assert three.ask(Type.READ, f"{back}/mode\0".encode()) == b"EACCES\0"
    assert two.ask(Type.WATCH, b"backend\0t\0") == b"OK\0"
    two.events.clear()
    cluster["domain 1"].reason = "it has ended"
    cluster.run(seconds=0.00004)
    assert two.ask(Type.READ, b"backend/vbd/1/51712/state\0") == b"5"
    assert two.ask(Type.READ, b"backend/vbd/1/51712/online\0") == b"0"
    assert two.events == [b"backend/vbd/1/51712/online\0t\0", b"backend/vbd/1/51712/state\0t\0"]
    assert two.ask(Type.READ, f"{front}/state\0".encode()) == b"EACCES\0"
    assert front not in cluster.domains.host.tree.values
    assert three.ask(Type.IS_DOMAIN_INTRODUCED, b"1\0") == b"F\0"


def test_devices_that_cannot_be(cluster: Cluster) -> None:
    assert cluster.domains is not None
    for arguments in (("vkbd", "domain 1", "domain 2"), ("vbd", "domain 1", "domain 1"), ("vbd", "x", "domain 1")):
        with pytest.raises(ValueError, match="domain"):
            cluster.domains.share(*arguments, 0)
    with pytest.raises(StoreError):
        cluster.domains.share("vbd", "domain 1", "domain 2", 0, {"a b": ""})
