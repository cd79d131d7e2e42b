"""``dbt cluster``: runs machines with the network between them, and replays and compares such runs."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from threading import Thread
from typing import NamedTuple

from dbt.cli.report import say
from dbt.cli.status import CommandError, Status
from dbt.cli.values import parse_count, parse_seconds
from dbt.hypervisor.cluster import (
    Cluster,
    ClusterEnd,
    ClusterRecorder,
    ClusterReplay,
    DescriptionError,
    first_difference,
    read_cluster,
    read_description,
    write_cluster,
)
from dbt.hypervisor.console_ring import ConsoleFull


class RunRequest(NamedTuple):
    """The options of ``dbt cluster run``, as texts."""

    file: str
    cores: str
    seconds: str | None
    seed: str | None
    record: str | None
    attach: str | None
    restore: str | None
    save: str | None


class Screen:
    """Prints what guests write, a line at a time, behind the name of the machine."""

    def __init__(self) -> None:
        self._lines: dict[str, bytes] = {}

    def show(self, name: str, data: bytes) -> None:
        """Print the lines that are complete."""
        *lines, self._lines[name] = (self._lines.get(name, b"") + data).split(b"\n")
        for line in lines:
            self._print(name, line)

    def _print(self, name: str, line: bytes) -> None:
        print(f"{name}| {line.decode(errors='replace').rstrip()}", flush=True)

    def end(self) -> None:
        """Print what is left."""
        for name, line in self._lines.items():
            if line.strip():
                self._print(name, line)


def _made(file: str, cores: str, seed: str | None, restore: str | None, screen: Screen) -> Cluster:
    """Return the cluster that a file describes, at its beginning or where it was saved."""
    count = parse_count("--cores", cores, "machines")
    number = None if seed is None else parse_count("--seed", seed, "frames")
    try:
        description = read_description(file)
        if restore is None:
            return description.build(number, max(count, 1), screen.show)
        with read_cluster(restore) as state:
            return state.restore(max(count, 1), description.hosts(), number, screen.show)
    except (DescriptionError, OSError, ValueError) as error:
        raise CommandError(f"the cluster cannot be made: {error}", Status.BAD_INPUT) from None


def run(request: RunRequest) -> int:
    """Run a cluster. Return 0, or INTERRUPTED after Ctrl-C."""
    seconds = None if request.seconds is None else parse_seconds("--seconds", request.seconds)
    screen = Screen()
    with _made(request.file, request.cores, request.seed, request.restore, screen) as cluster:
        recorder = None if request.record is None else _recorder(cluster, request.record)
        if request.attach is not None:
            _attach(cluster, request.attach)
        interrupted = _stop_at_interrupt(cluster)
        end = cluster.run(seconds, waits=request.attach is not None)
        screen.end()
        if recorder is not None:
            recorder.end()
        if request.save is not None:
            with cluster.save() as state:
                write_cluster(state, request.save)
        _tell(cluster, end)
        return Status.INTERRUPTED if interrupted else Status.DONE


def _stop_at_interrupt(cluster: Cluster) -> list[int]:
    """Let Ctrl-C end the run where all machines have come to the same time, and a second one at once.

    The list has the number of the signal then.
    """
    caught: list[int] = []

    def stop(number: int, _: object) -> None:
        caught.append(number)
        cluster.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, stop)
    return caught


def _recorder(cluster: Cluster, path: str) -> ClusterRecorder:
    try:
        return ClusterRecorder(cluster, path)
    except OSError as error:
        raise CommandError(f"{path}: the recording cannot be written: {error.strerror}", Status.FAILURE) from None


def _attach(cluster: Cluster, name: str) -> None:
    """Give a machine what is typed, in a thread that ends with the process."""
    if name not in cluster.nodes:
        raise CommandError(f"--attach {name}: the cluster has {', '.join(cluster.nodes)}", Status.USAGE)
    console = cluster[name].console

    def give() -> None:
        for line in sys.stdin.buffer:
            with suppress(ConsoleFull):
                console.send(line)
        cluster.stop()

    Thread(target=give, daemon=True).start()


def _tell(cluster: Cluster, end: ClusterEnd) -> None:
    say(f"the cluster has run for {cluster.now_ns / 1e9:.6f} s ({end.value})")
    for name, digest in cluster.hashes().items():
        say(f"{name}: {digest}" + (f" ({cluster[name].reason})" if cluster[name].is_over else ""))


def replay(file: str, recording: str, cores: str, seed: str | None, restore: str | None) -> int:
    """Run a recorded cluster again. What differs is an error."""
    screen = Screen()
    with _made(file, cores, seed, restore, screen) as cluster:
        try:
            ClusterReplay(cluster, recording, other_seed=seed is not None).run()
        finally:
            screen.end()
        _tell(cluster, ClusterEnd.TIME)
    say("all frames and the states at the end are as they were recorded")
    return Status.DONE


def diff(recording: str, other: str) -> int:
    """Print where two recordings first differ. Return 1 if they do."""
    said = first_difference(recording, other)
    print(said or "the recordings are of the same run")
    return 1 if said else Status.DONE
