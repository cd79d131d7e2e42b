"""What comes from the other side is hostile until checked: no length, page, state or descriptor is believed."""

from __future__ import annotations

import os
import random
import re
import socket
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

import pytest

from dbt import CaptureConsole, Machine
from dbt.host.endpoint import WrongEndpoint
from dbt.host.net_option import Net
from dbt.hypervisor.migration import MigrationError, OwnMachines, Place
from dbt.hypervisor.migration.channel import Channel
from dbt.hypervisor.migration.destination import Incoming
from dbt.hypervisor.migration.errors import PeerGone, ProtocolError
from dbt.hypervisor.migration.messages import HEADER, LIMITS, Kind, Pages, layout_of, mapping, pending_of
from dbt.hypervisor.migration.page_tree import PageTree
from dbt.memory.ram import RamFile, RamLayout
from dbt.snapshot.plain import encode
from tests.migration.certificates import make_credentials
from tests.migration.sides import outgoing, receiving, running

_LAYOUT = RamLayout.of(1 << 20)
_LITTLE_LEFT = Kind.LITTLE_LEFT, None


def offer(**changes: object) -> dict[str, Any]:
    """What a source offers, with some values that are others."""
    with running() as machine:
        regions: list[object] = [[int(region.base), region.size, False] for region in machine.ram.layout.regions]
        fields = {"name": "a", "values": encode(machine.values()), "regions": regions}
        return {**fields, "shares_memory": False, "storage": [], **changes}


def answer_to(*messages: tuple[Kind, object] | bytes, descriptors: tuple[int, ...] = (), most: int = 4 << 30) -> str:
    """Return why a destination gives up that is sent these messages."""
    ours, theirs = socket.socketpair()
    with Channel(ours) as source, Channel(theirs) as target:
        for number, message in enumerate(messages):
            if isinstance(message, bytes):
                ours.sendall(message)
            else:
                source.send_raw(message[0], (encode(message[1]),), () if number else descriptors)
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(MigrationError) as raised:
            Incoming(target, OwnMachines({"console": CaptureConsole(), "tier": "threaded"}), most_memory=most).receive()
        return str(raised.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"regions": []}, "RAM where no machine has any"),
        ({"regions": [[0, 1 << 20, False]] * 2}, "RAM where no machine has any"),
        ({"regions": [[0, 4097, False]]}, "RAM where no machine has any"),
        ({"regions": [[0, 1 << 21, False]]}, "is not that of its values"),
        ({"regions": [["0", 4096, False]]}, "RAM where no machine has any"),
        ({"values": encode({})}, "the machine cannot be taken|KeyError"),
        ({"values": encode({1: 2})}, "values without names"),
        ({"values": [1]}, "a field values that is no bytes"),
        ({"values": b"\xc1"}, "the offer cannot be read"),
        ({"shares_memory": 1}, "a field shares_memory that is no bool"),
        ({"shares_memory": True}, "has not sent it"),
        ({"more": 1}, "has not the fields"),
    ],
)
def test_an_offer_that_makes_no_sense(change: dict[str, object], why: str) -> None:
    assert re.search(why, answer_to((Kind.OFFER, offer(**change)))), why


def test_no_more_memory_is_offered_than_the_host_gives() -> None:
    assert "524,288 are possible" in answer_to((Kind.OFFER, offer()), most=1 << 19)


def test_no_memory_is_taken_for_a_length_that_is_only_said() -> None:
    tracemalloc.start()
    try:
        for kind in Kind:
            text = answer_to(HEADER.pack(kind, 0xFFFFFFFF))
            assert "too much" in text or "and not OFFER" in text
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [0, 3, 16, 255])
def test_a_message_of_another_kind(kind: int) -> None:
    assert "and not OFFER" in answer_to(HEADER.pack(kind, 0))


def pages(*words: int, content: bytes = b"") -> memoryview[int]:
    return memoryview(struct.pack(f"<{len(words)}I", *words) + content)


@pytest.mark.parametrize(
    "body",
    [
        pages(1)[:3],
        pages(1, 0),
        pages(0xFFFFFFFF, 0xFFFFFFFF),
        pages(1, 0, 0, 1),  # no content
        pages(1, 0, 0, 1, content=bytes(4095)),
        pages(1, 0, 0, 1, content=bytes(8192)),
        pages(1, 0, 256, 1, content=bytes(4096)),  # behind the end of RAM
        pages(1, 0, 255, 2, content=bytes(8192)),
        pages(1, 0, 0xFFFFFFFF, 1, content=bytes(4096)),
        pages(1, 0, 0, 0),
        pages(2, 0, 4, 1, 3, 1, content=bytes(8192)),
        pages(2, 0, 3, 1, 3, 1, content=bytes(8192)),
        pages(0, 1, 0, 257),
    ],
)
def test_pages_that_cannot_be(body: memoryview[int]) -> None:
    with pytest.raises(ProtocolError):
        Pages.unpack(body, _LAYOUT, with_content=True)


