"""``--incoming``: a machine that is moved here while it runs, by the monitor's ``migrate`` of another ``dbt run``."""

from __future__ import annotations

from typing import NamedTuple

from dbt.cli.options import host_options, make_console
from dbt.cli.report import say
from dbt.cli.restoring import check_options
from dbt.cli.run_control import Requests
from dbt.cli.run_options import RunOptions
from dbt.cli.status import CommandError, Status
from dbt.engine.observer import Observer
from dbt.host.console import Console
from dbt.host.endpoint import WrongEndpoint
from dbt.hypervisor.migration import MigrationError, OwnMachines, Place, Receiver, Undecided
from dbt.vm.machine import Machine


class Arrival(NamedTuple):
    """A machine that has come. ``doubts`` says why it must not run before its user decides, or is empty."""

    machine: Machine
    is_paused: bool
    doubts: str


def receive_machine(options: RunOptions, observer: Observer, console: Console | None, requests: Requests) -> Arrival:
    """Wait for a machine and return it. Raise CommandError for options that belong to its state, and if it does not
    come.
    """
    assert options.incoming is not None
    check_options(options, "--incoming", "machine that comes")
    try:
        place = Place.parse(options.incoming, options.tls_creds or "")
    except WrongEndpoint as error:
        raise CommandError(f"--incoming {error}.", Status.USAGE) from None
    # Nobody knows yet whether it is a kernel, which most machines are that run for long.
    console = console or make_console(options, True, lambda: machine, requests)
    try:
        receiver = Receiver(place, OwnMachines(host_options(options, observer, console)))
        say(f"waiting for a machine at {receiver.address}")
        try:
            machine = receiver.receive().machine
        except Undecided as error:
            if options.qmp is None or receiver.undecided is None:
                receiver.close()
                raise
            machine = receiver.undecided.machine
            say(f"{error} (x-dbt-resume)")
            return Arrival(machine, receiver.is_paused, str(error))
        return Arrival(machine, receiver.is_paused, "")
    except MigrationError as error:
        raise CommandError(f"--incoming {options.incoming}: {str(error).removesuffix('.')}.", Status.FAILURE) from None
    except OSError as error:
        message = f"--incoming {options.incoming}: cannot listen there: {error.strerror or error}."
        raise CommandError(message, Status.FAILURE) from None
