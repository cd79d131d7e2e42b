"""XenStore, by the ring: nodes, permissions, watches, transactions with conflicts, quotas, and what is no request."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from dbt.abi.addresses import Gpa
from dbt.devices.state import StateError
from dbt.hypervisor.xen.store.server import Type
from dbt.hypervisor.xen.store.transaction_log import TransactionLog
from dbt.hypervisor.xen.store.tree import LONGEST_PATH, MOST_NODES, Tree
from tests.xen.fuzz_states import MAKERS, Device, exercise, furnish
from tests.xen.guests import Caller, domain_machine
from tests.xen.store_client import HOME, PAGE, Client


@pytest.fixture
def client():  # type: ignore[no-untyped-def]
    with domain_machine() as machine:
        yield Client(Caller(machine))


def test_nodes(client: Client) -> None:
    assert client.ask(Type.READ, b"name\0") == b"dbt"
    assert client.ask(Type.READ, b"memory/target\0") == b"1024"
    assert client.ask(Type.GET_DOMAIN_PATH, b"1\0") == HOME.encode() + b"\0"
    assert client.ask(Type.WRITE, b"data/a/b\0value") == b"OK\0"
    assert client.ask(Type.READ, f"{HOME}/data/a/b\0".encode()) == b"value"
    assert client.ask(Type.DIRECTORY, b"data\0") == b"a\0"
    assert client.ask(Type.GET_PERMS, b"data/a/b\0") == b"n1\0"
    assert client.ask(Type.RM, b"data/a\0") == b"OK\0"
    assert client.ask(Type.READ, b"data/a/b\0") == b"ENOENT\0"


def test_permissions(client: Client) -> None:
    """A guest changes what it owns alone, and reads no more than it may."""
    assert client.ask(Type.WRITE, b"name\0other") == b"EACCES\0"
    assert client.ask(Type.WRITE, b"/local/domain/0/x\0y") == b"EACCES\0"
    assert client.ask(Type.SET_PERMS, b"name\0n1\0") == b"EACCES\0"
    assert client.ask(Type.SET_PERMS, b"data\0n0\0") == b"EPERM\0"
    assert client.ask(Type.SET_PERMS, b"data\0n1\0r0\0") == b"OK\0"
    assert client.ask(Type.SET_PERMS, b"data\0x1\0") == b"EINVAL\0"
    assert client.ask(Type.DIRECTORY, b"/\0") == b"EACCES\0"
    client.caller.domain.store.server.tree.write(0, "/secret", b"x")
    assert client.ask(Type.WATCH, b"/secret\0t\0") == b"OK\0"
    client.events.clear()
    client.caller.domain.store.receive(b"\x0b/secret\0y")
    client.ask(Type.READ, b"name\0")
    assert client.events == [], "an event would tell that the node has changed"


def test_watches(client: Client) -> None:
    """Each begins with an event; paths are as the guest gave them."""
    assert client.ask(Type.WATCH, b"data\0token\0") == b"OK\0"
    assert client.ask(Type.WATCH, b"data\0token\0") == b"EEXIST\0"
    assert client.events == [b"data\0token\0"]
    client.ask(Type.WRITE, b"data/x\0one")
    client.ask(Type.RM, b"data/x\0")
    client.ask(Type.WRITE, b"device/x\0one")
    assert client.events[1:] == [b"data/x\0token\0"] * 2
    assert client.ask(Type.UNWATCH, b"data\0token\0") == b"OK\0"
    assert client.ask(Type.UNWATCH, b"data\0token\0") == b"ENOENT\0"


def test_the_toolstack_is_heard(client: Client) -> None:
    client.ask(Type.WATCH, b"control/shutdown\0t\0")
    client.events.clear()
    client.caller.domain.store.receive(b"\x0bcontrol/shutdown\0poweroff")
    assert client.ask(Type.READ, b"control/shutdown\0") == b"poweroff"
    assert client.events == [b"control/shutdown\0t\0"]
    client.caller.domain.store.receive(b"\x0b../x\0poweroff")


def test_a_transaction_is_done_as_a_whole_or_not_at_all(client: Client) -> None:
    first, second = (int(client.ask(Type.TRANSACTION_START, b"\0").rstrip(b"\0")) for _ in range(2))
    assert client.ask(Type.WRITE, b"data/x\0one", first) == b"OK\0"
    assert client.ask(Type.READ, b"data/x\0", first) == b"one"
    assert client.ask(Type.READ, b"data/x\0") == client.ask(Type.READ, b"data/x\0", second) == b"ENOENT\0"
    assert client.ask(Type.WRITE, b"data/x\0two", second) == b"OK\0"
    assert client.ask(Type.TRANSACTION_END, b"T\0", first) == b"OK\0"
    assert client.ask(Type.TRANSACTION_END, b"T\0", second) == b"EAGAIN\0"
    assert client.ask(Type.READ, b"data/x\0") == b"one"
    assert client.ask(Type.TRANSACTION_END, b"T\0", second) == b"ENOENT\0"


def test_quotas(client: Client) -> None:
    assert client.ask(Type.WRITE, b"data/x\0" + bytes(2049)) == b"ENOSPC\0"
    deep = b"/".join([b"a"] * (MOST_NODES + 1))
    assert client.ask(Type.WRITE, b"data/" + deep + b"\0") == b"ENOSPC\0"
    assert client.ask(Type.DIRECTORY, b"data\0") == b""
    answers = {client.ask(Type.MKDIR, f"data/{number}\0".encode()) for number in range(MOST_NODES + 10)}
    assert answers == {b"OK\0", b"ENOSPC\0"}
    assert {client.ask(Type.WATCH, f"data\0{number}\0".encode()) for number in range(130)} == {b"OK\0", b"ENOSPC\0"}
    starts = [client.ask(Type.TRANSACTION_START, b"\0") for _ in range(12)]
    assert starts[10:] == [b"ENOSPC\0"] * 2


@pytest.mark.parametrize("name", [b"a-b_c@9", b"Z", b"x" * (LONGEST_PATH - 5)])
def test_names_of_nodes(client: Client, name: bytes) -> None:
    assert client.ask(Type.WRITE, b"data/" + name + b"\0value") == b"OK\0"
    assert client.ask(Type.READ, f"{HOME}/data/".encode() + name + b"\0") == b"value"


@pytest.mark.parametrize(
    "path",
    [
        *(b"data/a" + bytes([byte]) for byte in b".:+ ~%,*\\\n\x7f\x80\xff"),
        *(b"", b"data/", b"data//a", b"//data", b"@data", b"@releaseDomain", b"/local/domain/1/"),
        b"data/" + b"x" * (LONGEST_PATH - 4),
        b"/" + b"x" * LONGEST_PATH,
    ],
)
def test_what_is_no_path(client: Client, path: bytes) -> None:
    """As in xenstored, a name has letters, digits, "-", "_" and "@", and a path 2048 bytes besides a domain's home."""
    for kind, rest in ((Type.READ, b""), (Type.WRITE, b"x"), (Type.MKDIR, b""), (Type.RM, b""), (Type.DIRECTORY, b"")):
        assert client.ask(kind, path + b"\0" + rest) == b"EINVAL\0"
    watched = client.ask(Type.WATCH, path + b"\0token\0")
    assert watched == (b"OK\0" if path.startswith(b"@") else b"EINVAL\0")


