"""Attacks after Xen's advisories that no other test of a part has: docs/xen-advisories.md says which is for which."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbt.hypervisor.cluster import Cluster
from dbt.hypervisor.xen.store.server import MOST_TRANSACTIONS, MOST_WATCHES, Type
from dbt.hypervisor.xen.store.transaction_log import LARGEST_PAYLOAD
from dbt.hypervisor.xen.store.tree import LONGEST_PATH
from tests.xen.attackers import BY_GRANT_TO, PAGE, TABLE, Guest
from tests.xen.guests import ARRAY, CONTROL, RAM, SELF, Caller, domain_machine, use_queues
from tests.xen.pairs import sleepers
from tests.xen.store_client import HOME, Client

_EPERM, _ENOENT, _ENXIO, _EEXIST, _EINVAL, _ENOSYS, _EOPNOTSUPP = -1, -2, -6, -17, -22, -38, -95


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with sleepers(3) as made:
        yield made


@pytest.fixture
def client() -> Iterator[Client]:
    with domain_machine() as machine:
        yield Client(Caller(machine))


def test_the_processors_information_is_aligned() -> None:
    """Once, within a page, and where its words can be accessed as a whole."""
    with domain_machine() as machine:
        caller = Caller(machine)
        frame = (RAM >> 12) + 0x30
        for offset in (1, 2, 4, 7, 4044, 4056, 4096, 0x80000000):
            assert caller.call(24, 10, 0, caller.put("QII", frame, offset, 0)) == _ENXIO
        assert caller.call(24, 10, 0, caller.put("QII", frame, 4048, 0)) == 0
        assert caller.call(24, 10, 0, caller.put("QII", frame, 8, 0)) == _EINVAL


def test_a_page_of_the_table_stays_where_it_is(cluster: Cluster) -> None:
    """Putting it there again is allowed, and leaves what it says; another page cannot be there too."""
    guest = Guest(cluster, 1)
    guest.grant(8, 2)
    assert guest.call(12, 7, guest.put("HHIQQ", SELF, 0, 1, 0, TABLE >> 12)) == 0
    assert guest.flags(8) == 1
    assert guest.call(12, 7, guest.put("HHIQQ", SELF, 0, 1, 1, TABLE >> 12)) == _EINVAL
    assert guest.flags(8) == 1


def test_queues_end_with_a_reset() -> None:
    """Nothing is written to their pages any more, no page is added to what is not there, and they can begin anew."""
    with domain_machine() as machine:
        caller = Caller(machine)
        use_queues(caller)
        assert caller.events(10, "H", SELF) == 0
        caller.put("1024I", *[0] * 1024, at=ARRAY << 12)
        caller.put("1024I", *[0] * 1024, at=CONTROL << 12)
        assert caller.events(12, "Q", ARRAY) == _EOPNOTSUPP
        near = caller.open()
        assert caller.events(4, "I", caller.bind(near)) == 0
        assert not any(caller.get("1024I", ARRAY << 12)) and not any(caller.get("1024I", CONTROL << 12))
        use_queues(caller)
        assert caller.events(4, "I", caller.bind(caller.open())) == 0
        assert any(caller.get("1024I", ARRAY << 12))


def test_a_copy_obeys_what_the_grant_says_now(cluster: Cluster) -> None:
    """Also while the page is mapped as it was: another page, another domain, or reading alone."""
    victim, attacker, other = (Guest(cluster, number) for number in (1, 2, 3))
    victim.grant(8, 2)
    victim.write(PAGE + 0x1000, b"new!")
    status, handle = attacker.map(1, 8)
    assert status == 0
    victim.grant(8, 2, PAGE + 0x1000, flags=victim.flags(8) | 4)
    assert attacker.copy((8, 1, 0), (PAGE >> 12, SELF, 0), 4) == 0 and attacker.read(PAGE, 4) == b"new!"
    assert attacker.copy((PAGE >> 12, SELF, 0), (8, 1, 0), 4, BY_GRANT_TO) < 0, "it is read-only now"
    victim.grant(8, 3, PAGE, flags=victim.flags(8))
    assert attacker.copy((8, 1, 0), (PAGE >> 12, SELF, 0), 4) < 0
    assert other.copy((8, 1, 4095), (PAGE >> 12, SELF, 0), 1) == 0
    assert attacker.unmap(handle) == 0 and attacker.unmap(handle) < 0


@pytest.mark.parametrize("operation", [1, 2, 3])
def test_caches_are_cleaned_of_own_pages_alone(cluster: Cluster, operation: int) -> None:
    """Within one page, and of no other guest's, be it granted or not."""
    victim, attacker = Guest(cluster, 1), Guest(cluster, 2)
    victim.grant(8, 2)

    def flush(address: int, offset: int, length: int, flags: int = 0) -> object:
        return attacker.call(20, 12, attacker.put("QHHI", address, offset, length, operation | flags), 1)

    assert flush(PAGE, 0, 4096) == flush(PAGE, 4095, 1) == 0
    assert flush(PAGE, 4096, 0) == flush(PAGE, 4095, 2) == flush(PAGE, 1, 65535) == _EINVAL
    for address in (0, 0x37FFF000, RAM + (1 << 30), (1 << 64) - 4096):
        assert flush(address, 0, 64) == _EPERM
    assert flush(8, 0, 64, 1 << 31) != 0, "a page of another domain's by its grant"
    assert victim.flags(8) == 1


