"""The life of a domain: its states, and which of them may follow which."""

from __future__ import annotations

from enum import Enum
from typing import Final


class DomainState(Enum):
    """The state of a domain."""

    #: It has no machine: it has not been started, or has shut down.
    DEFINED = "defined"
    #: Its machine can execute. It does when the scheduler gives it a core.
    RUNNING = "running"
    #: Its guest waits for an interrupt. It costs nothing meanwhile.
    BLOCKED = "blocked"
    #: Its user has stopped it. Its guest's time does not pass.
    PAUSED = "paused"
    #: Its machine is gone, and its state is kept, so that it can be started where it was.
    SAVED = "saved"
    #: It is being moved: its guest stands still for a moment, until the other side has it; or it is to come from there.
    MIGRATING = "migrating"
    #: A migration was cut off when nobody can know whether the other side runs the guest. It stands still here, until
    #: its user decides.
    UNDECIDED = "undecided"
    #: Its guest did something that nobody can handle, or the host failed while it executed. The machine is kept to be
    #: looked at.
    CRASHED = "crashed"
    #: What it has of the host is being given back.
    DYING = "dying"


class LifecycleError(RuntimeError):
    """Raised for what a domain cannot do in its present state. The text says what it can."""


_S = DomainState
#: From each state, the states that may follow.
TRANSITIONS: Final[dict[DomainState, frozenset[DomainState]]] = {
    _S.DEFINED: frozenset({_S.RUNNING, _S.MIGRATING}),
    _S.RUNNING: frozenset({_S.BLOCKED, _S.PAUSED, _S.SAVED, _S.CRASHED, _S.DYING, _S.MIGRATING}),
    _S.BLOCKED: frozenset({_S.RUNNING, _S.PAUSED, _S.SAVED, _S.CRASHED, _S.DYING, _S.MIGRATING}),
    _S.PAUSED: frozenset({_S.RUNNING, _S.BLOCKED, _S.SAVED, _S.CRASHED, _S.DYING, _S.MIGRATING}),
    _S.MIGRATING: frozenset({_S.RUNNING, _S.UNDECIDED, _S.DYING, _S.DEFINED}),
    _S.UNDECIDED: frozenset({_S.RUNNING, _S.DYING}),
    _S.SAVED: frozenset({_S.RUNNING, _S.DEFINED}),
    _S.CRASHED: frozenset({_S.DYING}),
    _S.DYING: frozenset({_S.DEFINED}),
}
#: The states in which a domain has a machine.
ALIVE: Final = frozenset({_S.RUNNING, _S.BLOCKED, _S.PAUSED, _S.UNDECIDED, _S.CRASHED})
#: Those, and the states in which its machine comes, goes or is given back.
OCCUPIED: Final = ALIVE | {_S.MIGRATING, _S.DYING}
#: The states in which a machine is known to be in order, and to be this host's.
SOUND: Final = frozenset({_S.RUNNING, _S.BLOCKED, _S.PAUSED})


class Lifecycle:
    """The present state of the domain called ``name``. Only legal transitions are made."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._state = DomainState.DEFINED

    @property
    def state(self) -> DomainState:
        return self._state

    def to(self, state: DomainState) -> None:
        """Go over to a state. Raise LifecycleError if it may not follow the present one."""
        if state not in TRANSITIONS[self._state]:
            raise LifecycleError(f"the domain {self._name} is {self._state.value} and cannot become {state.value}")
        self._state = state

    def require(self, action: str, *states: DomainState) -> None:
        """Raise LifecycleError unless the present state is one of these, in which the action makes sense."""
        if self._state not in states:
            words = " or ".join(state.value for state in states)
            raise LifecycleError(
                f"cannot {action} the domain {self._name}, which is {self._state.value}: it has to be {words}"
            )
