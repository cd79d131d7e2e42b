"""A driver domain: Debian's kernel serves a disk and network cards to two other domains, by its own back ends."""

from __future__ import annotations

import re
from pathlib import Path

from dbt.hypervisor.cluster import ClusterEnd, read_description
from tests.linux.debian import DISK, KERNEL, TIMEOUT
from tests.linux.domu import NEEDS_DOMU

pytestmark = NEEDS_DOMU
_FILE = Path(__file__).parents[2] / "guests" / "cluster" / "driver-domain.toml"


def described(tmp_path: Path) -> Path:
    """Return the example of a cluster, with the kernel that there is."""
    text = _FILE.read_text().replace("../../build/virt/", f"{KERNEL.parent}/")
    assert str(KERNEL) in text and str(DISK) in text
    file = tmp_path / _FILE.name
    file.write_text(text)
    return file


def test_a_linux_serves_a_disk_and_a_network(tmp_path: Path) -> None:
    """What one side writes the other one reads, and frames cross the bridge. The log says who mapped whose pages."""
    with read_description(described(tmp_path)).build() as cluster:
        end = cluster.run(timeout=4 * TIMEOUT)
        output = {name: node.console.output.decode() for name, node in cluster.nodes.items()}
        assert end is ClusterEnd.ENDED, {name: text[-1000:] for name, text in output.items()}
        assert all("switched the machine off" in node.reason for node in cluster.nodes.values()), output
        assert cluster.domains is not None
        log = cluster.domains.host.log
    sums = {name: re.findall(r"^([0-9a-f]{32})  /", text, re.MULTILINE) for name, text in output.items()}
    assert len(set(sums["first"])) == 2 and sums["first"] == sums["services"]
    assert "5 packets transmitted, 5 packets received, 0% packet loss" in output["first"]
    assert re.search(r"^end\r?$", output["second"], re.MULTILINE)
    assert {one.domain for one in log} == {1} and {one.page.domain for one in log} <= {2, 3}
    assert {one.what for one in log} >= {"mapped", "unmapped"}
