"""Machines of the daemon, made from the options of ``dbt run``: what a definition's section ``machine`` may say.

There is one list of options, :class:`dbt.cli.run_options.RunOptions`. Here is what is no option of a machine, and
what a machine of the daemon has where the definition says nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import msgspec

from dbt.board.boards import BOARDS, default_board
from dbt.cli.net_options import parse_net
from dbt.cli.options import VIRTIO, check_options, host_options, make_machine
from dbt.cli.report import explain
from dbt.cli.run_options import RunOptions
from dbt.cli.status import CommandError
from dbt.cli.values import parse_drive
from dbt.cli.vm.paths import absolute_options, moved_drives
from dbt.daemon.definition import Definition, OptionValue, checked
from dbt.daemon.errors import DefinitionError
from dbt.engine.observer import NOBODY
from dbt.host.console import Console
from dbt.hypervisor.console_ring import ConsoleRing
from dbt.vm.machine import Machine
from dbt.vm.options import HostOptions

#: What is said of one run, and not of a machine.
_OF_A_RUN: Final = frozenset(
    {
        *("fuel", "timeout", "dump", "serial", "record", "replay", "gdb", "qmp", "wait", "history", "save", "save_at"),
        *("restore", "increment", "stats", "registers", "trace", "record_trace", "trace_counts", "perf_map", "json"),
        *("incoming", "tls_creds"),  # of a machine that is to come: the daemon takes these by itself
        "realtime",  # the host says how time passes
    }
)
#: The board that is a domain of Xen.
XEN: Final = "xen"
_NAMES: Final = tuple(name for name in RunOptions._fields if name not in _OF_A_RUN)
#: The options that belong to the state of a machine, and are a snapshot's where there is one.
_OF_STATE: Final = (
    *("program", "args", "kernel", "initrd", "dtb", "append", "atags", "base", "entry", "board", "xen", "cpu", "smp"),
    *("rng", "balloon", "balloon_size", "semihosting", "memory", "epoch", "insn_ns", "console"),
)


def _kind(name: str) -> Any:
    """Return the type of an option's value in a definition."""
    default = RunOptions._field_defaults[name]
    if default is False:
        return bool
    return list[str] if default == () else str | int


_Section: Final = msgspec.defstruct(
    "Machine",
    [(name, _kind(name), msgspec.UNSET) for name in _NAMES],
    rename={name: name.replace("_", "-") for name in _NAMES},
    forbid_unknown_fields=True,
    kw_only=True,
)


class OptionMachines:
    """See :class:`dbt.daemon.machines.MachineMaker`. ``stores`` is the directory in which domains of Xen have the
    sockets of their XenStores, named by their UUIDs.
    """

    modules: Sequence[str] = (__name__,)

    def __init__(self, stores: str | None = None) -> None:
        self._stores = stores

    def check(self, definition: Definition) -> Definition:
        """See :class:`dbt.daemon.machines.MachineMaker`. What is not given and must differ follows from the UUID."""
        names = [name.replace("_", "-") for name in _NAMES]
        checked(definition.machine, _Section, "the section machine of the definition", names)
        definition = definition.with_options(**absolute_options(definition.machine, definition.directory))
        options = _options(definition)
        try:
            check_options(options)
            _check_type(definition, options)
            if options.console not in (None, VIRTIO):
                raise DefinitionError(
                    f"console = {options.console!r} is for a terminal; in a definition it can only be {VIRTIO!r}"
                )
            return definition.with_options(**_differing(definition, options))
        except CommandError as error:
            raise DefinitionError(f"the machine of {definition.name}: {error}") from None

    def copied(self, definition: Definition, name: str) -> Definition:
        """See :class:`dbt.daemon.machines.MachineMaker`. Addresses of network cards are not copied, nor is the socket
        of a XenStore.
        """
        machine = {option: value for option, value in definition.machine.items() if option != "xenstore"}
        nets = machine.get("net", [])
        if isinstance(nets, list) and nets:
            machine["net"] = [text.partition(",mac=")[0] for text in nets]
        if definition.uuid is not None and machine.get("rng") == _seed(definition.uuid):
            del machine["rng"]
        return msgspec.structs.replace(definition, name=name, machine=machine, uuid=None)

    def with_disks_in(self, directory: str, definition: Definition) -> Definition:
        """See :class:`dbt.daemon.machines.MachineMaker`."""
        drives = _options(definition).drive
        if not drives:
            return definition
        own = os.path.join(directory, str(definition.uuid))
        try:
            os.makedirs(own, mode=0o700, exist_ok=True)
        except OSError as error:
            raise DefinitionError(f"there is no place for the disks of {definition.name}: {error.strerror}") from None
        return definition.with_options(drive=moved_drives(drives, own))

    def boot(self, definition: Definition) -> OptionBoot:
        """See :class:`dbt.daemon.machines.MachineMaker`."""
        return OptionBoot(self._of_machine(definition))

    def options(self, definition: Definition) -> HostOptions:
        """See :class:`dbt.daemon.machines.MachineMaker`."""
        try:
            found = host_options(_of_host(self._of_machine(definition)), NOBODY, ConsoleRing())
        except CommandError as error:
            raise DefinitionError(f"the machine of {definition.name}: {error}") from None
        for name in ("console", "notice", "observer", "realtime"):
            del found[name]  # type: ignore[misc] # of this run
        return found

    def _of_machine(self, definition: Definition) -> RunOptions:
        """Return the options with what the daemon adds to them."""
        options = _options(definition)
        if options.board != XEN or options.xenstore is not None or self._stores is None:
            return options
        return options._replace(xenstore=f"unix:{os.path.join(self._stores, str(definition.uuid))}.store")

    def option_schemas(self) -> dict[str, object]:
        """See :class:`dbt.daemon.machines.MachineMaker`."""
        properties = msgspec.json.schema(_Section)["$defs"]["Machine"]["properties"]
        assert isinstance(properties, dict)
        return properties


