"""States of clusters: the states of the machines, and what is between them. In a directory, if they are written."""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbt.devices.state import StateError
from dbt.hypervisor.cluster.cluster import Cluster, shown_of
from dbt.hypervisor.cluster.network import Hub, Incoming
from dbt.hypervisor.cluster.node import Expectation, Node, NodeConsole
from dbt.memory.closing import Closing
from dbt.vm.machine import Machine

if TYPE_CHECKING:
    from dbt.vm.options import HostOptions
    from dbt.vm.vm_state import VmState

_FILE = "cluster.json"
_FORMAT = 1
_LIMIT = 1 << 62
_LARGEST = 1 << 30
#: The counts of a node, which are attributes of its class.
_COUNTS = ("sent", "answered", "matched")


@dataclass(frozen=True, slots=True)
class ClusterState(Closing):
    """The state of a cluster: ``values`` are what is between the machines, as JSON has it, and ``machines`` their
    states by name. :meth:`close` releases their memory.
    """

    values: Mapping[str, Any]
    machines: Mapping[str, VmState]

    def close(self) -> None:
        for state in self.machines.values():
            state.close()

    def restore(
        self,
        cores: int = 1,
        hosts: Mapping[str, HostOptions] | None = None,
        seed: int | None = None,
        shown: Callable[[str, bytes], None] | None = None,
    ) -> Cluster:
        """Return a new cluster in this state. ``hosts`` gives the arguments of :meth:`dbt.vm.machine.Machine.restore`
        for machines, such as their disks. With another ``seed``, links lose other frames from now on.
        ``shown`` is called with the name of a machine and what its guest writes.

        Raise StateError if it is no state of a cluster.
        """
        values = self.values
        try:
            hubs = {name: Hub(*hub) for name, hub in values["hubs"].items()}
            quantum = values.get("domains_us")
            seed = values["seed"] if seed is None else seed
            cluster = Cluster(hubs, seed, cores, quantum, values.get("share_core") is True)
            nodes = values["nodes"]
            if nodes.keys() != self.machines.keys():
                raise ValueError("there are other machines than states")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StateError(f"this is no state of a cluster: {error}") from None
        try:
            for name in nodes:
                self._restore_node(cluster, name, (hosts or {}).get(name, {}), shown_of(shown, name))
            give_values(cluster, values)
        except BaseException as error:
            cluster.close()
            if isinstance(error, (KeyError, TypeError, AttributeError, ValueError)):
                raise StateError(f"this is no state of a cluster: {error}") from None
            raise
        return cluster

    def _restore_node(
        self, cluster: Cluster, name: str, host: HostOptions, shown: Callable[[bytes], None] | None
    ) -> None:
        from dbt.host.net_option import Net

        console = NodeConsole(cluster.notice_typing, shown)
        values = self.values["nodes"][name]
        script = [Expectation(_bytes(text), _bytes(answer)) for text, answer in values["script"]]
        nets = [Net(f"hub:{hub}") for hub in values["hubs"]]
        arguments: Any = {"nets": nets, **host, "console": console}
        cluster.join(name, Machine.restore(self.machines[name], **arguments), console, script)


def save(cluster: Cluster) -> ClusterState:
    """Return the state of a cluster that is not running."""
    machines = {name: node.machine.save() for name, node in cluster.nodes.items()}
    return ClusterState(values_of(cluster), machines)


def values_of(cluster: Cluster) -> dict[str, Any]:
    """Return what is between the machines, as JSON has it."""
    return {
        "cluster": _FORMAT,
        "hubs": {name: hub.values for name, hub in cluster.network.hubs.items()},
        "seed": cluster.network.seed,
        "domains_us": None if cluster.domains is None else cluster.domains.quantum_us,
        "share_core": cluster.domains is not None and cluster.domains.share_core,
        "shared_devices": [] if cluster.domains is None else cluster.domains.shared_devices(),
        "now_ns": cluster.now_ns,
        "played": cluster.played,
        "passed": dict(cluster.network.passed),
        "nodes": {name: _values_of_node(cluster, node) for name, node in cluster.nodes.items()},
    }


