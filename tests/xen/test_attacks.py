"""Two guests attack a third: by grants, event channels and XenStore. The kinds are those of Xen's advisories
(docs/xen-advisories.md).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dbt.hypervisor.cluster import Cluster
from dbt.hypervisor.xen.foreign_pages import ForeignPages, Status
from dbt.hypervisor.xen.interface import Request
from dbt.hypervisor.xen.store.server import Type
from dbt.memory.dma import Dma
from tests.xen.attackers import (
    BY_GRANT_FROM,
    BY_GRANT_TO,
    OTHER_PLACE,
    PAGE,
    PERMIT,
    PLACE,
    READ_ONLY,
    SECRET,
    TABLE,
    Guest,
    host_of,
)
from tests.xen.guests import ARGUMENTS, MEMORY, RAM, SELF, Caller, domain_machine
from tests.xen.pairs import sleepers
from tests.xen.store_client import Client

_IN_USE = PERMIT | 3 << 3


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with sleepers(3) as made:
        yield made


@pytest.fixture
def guests(cluster: Cluster) -> tuple[Guest, Guest, Guest]:
    """The victim and both attackers."""
    victim, attacker, helper = (Guest(cluster, number) for number in (1, 2, 3))
    return victim, attacker, helper


Guests = tuple[Guest, Guest, Guest]


# -- grants --------------------------------------------------------------------------------------------


def test_a_stale_grant_gives_nothing(cluster: Cluster, guests: Guests) -> None:
    """After the grant has ended, or is one of another page, neither mapping nor copying reaches anything."""
    victim, attacker, _ = guests
    victim.write(PAGE, SECRET)
    victim.write(PAGE + 0x1000, b"later")
    for page in (None, PAGE + 0x1000):
        victim.grant(8, 2)
        status, handle = attacker.map(1, 8)
        assert status == 0 and attacker.read(PLACE, 4) == SECRET
        victim.grant(8, 2, page or PAGE, PERMIT if page else 0)
        attacker.write(PLACE, b"late")
        host_of(cluster).stand_together()
        assert attacker.read(PLACE, 4096) == bytes(4096) and victim.read(PAGE, 4) == SECRET
        if not page:
            assert attacker.copy((8, 1, 0), (PLACE >> 12, SELF, 0), 4) == Status.GENERAL_ERROR
        assert attacker.unmap(handle) == 0 and victim.read(PAGE + 0x1000, 5) == b"later"
        assert victim.flags(8) & 3 << 3 == 0


def test_unmapping_twice(guests: Guests) -> None:
    """It does not end what another domain has, nor what the handle means next. A wrong place ends nothing."""
    victim, attacker, helper = guests
    victim.grant(8, 2)
    victim.grant(9, 3)
    handle, other = attacker.map(1, 8)[1], helper.map(1, 9)[1]
    assert attacker.unmap(handle, OTHER_PLACE) == Status.GENERAL_ERROR and victim.flags(8) == _IN_USE
    assert attacker.unmap(handle) == 0 and victim.flags(8) == PERMIT
    for one in (handle, handle + 1, 0xFFFFFFFF, 1 << 31):
        assert attacker.unmap(one) == Status.BAD_HANDLE
    assert victim.flags(9) == _IN_USE and helper.unmap(other) == 0 and victim.flags(9) == PERMIT
    first, second = attacker.map(1, 8), attacker.map(1, 8, OTHER_PLACE)
    assert first[0] == second[0] == 0 and first[1] != second[1]
    assert attacker.unmap(first[1]) == 0 and victim.flags(8) == _IN_USE, "it is mapped a second time"
    assert attacker.unmap(second[1], OTHER_PLACE) == 0 and victim.flags(8) == PERMIT


def test_only_what_is_granted_is_mapped(guests: Guests) -> None:
    victim, attacker, helper = guests
    victim.write(PAGE, SECRET)
    victim.grant(8, 2, flags=PERMIT | READ_ONLY)
    victim.grant(9, 2, 0xFFFFF000)
    victim.grant(10, 2, flags=2)
    assert helper.map(1, 8, flags=6)[0] == attacker.map(1, 8)[0] == attacker.map(1, 10)[0] == Status.GENERAL_ERROR
    assert attacker.map(1, 0)[0] == Status.GENERAL_ERROR, "that is the back ends'"
    assert attacker.map(1, 9)[0] == Status.GENERAL_ERROR, "there is no RAM"
    for reference in (512, 0x7FFFFFFF, 0xFFFFFFFF):
        assert attacker.map(1, reference)[0] == Status.BAD_REFERENCE
    assert attacker.map(0, 8)[0] == Status.BAD_REFERENCE
    for domain in (4, SELF, 0xFFFF):
        assert attacker.map(domain, 8)[0] == Status.BAD_DOMAIN
    for flags in (0, 1, 2 | 16, 2 | 8):
        assert attacker.map(1, 8, flags=flags | READ_ONLY)[0] < 0
    assert attacker.copy((1 + (1 << 32), SELF, 0), (8, 1, 0), 4, BY_GRANT_TO) < 0, "it is read-only"
    assert victim.read(PAGE, 4) == SECRET and victim.flags(8) == PERMIT | READ_ONLY
    status, handle = attacker.map(1, 8, flags=2 | READ_ONLY)
    assert status == 0 and victim.flags(8) == PERMIT | READ_ONLY | 1 << 3
    attacker.write(PLACE, b"mine")
    assert attacker.unmap(handle) == 0 and victim.read(PAGE, 4) == SECRET


def test_a_page_cannot_be_passed_on(guests: Guests) -> None:
    """Who has a page mapped cannot grant it, and a page that its owner has given back is nobody's."""
    victim, attacker, helper = guests
    victim.grant(8, 2)
    assert attacker.map(1, 8)[0] == 0
    attacker.grant(8, 3, PLACE)
    assert helper.map(2, 8)[0] == helper.copy((8, 2, 0), (PLACE >> 12, SELF, 0), 4) == Status.BAD_PAGE
    victim.put("Q", PAGE >> 12, at=RAM + 0x20000)
    assert victim.call(12, 1, victim.put("QQIIHxxxxxx", RAM + 0x20000, 1, 0, 0, SELF)) == 1
    assert attacker.map(1, 8, OTHER_PLACE)[0] == Status.BAD_PAGE


