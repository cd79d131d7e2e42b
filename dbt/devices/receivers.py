"""The names of devices that receive something from outside the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def numbered(receivers: Iterable[tuple[str, Callable[[bytes], None]]]) -> dict[str, Callable[[bytes], None]]:
    """Return receivers by name: the name of the kind of device, and its number behind it from the second one on.

    Those with an empty name receive nothing.
    """
    found: dict[str, Callable[[bytes], None]] = {}
    for name, receive in receivers:
        if name:
            number = sum(taken.split()[0] == name for taken in found)
            found[f"{name} {number}" if number else name] = receive
    return found
