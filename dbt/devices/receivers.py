"""What receives something from outside the machine, and the names of such devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

#: Takes what has come for a receiver at one tick, in its order.
Receive = Callable[[Sequence[bytes]], None]
#: Takes one thing.
ReceiveOne = Callable[[bytes], None]


def one_by_one(receive: ReceiveOne) -> Receive:
    """Return a receiver that is given one thing after the other."""

    def receive_all(pieces: Sequence[bytes]) -> None:
        for data in pieces:
            receive(data)

    return receive_all


def numbered(receivers: Iterable[tuple[str, Receive]]) -> dict[str, Receive]:
    """Return receivers by name: the name of the kind of device, and its number behind it from the second one on.

    Those with an empty name receive nothing.
    """
    found: dict[str, Receive] = {}
    for name, receive in receivers:
        if name:
            number = sum(taken.split()[0] == name for taken in found)
            found[numbered_name(name, number)] = receive
    return found


def numbered_name(name: str, number: int) -> str:
    """Return the name of the receiver with a number, from 0 on, of a kind of device."""
    return f"{name} {number}" if number else name
