"""What a container sees and may do is as in docker: namespaces, devices, capabilities, hidden paths and limits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from dbt.containers.runtime.spec import Ended, Limits, Process, Tmpfs
from dbt.containers.runtime.ulimits import Ulimit
from tests.containers.runtime.boxes import NEEDS_BUSYBOX, Boxes, Said, all_of, busybox_layer

pytestmark = NEEDS_BUSYBOX


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boxes]:
    folder = tmp_path_factory.mktemp("boxes")
    made = Boxes(folder, (busybox_layer(folder),))
    yield made
    made.close()


def shell(boxes: Boxes, script: str, **fields: object) -> str:
    said, _ = boxes.run(boxes.said("sh", "-c", script, **fields))
    return said.output.decode()


def test_namespaces(boxes: Boxes) -> None:
    said = shell(boxes, "echo $$; hostname; ls /proc | grep -c '^[0-9]'; cat /proc/self/cgroup; ls /sys/class/net")
    pid, host, processes, cgroup, *cards = said.splitlines()
    assert (pid, host, cgroup, cards) == ("1", "box", "0::/", ["lo"]) and int(processes) <= 4


def test_devices(boxes: Boxes) -> None:
    said = shell(boxes, "ls /dev; echo x > /dev/null; head -c 3 /dev/zero | od -An -c; stat -c %a /dev/shm")
    names = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert " ".join(said.split()) == rf"{names} \0 \0 \0 1777"


@pytest.mark.parametrize(
    ("fields", "bits"),
    [
        ({}, 0xA80425FB),
        ({"cap_drop": ("ALL",)}, 0),
        ({"cap_drop": ("ALL",), "cap_add": ("CAP_CHOWN",)}, 1),
        ({"cap_add": ("net_admin",)}, 0xA80435FB),
        ({"cap_add": ("ALL",), "cap_drop": ("CHOWN",)}, 0x1FFFFFFFFFE),
        ({"privileged": True}, 0x1FFFFFFFFFF),
    ],
)
def test_capabilities(boxes: Boxes, fields: dict[str, object], bits: int) -> None:
    """The numbers are what a dockerd gives, as far as it knows the capabilities of this kernel."""
    said = shell(boxes, "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2", **fields)
    assert said.split() == [f"{bits:016x}"] * 3


def test_a_user_has_no_capabilities(boxes: Boxes) -> None:
    process = Process(("sh", "-c", "id -u; id -g; grep CapEff /proc/self/status"), ("PATH=/bin",), user="1000:5")
    said, _ = boxes.run(boxes.said(process=process))
    assert said.output.split() == [b"1000", b"5", b"CapEff:", b"0" * 16]


def test_paths_that_are_hidden_or_only_read(boxes: Boxes) -> None:
    script = "wc -c < /proc/keys; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/panic; mkdir /sys/fs/cgroup/new"
    said, _ = boxes.run(boxes.said("sh", "-c", script))
    assert said.output.split() == [b"0", b"0"]
    assert said.errors.count(b"Read-only file system") == 2


def test_a_root_directory_that_is_only_read(boxes: Boxes) -> None:
    script = "touch /new; echo $?; touch /tmp/new; echo $?; touch /tmp/exec; chmod +x /tmp/exec; /tmp/exec; echo $?"
    said = shell(boxes, script, read_only=True, tmpfs=(Tmpfs("/tmp", "size=1m"),))
    assert said.split() == ["1", "0", "126"]


def test_files_and_settings_of_a_container(boxes: Boxes) -> None:
    said = shell(
        boxes,
        "cat /etc/hosts; cat /proc/sys/kernel/domainname /proc/sys/kernel/msgmax; df -m /dev/shm | tail -1",
        files={"/etc/hosts": b"1.2.3.4 there\n"},
        domain_name="example",
        sysctls={"kernel.msgmax": "4321"},
        shm_size=8 << 20,
    )
    assert said.split()[:6] == ["1.2.3.4", "there", "example", "4321", "shm", "8"]


def test_limits_of_resources(boxes: Boxes) -> None:
    said = shell(
        boxes,
        "ulimit -n; ulimit -Hn; ulimit -c; ulimit -f; cat /proc/self/oom_score_adj; : > /dev/null",
        ulimits=(Ulimit("nofile", 64, 65536), Ulimit("core", -1, -1), Ulimit("fsize", 1 << 30, 1 << 30)),
        oom_score_adj=500,
    )
    assert said.split() == ["64", "65536", "unlimited", str((1 << 30) // 512), "500"]


@pytest.mark.parametrize(("given", "seen"), [(True, "1"), (False, "0")])
def test_no_new_privileges(boxes: Boxes, given: bool, seen: str) -> None:
    process = Process(("sh", "-c", "grep NoNewPrivs /proc/self/status"), ("PATH=/bin",), user="1000:5")
    said, _ = boxes.run(boxes.said(process=process, no_new_privileges=given))
    assert said.output.split()[1].decode() == seen


def test_another_program_has_the_limits_of_the_container(boxes: Boxes) -> None:
    async def run() -> Said:
        vm = await boxes.start("sleep", "1000", ulimits=(Ulimit("nofile", 77, 88),), no_new_privileges=True)
        try:
            script = "ulimit -n; ulimit -Hn; grep NoNewPrivs /proc/self/status"
            return await all_of(await vm.exec(Process(("sh", "-c", script), ("PATH=/bin",))))
        finally:
            await vm.stop()

    assert boxes.run(run()).output.split() == [b"77", b"88", b"NoNewPrivs:", b"1"]


def test_system_paths_that_are_open(boxes: Boxes) -> None:
    assert (
        shell(boxes, "echo 7 > /proc/sys/kernel/panic && cat /proc/sys/kernel/panic", open_system_paths=True) == "7\n"
    )


def test_too_much_memory(boxes: Boxes) -> None:
    _, ended = boxes.run(boxes.said("tail", "/dev/zero", limits=Limits(memory=16 << 20)))
    assert ended == Ended(137, oom_killed=True)


def test_too_many_processes(boxes: Boxes) -> None:
    said, _ = boxes.run(boxes.said("sh", "-c", "for i in 1 2 3 4 5; do sleep 9 & done", limits=Limits(pids=4)))
    assert b"can't fork" in said.errors


def test_limits_of_a_container_that_runs(boxes: Boxes) -> None:
    async def run() -> None:
        vm = await boxes.start("sleep", "1000")
        await vm.update(Limits(memory=32 << 20, pids=7, nano_cpus=500_000_000))
        stats = await vm.stats()
        assert (stats.memory_limit, stats.pids_limit, stats.pids) == (32 << 20, 7, 1)
        assert stats.cpu_ns == stats.cpu_user_ns + stats.cpu_system_ns > 0
        assert 0 < (await vm.stats()).cpu_ns - stats.cpu_ns < (await vm.stats()).system_ns - stats.system_ns
        assert stats.memory > 0 and stats.block_read > 0
        assert vm.domain.limits.core_time == 0.5
        titles, rows = await vm.top("-o pid,args")
        assert titles == ["PID", "COMMAND"] and [row[1] for row in rows] == ["sleep 1000"]
        await vm.stop()

    boxes.run(run())


def test_a_part_of_a_core_is_that_of_the_containers_program(boxes: Boxes) -> None:
    """What its guest does before would take a minute. And a turn as such would use up the part of each period."""

    async def run() -> None:
        async with asyncio.timeout(30):
            vm = await boxes.start("sleep", "1000", limits=Limits(nano_cpus=10_000_000))
            assert vm.domain.limits.core_time == 0.01
            await vm.stop()

    boxes.run(run())


def test_two_containers_share_no_numbers(boxes: Boxes) -> None:
    script = "cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid; cat /sys/class/net/eth*/address"
    seen = [shell(boxes, script).split()[:2] for _ in range(2)]
    assert not set(seen[0]) & set(seen[1])


def test_device_files_may_be_made_and_few_be_opened(boxes: Boxes) -> None:
    """As docker's control group for devices has it. Otherwise the disks of the machine could be read and written."""
    script = """
    for name in vda vdb; do set -- $(grep $name$ /proc/partitions); mknod /$name b $1 $2 && head -c 1 /$name; done
    mknod /port c $(sed -n 's/ virtio-portsdev//p' /proc/devices) 1 && cat /port
    mknod /kmsg c 1 11 && head -c 1 /kmsg
    mknod /null c 1 3 && echo x > /null && mknod /zero c 1 5 && head -c 2 /zero | od -An -c
    echo y > /dev/tty; test -c /dev/ptmx && head -c 1 /dev/urandom | wc -c
    """
    said, _ = boxes.run(boxes.said("sh", "-c", script))
    assert said.output.split() == [b"\\0", b"\\0", b"1"]
    refused = [f"/{name}: Operation not permitted" for name in ("vda", "vdb", "kmsg")]
    errors = said.errors.decode()
    assert [text for text in refused if text not in errors] == []
    assert "can't open '/port': Operation not permitted" in errors
    said, _ = boxes.run(boxes.said("sh", "-c", "mknod /k c 1 11 && head -c 1 /k | wc -c", privileged=True))
    assert said.output == b"1\n"


_RUIN = """
set -- $(grep vda$ /proc/partitions); mknod /vda b $1 $2; dd if=/dev/zero of=/vda bs=4k count=4 2>/dev/null; echo $?
set -- $(grep vdb$ /proc/partitions); mknod /vdb b $1 $2; dd if=/dev/zero of=/vdb bs=1M count=40 2>/dev/null; echo $?
sync; ls -lR / >/dev/null 2>&1; echo over
"""


def test_a_container_with_all_rights_ruins_only_its_own_disk(boxes: Boxes) -> None:
    with open(boxes.layers[0], "rb") as file:
        layer = file.read()

    async def run() -> None:
        other = await boxes.start("sleep", "1000")
        wild = await boxes.start("sh", "-c", _RUIN, privileged=True)
        said = await all_of(wild.main)
        assert said.output.split()[:2] == [b"1", b"0"]
        await wild.wait()
        assert (await all_of(await other.exec(Process(("echo", "well"), ("PATH=/bin",))))).output == b"well\n"
        await other.stop()

    boxes.run(run())
    with open(boxes.layers[0], "rb") as file:
        assert file.read() == layer