def test_messages_of_random_bytes_raise_only_what_is_said() -> None:
    chance = random.Random(7)
    valid = bytes(pages(1, 1, 2, 1, 5, 1, content=bytes(4096)))
    for _ in range(3000):
        body = bytearray(valid if chance.random() < 0.7 else chance.randbytes(chance.randrange(60)))
        for _ in range(chance.randrange(1, 4)):
            if body:
                body[chance.randrange(min(len(body), 30))] = chance.randrange(256)
        for read in (
            lambda view: Pages.unpack(view, _LAYOUT, with_content=True),
            lambda view: mapping(view, "it", values=bytes),
            lambda view: layout_of(list(view)),
        ):
            with suppress(ProtocolError):
                read(memoryview(bytes(body)))


def test_a_state_that_is_not_what_was_offered_is_not_run() -> None:
    with running() as machine:
        values = machine.values()
    changes: tuple[dict[str, object], ...]
    changes = {"processor": b""}, {"icount": -1}, {"machine": None}, {"devices": {}}, {"drives": [1]}
    for change in changes:
        encoded = encode({**values, **change})
        state = {**good_state({}, []), "values": encoded}
        text = answer_to((Kind.OFFER, offer()), _LITTLE_LEFT, (Kind.STATE, state), root_of(state))
        assert "the machine cannot be taken" in text or "another machine than the offer" in text, change
    few, many = good_state(values, [[1, 2]]), good_state(values, [[b"", b""]])
    for state, why in ((few, "makes no sense"), (many, "more networks over")):
        assert why in answer_to((Kind.OFFER, offer()), _LITTLE_LEFT, (Kind.STATE, state))
    before = (Kind.OFFER, offer()), _LITTLE_LEFT, (Kind.STATE, good_state(values, []))
    for body, why in (
        ({"root": bytes(32)}, "its hash is another one"),
        ({"root": b""}, "its hash is another one"),
        ({}, "the hash has not the fields root"),
        ({"root": 1}, "the hash"),
    ):
        assert why in answer_to(*before, (Kind.ROOT, body))
    assert "and not ROOT" in answer_to(*before, (Kind.ROUND, {}))


def test_steps_that_are_left_out_or_come_twice() -> None:
    with running() as machine:
        values = machine.values()
    assert "before it has said" in answer_to((Kind.OFFER, offer()), (Kind.STATE, good_state(values, [])))
    assert "says twice" in answer_to((Kind.OFFER, offer()), _LITTLE_LEFT, _LITTLE_LEFT)


def test_pages_that_come_late_are_hashed_as_the_others(tmp_path: Path) -> None:
    """Whether one is put into a file or into the machine's RAM, a source that sends another content has another root,
    and what is only said to be in a file that nobody can write to any more is not believed.
    """
    with running() as machine:
        values = machine.values()
    good = good_state(values, [])
    state, root = (Kind.STATE, good), root_of(good)
    page = bytes(pages(1, 0, 1, 1, content=b"x" * 4096))
    late = HEADER.pack(Kind.PAGES, len(page)) + page
    assert "hash is another one" in answer_to((Kind.OFFER, offer()), _LITTLE_LEFT, late, state, root)
    empty = bytes(pages(1, 0, 1, 1))
    file = RamFile(1 << 20)
    file.stop_writing()
    text = answer_to(
        (Kind.OFFER, offer(shares_memory=True)),
        _LITTLE_LEFT,
        HEADER.pack(Kind.PAGES, len(empty)) + empty,
        descriptors=(os.dup(file.handle),),
    )
    assert "has 0 bytes of content" in text


def good_state(values: dict[str, Any], ends: list[object]) -> dict[str, object]:
    """The state of a machine whose RAM is zero, with these networks."""
    encoded = encode(values)
    return {"values": encoded, "is_paused": False, "pending": [], "ends": ends, "storage": []}


def root_of(state: dict[str, Any]) -> tuple[Kind, dict[str, object]]:
    """The message of the hash of a machine with this state whose RAM is zero."""
    return Kind.ROOT, {"root": PageTree().root(state["values"])}


