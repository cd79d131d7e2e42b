"""When a container that has ended is started again."""

from __future__ import annotations

from typing import Final

from dbt.containers.engine.config import RestartPolicy

_FIRST_S: Final = 0.1
_LONGEST_S: Final = 60.0
#: Who has run for so long has not failed at once, and is started again soon.
_LONG_S: Final = 10.0


class Restarts:
    """Counts how often a container has ended soon after its start, by docker's rules."""

    def __init__(self) -> None:
        self._delay = 0.0

    def delay(self, policy: RestartPolicy, restarts: int, code: int, ran_s: float) -> float | None:
        """Return after how many seconds a container is started again that has ended by itself, or None for never.

        ``restarts`` is how often it was started again before, ``ran_s`` how long it has run.
        """
        if not _is_wanted(policy, restarts, code):
            return None
        self._delay = _FIRST_S if ran_s >= _LONG_S or not self._delay else min(self._delay * 2, _LONGEST_S)
        return self._delay

    @staticmethod
    def at_begin(policy: RestartPolicy, stopped_by_user: bool, restarts: int, code: int) -> bool:
        """Return True if a container that had run is started when the engine starts. ``restarts`` and ``code`` are as
        for :meth:`delay`, of its last end.
        """
        return policy.name == "always" or (not stopped_by_user and _is_wanted(policy, restarts, code))


def _is_wanted(policy: RestartPolicy, restarts: int, code: int) -> bool:
    """Return True if a container is started again that its user has not stopped."""
    match policy.name:
        case "always" | "unless-stopped":
            return True
        case "on-failure":
            return code != 0 and (not policy.maximum_retry_count or restarts < policy.maximum_retry_count)
        case _:
            return False