def _values_of_node(cluster: Cluster, node: Node) -> dict[str, Any]:
    return {
        "hubs": [port.hub for port in cluster.network.ports if port.machine == node.name],
        "script": [[_text(line.text), _text(line.answer)] for line in node.script],
        **{name: getattr(node, name) for name in _COUNTS},
        "produced": node.console.produced,
        "recent": _text(node.recent_output),
        "typed": _text(node.input.typed),
        "incoming": [[*one[:-1], _text(one.data)] for one in node.input.incoming],
        "wakes_at": node.wakes_at,
        "reason": node.reason,
        "exit_code": node.exit_code,
    }


def give_values(cluster: Cluster, values: Mapping[str, Any]) -> None:
    """Give a cluster what was between its machines. Raise StateError."""
    cluster.now_ns = _number(values["now_ns"])
    cluster.go_to_typed(_number(values["played"]))
    cluster.network.passed = {str(link): _number(count) for link, count in values["passed"].items()}
    for name, held in values["nodes"].items():
        node = cluster.nodes[name]
        for count in _COUNTS:
            setattr(node, count, _number(held[count]))
        node.console.go_to(_number(held["produced"]), node.matched, _bytes(held["recent"]))
        node.input.typed = _bytes(held["typed"])
        node.input.incoming = sorted(
            Incoming(_number(ns), str(sender), _number(number), _number(card), _bytes(data))
            for ns, sender, number, card, data in held["incoming"]
        )
        node.wakes_at = None if held["wakes_at"] is None else _number(held["wakes_at"])
        node.reason, code = str(held["reason"]), held["exit_code"]
        node.exit_code = None if code is None else _number(code)
    if cluster.domains is not None:
        cluster.domains.go_to(values["shared_devices"])


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LIMIT:
        raise StateError(f"{value!r:.100} is no number that a cluster can have")
    return value


def _text(data: bytes) -> str:
    return b64encode(data).decode()


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise StateError(f"{text!r:.100} is no text of bytes in base 64")
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise StateError(f"{text!r:.100} is no text of bytes in base 64") from None


def write_cluster(state: ClusterState, path: str | os.PathLike[str]) -> None:
    """Write a state to a new directory. It is there as a whole or not at all. Raise FileExistsError if it is there
    already, other OSError, or SnapshotError.
    """
    from dbt.snapshot.snapshots import write_snapshot

    target = Path(path)
    if target.exists():
        raise FileExistsError(f"{target}: there is something already, which is not replaced")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    part.mkdir()
    try:
        for number, machine in enumerate(state.machines.values()):
            write_snapshot(machine, part / f"{number}.snap")
        (part / _FILE).write_text(json.dumps({**state.values, "files": list(state.machines)}))
        part.rename(target)
    finally:
        if part.exists():
            for file in part.iterdir():
                file.unlink()
            part.rmdir()


def read_cluster(path: str | os.PathLike[str]) -> ClusterState:
    """Return the state that a directory has. Raise StateError if it has none, OSError, or SnapshotError."""
    from dbt.snapshot.snapshots import read_snapshot

    source = Path(path)
    try:
        with open(source / _FILE, "rb") as file:
            values = json.loads(file.read(_LARGEST))
        if values["cluster"] != _FORMAT:
            raise StateError(f"{source}: this state has format {values['cluster']!r:.20}, and {_FORMAT} is known")
        names = [str(name) for name in values.pop("files")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, StateError):
            raise
        raise StateError(f"{source}: this is no state of a cluster: {error}") from None
    machines: dict[str, VmState] = {}
    try:
        for number, name in enumerate(names):
            machines[name] = read_snapshot(source / f"{number}.snap")
    except BaseException:
        for state in machines.values():
            state.close()
        raise
    return ClusterState(values, machines)
