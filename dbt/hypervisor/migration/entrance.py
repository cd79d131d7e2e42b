"""Where sources come to: whoever has connected, and what they have said first."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from dbt.hypervisor.migration.channel import Channel
from dbt.hypervisor.migration.errors import ProtocolError
from dbt.hypervisor.migration.messages import MAGIC, NUMBER_SIZE, VERSION, Kind, mapping
from dbt.hypervisor.migration.transport import Door, Place


class Greeting(NamedTuple):
    """A source that has connected. ``number`` is that of the migration, which is a new one, or one of which the source
    ``asks`` how far it is. ``about`` is what the source's host says of the domain, and empty if there is no such host.
    """

    channel: Channel
    number: bytes
    asks: bool
    about: bytes


class Entrance(Protocol):
    """Where the sources of one migration come to."""

    address: str

    def accept(self, timeout: float | None) -> Greeting:
        """Return the next one. Raise TimeoutError after so many seconds, and MigrationError for one that is none."""

    def close(self) -> None:
        """Let nobody in any more."""


class PlaceEntrance:
    """A place at which one destination listens. Raise OSError if the host refuses."""

    def __init__(self, place: Place) -> None:
        self._door = Door(place)
        self.address = self._door.address

    def accept(self, timeout: float | None) -> Greeting:
        return greet(self._door.channel(self._door.wait(timeout)))

    def close(self) -> None:
        self._door.close()


def greet(channel: Channel) -> Greeting:
    """Answer a source's greeting. Raise MigrationError for somebody who is none, after which the channel is closed."""
    try:
        _, body = channel.receive(Kind.HELLO)
        hello = mapping(body, "the greeting", magic=str, version=int, id=bytes, asks=bool, about=bytes)
        if hello["magic"] != MAGIC or len(hello["id"]) != NUMBER_SIZE:
            raise ProtocolError("whoever has connected does not migrate a machine")
        if hello["version"] != VERSION:
            channel.send(Kind.REFUSED, f"this side speaks version {VERSION} of the protocol")
            raise ProtocolError(
                f"the source speaks version {hello['version']} of the protocol, and this side {VERSION}"
            )
        if not hello["asks"]:
            channel.send(Kind.HELLO, {"magic": MAGIC, "version": VERSION})
    except BaseException:
        channel.close()
        raise
    return Greeting(channel, hello["id"], hello["asks"], hello["about"])