def test_what_is_no_request(client: Client) -> None:
    """Random messages are answered, or dropped where nobody knows where the next one begins. The state can be saved."""
    draw, store = random.Random(31), client.caller.domain.store
    words = (b"data", b"device/a", b"\0", b"n1\0", b"r0\0", b"T\0", b"..", b"/", b"@x", b"7", b"token")
    for number in range(2000):
        payload = b"".join(draw.choice(words) for _ in range(draw.randrange(5))) + b"\0" * draw.randrange(2)
        answer = store.server.answer(draw.randrange(24), number, draw.choice((0, 0, 0, 1, 2, 9)), payload)
        assert len(answer) >= 16
        if number % 200 == 0:
            store.restore(store.save())
    client.caller.machine.memory.write_ram(Gpa(PAGE + 2048), struct.pack("<IIII", 0, 5000, 9, 3))
    assert client.caller.events(4, "I", client.port) == 0
    state = store.save()
    server = state["server"]
    assert isinstance(server, list)
    first: Any = server[0]
    first["transactions"] = {1: b"x" * 30}
    with pytest.raises(StateError):
        store.restore(state)


def test_what_follows_from_one_request_is_bounded(client: Client) -> None:
    """A transaction that changes many nodes beneath many watches: each is told, and none of it without end."""
    token = b"t" * 3900
    for number in range(20):
        assert client.ask(Type.WATCH, b"data\0" + token + b"%d\0" % number) == b"OK\0"
    client.events.clear()
    ring = client.caller.domain.store
    for paths in ([b"data/x"] * 100, [b"data/%d" % number for number in range(100)]):
        number = int(client.ask(Type.TRANSACTION_START, b"\0").rstrip(b"\0"))
        for path in paths:
            assert client.ask(Type.WRITE, path + b"\0", number) == b"OK\0"
        with mock.patch.object(ring, "_put", lambda: False):  # the guest reads nothing
            client.ask(Type.TRANSACTION_END, b"T\0", number)
            assert 1 << 16 < len(ring.answers) < 1 << 20
        while ring.answers:
            client.send(b"")
        assert client.ask(Type.TRANSACTION_END, b"T\0", number) == b"ENOENT\0"
    told = {event.rstrip(b"\0").rpartition(b"\0")[2] for event in client.events}
    assert len(told) == 20
    assert client.events.count(b"data/x\0" + token + b"0\0") == 1