def test_places_where_nothing_can_be_mapped(guests: Guests) -> None:
    victim, attacker, _ = guests
    victim.grant(8, 2)
    before = attacker.read(TABLE, 4096)
    places = (
        TABLE,
        0x39004000,
        0x39000000,
        0,
        0x03001000,
        RAM + MEMORY,
        PLACE + 1,
        PLACE + (1 << 32),
        (1 << 64) - 4096,
    )
    for place in places:
        assert attacker.map(1, 8, place)[0] == Status.GENERAL_ERROR
    assert victim.flags(8) == PERMIT and attacker.read(TABLE, 4096) == before
    assert attacker.map(1, 8)[0] == 0 and attacker.map(1, 8)[0] == Status.GENERAL_ERROR, "the place is taken"
    attacker.put("Q", PLACE >> 12, at=RAM + 0x20000)
    for command in (1, 6):
        assert attacker.call(12, command, attacker.put("QQIIHxxxxxx", RAM + 0x20000, 1, 0, 0, SELF)) == 0
    for space in (0, 1):
        assert attacker.call(12, 7, attacker.put("HHIQQ", SELF, 0, space, space, PLACE >> 12)) == -22


def test_a_mapping_that_is_refused_changes_nothing() -> None:
    """Among others not where the guest hears of events."""
    with domain_machine() as machine:
        guest = Caller(machine)
        page = RAM + 0x50000
        assert guest.call(12, 7, guest.put("HHIQQ", SELF, 0, 1, 0, PLACE >> 12)) == 0
        assert guest.call(24, 10, 0, guest.put("QII", page >> 12, 0x40, 0)) == 0
        place = guest.domain.shared.vcpu_info
        for space, index in ((1, 64), (1, 1 << 20), (0, 1)):
            assert guest.call(12, 7, guest.put("HHIQQ", SELF, 0, space, index, page >> 12)) == -22
        assert guest.call(12, 7, guest.put("HHIQQ", SELF, 0, 1, 1, PLACE >> 12)) == -22, "it has another of its pages"
        assert guest.domain.shared.vcpu_info == place != 0