class OptionBoot:
    """See :class:`dbt.daemon.machines.GuestBoot`."""

    def __init__(self, options: RunOptions) -> None:
        self.resume: str | None = None
        self._options = options

    @property
    def xenstore(self) -> str | None:
        """See :class:`dbt.daemon.machines.GuestBoot`."""
        end = self._options.xenstore
        return None if end is None else end.removeprefix("unix:")

    def __call__(self, console: Console) -> Machine:
        """See :class:`dbt.daemon.machines.GuestBoot`. Raise ValueError if what the user gave is wrong, and else
        RuntimeError.
        """
        options = self._options
        if self.resume is not None:
            options = _of_host(options)._replace(restore=self.resume)
            self.resume = None
        try:
            return make_machine(options, console=console)
        except Exception as error:
            text, status = explain(error)
            kind = RuntimeError if status is None else ValueError
            raise kind(text.removesuffix(".")) from error


def _options(definition: Definition) -> RunOptions:
    given: dict[str, Any] = {}
    for name, value in definition.machine.items():
        given[name.replace("-", "_")] = tuple(value) if isinstance(value, list) else _text(value)
    if unknown := sorted(given.keys() - set(RunOptions._fields)):
        raise DefinitionError(
            f"the machine of {definition.name} has an option that this dbt does not know: {unknown[0]}"
        )
    options = RunOptions(**{"epoch": "now", **given}, realtime="off")
    is_domain = options.xen or definition.type == "pv"
    return options._replace(board=XEN) if is_domain and options.board is None else options


def _check_type(definition: Definition, options: RunOptions) -> None:
    """Raise DefinitionError if a definition says of itself what it is not, or limits what cannot be limited."""
    if definition.type is not None and (definition.type == "pv") != (options.board == XEN):
        board = options.board or "that of the processor"
        raise DefinitionError(f"type = {definition.type!r}, and the board is {board}: {XEN} is the one of type 'pv'")
    most = definition.limits
    if options.xenstore is not None and not options.xenstore.startswith("unix:/"):
        raise DefinitionError(f"xenstore = {options.xenstore!r}: XenStore is at a unix socket: write unix:PATH")
    if options.board == XEN and any((most.disk_bytes, most.disk_operations, most.net_sent, most.net_received)):
        raise DefinitionError("disks and network cards of a domain of Xen have no limits: leave them out of limits")


def _of_host(options: RunOptions) -> RunOptions:
    """Return options without those that belong to the state of a machine."""
    defaults = RunOptions()
    return options._replace(**{name: getattr(defaults, name) for name in _OF_STATE})


def _text(value: str | int | bool) -> str | bool:
    return value if isinstance(value, (str, bool)) else str(value)


def _differing(definition: Definition, options: RunOptions) -> dict[str, OptionValue]:
    """Return options in which two machines are not to be equal: the addresses of network cards, and the seed of random
    numbers of a Linux. They follow from the UUID. Also check the texts of drives.
    """
    assert definition.uuid is not None
    found: dict[str, OptionValue] = {}
    for text in options.drive:
        parse_drive("drive", text)
    if options.net:
        found["net"] = [
            text if parse_net("net", text).mac else f"{text},mac={_mac(definition.uuid, number)}"
            for number, text in enumerate(options.net)
        ]
    board = BOARDS.get(options.board) if options.board is not None else default_board(options.cpu)
    if options.kernel is not None and options.rng is None and board is not None and board.virtio_slots:
        found["rng"] = _seed(definition.uuid)
    return found


def _seed(uuid: UUID) -> str:
    """Return what the random numbers of a machine follow from."""
    return f"seed={int.from_bytes(sha256(b'rng' + uuid.bytes).digest()[:8], 'little') >> 1}"


def _mac(uuid: UUID, number: int) -> str:
    """Return an address of a network card of those that QEMU and libvirt give (52:54:00)."""
    digest = sha256(b"mac%d" % number + uuid.bytes).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])
