"""``--restore``: a machine that goes on from a snapshot. What belongs to its state cannot be chosen again."""

from __future__ import annotations

from typing import Any

from dbt.cli.options import VIRTIO, host_options, make_console, refuse
from dbt.cli.run_control import Requests
from dbt.cli.run_options import RunOptions
from dbt.cli.status import CommandError, Status
from dbt.devices.state import StateError
from dbt.engine.observer import Observer
from dbt.host.console import Console
from dbt.snapshot.snapshots import read_snapshot
from dbt.vm.machine import Machine


def restore_machine(options: RunOptions, observer: Observer, console: Console | None, requests: Requests) -> Machine:
    """Return the machine of the snapshot. Raise CommandError for options that belong to its state, and SnapshotError
    if it cannot be restored.
    """
    assert options.restore is not None
    check_options(options, "--restore", "snapshot")
    with read_snapshot(options.restore) as state:
        guest: Any = state.values.get("guest")
        is_kernel = isinstance(guest, dict) and guest.get("is_kernel") is True
        console = console or make_console(options, is_kernel, lambda: machine, requests)
        host = host_options(options, observer, console)
        try:
            machine = Machine.restore(state, **host)
        except StateError as error:
            from dbt.snapshot.info import impossible

            raise impossible(options.restore, error) from None
    return machine


def check_options(options: RunOptions, given: str, what: str) -> None:
    """Raise CommandError for what belongs to the state of a machine, which comes from ``what`` the option is given."""
    if options.program is not None:
        message = f"{options.program}: {given} is given, and the {what} has the program already."
        raise CommandError(message, Status.USAGE)
    refuse(
        {
            "--kernel": options.kernel,
            "--initrd": options.initrd,
            "--dtb": options.dtb,
            "--append": options.append,
            "--atags": options.atags,
            "--base": options.base,
            "--entry": options.entry,
            "--board": options.board,
            "--cpu": options.cpu,
            "--smp": options.smp,
            "--rng": options.rng,
            "--balloon": options.balloon,
            "--console": options.console if options.console == VIRTIO else None,
            "--semihosting": options.semihosting,
            "--memory": options.memory,
            "--epoch": options.epoch,
            "--insn-ns": options.insn_ns,
        },
        f"this belongs to the state of the machine, which {given} takes from the {what}",
    )