@pytest.mark.parametrize("how", ["map", "give back", "grant table"])
@pytest.mark.parametrize("what", ["virtual CPU", "control block", "event words"])
def test_the_hypervisor_writes_to_no_page_that_came_later(guests: Guests, what: str, how: str) -> None:
    """A page is put over that with the information of the virtual CPU, or with queues of events. The hypervisor goes on
    with what was there, as Xen does, which has noted the frame of the machine.
    """
    victim, attacker, _ = guests
    info, control, words = (
        PLACE if what == name else PLACE + 0x8000 + 0x1000 * number
        for number, name in enumerate(("virtual CPU", "control block", "event words"))
    )
    assert attacker.call(24, 10, 0, attacker.put("QII", info >> 12, 0x40, 0)) == 0
    assert attacker.events(11, "QIIB7x", control >> 12, 0, 0, 0) == 0
    assert attacker.events(12, "Q", words >> 12) == 0
    port = attacker.open()
    other = attacker.bind(port)
    assert attacker.events(13, "II", port, 3) == 0, "a queue of its own"
    victim.write(PAGE, SECRET * 1024)
    victim.grant(8, 2, flags=PERMIT | READ_ONLY)
    handle = 0
    if how == "map":
        status, handle = attacker.map(1, 8, flags=6)
        assert status == Status.OKAY
    elif how == "give back":
        attacker.put("Q", PLACE >> 12, at=RAM + 0x20000)
        for command in (1, 6):
            assert attacker.call(12, command, attacker.put("QQIIHxxxxxx", RAM + 0x20000, 1, 0, 0, SELF)) == 1
    else:
        assert attacker.call(12, 7, attacker.put("HHIQQ", SELF, 0, 1, 1, PLACE >> 12)) == 0
    before = attacker.read(PLACE, 4096)
    assert before == (SECRET * 1024 if how == "map" else bytes(4096))
    shared = attacker.domain.shared
    shared.dma.put_byte(shared.vcpu_info, 0)
    assert attacker.events(4, "I", other) == 0
    assert shared.is_upcall_pending and attacker.domain.channels.queues.is_pending(port)
    assert attacker.read(PLACE, 4096) == before and victim.read(PAGE, 4096) == SECRET * 1024
    assert attacker.domain.channels.queues.is_possible() and shared.is_possible()
    if how == "map":
        assert attacker.unmap(handle) == Status.OKAY
        assert attacker.read(PLACE, 4096) == bytes(4096)


def test_copies_stay_within_pages(guests: Guests) -> None:
    victim, attacker, _ = guests
    victim.write(PAGE - 4, SECRET * 3)
    victim.write(PAGE + 4096, SECRET)
    victim.grant(8, 2)
    own = (PLACE >> 12, SELF, 0)
    for offset, size in ((4095, 2), (0, 4097), (1, 4096), (65535, 1), (65535, 65535)):
        assert attacker.copy((8, 1, offset), own, size) == Status.BAD_COPY
        assert attacker.copy(own, (8, 1, offset), size, BY_GRANT_TO) == Status.BAD_COPY
    assert attacker.copy((PAGE >> 12, 1, 0), own, 4, 0) == Status.PERMISSION_DENIED, "a frame of somebody else's"
    for frame in (RAM + MEMORY >> 12, (1 << 52) - 1, (1 << 64) - 1):
        assert attacker.copy((8, 1, 0), (frame, SELF, 0), 4) == Status.BAD_PAGE
    assert attacker.copy((8, 1, 0), own, 4096) == 0
    assert attacker.read(PLACE, 8) == SECRET * 2 and attacker.read(PLACE - 4, 4) == bytes(4) == attacker.read(
        PLACE + 4096, 4
    )
    assert (
        attacker.copy((8, 1, 0), (8, 1, 8), 4, BY_GRANT_FROM | BY_GRANT_TO) == 0 and victim.read(PAGE + 8, 4) == SECRET
    )


def test_long_lists_are_done_piece_by_piece(guests: Guests) -> None:
    """The hypercall is executed again with what is left, and each operation has its status."""
    victim, attacker, _ = guests
    victim.grant(8, 2)
    form = "QHHxxxxQHHxxxxHHhxx"
    for number in range(100):
        attacker.put(form, 8, 1, 0, PLACE >> 12, SELF, 0, number * 60, 1, 77, at=ARGUMENTS + 40 * number)
    args, rounds = [5, ARGUMENTS, 100, 0, 0], 1
    while (answer := attacker.domain.call(20, args)) is Request.AGAIN:
        rounds += 1
    assert (answer, rounds) == (0, 4)
    statuses = [attacker.get(form, ARGUMENTS + 40 * number)[8] for number in range(100)]
    assert statuses == [0 if number * 60 <= 4096 else Status.BAD_COPY for number in range(100)]
    assert attacker.call(20, 5, ARGUMENTS, 1 << 31) == -22 and attacker.call(20, 5, 0, 1) == -14
    assert attacker.call(20, 0, RAM + MEMORY - 16, 1) == -14