def test_memory_that_can_be_taken_away_or_written_is_not_mapped(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as plain:
        plain.truncate(1 << 20)
        for handle in (plain.fileno(), os.memfd_create("x")):
            text = answer_to((Kind.OFFER, offer(shares_memory=True)), descriptors=(handle,))
            assert "cannot be used" in text
    with running() as machine:
        values = machine.values()
    file = RamFile(1 << 20)
    messages = (Kind.OFFER, offer(shares_memory=True)), _LITTLE_LEFT, (Kind.STATE, good_state(values, []))
    assert "may still write" in answer_to(*messages, descriptors=(file.handle,))


def test_a_destination_that_lies_does_not_get_the_machine(tmp_path: Path) -> None:
    """A source does not believe answers either: whatever comes, its machine goes on, or waits for its user."""
    machine = running()
    ours, theirs = socket.socketpair()
    with Channel(theirs) as liar:
        liar.send(Kind.HELLO, {"magic": "x", "version": 1})
        liar.send(Kind.VOTE, {})
        with receiving(Place.parse(f"unix:{tmp_path}/door")) as there:
            migration = outgoing(machine, there)
            migration._connect = lambda: Channel(ours)
            with pytest.raises(ProtocolError, match="and not ACCEPTED"):
                migration.run()
            with Channel(Place.parse(there.receiver.address).endpoint.connect()) as stranger:
                stranger.send_raw(Kind.HELLO, (b"\xff" * 9,))
                with pytest.raises(PeerGone):
                    stranger.receive(Kind.HELLO)
            assert isinstance(there.result(), ProtocolError)
    assert machine.run(fuel=10).icount
    machine.close()


# -- who may connect -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "credentials", "why"),
    [
        ("tcp:192.0.2.1:7", "", "without TLS"),
        ("tcp:0.0.0.0:7", "", "without TLS"),
        ("tcp:[::]:7", "", "without TLS"),
        ("tcp:example.com:7", "", "without TLS"),
        ("unix:/x", "/creds", "needs no TLS"),
        ("127.0.0.1:7", "", "write unix:PATH or tcp:HOST:PORT"),
        ("tcp:127.0.0.1:70000", "", "a port is a number"),
    ],
)
def test_places_that_are_refused(text: str, credentials: str, why: str) -> None:
    with pytest.raises(WrongEndpoint, match=why):
        Place.parse(text, credentials)
    assert Place.parse("tcp:192.0.2.1:7,plain").plain


def test_tls_asks_both_sides_who_they_are(tmp_path: Path) -> None:
    trusted, other = make_credentials(tmp_path / "a"), make_credentials(tmp_path / "b")
    for ours in (str(other), ""):
        machine = running()
        with receiving(Place.parse("tcp:127.0.0.1:0", str(trusted))) as there:
            place = Place.parse(there.receiver.address, ours)
            migration = outgoing(machine, there)
            migration._connect = place.connect
            with pytest.raises(MigrationError):
                migration.run()
            assert isinstance(there.result(), MigrationError)
        machine.run(fuel=10)
        machine.close()
    with pytest.raises(MigrationError, match="the certificates cannot be used"):
        Place.parse("tcp:127.0.0.1:7", str(tmp_path)).connect()


def test_a_side_that_sends_a_byte_now_and_then_does_not_go_on() -> None:
    """A guest may stand still meanwhile."""
    ours, theirs = socket.socketpair()
    with Channel(ours, timeout=0.3) as channel, theirs:
        ended = Event()

        def drip() -> None:
            with suppress(OSError):
                theirs.sendall(HEADER.pack(Kind.VOTE, 100))
                while not ended.wait(0.05):
                    theirs.sendall(b"x")

        thread = Thread(target=drip)
        thread.start()
        began = monotonic()
        with pytest.raises(PeerGone, match="does not go on"):
            channel.receive(Kind.VOTE)
        assert monotonic() - began < 3
        ended.set()
        thread.join()


def test_a_side_that_breaks_its_connection_has_no_address() -> None:
    """That is an end of the connection like any other, for whoever asks then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        with Channel(server.accept()[0]) as channel:
            assert channel.peer == "127.0.0.1"
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            theirs.close()
            with pytest.raises(MigrationError, match="the connection is lost"):
                channel.receive(Kind.HELLO)
            with pytest.raises(MigrationError, match="the connection is lost"):
                assert channel.peer


def test_passt_does_not_leave_its_host() -> None:
    machine = Machine(1 << 20, "threaded", board="virt", nets=[Net("none")], console=CaptureConsole())
    with receiving(Place.parse("tcp:127.0.0.1:0")) as there, pytest.MonkeyPatch.context() as patch:
        patch.setattr("dbt.hypervisor.migration.leaving.USER", "none")  # as if this network were passt's
        with pytest.raises(MigrationError, match="passt"):
            outgoing(machine, there, "tcp").run()
        assert isinstance(there.result(), MigrationError)
    machine.close()


def test_every_kind_has_a_limit() -> None:
    assert LIMITS.keys() == set(Kind)


@pytest.mark.parametrize(
    "pending",
    [[1], [["net"]], [["net", "text"]], [[b"net", b""]], [["net", bytes((1 << 20) + 1)]], [["net", b""]] * 3000],
    ids=["number", "short", "text", "bytes", "long", "many"],
)
def test_what_is_on_its_way_and_makes_no_sense(pending: list[object]) -> None:
    with pytest.raises(ProtocolError, match="on its way"):
        pending_of(pending)
