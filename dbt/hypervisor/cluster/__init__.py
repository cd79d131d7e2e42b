"""Clusters: machines and the network between them as one deterministic system.

>>> from dbt.hypervisor.cluster import Cluster, Hub
>>> with Cluster({"lan": Hub(latency_us=500, loss=0.01)}, seed=1) as cluster:
...     cluster.add("server", boot_server)  # each function returns a machine with nets=[Net("hub:lan")]
...     cluster.add("client", boot_client)
...     cluster.run(seconds=10)
...     print(cluster.hashes())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbt.hypervisor.cluster.cluster import Cluster, ClusterEnd
    from dbt.hypervisor.cluster.description import DescriptionError, read_description
    from dbt.hypervisor.cluster.network import Hub
    from dbt.hypervisor.cluster.recording import (
        ClusterDiverged,
        ClusterRecorder,
        ClusterRecordingError,
        ClusterReplay,
        first_difference,
    )
    from dbt.hypervisor.cluster.saved import ClusterState, read_cluster, write_cluster

_HOME = {
    "Cluster": "dbt.hypervisor.cluster.cluster",
    "ClusterDiverged": "dbt.hypervisor.cluster.recording",
    "ClusterRecorder": "dbt.hypervisor.cluster.recording",
    "ClusterRecordingError": "dbt.hypervisor.cluster.recording",
    "ClusterReplay": "dbt.hypervisor.cluster.recording",
    "ClusterEnd": "dbt.hypervisor.cluster.cluster",
    "ClusterState": "dbt.hypervisor.cluster.saved",
    "DescriptionError": "dbt.hypervisor.cluster.description",
    "Hub": "dbt.hypervisor.cluster.network",
    "first_difference": "dbt.hypervisor.cluster.recording",
    "read_cluster": "dbt.hypervisor.cluster.saved",
    "read_description": "dbt.hypervisor.cluster.description",
    "write_cluster": "dbt.hypervisor.cluster.saved",
}
__all__ = [
    "Cluster",
    "ClusterDiverged",
    "ClusterEnd",
    "ClusterRecorder",
    "ClusterRecordingError",
    "ClusterReplay",
    "ClusterState",
    "DescriptionError",
    "Hub",
    "first_difference",
    "read_cluster",
    "read_description",
    "write_cluster",
]


def __getattr__(name: str) -> Any:
    """The public names, imported when first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