# -- event channels ------------------------------------------------------------------------------------


def test_ports_are_for_whom_they_are_offered(cluster: Cluster, guests: Guests) -> None:
    victim, attacker, helper = guests
    port = victim.open(2)
    assert helper.events(0, "HxxII", 1, port, 0) == -22
    for other in (0, port + 1, 1023, 1024, 0xFFFFFFFF):
        assert attacker.events(0, "HxxII", 1, other, 0) == -22
    assert attacker.events(0, "HxxII", 4, port, 0) == -3
    assert attacker.events(6, "HHI", 1, 2, 0) == attacker.events(10, "H", 1) == -1, "a port of somebody else's"
    assert attacker.events(5, "HxxI16x", 1, port) == -1
    assert attacker.events(0, "HxxII", 1, port, 0) == 0
    mine = attacker.get("HxxII")[2]
    assert attacker.events(0, "HxxII", 1, port, 0) == -22, "once"
    assert victim.events(5, "HxxI16x", SELF, port) == 0 and victim.get("HxxIIIII")[2:6] == (2, 0, 2, mine)
    attacker.events(10, "H", SELF)
    assert victim.events(5, "HxxI16x", SELF, port) == 0 and victim.get("HxxIIIII")[2:5] == (1, 0, 2)
    assert victim.events(4, "I", port) == 0