def test_watches_and_transactions_are_reset_together(client: Client) -> None:
    """A kernel that begins anew has all that it may have, again and again, also if it does so in a transaction."""
    for _ in range(3):
        for number in range(MOST_WATCHES):
            assert client.ask(Type.WATCH, b"data\0%d\0" % number) == b"OK\0"
        assert client.ask(Type.WATCH, b"data\0one more\0") == b"ENOSPC\0"
        begun = [int(client.ask(Type.TRANSACTION_START, b"\0").rstrip(b"\0")) for _ in range(MOST_TRANSACTIONS)]
        assert client.ask(Type.TRANSACTION_START, b"\0") == b"ENOSPC\0"
        assert client.ask(Type.WRITE, b"data/x\0y", begun[3]) == b"OK\0"
        assert client.ask(Type.RESET_WATCHES, b"\0", begun[3]) == b"OK\0"
        assert {client.ask(Type.TRANSACTION_END, b"T\0", number) for number in begun} == {b"ENOENT\0"}
        assert client.ask(Type.READ, b"data/x\0") == b"ENOENT\0"
    client.events.clear()
    client.ask(Type.WRITE, b"data/x\0y")
    assert client.events == []


def test_no_event_is_longer_than_a_message(client: Client) -> None:
    """Of the longest path, one of two watches of all with long tokens can hear, and the other one of shorter paths."""
    path = f"{HOME}/data/".encode()
    path += b"x" * (LONGEST_PATH + len(HOME) + 1 - len(path))
    longest = LARGEST_PAYLOAD - len(path) - 2
    for size in (longest, longest + 1):
        assert client.ask(Type.WATCH, b"/\0" + b"t" * size + b"\0") == b"OK\0"
    client.events.clear()
    assert client.ask(Type.WRITE, path + b"\0x") == b"OK\0"
    assert client.events == [path + b"\0" + b"t" * longest + b"\0"]
    client.events.clear()
    assert client.ask(Type.WRITE, b"data/short\0x") == b"OK\0"
    assert len(client.events) == 2


def test_events_of_the_toolstack_do_not_pile_up(client: Client) -> None:
    """XSA-326: a guest that does not read them hears of each watch once more, and of what comes when it has read."""
    store, target = client.caller.domain.store, b"memory/target\0"
    watches = {target + b"%d" % number + b"t" * 3000 + b"\0" for number in range(MOST_WATCHES)}
    for watch in sorted(watches):
        assert client.ask(Type.WATCH, watch) == b"OK\0"
    for number in range(100):
        store.receive(bytes([Type.WRITE]) + target + b"%d" % number)
        assert len(store.answers) < 1 << 19 and len(store.heard) <= MOST_WATCHES
    store.restore(store.save())
    client.events.clear()
    client.send(b"")
    assert client.ask(Type.READ, target) == b"99" and set(client.events) == watches
    assert len(client.events) >= 2 * MOST_WATCHES and not store.answers and not store.heard
    client.events.clear()
    store.receive(bytes([Type.WRITE]) + target + b"100")
    client.send(b"")
    assert client.ask(Type.READ, target) == b"100" and set(client.events) == watches


