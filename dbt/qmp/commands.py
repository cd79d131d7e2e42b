"""The commands of the monitor: what they take and what they do. Errors are in QEMU's classes and, where it has the
same, in its words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from dbt.qmp import human, queries
from dbt.qmp.errors import NOT_FOUND, QmpError

if TYPE_CHECKING:
    from dbt.qmp.migration import MachineMove
    from dbt.vm.machine import Machine

NEGOTIATE = "qmp_capabilities"


class Control(Protocol):
    """What the commands do to a machine. Methods raise QmpError.

    The guest is stopped between two instructions, and goes on when the command has been answered, unless it is paused.
    """

    @property
    def machine(self) -> Machine:
        """The machine, to be looked at."""

    @property
    def status(self) -> str:
        """The state of the run, by QEMU's names: "prelaunch", "running", "paused" or, if a debugger holds the guest,
        "debug".
        """

    @property
    def move(self) -> MachineMove:
        """The migrations of the machine."""

    def describe(self) -> Mapping[str, Any]:
        """Return what ``x-dbt-info`` answers."""

    def pause(self) -> None:
        """Do not let the guest go on."""

    def proceed(self) -> None:
        """Let it go on."""

    def quit(self) -> None:
        """End the run."""

    def reset(self) -> None:
        """Reset the machine."""

    def press_power_key(self) -> None:
        """Press the power key of the board."""

    def save(self, path: str) -> Mapping[str, Any]:
        """Write a snapshot, and return what ``x-dbt-save`` answers."""

    def inflate(self, size: int) -> None:
        """Ask the guest to give back so much by its balloon that it has ``size`` bytes left."""

    def balloon(self) -> Mapping[str, Any]:
        """Return what ``query-balloon`` answers."""


class Request(NamedTuple):
    """A command that a client has sent."""

    name: str
    arguments: Mapping[str, Any]


class _Command(NamedTuple):
    """``run`` does the command. ``stops``: the guest must not be in the middle of a run. ``takes`` has the kinds of its
    arguments, which must all be given, by name. Those of ``may_take`` may be given, and None means any.
    """

    run: Callable[[Control, Mapping[str, Any]], object]
    stops: bool = False
    takes: Mapping[str, type] = {}
    may_take: Mapping[str, type] | None = {}


def read_request(message: Any) -> Request:
    """Return the command in a message. Raise QmpError if it has none."""
    if not isinstance(message, dict):
        raise QmpError("QMP input must be a JSON object")
    for name, value in message.items():
        if name == "execute" and not isinstance(value, str):
            raise QmpError("QMP input member 'execute' must be a string")
        if name == "arguments" and not isinstance(value, dict):
            raise QmpError("QMP input member 'arguments' must be an object")
        if name not in ("execute", "arguments", "id"):
            raise QmpError(f"QMP input member '{name}' is unexpected")
    if "execute" not in message:
        raise QmpError("QMP input lacks member 'execute'")
    return Request(message["execute"], message.get("arguments", {}))


def must_stop(request: Request) -> bool:
    """Return True if the command can only be done while the machine does not run."""
    return request.name in COMMANDS and COMMANDS[request.name].stops


def negotiate(request: Request) -> None:
    """Do ``qmp_capabilities``, which comes first. Raise QmpError for anything else, and for a wish that nothing here
    has.
    """
    if request.name != NEGOTIATE:
        raise QmpError(f"Expecting capabilities negotiation with '{NEGOTIATE}'", NOT_FOUND)
    for name in request.arguments:
        if name != "enable":
            raise QmpError(f"Parameter '{name}' is unexpected")
    wanted = request.arguments.get("enable", [])
    if not isinstance(wanted, list):
        raise QmpError("Invalid parameter type for 'enable', expected: array")
    for name in wanted:
        raise QmpError(f"Capability {name} is not available")


def execute(request: Request, control: Control) -> object:
    """Do a command, and return its answer. Raise QmpError."""
    if request.name == NEGOTIATE:
        raise QmpError("Capabilities negotiation is already complete, command ignored", NOT_FOUND)
    command = COMMANDS.get(request.name)
    if command is None:
        raise QmpError(f"The command {request.name} has not been found", NOT_FOUND)
    for name, kind in command.takes.items():
        if name not in request.arguments:
            raise QmpError(f"Parameter '{name}' is missing")
        if type(request.arguments[name]) is not kind:
            raise QmpError(f"Invalid parameter type for '{name}', expected: {_KINDS[kind]}")
    for name, value in request.arguments.items():
        optional = command.may_take
        if name in command.takes or optional is None:
            continue
        if name not in optional:
            raise QmpError(f"Parameter '{name}' is unexpected")
        if type(value) is not optional[name]:
            raise QmpError(f"Invalid parameter type for '{name}', expected: {_KINDS[optional[name]]}")
    answer = command.run(control, request.arguments)
    return {} if answer is None else answer


def _query_status(control: Control, arguments: Mapping[str, Any]) -> object:
    status = control.status
    return {"status": status, "singlestep": False, "running": status == "running"}


def _resume(control: Control, arguments: Mapping[str, Any]) -> None:
    """Let the guest go on, with force also if it may run elsewhere."""
    if arguments["force"]:
        control.move.force()
    control.proceed()


#: The kinds of arguments, by QEMU's names.
_KINDS: Mapping[type, str] = {str: "string", int: "integer", bool: "boolean"}

COMMANDS: Mapping[str, _Command] = {
    "query-status": _Command(_query_status),
    "query-version": _Command(lambda control, arguments: queries.version()),
    "query-name": _Command(lambda control, arguments: {}),  # nobody has given it one
    "query-uuid": _Command(lambda control, arguments: {"UUID": queries.UUID}),
    "query-target": _Command(lambda control, arguments: {"arch": "arm"}),
    "query-kvm": _Command(lambda control, arguments: queries.accelerator()),
    "query-machines": _Command(lambda control, arguments: queries.machines()),
    "query-block": _Command(lambda control, arguments: queries.disks(control.machine)),
    "query-memory-size-summary": _Command(
        lambda control, arguments: {"base-memory": control.machine.ram.size, "plugged-memory": 0}
    ),
    "query-commands": _Command(lambda control, arguments: [{"name": name} for name in (NEGOTIATE, *COMMANDS)]),
    "stop": _Command(lambda control, arguments: control.pause(), stops=True),
    "cont": _Command(lambda control, arguments: control.proceed()),
    "quit": _Command(lambda control, arguments: control.quit(), stops=True),
    "system_reset": _Command(lambda control, arguments: control.reset(), stops=True),
    "system_powerdown": _Command(lambda control, arguments: control.press_power_key()),
    "x-dbt-info": _Command(lambda control, arguments: control.describe()),
    "x-dbt-save": _Command(lambda control, arguments: control.save(arguments["path"]), stops=True, takes={"path": str}),
    "human-monitor-command": _Command(
        lambda control, arguments: human.answer(control, arguments["command-line"]),
        stops=True,
        takes={"command-line": str},
    ),
    "balloon": _Command(lambda control, arguments: control.inflate(arguments["value"]), takes={"value": int}),
    "migrate": _Command(
        lambda control, arguments: control.move.begin(arguments["uri"]), takes={"uri": str}, may_take={"detach": bool}
    ),
    "migrate_cancel": _Command(lambda control, arguments: control.move.cancel()),
    "query-migrate": _Command(lambda control, arguments: control.move.query()),
    "migrate-set-parameters": _Command(
        lambda control, arguments: control.move.set_parameters(arguments), may_take=None
    ),
    "query-migrate-parameters": _Command(lambda control, arguments: control.move.query_parameters()),
    "x-dbt-resume": _Command(_resume, stops=True, takes={"force": bool}),
    "query-balloon": _Command(lambda control, arguments: control.balloon()),
}
