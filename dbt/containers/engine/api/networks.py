"""Networks: listed, described, made and removed, and the containers in them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from dbt.containers.engine.engine import Engine
from dbt.containers.engine.errors import BadParameter, NotFound, NotImplementedHere
from dbt.containers.engine.filters import Filters
from dbt.containers.engine.image_lists import moment_ns
from dbt.containers.engine.router import Call, Route, json_answer
from dbt.containers.engine.timestamps import text_of
from dbt.containers.network.addresses import mac_text
from dbt.containers.network.errors import Forbidden
from dbt.containers.network.networks import Networks
from dbt.containers.network.records import Network, Subnet
from dbt.daemon.http_messages import Answer, Response

_NS = 10**9
_LIST_FILTERS = frozenset({"dangling", "driver", "id", "label", "label!", "name", "scope", "type"})
_PRUNE_FILTERS = frozenset({"label", "label!", "until"})


def network_routes(engine: Engine) -> list[Route]:
    """Return the routes of this subject."""
    api = _Networks(engine)
    return [
        Route("GET", "/networks", api.list_all),
        Route("POST", "/networks/create", api.create),
        Route("POST", "/networks/prune", api.prune),
        Route("GET", "/networks/{id}", api.inspect),
        Route("DELETE", "/networks/{id}", api.remove),
        Route("POST", "/networks/{id}/connect", api.connect),
        Route("POST", "/networks/{id}/disconnect", api.disconnect),
    ]


class _Pool(msgspec.Struct, rename="pascal"):
    """What a client wants of the addresses."""

    subnet: str = ""
    ip_range: str = msgspec.field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = {}


class _Ipam(msgspec.Struct, rename="pascal"):
    driver: str = ""
    config: list[_Pool] = []
    options: dict[str, str] = {}


class _Wish(msgspec.Struct, rename="pascal"):
    """A network that a client wants."""

    name: str = ""
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    enable_ipv6: bool = msgspec.field(default=False, name="EnableIPv6")
    ipam: _Ipam = msgspec.field(default_factory=_Ipam, name="IPAM")
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class _Connection(msgspec.Struct, rename="pascal"):
    container: str = ""
    endpoint_config: dict[str, Any] = {}
    force: bool = False


class _Networks:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def _networks(self) -> Networks:
        return self._engine.board.networks

    async def _find(self, call: Call) -> Network:
        return await asyncio.to_thread(self._networks.find, call.parts["id"])

    async def list_all(self, call: Call) -> Answer:
        filters = call.filters(_LIST_FILTERS)
        found = await asyncio.to_thread(self._networks.all)
        return json_answer([self._described(one) | {"Containers": {}} for one in found if self._passes(one, filters)])

    def _passes(self, network: Network, filters: Filters) -> bool:
        kind, dangling = "builtin" if network.is_predefined else "custom", filters.boolean("dangling")
        is_free = not network.is_predefined and not self._networks.endpoints(network)
        return (
            filters.matches("name", network.name)
            and ("id" not in filters or any(network.id.startswith(one) for one in filters.get("id")))
            and filters.exact("driver", network.driver)
            and filters.exact("scope", "local")
            and filters.exact("type", kind)
            and filters.labels(network.labels)
            and filters.no_labels(network.labels)
            and (dangling is None or dangling == is_free)
        )

    async def inspect(self, call: Call) -> Answer:
        return json_answer(self._described(await self._find(call)))

    def _described(self, network: Network) -> dict[str, Any]:
        pools = []
        if network.subnet is not None:
            pool: dict[str, Any] = {"Subnet": str(network.subnet)}
            pool |= {"IPRange": str(network.pool)} if network.pool else {}
            pool |= {"Gateway": str(network.gateway)} if network.gateway else {}
            reserved = {name: str(address) for name, address in network.reserved.items()}
            pools = [pool | ({"AuxiliaryAddresses": reserved} if reserved else {})]
        return {
            "Name": network.name,
            "Id": network.id,
            "Created": text_of(int(network.created * _NS)),
            "Scope": "local",
            "Driver": network.driver,
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": dict(network.ipam_options) or None, "Config": pools},
            "Internal": network.internal,
            "Attachable": network.attachable,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": self._members(network),
            "Options": dict(network.options),
            "Labels": dict(network.labels),
        }

    def _members(self, network: Network) -> dict[str, Any]:
        names = {one.id: one.name for one in self._engine.containers}
        return {
            one.container: {
                "Name": names.get(one.container, ""),
                "EndpointID": one.id,
                "MacAddress": mac_text(one.mac),
                "IPv4Address": f"{one.address}/{network.subnet.prefixlen if network.subnet else 0}",
                "IPv6Address": "",
            }
            for one in self._networks.endpoints(network)
        }

    async def create(self, call: Call) -> Answer:
        wish = call.json(_Wish)
        if wish.scope == "swarm":
            raise Forbidden("cannot create a swarm scoped network when swarm is not active")
        if wish.ipam.driver not in ("", "default"):
            raise NotFound(f'plugin "{wish.ipam.driver}" not found')
        if wish.enable_ipv6:
            raise NotImplementedHere("networks of this engine have addresses of IPv4 alone")
        if wish.ingress:
            raise NotImplementedHere("this engine is no part of a swarm, to which an ingress network belongs")
        if len(wish.ipam.config) > 1:
            raise BadParameter("a network of this engine has one subnet")
        pool = wish.ipam.config[0] if wish.ipam.config else _Pool()
        network = await asyncio.to_thread(
            self._networks.create,
            wish.name,
            wish.driver or "bridge",
            Subnet(pool.subnet, pool.ip_range, pool.gateway, pool.auxiliary_addresses),
            wish.internal,
            wish.attachable,
            wish.options,
            wish.labels,
            wish.ipam.options,
        )
        self._tell("create", network)
        return json_answer({"Id": network.id, "Warning": ""}, 201)

    async def remove(self, call: Call) -> Answer:
        self._tell("destroy", await asyncio.to_thread(self._networks.remove, call.parts["id"]))
        return Response(204)

    async def prune(self, call: Call) -> Answer:
        filters = call.filters(_PRUNE_FILTERS)
        until = [moment_ns(text) for text in filters.get("until")]

        def is_wanted(network: Network) -> bool:
            return (
                filters.labels(network.labels)
                and filters.no_labels(network.labels)
                and all(network.created * _NS < moment for moment in until)
            )

        removed = await asyncio.to_thread(self._networks.prune, is_wanted)
        for network in removed:
            self._tell("destroy", network)
        self._engine.events.tell("network", "prune", "", {"reclaimed": "0"})
        return json_answer({"NetworksDeleted": [network.name for network in removed] or None})

    async def connect(self, call: Call) -> Answer:
        wish = call.json(_Connection)
        container = self._engine.containers.find(wish.container)
        await container.connect(call.parts["id"], wish.endpoint_config)
        return Response(200)

    async def disconnect(self, call: Call) -> Answer:
        wish = call.json(_Connection)
        try:
            container = self._engine.containers.find(wish.container)
        except NotFound:
            network = await self._find(call)
            if not wish.force:
                raise
            await asyncio.to_thread(self._networks.detach, wish.container, network)
            return Response(200)
        await container.disconnect(call.parts["id"])
        return Response(200)

    def _tell(self, action: str, network: Network) -> None:
        self._engine.events.tell("network", action, network.id, {"name": network.name, "type": network.driver})