def test_an_event_comes_to_nobody_else(cluster: Cluster, guests: Guests) -> None:
    """The port that it was sent to is closed, and another domain's is in its place."""
    victim, attacker, helper = guests
    port = victim.open(2)
    assert attacker.events(0, "HxxII", 1, port, 0) == 0
    assert attacker.events(4, "I", attacker.get("HxxII")[2]) == 0
    assert victim.events(3, "I", port) == 0 and victim.open(3) == port
    host_of(cluster).stand_together()
    assert victim.read(0x39004000 + 48, 128) == bytes(128)
    for _ in range(5):
        assert helper.events(0, "HxxII", 1, port, 0) == 0
        assert helper.events(3, "I", helper.get("HxxII")[2]) == 0
    assert helper.events(0, "HxxII", 1, port, 0) == 0
    for _ in range(1000):
        helper.events(4, "I", helper.get("HxxII")[2])
    host_of(cluster).stand_together()
    assert victim.read(0x39004000 + 48 + port // 8, 1)[0] == 1 << port % 8


def test_a_poll_of_ports_that_are_not_there(guests: Guests) -> None:
    for guest in guests:
        guest.put("3I", 1023, 1024, 0xFFFFFFFF, at=RAM + 0x20000)
        assert guest.call(29, 3, guest.put("QIxxxxQ", RAM + 0x20000, 3, 1)) == -22
        assert guest.call(29, 3, guest.put("QIxxxxQ", RAM + 0x20000, 1, 1)) in (0, Request.BLOCK)


# -- XenStore ------------------------------------------------------------------------------------------


@pytest.fixture
def clients(guests: Guests) -> list[Client]:
    return [Client(guest) for guest in guests]


def test_nobody_hears_of_nodes_that_they_cannot_read(cluster: Cluster, clients: list[Client]) -> None:
    """Not of changes, nor of removal, also where a node above is removed."""
    victim, attacker, _ = clients
    victim.ask(Type.WRITE, b"data/open\0x")
    victim.ask(Type.SET_PERMS, b"data/open\0n1\0r2\0")
    for path in (b"/local/domain/1/data", b"/local/domain/1/data/secret/key", b"/local/domain/1/data/open"):
        assert attacker.ask(Type.WATCH, path + b"\0t\0") == b"OK\0"
    attacker.events.clear()
    victim.ask(Type.WRITE, b"data/secret/key\0x")
    victim.ask(Type.RM, b"data/secret\0")
    cluster.run(seconds=0.00002)
    attacker.ask(Type.READ, b"domid\0")
    assert attacker.events == []
    victim.ask(Type.RM, b"data/open\0")
    cluster.run(seconds=0.00002)
    attacker.ask(Type.READ, b"domid\0")
    assert attacker.events == [b"/local/domain/1/data/open\0t\0"], "it could read that"


def test_a_number_that_is_used_again_inherits_nothing(cluster: Cluster, clients: list[Client]) -> None:
    victim, attacker, helper = clients
    victim.ask(Type.WRITE, b"data/x\0secret")
    victim.ask(Type.SET_PERMS, b"data/x\0n1\0r2\0")
    victim.ask(Type.SET_PERMS, b"data\0n1\0w2\0")
    assert attacker.ask(Type.WRITE, b"/local/domain/1/data/mine\0x") == b"OK\0"
    assert attacker.ask(Type.SET_PERMS, b"/local/domain/1/data/mine\0n2\0r3\0") == b"OK\0"
    cluster["domain 2"].machine.reset()
    again = Client(Guest(cluster, 2))
    assert again.ask(Type.READ, b"/local/domain/1/data/x\0") == b"EACCES\0"
    assert again.ask(Type.WRITE, b"/local/domain/1/data/new\0x") == b"EACCES\0"
    assert victim.ask(Type.DIRECTORY, b"data\0") == b"x\0" and victim.ask(Type.GET_PERMS, b"data/x\0") == b"n1\0"
    assert "/local/domain/1/data/mine" not in host_of(cluster).tree.values
    assert helper.ask(Type.READ, b"/local/domain/1/data/mine\0") == b"EACCES\0"


@pytest.mark.parametrize(
    "kind", [Type.READ, Type.DIRECTORY, Type.GET_PERMS, Type.WRITE, Type.MKDIR, Type.RM, Type.SET_PERMS]
)
def test_nobody_learns_which_nodes_are_there(clients: list[Client], kind: int) -> None:
    """Below a node that they may not access, whether it is there or not. Where they may, they learn that it is not."""
    victim, attacker, _ = clients
    rest = b"n2\0" if kind == Type.SET_PERMS else b""
    victim.ask(Type.WRITE, b"data/secret/key\0x")
    for node in (b"data/secret/key", b"data/secret/other", b"data/none/at/all", b"none"):
        assert attacker.ask(kind, b"/local/domain/1/" + node + b"\0" + rest) == b"EACCES\0", node
    assert attacker.ask(kind, b"/local/domain/9/data\0" + rest) == b"EACCES\0"
    assert victim.ask(Type.SET_PERMS, b"data\0n1\0b2\0") == b"OK\0"
    answer = b"OK\0" if kind in (Type.WRITE, Type.MKDIR, Type.RM) else b"ENOENT\0"
    assert attacker.ask(kind, b"/local/domain/1/data/none\0" + rest) == answer


def test_quotas_hold_together_and_in_transactions(clients: list[Client]) -> None:
    """What a domain makes below another's nodes counts as its own, and transactions make no more."""
    victim, attacker, helper = clients
    attacker.ask(Type.SET_PERMS, b"data\0n2\0b3\0")
    answers = {helper.ask(Type.MKDIR, b"/local/domain/2/data/%d\0" % number) for number in range(1010)}
    assert answers == {b"OK\0", b"ENOSPC\0"}
    assert attacker.ask(Type.MKDIR, b"data/mine\0") == b"OK\0", "that is nobody's but its own"
    assert helper.ask(Type.SET_PERMS, b"/local/domain/2/data/1\0n1\0") == b"EPERM\0"
    assert attacker.ask(Type.SET_PERMS, b"/local/domain/2/data/1\0n2\0") == b"EACCES\0"
    numbers = [int(attacker.ask(Type.TRANSACTION_START, b"\0").rstrip(b"\0")) for _ in range(3)]
    for number in numbers:
        for name in range(400):
            assert attacker.ask(Type.MKDIR, b"data/%d-%d\0" % (number, name), number) == b"OK\0"
    ends = [attacker.ask(Type.TRANSACTION_END, b"T\0", number) for number in numbers]
    assert ends == [b"OK\0", b"OK\0", b"EAGAIN\0"]
    assert victim.ask(Type.MKDIR, b"data/x\0") == b"OK\0"


def test_the_root_is_not_theirs(clients: list[Client]) -> None:
    for client in clients[1:]:
        for path in (b"/", b"/local", b"/local/domain", b"/local/domain/1", b"/local/domain/0"):
            for kind, payload in (
                (Type.RM, b"\0"),
                (Type.WRITE, b"\0x"),
                (Type.SET_PERMS, b"\0b0\0"),
                (Type.READ, b"\0"),
            ):
                answer = client.ask(kind, path + payload)
                assert answer in (b"EACCES\0", b"EINVAL\0", b"ENOENT\0"), (kind, path, answer)
        for text in (b"4294967297\0", b"-1\0", b"0x1\0", b"99999\0"):
            assert client.ask(Type.IS_DOMAIN_INTRODUCED, text) in (b"EINVAL\0", b"F\0")


# -- answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "size"), [(1, 16), (2, 144), (3, 1024), (4, 64), (5, 8), (6, 8), (8, 16), (9, 1024)]
)
def test_answers_have_nothing_in_their_padding(guests: Guests, command: int, size: int) -> None:
    """All bytes of xen_version's answers are those of a text and zeros, and nothing behind them changes."""
    found = []
    for guest, filling in zip(guests, (b"\0", b"\xee", b"\x55"), strict=True):
        guest.write(ARGUMENTS, bytes(4) + filling * 2044)
        assert guest.call(17, command, ARGUMENTS) == 0
        assert guest.read(ARGUMENTS + size, 2048 - size) == filling * (2048 - size)
        found.append(guest.read(ARGUMENTS, size))
    assert len(set(found)) == 1
    if command not in (5, 6):  # which are numbers
        assert not found[0].partition(b"\0")[2].strip(b"\0")


