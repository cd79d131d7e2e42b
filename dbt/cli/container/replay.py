"""``dbt container replay``: a container that was recorded, again, without an engine."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import dbt
from dbt.cli.debugging import check_endpoint
from dbt.cli.outputs import cannot_write
from dbt.cli.recordings import ReplayedSession
from dbt.cli.replay import visit
from dbt.cli.report import say
from dbt.cli.run import status_of, stopping_on_ctrl_c
from dbt.cli.run_control import Requests
from dbt.cli.status import CommandError, Status
from dbt.cli.values import parse_count
from dbt.containers.engine.places import Places
from dbt.containers.images.store import layer_image
from dbt.containers.runtime.replays import ContainerReplay, container_replay, read_container_recording
from dbt.host.console import HostConsole
from dbt.linux.images import LinuxGuestError

if TYPE_CHECKING:
    from dbt.trace.recorder import TraceRecorder
    from dbt.vm.options import HostOptions
    from dbt.vm.result import RunResult


def replay(name: str, at: str | None, gdb: str | None, trace: str | None, tier: str | None, as_json: bool) -> int:
    """Run a recorded container again. Return the exit status of its program.

    ``name`` is that of a recording of this user's engine, or the path of a directory, which has a slash. With ``at``,
    the run goes to that icount only, and the state is printed. With ``gdb``, debuggers can connect there, or at the
    beginning. ``trace`` is a file for a translation trace.
    """
    places = Places()
    if gdb is not None:
        check_endpoint(gdb)
    icount = None if at is None else parse_count("--at", at)
    folder = name if "/" in name else os.path.join(places.recordings, name)
    recorded = read_container_recording(folder)
    recorder = _trace_recorder(trace)
    options: HostOptions = {}
    if recorder is not None:
        options["observer"] = recorder
    if tier is not None:
        options["tier"] = tier  # type: ignore[typeddict-item]  # the parser knows the choices
    requests = Requests(can_save=False)
    try:
        with container_replay(
            recorded, lambda digest: layer_image(places.images, digest), HostConsole(), say, options, gdb is not None
        ) as here:
            gc.enable()
            with stopping_on_ctrl_c(here.machine, requests):
                if icount is None and gdb is None:
                    return _all_of(here, recorder)
                session = _Debugged(here.machine, here.replay)
                target = here.machine.icount if icount is None else icount
                return visit(here.machine, session, target, folder, gdb, as_json)
    except LinuxGuestError as error:
        raise CommandError(f"{error}.", Status.FAILURE) from None


class _Debugged(ReplayedSession):
    """A replay that stops where somebody wants, and whose end is not compared."""

    def end(self, result: RunResult) -> RunResult:
        return result


def _trace_recorder(path: str | None) -> TraceRecorder | None:
    if path is None:
        return None
    from dbt.trace.recorder import TraceRecorder

    try:
        return TraceRecorder(path, False)
    except (OSError, ValueError) as error:
        raise cannot_write("--record-trace", path, error) from None


def _all_of(here: ContainerReplay, recorder: TraceRecorder | None) -> int:
    import time

    from dbt.cli.statistics import statistics

    machine = here.machine
    if recorder is not None:
        recorder.begin(machine, dbt.__version__, {}, {})
    began, before = time.monotonic(), machine.icount
    result = here.run(say)
    if recorder is not None:
        recorder.end(result, time.monotonic() - began, statistics(machine))
        if recorder.error:
            say(f"the trace is not complete: {recorder.error}")
    end = here.replay.recording.end
    if end is not None and result.icount == end.icount:
        say(f"{result.icount - before} instructions, to the recorded end, and the state is the recorded one")
    else:
        say(f"{result.icount - before} instructions: {result.message}")
    return status_of(result) if here.port.code is None else here.port.code