def test_requests_wait_while_answers_do(client: Client) -> None:
    """Each of a batch, and not the batch as a whole; and they are answered in the end."""
    for number in range(10):
        client.ask(Type.WATCH, b"data\0" + b"t" * 3900 + b"%d\0" % number)
    ring, requests = client.caller.domain.store, b""
    for number in range(4):
        payload = b"data/%d\0" % number
        requests += struct.pack("<IIII", Type.MKDIR, 77, 0, len(payload)) + payload
    with mock.patch.object(ring, "_put", lambda: False):  # the guest reads nothing
        client.send(requests)
        assert 1 << 16 < len(ring.answers) < 1 << 18 and ring.received
        assert ring.is_possible()
    while ring.answers or ring.received:
        client.send(b"")
    client.received = b""  # these answers are not looked at
    children = client.ask(Type.DIRECTORY, b"data\0")
    assert children.count(b"\0") == 4


def test_what_a_transaction_sees_is_found_fast(client: Client) -> None:
    """However often others change nodes, and it removes some: as many nodes are looked at as there are below those."""
    for number in range(300):
        client.ask(Type.MKDIR, b"data/n%d\0" % number)
    tree = client.caller.domain.store.server.tree.copy()
    children = tree._children()
    for number in range(100):
        tree.make(1, f"{HOME}/data/z/{number}")
        tree.remove(1, f"{HOME}/data/z")
        assert f"{HOME}/data/z" not in tree.values and f"{HOME}/data/z" not in children
    assert tree._children() is children
    again = tree.copy()._children()
    assert {path: set(names) for path, names in children.items() if names} == {
        path: set(names) for path, names in again.items()
    }
    assert tree.children(0, f"{HOME}/data") == sorted(f"n{number}" for number in range(300))


def test_the_log_of_a_transaction_is_read_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many requests it has, and once more where a state was put in. What is too much leaves it as it was."""
    read: list[int] = []
    monkeypatch.setattr(TransactionLog, "__init__", _counted(TransactionLog.__init__, read))
    copied: list[int] = []
    monkeypatch.setattr(Tree, "copy", _counted(Tree.copy, copied))
    store, number = client.caller.domain.store, int(client.ask(Type.TRANSACTION_START, b"\0")[:-1])
    earlier = store.save()
    for one in range(100):
        assert client.ask(Type.WRITE, b"data/n%d\0v" % one, number) == b"OK\0"
        assert client.ask(Type.READ, b"data/n%d\0" % one, number) == b"v"
    assert len(read) == len(copied) == 1
    store.restore(earlier)
    assert client.ask(Type.READ, b"data/n0\0", number) == b"ENOENT\0" and len(read) == 2
    while client.ask(Type.WRITE, b"data/large\0" + bytes(2000), number) == b"OK\0":
        pass
    log = store.server.transactions[number]
    assert client.ask(Type.WRITE, b"data/large\0" + bytes(2000), number) == b"ENOSPC\0"
    assert store.server.transactions[number] == log
    assert client.ask(Type.TRANSACTION_END, b"T\0", number) == b"OK\0"
    assert client.ask(Type.READ, b"data/large\0") == bytes(2000)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("node", ["/local", HOME, f"{HOME}/device", "/local/domain/0/backend"])
def test_nodes_of_devices_that_are_removed(make: Callable[[], Device], node: str) -> None:
    """A back end ends with the nodes of its front end, and gives back what it holds. The domain goes on. Without its
    own nodes it serves on.
    """
    made = make()
    furnish(made.bench)
    domain, back_end = made.bench.caller.domain, made.front.back_end
    assert back_end.is_connected and domain.grants.held
    domain.store.receive_request(bytes([Type.RM]) + node.encode() + b"\0")
    assert back_end.is_connected == (node == "/local/domain/0/backend")
    assert bool(domain.grants.held) == back_end.is_connected
    exercise(made)
    made.bench.close()


def _counted(method: Callable[..., Any], calls: list[int]) -> Callable[..., Any]:
    """Return a method that notes how often it is called."""

    def counted(*args: Any) -> Any:
        calls.append(1)
        return method(*args)

    return counted


def test_nodes_as_deep_as_a_path_is_long_are_removed(client: Client) -> None:
    deep = b"/".join([b"a"] * min(MOST_NODES - 100, (LONGEST_PATH - 10) // 2))
    assert client.ask(Type.WRITE, b"data/" + deep + b"\0") == b"OK\0"
    assert client.ask(Type.RM, b"data/a\0") == b"OK\0"
    assert client.ask(Type.DIRECTORY, b"data\0") == b""