# -- everything at random ------------------------------------------------------------------------------


def _attack(guest: Guest, draw: random.Random) -> None:
    """Make a hypercall about other domains, of which many make sense."""
    domain, place = (
        draw.choice((0, 1, 1, 1, 2, 3, 4, SELF)),
        draw.choice((PLACE, OTHER_PLACE, PAGE, TABLE, draw.getrandbits(33))),
    )
    reference, small = (
        draw.choice((0, 1, 8, 9, 10, draw.getrandbits(32))),
        draw.choice((0, 1, 2, 3, 4, draw.getrandbits(32))),
    )
    match draw.randrange(8):
        case 0 | 1:
            guest.map(domain, reference, place, draw.choice((2, 2, 6, draw.getrandbits(5))))
        case 2:
            guest.unmap(small, place)
        case 3:
            ends = [
                (draw.choice((reference, place >> 12)), domain, draw.choice((0, 8, draw.getrandbits(16)))) for _ in "ab"
            ]
            guest.copy(ends[0], ends[1], draw.choice((4, 4096, draw.getrandbits(16))), draw.getrandbits(2))
        case 4:
            guest.events(0, "HxxII", domain, small, 0)
        case 5:
            guest.events(draw.choice((3, 4, 9)), "I", small)
        case 6:
            guest.events(6, "HHI", SELF, domain, 0)
        case _:
            guest.grant(draw.choice((8, 9, 10)), domain & 0xFFFF, place & 0xFFFFF000, draw.getrandbits(3))


