"""What a domain has used of its host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Usage:
    """What a domain has used since it was defined.

    ``instructions`` have retired; ``charged`` is what other events were charged, in instructions. ``turns`` is how
    often it has had a core. ``host_ns`` is the CPU time of the host that its turns took, in nanoseconds; nothing is
    decided by it where schedules can be repeated.
    """

    instructions: int = 0
    charged: int = 0
    turns: int = 0
    host_ns: int = 0
