"""Clusters: everything follows from the guests, the seed and what is typed, however it is executed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dbt import Machine, Net
from dbt.devices.state import StateError
from dbt.host.console import Console
from dbt.hypervisor.cluster import (
    Cluster,
    ClusterDiverged,
    ClusterEnd,
    ClusterRecorder,
    ClusterRecordingError,
    ClusterReplay,
    Hub,
    first_difference,
    read_cluster,
    write_cluster,
)
from dbt.hypervisor.cluster.network import Network, Sent
from dbt.vm.options import TierName
from tests.cluster.guests import boot

HUBS = {"lan": Hub(latency_us=200, loss=0.2)}


@contextmanager
def cluster(
    guests: str = "chatter chatter typist", seed: int = 1, cores: int = 1, tier: TierName = "auto"
) -> Iterator[Cluster]:
    with Cluster(HUBS, seed, cores) as made:
        for number, guest in enumerate(guests.split()):
            made.add(f"{guest} {number}", boot(guest, tier=tier, insn_ns=(10, 20, 10)[number % 3]))
        yield made


def run(made: Cluster) -> dict[str, str]:
    """Run for 100 ms, in the middle of which something is typed."""
    made.run(seconds=0.04)
    made["typist 2"].console.send(b"abc")
    made.run(seconds=0.06)
    return made.hashes()


def test_a_rerun_gives_the_same_states_whatever_executes_it() -> None:
    with cluster() as one, cluster(cores=2) as other, cluster(tier="threaded") as third:
        hashes = run(one)
        assert one["chatter 0"].machine.cpu.r[10] > 20 and one["typist 2"].sent == 3
        assert one["typist 2"].console.output == b"abc"
        assert run(other) == hashes
        assert run(third) == hashes


def test_it_does_not_matter_where_runs_end() -> None:
    with cluster("chatter chatter") as one, cluster("chatter chatter") as other:
        one.run(seconds=0.05)
        while other.now_ns < one.now_ns:
            other.run(seconds=0.000_777)
        one.run(seconds=(other.now_ns - one.now_ns) / 1e9)
        assert one.now_ns == other.now_ns and one.hashes() == other.hashes()


def test_frames_take_the_latency_of_two_links_and_come_in_one_order() -> None:
    network = Network({"a": Hub(100), "b": Hub(300)}, 0)
    for name in ("x", "y", "z"):
        network.connect(name, ["a", "b"])
    assert network.quantum_ns == 200_000
    frames = [Sent(5, "z", 1, 0, b"1"), Sent(5, "y", 7, 1, b"2"), Sent(4, "z", 0, 0, b"3")]
    crossings = network.cross(frames)
    assert [(one.sent.data, one.hub) for one in crossings] == [(b"3", "a"), (b"2", "b"), (b"1", "a")]
    assert [(port.machine, port.card, ns) for port, ns in crossings[0].arrivals] == [
        ("x", 0, 200_004),
        ("y", 0, 200_004),
    ]
    assert {ns for _, ns in crossings[1].arrivals} == {600_005}


def test_links_lose_the_part_of_frames_that_they_are_to() -> None:
    network = Network({"a": Hub(1, loss=0.1)}, 3)
    network.connect("x", ["a"])
    network.connect("y", ["a"])
    crossings = network.cross([Sent(at, "x", at, 0, b"") for at in range(20_000)])
    came = sum(ns is not None for one in crossings for _, ns in one.arrivals)
    assert came / 20_000 == pytest.approx(0.9**2, abs=0.01)


def test_a_recording_is_replayed_to_the_same_hashes(tmp_path: Path) -> None:
    with cluster() as one:
        recorder = ClusterRecorder(one, tmp_path / "run")
        run(one)
        recorder.end()
    with cluster(cores=2) as other:
        ClusterReplay(other, tmp_path / "run").run()
        assert other["typist 2"].console.output == b"abc"


def test_another_seed_differs_and_the_tool_says_where_first(tmp_path: Path) -> None:
    for seed in (1, 2):
        with cluster(seed=seed) as made:
            recorder = ClusterRecorder(made, tmp_path / str(seed))
            run(made)
            recorder.end()
    said = first_difference(tmp_path / "1", tmp_path / "2")
    assert ("sends its frame" in said and "it is lost in" in said) or "and it is lost in the other" in said
    assert first_difference(tmp_path / "1", tmp_path / "1") == ""
    with cluster(seed=2) as made:
        with pytest.raises(ClusterRecordingError, match="recording of another cluster: its seed is 1, and not 2"):
            ClusterReplay(made, tmp_path / "1")
        with pytest.raises(ClusterDiverged, match=r"differs from its recording: at 0.*sends its frame .*lost"):
            ClusterReplay(made, tmp_path / "1", other_seed=True).run()


def test_another_seed_of_one_hub_changes_its_links_alone() -> None:
    def lost(seed: int) -> dict[str, list[bool]]:
        network = Network({"lan": Hub(1, 0.5, seed), "wan": Hub(1, 0.5)}, 3)
        for machine in "ab":
            network.connect(machine, ["lan", "wan"])
        sent = [Sent(number, "a", number, number % 2, b"") for number in range(200)]
        found: dict[str, list[bool]] = {"lan": [], "wan": []}
        for one in network.cross(sent):
            found[one.hub] += [ns is None for _, ns in one.arrivals]
        return found

    assert lost(0)["lan"] != lost(7)["lan"] != lost(8)["lan"]
    assert lost(0)["wan"] == lost(7)["wan"] == lost(8)["wan"]


def test_a_saved_cluster_goes_on_as_the_one_that_was_saved(tmp_path: Path) -> None:
    with cluster() as one:
        run(one)
        one["typist 2"].console.send(b"def")
        while not one["chatter 0"].input.incoming:
            one.run(seconds=0.000_1)
        with one.save() as state:
            write_cluster(state, tmp_path / "saved")
            with pytest.raises(FileExistsError):
                write_cluster(state, tmp_path / "saved")
        one.run(seconds=0.05)
        with read_cluster(tmp_path / "saved") as read, read.restore(cores=2) as other:
            assert other["chatter 0"].input.incoming
            other.run(seconds=0.05)
            assert other.hashes() == one.hashes()
            assert other["typist 2"].console.output == b"abcdef"
        with read_cluster(tmp_path / "saved") as read, read.restore(seed=5) as other:
            other.run(seconds=0.05)
            assert other.hashes() != one.hashes()


@pytest.mark.parametrize("ns", [1_000, 40_000_000, 40_123_000, 99_999_000])
def test_a_cluster_goes_back(ns: int) -> None:
    with cluster() as one, cluster() as other:
        one.keep_history(every_s=0.01)
        hashes = run(one)
        one.go_back(ns)
        assert one.now_ns == ns
        if ns < 40_000_000:
            other.run(seconds=ns / 1e9)
            assert one.hashes() == other.hashes()
        one.run(seconds=(100_000_000 - ns) / 1e9)
        assert one.hashes() == hashes
        assert one["typist 2"].console.output == b"abc"
        one["typist 2"].console.send(b"x")
        one.run(seconds=0.01)
        assert one["typist 2"].console.output == b"abcx"


def test_what_is_typed_after_all_have_waited_is_read() -> None:
    """The cluster has stopped between two places where machines stop together."""
    with cluster("typist sleeper") as one:
        one.run(seconds=0.000_333)
        one["typist 0"].console.send(b"x")
        one.run(seconds=0.01)
        assert one["typist 0"].console.output == b"x"
    with cluster("sleeper sleeper") as one:
        one.run(seconds=0.000_333)
        one["sleeper 0"].console.send(b"x")
        assert one.run() is ClusterEnd.IDLE
        assert one["sleeper 0"].input.typed == b"x"


def test_a_long_history_is_thinned_out() -> None:
    with cluster("chatter chatter") as one:
        one.keep_history(every_s=0.000_4)
        one.run(seconds=0.1)
        assert len(one._checkpoints) <= 128
        assert one.oldest_ns == 0
        hashes = one.hashes()
        one.go_back(50_000_000)
        one.run(seconds=0.05)
        assert one.hashes() == hashes


def test_what_a_history_does_not_have_is_refused() -> None:
    with cluster("chatter") as one:
        one.run(seconds=0.001)
        with pytest.raises(ValueError, match="the history has whole microseconds from"):
            one.go_back(0)


def test_a_script_types_what_it_is_to(tmp_path: Path) -> None:
    with Cluster(HUBS) as made:
        node = made.add("typist", boot("typist"), [(b"", b"hello"), (b"ll", b"LL"), (b"L", b".")])
        made.keep_history(0.001)
        made.run(seconds=0.02)
        assert node.console.output == b"helloLL."
        hashes = made.hashes()
        made.go_back(500_000)
        made.run(seconds=0.0195)
        assert made.hashes() == hashes and node.console.output == b"helloLL."


def test_time_jumps_where_all_wait_and_ends_where_nothing_can_happen() -> None:
    with cluster("sleeper sleeper") as made:
        assert made.run(seconds=1000) is ClusterEnd.TIME
        assert made.now_ns == 1000 * 10**9
        assert made.run() is ClusterEnd.IDLE
    with cluster("ends") as made:
        assert made.run() is ClusterEnd.ENDED
        assert made["ends 0"].exit_code == 0


def _with(**options: object) -> Callable[[Console], Machine]:
    return lambda console: Machine(1 << 20, cpu="cortex-a15", console=console, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("boots", "said"),
    [
        (_with(nets=[Net("none")]), "a network card of a is at none: in a cluster"),
        (_with(nets=[Net("hub:wan")]), "card 0 of a is at the hub 'wan', and the cluster has lan"),
        (_with(realtime=True), "the machine a has realtime, which depends on the host"),
        (_with(files="."), "the machine a has files"),
    ],
)
def test_machines_that_depend_on_the_host_are_refused(boots: Callable[[Console], Machine], said: str) -> None:
    with Cluster(HUBS) as made, pytest.raises(ValueError, match=said):
        made.add("a", boots)


@pytest.mark.parametrize("hub", [Hub(0), Hub(-1), Hub(1, 1.5), Hub(1, -0.1), Hub(True), Hub(1, True), Hub(1, 0.1, -1)])
def test_hubs_that_make_no_sense_are_refused(hub: Hub) -> None:
    with pytest.raises(ValueError, match="of the hub lan is"):
        Cluster({"lan": hub})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5\n",
        "{}\n",
        '{"dbt-cluster-recording": 1, "machines": {}, "now_ns": 0}\n["typed", 1]\n',
        '{"dbt-cluster-recording": 1, "machines": {}, "now_ns": 0}\n["frame", 1, "a", 1, "b", 1, "c", [[1, 2, 3]]]\n',
        '{"dbt-cluster-recording": 1, "machines": {}, "now_ns": 0}\n["typed", 1, "a", "\\u1234"]\n',
        "[" * 100_000,
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run").write_text(text)
    with pytest.raises(ClusterRecordingError):
        first_difference(tmp_path / "run", tmp_path / "run")


def test_what_is_no_saved_cluster_is_refused(tmp_path: Path) -> None:
    with cluster("chatter") as one, one.save() as state:
        changes: tuple[dict[str, object], ...] = (
            {"now_ns": -1},
            {"hubs": {"lan": [0, 0]}},
            {"hubs": 5},
            {"nodes": {}},
            {"played": "x"},
            {"passed": {"a": -5}},
            {"nodes": {"chatter 0": {**state.values["nodes"]["chatter 0"], "typed": "?"}}},
            {"nodes": {"chatter 0": {**state.values["nodes"]["chatter 0"], "incoming": [[1, "a", 1, 1]]}}},
        )
        for change in changes:
            with pytest.raises(StateError):
                type(state)({**state.values, **change}, state.machines).restore()
    (tmp_path / "cluster.json").write_text("[]")
    with pytest.raises(StateError, match="no state of a cluster"):
        read_cluster(tmp_path)