def test_nodes_may_be_deep(client: Client) -> None:
    """As deep as a path can be: made, listed, changed in a transaction, and removed at once."""
    depth = 900
    path = b"data" + b"/a" * depth
    assert client.ask(Type.WRITE, path + b"\0x") == b"OK\0"
    number = int(client.ask(Type.TRANSACTION_START, b"\0").rstrip(b"\0"))
    assert client.ask(Type.RM, path[:-2] + b"\0", number) == b"OK\0"
    assert client.ask(Type.WRITE, path + b"\0y", number) == b"OK\0"
    assert client.ask(Type.TRANSACTION_END, b"T\0", number) == b"OK\0"
    assert client.ask(Type.READ, path + b"\0") == b"y"
    assert client.ask(Type.RM, b"data/a\0") == b"OK\0" and client.ask(Type.DIRECTORY, b"data\0") == b""
    assert client.ask(Type.WRITE, path + b"\0z") == b"OK\0", "they do not count any more"


def test_what_a_domain_has_used_does_not_count_for_the_next(cluster: Cluster) -> None:
    """Of the same number: it may have as many nodes, watches and transactions as the first one."""
    counts = []
    for _ in range(2):
        client = Client(Guest(cluster, 2))
        answers = [client.ask(Type.MKDIR, b"data/%d\0" % number) for number in range(1010)]
        assert set(answers) == {b"OK\0", b"ENOSPC\0"}
        more = [client.ask(Type.WATCH, b"data\0%d\0" % number) for number in range(MOST_WATCHES + 1)]
        more += [client.ask(Type.TRANSACTION_START, b"\0") for _ in range(MOST_TRANSACTIONS + 1)]
        counts.append((answers.count(b"OK\0"), more.count(b"ENOSPC\0")))
        cluster["domain 2"].machine.reset()
    assert counts[0] == counts[1] and counts[0][1] == 2


@pytest.mark.parametrize("number", range(24))
def test_no_path_ends_xenstore(client: Client, number: int) -> None:
    """Whatever a message is about, in a transaction or not: the next one is answered."""
    paths = (
        b"",
        b"\0",
        b"/",
        b"//",
        b"data//x",
        b"data/",
        b"@",
        b"@releaseDomain",
        b"..",
        b"\xff\xfe",
        b" ",
        b"%s%n",
        b"a" * 4000,
    )
    begun = int(client.ask(Type.TRANSACTION_START, b"\0").rstrip(b"\0"))
    for path in paths:
        for rest in (b"", b"\0", b"\0\0", b"\0token\0", b"\0n1\0", b"\0" * 90):
            for transaction in (0, begun, 77):
                assert client.ask(number, path[: LARGEST_PAYLOAD - 90] + rest, transaction) is not None
    assert client.ask(Type.READ, b"name\0") == b"dbt"
    assert client.ask(Type.READ, b"domid\0") == b"1"


def test_a_virq_is_bound_once() -> None:
    """A second binding fails and ends nothing of the first one, as do those that make no sense."""
    with domain_machine() as machine:
        caller = Caller(machine)
        assert caller.events(1, "III", 0, 0, 0) == 0
        port = caller.get("III")[2]
        assert caller.events(1, "III", 0, 0, 0) == _EEXIST
        assert caller.events(1, "III", 24, 0, 0) == caller.events(1, "III", 0xFFFFFFFF, 0, 0) == _EINVAL
        assert caller.events(1, "III", 1, 7, 0) == _ENOENT
        before = caller.get("I", 0x39004000 + 48)[0]
        caller.domain.channels.send_virq(0)
        assert caller.get("I", 0x39004000 + 48)[0] == before | 1 << port
        assert caller.events(3, "I", port) == 0 and caller.events(1, "III", 0, 0, 0) == 0


def test_what_a_toolstack_may_is_unknown() -> None:
    """Platform, Flask, sysctl, domctl, HVM's and device models' calls, and operations on the memory of others."""
    with domain_machine(notice=lambda _: None) as machine:
        caller = Caller(machine)
        caller.put("64I", *[0] * 64)
        for number in (7, 27, 35, 36, 38, 39, 41, 42, 46, 47, 54, 55, 56, 63, 64, 0xFFFFFFFF):
            assert caller.call(number, 0, caller.put("2I", 1, 1)) == _ENOSYS, number
        for command in (11, 12, 16, 17, 20, 23, 26, 27, 28, 63):
            assert caller.call(12, command, caller.put("2I", 1, 1)) == _ENOSYS, command
