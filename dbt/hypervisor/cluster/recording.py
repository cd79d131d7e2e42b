"""Recordings of clusters: what was typed, what became of each frame, and the hashes at the end.

A recording is a file of lines in JSON. What was typed is all that a replay needs; the rest says whether it is the same
run, and where it first is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Protocol

from dbt.hypervisor.cluster.cluster import Typed
from dbt.vm.input import RecordingError, ReplayDiverged

if TYPE_CHECKING:
    from dbt.hypervisor.cluster.cluster import Cluster
    from dbt.hypervisor.cluster.network import Crossing

_FORMAT = 1
_NS = 10**9
#: The longest line of a recording: a frame has its digest, and what is typed at once has 1 MiB.
_LONGEST_LINE = 8 << 20
_LIMIT = 1 << 62


class ClusterDiverged(ReplayDiverged):
    """Raised if a cluster does something else than was recorded. The message says what, and where first."""


class ClusterRecordingError(RecordingError):
    """Raised for a file that is no recording of a cluster, or of another one."""


class ClusterLog(Protocol):
    """What hears what happens in a cluster."""

    def typed(self, one: Typed) -> None: ...
    def crossed(self, one: Crossing) -> None: ...


def _header(cluster: Cluster) -> dict[str, Any]:
    return {
        "dbt-cluster-recording": _FORMAT,
        "seed": cluster.network.seed,
        "domains_us": None if cluster.domains is None else cluster.domains.quantum_us,
        "share_core": cluster.domains is not None and cluster.domains.share_core,
        "hubs": {name: hub.values for name, hub in cluster.network.hubs.items()},
        "now_ns": cluster.now_ns,
        "machines": cluster.hashes(),
    }


def _without_seeds(hubs: Any) -> Any:
    """Return the hubs of a header with nothing but latency and loss, if they are hubs."""
    if not isinstance(hubs, dict):
        return hubs
    return {name: hub[:2] if isinstance(hub, list) else hub for name, hub in hubs.items()}


def _line_of_typed(one: Typed) -> list[Any]:
    return ["typed", one.ns, one.machine, one.data.decode("latin-1")]


def _line_of_crossing(one: Crossing) -> list[Any]:
    sent = one.sent
    arrivals = [[port.machine, port.card, ns] for port, ns in one.arrivals]
    return ["frame", sent.ns, sent.machine, sent.number, one.hub, len(sent.data), one.digest, arrivals]


class ClusterRecorder:
    """Writes what happens in ``cluster`` to a file, from now on. Raise OSError if it cannot be written."""

    def __init__(self, cluster: Cluster, path: str | PathLike[str]) -> None:
        self._cluster = cluster
        self._file = open(path, "w", encoding="ascii")  # noqa: SIM115 (closed by close)
        self._write(_header(cluster))
        cluster.log = self

    def _write(self, line: object) -> None:
        self._file.write(json.dumps(line) + "\n")

    def typed(self, one: Typed) -> None:
        self._write(_line_of_typed(one))

    def crossed(self, one: Crossing) -> None:
        self._write(_line_of_crossing(one))

    def end(self) -> None:
        """Write the hashes, and close the file. Nothing is recorded any more."""
        self._write(["end", self._cluster.now_ns, self._cluster.hashes()])
        self.close()

    def close(self) -> None:
        self._cluster.log = None
        self._file.close()


class ClusterReplay:
    """Gives ``cluster`` what was typed in a recording, and compares what happens with it.

    With ``other_seed``, the cluster or its hubs may have other seeds, to find out where the runs part. Raise
    ClusterRecordingError if the recording is not one of this cluster in its present state, or damaged.
    """

    def __init__(self, cluster: Cluster, path: str | PathLike[str], other_seed: bool = False) -> None:
        self._cluster = cluster
        self._lines = read_lines(path)
        header, mine = next(self._lines), _header(cluster)
        left_out = {"seed"} if other_seed else set()
        if other_seed and _without_seeds(header.get("hubs")) == _without_seeds(mine["hubs"]):
            left_out.add("hubs")
        different = [name for name in mine if header.get(name) != mine[name] and name not in left_out]
        if different:
            raise ClusterRecordingError(
                f"{fspath(path)}: this is the recording of another cluster: its {different[0]} is "
                f"{header.get(different[0])!r:.200}, and not {mine[different[0]]!r:.200}"
            )
        #: The time of the cluster at which the recording ends, in nanoseconds, or None if it has no end.
        self.end_ns: int | None = None
        typed = []
        for line in read_lines(path):
            match line:
                case ["typed", ns, machine, text]:
                    typed.append(Typed(ns, machine, text.encode("latin-1")))
                case ["end", ns, _]:
                    self.end_ns = ns
        if any(one.machine not in cluster.nodes for one in typed):
            raise ClusterRecordingError(f"{fspath(path)}: something is typed at a machine that is not there")
        cluster.replay_typed(typed)
        cluster.log = self

    def typed(self, one: Typed) -> None:
        self._compare(_line_of_typed(one))

    def crossed(self, one: Crossing) -> None:
        self._compare(_line_of_crossing(one))

    def _compare(self, line: list[Any]) -> None:
        expected = next(self._lines, None)
        if expected != line:
            raise ClusterDiverged(f"the cluster differs from its recording: {_difference(expected, line)}")

    def run(self, timeout: float | None = None) -> None:
        """Run the cluster up to the end of the recording, and compare the states. Raise ClusterDiverged."""
        if self.end_ns is None:
            raise ClusterRecordingError("the recording has no end, so nobody knows how far to go")
        self._cluster.run(seconds=(self.end_ns - self._cluster.now_ns) / _NS, timeout=timeout)
        self._compare(["end", self._cluster.now_ns, self._cluster.hashes()])
        self._cluster.log = None


def first_difference(one: str | PathLike[str], other: str | PathLike[str]) -> str:
    """Return in words where two recordings first differ, or an empty text if they do not.

    Raise ClusterRecordingError if one of them is none.
    """
    lines, others = read_lines(one), read_lines(other)
    header, other_header = next(lines), next(others)
    if header["machines"] != other_header["machines"] or header["now_ns"] != other_header["now_ns"]:
        return "the machines are in other states at the beginning"
    for mine, theirs in zip_longest(lines, others):
        if mine != theirs:
            return _difference(mine, theirs)
    return ""


def _difference(one: list[Any] | None, other: list[Any] | None) -> str:
    """Return in words how what happens in one run differs from what happens in another one at the same place."""
    if one is None or other is None:
        line = one or other
        assert line is not None
        return f"one ends, and in the other {_in_words(line)}"
    if one[:1] == other[:1] == ["frame"] and one[1:7] == other[1:7]:
        for (machine, card, ns), (_, _, other_ns) in zip(one[7], other[7], strict=True):
            if ns != other_ns:
                fate, other_fate = _fate(ns), _fate(other_ns)
                return f"{_in_words(one)}. To card {card} of {machine} {fate} in one, and {other_fate} in the other"
    if one[:1] == other[:1] == ["end"] and one[1] == other[1]:
        names = [name for name in one[2] if one[2][name] != other[2].get(name)]
        return f"at the end, {_seconds(one[1])}, the states of {', '.join(names)} differ"
    return f"in one {_in_words(one)}, and in the other {_in_words(other)}"


def _fate(ns: int | None) -> str:
    return "it is lost" if ns is None else f"it comes {_seconds(ns)}"


def _seconds(ns: int) -> str:
    return f"at {ns // _NS}.{ns % _NS:09} s"


def _in_words(line: list[Any]) -> str:
    match line:
        case ["typed", ns, machine, text]:
            return f"{_seconds(ns)} somebody types {text!r:.60} at {machine}"
        case ["frame", ns, machine, number, hub, size, *_]:
            return f"{_seconds(ns)} {machine} sends its frame {number}, {size} bytes, to the hub {hub}"
        case _:
            return f"the run ends {_seconds(line[1])}"


def read_lines(path: str | PathLike[str]) -> Iterator[Any]:
    """Yield the header of a recording, and its lines, checked. Raise ClusterRecordingError, or OSError."""
    with open(path, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
            try:
                found = json.loads(line)
                is_right = _is_line(found) if number > 1 else _is_header(found)
            except (ValueError, RecursionError):
                is_right = False
            if not is_right:
                raise ClusterRecordingError(f"{fspath(path)}: line {number} is none of a recording of a cluster")
            yield found
        if not file.tell():
            raise ClusterRecordingError(f"{fspath(path)}: this is an empty file, and no recording of a cluster")


def _is_header(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and found.get("dbt-cluster-recording") == _FORMAT
        and isinstance(found.get("machines"), dict)
        and _is_time(found.get("now_ns"))
    )


def _is_time(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LIMIT


def _is_arrival(value: object) -> bool:
    match value:
        case [str(), int(), None]:
            return True
        case [str(), int(), ns]:
            return _is_time(ns)
    return False


def _is_line(found: Any) -> bool:
    match found:
        case ["typed", ns, str(), str(text)]:
            return _is_time(ns) and all(ord(character) < 1 << 8 for character in text)
        case ["frame", ns, str(), int(), str(), int(), str(), list(arrivals)]:
            return _is_time(ns) and all(map(_is_arrival, arrivals))
        case ["end", ns, dict()]:
            return _is_time(ns)
    return False
