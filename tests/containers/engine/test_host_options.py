"""Options of docker's that ask for something of the host: they do what they say, or the user hears that they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbt.containers.build.failures import BadDockerfile
from dbt.containers.build.options import read_options
from dbt.containers.engine.config import HostConfig
from dbt.containers.engine.errors import BadParameter
from dbt.containers.engine.host_options import complete_host, gives_no_privileges
from dbt.containers.engine.mounts import MountMaker
from dbt.containers.runtime.spec import DEFAULT_SHM
from dbt.containers.runtime.ulimits import Ulimit
from tests.containers.engine.asking import create
from tests.containers.engine.engines import TestEngine

#: Bytes before each line of a log.
_HEADER = 8


def _limits_seen(engine: TestEngine, name: str) -> dict[bytes, list[bytes]]:
    """Return the rows of /proc/self/limits that the container's program has written."""
    assert engine.ask("POST", f"/containers/{name}/start").status == 204
    assert engine.ask("POST", f"/containers/{name}/wait").json["StatusCode"] == 0
    text = engine.ask("GET", f"/containers/{name}/logs?stdout=1").body
    rows = [line[_HEADER:] for line in text.splitlines()]
    return {row[:26].strip(): row[26:].split()[:2] for row in rows}


def test_limits_of_resources_reach_the_program(engine: TestEngine) -> None:
    ulimits = [{"Name": "nofile", "Soft": 64, "Hard": 128}, {"Name": "nproc", "Soft": -1, "Hard": -1}]
    create(engine, "limited", "words", "file", "/proc/self/limits", HostConfig={"Ulimits": ulimits})
    try:
        assert engine.ask("GET", "/containers/limited/json").json["HostConfig"]["Ulimits"] == ulimits
        seen = _limits_seen(engine, "limited")
        assert seen[b"Max open files"] == [b"64", b"128"]
        assert seen[b"Max processes"] == [b"unlimited", b"unlimited"]
    finally:
        engine.ask("DELETE", "/containers/limited?force=1")


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ({"ulimits": [Ulimit("nofiles", 1, 1)]}, "invalid ulimit type: nofiles"),
        ({"ulimits": [Ulimit("nofile", 2, 1)]}, "soft limit must be less than or equal"),
        ({"ulimits": [Ulimit("nofile", -1, 1)]}, "soft limit must be less than or equal"),
        ({"ulimits": [Ulimit("nofile", -2, -1)]}, "a limit is a number"),
        ({"oom_score_adj": 1001}, "OOM score"),
        ({"runtime": "kata"}, "invalid runtime name: kata"),
        ({"isolation": "hyperv"}, "invalid isolation"),
        ({"volume_driver": "rexray"}, "not found"),
        ({"storage_opt": {"size": "1G"}}, "--storage-opt"),
        ({"userns_mode": "private"}, "user namespace mode"),
        ({"security_opt": ["no-new-privileges=perhaps"]}, "no-new-privileges"),
        ({"security_opt": ["nonsense=1"]}, "nonsense"),
    ],
)
def test_what_cannot_be_is_refused(wish: dict[str, Any], why: str) -> None:
    with pytest.raises(BadParameter, match=why):
        complete_host(HostConfig(**wish))


@pytest.mark.parametrize(
    ("wish", "option"),
    [
        ({"blkio_weight": 300}, "--blkio-weight"),
        ({"cgroup_parent": "/x"}, "--cgroup-parent"),
        ({"cpu_realtime_period": 5}, "--cpu-rt-period"),
        ({"device_cgroup_rules": ["c 1:1 r"]}, "--device-cgroup-rule"),
        ({"memory_reservation": 1 << 25}, "--memory-reservation"),
        ({"memory_swappiness": 7}, "--memory-swappiness"),
        ({"cgroupns_mode": "host"}, "--cgroupns host"),
        ({"links": ["db:db"]}, "--link"),
        ({"security_opt": ["seccomp={}"]}, "seccomp"),
        ({"security_opt": ["apparmor:mine"]}, "apparmor"),
    ],
)
def test_what_has_no_effect_is_said(wish: dict[str, Any], option: str) -> None:
    host = HostConfig(**wish)
    (warning,) = complete_host(host)
    assert option in warning and "discarded" in warning
    assert host.memory_reservation == 0 and not host.blkio_weight and not host.cgroup_parent


def test_what_the_client_always_says_is_no_wish() -> None:
    usual = HostConfig(memory_swappiness=-1, blkio_weight_device=[], device_cgroup_rules=None, oom_kill_disable=False)
    assert complete_host(usual) == []
    unconfined = ["seccomp=unconfined", "apparmor=unconfined", "label=disable", "label:disable"]
    assert complete_host(HostConfig(security_opt=unconfined)) == []


def test_new_privileges() -> None:
    for text, given in (
        ("no-new-privileges", True),
        ("no-new-privileges=true", True),
        ("no-new-privileges:true", True),
        ("no-new-privileges:false", False),
    ):
        assert gives_no_privileges(HostConfig(security_opt=[text])) is given


def test_system_paths_are_masked_unless_the_client_says_that_none_is() -> None:
    for masked, is_open in ((None, False), ([], True)):
        host = HostConfig(masked_paths=masked, readonly_paths=masked)
        complete_host(host)
        assert (host.masked_paths == []) is is_open


def test_options_of_mounts(tmp_path: Path) -> None:
    from dbt.containers.engine.config import ContainerConfig, MountWish

    class NoVolumes:
        """Volumes are none of this test's."""

    maker = MountMaker(NoVolumes(), lambda name: [])  # type: ignore[arg-type]

    def points(*wishes: MountWish) -> Any:
        return maker.points(ContainerConfig(), HostConfig(mounts=list(wishes)))

    (point,) = points(MountWish("tmpfs", target="/t", read_only=True))
    assert point.options == "ro"
    new = tmp_path / "new"
    with pytest.raises(BadParameter, match="does not exist"):
        points(MountWish("bind", str(new), "/b"))
    points(MountWish("bind", str(new), "/b", bind_options={"CreateMountpoint": True}))
    assert new.is_dir()
    with pytest.raises(BadParameter, match="volume-subpath"):
        points(MountWish("volume", "v", "/v", volume_options={"Subpath": "x"}))


def test_a_build_has_limits_of_resources() -> None:
    found = read_options({"ulimits": ['[{"Name":"nofile","Soft":5,"Hard":6}]'], "shmsize": ["65536"]})
    assert found.ulimits == (Ulimit("nofile", 5, 6),) and found.shm_size == 65536
    assert read_options({}).shm_size == read_options({"shmsize": ["0"]}).shm_size == DEFAULT_SHM
    assert read_options({"ulimits": ["null"], "cachefrom": ["null"], "labels": ["null"]}).ulimits == ()
    for query in (
        {"ulimits": ['[{"Name":"x"}]']},
        {"shmsize": ["much"]},
        {"shmsize": ["1_0"]},
        {"memory": ["+5"]},
        {"ulimits": ["7"]},
    ):
        with pytest.raises(BadDockerfile):
            read_options(query)
