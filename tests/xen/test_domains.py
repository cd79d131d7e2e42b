"""Two domains of one host: event channels and grants between them, in every tier, and where states go on."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from dbt.abi.addresses import Gpa
from dbt.devices.state import StateError
from dbt.hypervisor.cluster import (
    Cluster,
    ClusterEnd,
    ClusterRecorder,
    ClusterReplay,
    read_cluster,
    read_description,
    write_cluster,
)
from tests.assembler import assemble
from tests.xen.pairs import BASE, CODE, MAPPED, PAGE, REFERENCE, ROUNDS, SEEN, domains


def check_talk(cluster: Cluster) -> None:
    """Check what both guests have found at their ends."""
    front, back = cluster["front"].machine, cluster["back"].machine
    assert front.r[10] == ROUNDS + 1 and front.r[11] == 3 * ROUNDS * (ROUNDS + 1) // 2
    assert front.r[7] & 0xFFFF == 1, "nobody uses the grant any more"
    assert (back.r[9], back.r[10], back.r[7]) == (0, ROUNDS + 1, 0), "binding made an event, too"
    assert back.r[11] == 0, "nothing is there after unmapping"


def test_a_file_says_that_there_is_one_host(tmp_path: Path) -> None:
    (tmp_path / "guest").write_bytes(assemble(CODE["sleeper"], BASE))
    machine = '[machines.{}]\nkernel = "guest"\nboard = "xen"\nmemory = "1M"\n'
    device = '[[domain_devices]]\nkind = "vif"\nfront = "one"\nback = "two"\nnumber = 0\n'
    text = machine.format("one") + machine.format("two") + device
    (tmp_path / "two.toml").write_text("domains_us = 50\n" + text)
    with read_description(tmp_path / "two.toml").build() as cluster:
        assert cluster.quantum_ns == 50_000 and cluster.domains is not None
        assert [domain.identity.number for domain in cluster.domains.host.domains.values()] == [1, 2]
        with cluster.save() as state, state.restore() as other:
            assert other.domains is not None
            assert other.domains.shared_devices() == cluster.domains.shared_devices() != []
    (tmp_path / "two.toml").write_text(text)
    with pytest.raises(ValueError, match="needs domains_us"):
        read_description(tmp_path / "two.toml").build()
    (tmp_path / "two.toml").write_text(text.replace("number = 0", ""))
    with pytest.raises(ValueError, match="has no number"):
        read_description(tmp_path / "two.toml")
    with pytest.raises(ValueError, match="no whole number from 1"):
        Cluster({}, domains_us=0)


@pytest.mark.parametrize("tier", ["reference", "threaded", "auto"])
def test_two_domains_talk(tier: str) -> None:
    with domains(tier=tier) as cluster:  # type: ignore[arg-type]
        assert cluster.run(timeout=60) is ClusterEnd.ENDED
        check_talk(cluster)
        assert cluster.domains is not None
        log = cluster.domains.host.log
        assert [(one.what, one.domain, one.page.domain, one.page.reference) for one in log] == [
            ("mapped", 2, 1, REFERENCE),
            ("unmapped", 2, 1, REFERENCE),
        ]
        assert f"domain 2 mapped at {MAPPED:#x}, to write, the page {PAGE:#x} of domain 1" in str(log[0])


def test_the_same_happens_however_it_is_executed(tmp_path: Path) -> None:
    """In each tier, with several cores, where runs end anywhere, and in a replay."""
    with domains() as one:
        recorder = ClusterRecorder(one, tmp_path / "run")
        one.run(seconds=0.0008)
        recorder.end()
        hashes = one.hashes()
        assert one["front"].machine.r[10] not in (0, ROUNDS + 1), "they are in the middle of it"
    for tier, cores in (("threaded", 2), ("auto", 1), ("reference", 1)):
        with domains("front back sleeper", tier, cores) as other:  # type: ignore[arg-type]
            while other.now_ns < 800_000:
                other.run(seconds=0.000_033)
            assert other.now_ns == 800_000 and {**hashes, "sleeper": other.hashes()["sleeper"]} == other.hashes()
    with domains() as again:
        ClusterReplay(again, tmp_path / "run").run()


def test_a_saved_pair_goes_on(tmp_path: Path) -> None:
    """With a page mapped, as a state and from files; and going back in time."""
    with domains() as one:
        one.keep_history(0.0002)
        one.run(seconds=0.0008)
        with one.save() as state:
            write_cluster(state, tmp_path / "state")
            with state.restore() as other:
                assert other.hashes() == one.hashes()
                assert other.run(timeout=60) is ClusterEnd.ENDED
                check_talk(other)
                assert one.run(timeout=60) is ClusterEnd.ENDED
                assert other.hashes() == one.hashes()
        ends = one.hashes()
        one.go_back(500_000)
        one.run(timeout=60)
        check_talk(one)
        assert one.hashes() == ends
    with read_cluster(tmp_path / "state") as state, state.restore() as third:
        third.run(timeout=60)
        assert third.hashes() == ends


def test_states_that_do_not_belong_together() -> None:
    with domains() as one:
        one.run(seconds=0.0004)
        with one.save() as early:
            one.run(seconds=0.01)
            with one.save() as late:
                machines = {"front": late.machines["front"], "back": early.machines["back"]}
                mixed = type(early)(early.values, machines)
                with pytest.raises(StateError, match="different nodes of XenStore"):
                    mixed.restore()


def test_a_page_does_not_outlive_its_grant() -> None:
    """Where the granter takes the grant away, or is gone, the page is gone, and what was written there too."""
    for ends_itself in (False, True):
        with domains() as cluster:
            cluster.run(seconds=0.0008)
            front, back = cluster["front"].machine, cluster["back"].machine
            front.memory.write_ram(Gpa(PAGE + 100), b"secret")
            cluster.run(seconds=0.00002)
            assert back.read(MAPPED + 100, 6) == b"secret"
            assert front.read(0x38000000 + 8 * REFERENCE, 1)[0] == 1 | 3 << 3
            if ends_itself:
                front.memory.write_ram(Gpa(0x38000000 + 8 * REFERENCE), bytes(2))
            else:
                front.vcpu.request_reset()
            cluster.run(seconds=0.00004)
            assert back.read(MAPPED, 4096) == bytes(4096)
            back.memory.write_ram(Gpa(MAPPED + 200), b"late")
            cluster.run(seconds=0.00002)
            assert b"late" not in front.read(PAGE, 4096)
            assert cluster.domains is not None and cluster.domains.host.log[1].what == "revoked"


@pytest.mark.parametrize("quantum_us", [3, 20, 100])
def test_no_two_domains_overlook_each_other(quantum_us: int) -> None:
    """Each writes its word and then reads the other one's: one of them at least sees the other. Rings need that."""
    with domains("one other", quantum_us=quantum_us) as cluster:
        assert cluster.run(timeout=60) is ClusterEnd.IDLE
        found = [struct.unpack("<201I", node.machine.read(SEEN, 804)) for node in cluster.nodes.values()]
        rounds = list(zip(*found, strict=True))[1:]
        assert all(max(pair) >= number for number, pair in enumerate(rounds, 1))
        assert any(min(pair) < number for number, pair in enumerate(rounds, 1)), "they have been close"