def test_random_attacks_reach_only_what_is_granted(cluster: Cluster, guests: Guests) -> None:
    """The victim grants a page to be written and one to be read. Everything else of it stays, and nobody gets it."""
    victim, *attackers = guests
    draw, read_only = random.Random(7), PAGE + 0x3000
    victim.write(RAM, SECRET * (MEMORY // 4))
    victim.write(PAGE, bytes(4096))
    victim.write(read_only, b"shown" + bytes(4091))
    victim.grant(8, 2)
    victim.grant(9, 3, read_only, PERMIT | READ_ONLY)
    before = victim.read(RAM, MEMORY)
    for number in range(4000):
        _attack(draw.choice(attackers), draw)
        if number % 100 == 0:
            host_of(cluster).stand_together()
            after = victim.read(RAM, MEMORY)
            at = PAGE - RAM
            assert after[:at] + after[at + 4096 :] == before[:at] + before[at + 4096 :]
            assert not any(SECRET * 2 in attacker.read(RAM, MEMORY) for attacker in attackers)
    assert {one.what for one in host_of(cluster).log} == {"mapped", "unmapped"}
    assert any(one.domain == 3 and one.page.domain == 1 for one in host_of(cluster).log)
    with cluster.save() as state, state.restore() as again:
        assert again.hashes() == cluster.hashes()


def test_after_each_turn_both_sides_have_the_same_and_nothing_that_is_not_granted(
    cluster: Cluster, guests: Guests
) -> None:
    """Whoever writes to which page, changes which grant, or gives which frame back."""
    host, draw = host_of(cluster), random.Random(11)
    seen = {"mapped": 0, "revoked": 0}
    for guest in guests:
        for reference, place in ((8, PAGE), (9, PAGE + 0x3000), (10, PAGE + 0x4000)):
            guest.grant(reference, draw.choice((1, 2, 3)), place, PERMIT | draw.choice((0, READ_ONLY)))
    for _ in range(1500):
        guest = draw.choice(guests)
        own = draw.choice((PAGE, PAGE + 0x3000, PAGE + 0x4000))
        match draw.randrange(16):
            case 0:
                guest.call(12, 15, guest.put("HxxxxxxQ", SELF, own >> 12))  # remove_from_physmap
            case 1 | 2 | 3:
                extent = guest.put("Q", own >> 12, at=ARGUMENTS + 64)
                guest.call(12, 6, guest.put("QQIIHxxxxxx", extent, 1, 0, 0, SELF))  # populate_physmap
            case 4 | 5 | 6 | 7:
                guest.write(draw.choice((own, PLACE, OTHER_PLACE)) + 4 * draw.randrange(1024), draw.randbytes(4))
            case 8 | 9 | 10 | 11:
                guest.map(draw.choice((1, 2, 3)), draw.choice((8, 9, 10)), draw.choice((PLACE, OTHER_PLACE)))
            case 12:
                guest.grant(draw.choice((8, 9, 10)), draw.choice((1, 2, 3)), own, draw.choice((0, 1, 1, 1, 5)))
            case _:
                _attack(guest, draw)
        host.has_changed(guest.number)
        host.agree_on_pages()
        for domain in host.domains.values():
            for _, one in domain.foreign.items():
                seen["revoked" if one.is_revoked else "mapped"] += 1
                if not one.is_revoked:
                    assert domain.foreign.is_granted(one), one
                    assert domain.dma.read(one.page, 4096) == host.domains[one.domain].dma.read(one.granted, 4096), one
    assert min(seen.values()) > 100, seen


def test_only_pages_that_were_written_are_looked_at(
    cluster: Cluster, guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Domains that map many pages of each other do not make the others wait."""
    victim, attacker, _ = guests
    references = range(8, 72)
    pages = [(one, PAGE + 0x1000 * one, RAM + 0x90000 + 0x1000 * one) for one in references]
    for reference, page, place in pages:
        victim.grant(reference, 2, page)
        assert attacker.map(1, reference, place)[0] == 0
    host, asked = host_of(cluster), list[object]()
    host.agree_on_pages()

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            asked.append(arguments)
            return method(*arguments)

        return call

    monkeypatch.setattr(Dma, "read", counted(Dma.read))
    monkeypatch.setattr(ForeignPages, "is_granted", counted(ForeignPages.is_granted))
    for places in pages[:20]:
        for guest, at, other, there in ((victim, 1, attacker, 2), (attacker, 2, victim, 1)):
            asked.clear()
            guest.write(places[at], b"new" + bytes([at]))
            for number in (1, 2):
                host.has_changed(number)
            host.agree_on_pages()
            assert len(asked) < 10 and other.read(places[there], 4) == b"new" + bytes([at])


# -- the list ---------------------------------------------------------------------------------------


def test_the_list_of_advisories_names_tests_that_there_are() -> None:
    """Each row of docs/xen-advisories.md that names a test by its words, such as ``test_x.py``: what it shows."""
    page = (Path(__file__).parents[2] / "docs" / "xen-advisories.md").read_text()
    named = re.findall(r"`(test_\w+\.py)`: ([^|`.]+)", page)
    assert len(named) > 15
    for file, words in named:
        functions = re.findall(r"def (test_\w+)", (Path(__file__).parent / file).read_text())
        for each in filter(str.strip, words.split(";")):
            assert "test_" + each.strip(" ,").replace(" ", "_") in functions, (file, each)
