"""Domains of a cluster that share a core: the time that is stolen from them is one of ticks, and so the same again."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from dbt.hypervisor.cluster import (
    Cluster,
    ClusterRecorder,
    ClusterReplay,
    read_cluster,
    read_description,
    write_cluster,
)
from tests.xen.guests import RAM
from tests.xen.pairs import boot, boot_code

#: Where the guests have their runstate: across two pages. And what the last interrupt has found.
AREA, FOUND = RAM + 0x50FE8, RAM + 0x60000
#: Computes, for ever.
BUSY = f"""
    mov r12, #24 ; mov r0, #5 ; mov r1, #0 ; ldr r2, =area ; .word 0xe140ea71
again: add r7, r7, #1 ; b again
    .ltorg ; .balign 8
area: .word {AREA:#x}, 0
"""
#: Waits 30 us of the generic timer, whose interrupt is masked, and computes for some 5 us, in turn.
NAPPING = f"""
    mov r12, #24 ; mov r0, #5 ; mov r1, #0 ; ldr r2, =area ; .word 0xe140ea71
    ldr r8, =0x3001000 ; mov r0, #1 ; str r0, [r8] ; mvn r0, #0 ; str r0, [r8, #0x100]
    ldr r9, =0x3002000 ; mov r0, #255 ; str r0, [r9, #4] ; mov r0, #1 ; str r0, [r9]
nap: mov r0, #1 ; mcr p15, #0, r0, c14, c3, #1 ; ldr r0, =1875 ; mcr p15, #0, r0, c14, c3, #0 ; wfi
    mov r0, #0 ; mcr p15, #0, r0, c14, c3, #1 ; ldr r0, [r9, #12] ; str r0, [r9, #16]
    mov r1, #250 ; 1: subs r1, r1, #1 ; bne 1b ; add r7, r7, #1 ; b nap
    .ltorg ; .balign 8
area: .word {AREA:#x}, 0
"""


def sharing(guests: dict[str, str], tier: Any = "threaded", cores: int = 1, share_core: bool = True) -> Cluster:
    cluster = Cluster({}, cores=cores, domains_us=60, share_core=share_core)
    for name, code in guests.items():
        cluster.add(name, boot_code(code, tier) if code else boot("sleeper", tier))
    return cluster


def runstate(cluster: Cluster, name: str) -> tuple[int, ...]:
    """Return the state, since when, and the times running, runnable, blocked and offline, in nanoseconds."""
    return struct.unpack("<IxxxxQQQQQ", cluster[name].machine.read(AREA, 48))


def test_who_computes_waits_for_the_core() -> None:
    """Two get half of the time each, and one of three a third, though the third does nothing."""
    for guests, share in (({"one": BUSY, "two": BUSY}, 2), ({"one": BUSY, "two": BUSY, "idle": ""}, 3)):
        with sharing(guests) as cluster:
            cluster.run(seconds=0.0006)
            for place, name in enumerate(("one", "two")):
                state, since, running, runnable, blocked, offline = runstate(cluster, name)
                begin = 540_000 + 60_000 * place // share
                assert (state, since, running + runnable, blocked, offline) == (0, begin, begin, 0, 0)
                assert abs(running - 9 * 60_000 // share) <= 60, "what was executed in the nine quanta before"
                machine = cluster[name].machine
                assert abs(machine.icount * 10 - 600_000 // share) <= 100
                assert machine.timeline.nanoseconds == 600_000
            if share == 3:
                domain = cluster["idle"].machine.board.hypervisor
                assert domain is not None and domain.processor.stolen * 10 < 60_000, "until it has begun to wait"


def test_time_is_stolen_from_who_could_execute() -> None:
    """A timer that becomes due outside of the window makes its guest runnable from then on, and not blocked."""
    with sharing({"one": BUSY, "two": NAPPING}) as cluster:
        cluster.run(seconds=0.006)
        _, since, running, runnable, blocked, _ = runstate(cluster, "two")
        assert cluster["two"].machine.r[7] == 99, "one nap in each quantum, though there could be nearly two"
        assert abs(running + runnable + blocked - 5_970_000) <= 2 and since == 5_970_000
        assert abs(blocked - 99 * 30_000) < 99 * 20 and 98 * 5000 < running < 100 * 6000
        assert 98 * 24_000 < runnable < 100 * 26_000, "it computes for 5 us, and naps for 30 of those 55 until its turn"


def test_no_time_is_stolen_elsewhere() -> None:
    with sharing({"one": BUSY, "two": BUSY}, share_core=False) as cluster:
        cluster.run(seconds=0.0006)
        assert runstate(cluster, "one")[3] == runstate(cluster, "two")[3] == 0
        assert cluster["one"].machine.icount * 10 == 600_000
    with pytest.raises(ValueError, match="needs domains_us"):
        Cluster({}, share_core=True)


def test_the_same_is_stolen_again(tmp_path: Path) -> None:
    """In each tier, with several cores, wherever runs end, in a replay, back in time, and from a saved state."""
    guests = {"one": BUSY, "two": NAPPING}
    with sharing(guests) as cluster:
        cluster.keep_history(0.0006)
        cluster.run(seconds=0.0012)
        with cluster.save() as state:
            write_cluster(state, tmp_path / "state")
        cluster.run(seconds=0.0018)
        hashes, found = cluster.hashes(), [runstate(cluster, name) for name in guests]
        assert all(one[3] > 0 for one in found)
        cluster.go_back(660_000)
        while cluster.now_ns < 3_000_000:
            cluster.run(seconds=0.00006)
        assert cluster.hashes() == hashes
    for tier, cores in (("reference", 1), ("auto", 2)):
        with sharing(guests, tier, cores) as other:
            while other.now_ns < 3_000_000:
                other.run(seconds=0.000_12)
            assert other.hashes() == hashes and [runstate(other, name) for name in guests] == found
    with read_cluster(tmp_path / "state") as state, state.restore() as third:
        third.run(seconds=0.0018)
        assert third.hashes() == hashes
    with sharing(guests) as recorded:
        recorder = ClusterRecorder(recorded, tmp_path / "run")
        recorded.run(seconds=0.003)
        recorder.end()
    with sharing(guests) as again:
        ClusterReplay(again, tmp_path / "run").run()
        assert again.hashes() == hashes and [runstate(again, name) for name in guests] == found


def test_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text('domains_us = 60\nshare_core = true\n[machines.one]\nkernel = "k"\n')
    assert read_description(tmp_path / "one.toml").share_core
    (tmp_path / "one.toml").write_text('domains_us = 60\nshare_core = 1\n[machines.one]\nkernel = "k"\n')
    with pytest.raises(ValueError, match="share_core in the file is 1"):
        read_description(tmp_path / "one.toml")
