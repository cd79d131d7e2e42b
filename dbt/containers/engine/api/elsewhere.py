"""What other engines have and this one has not: it says so with docker's words, or in one sentence."""

from __future__ import annotations

from typing import Final

from dbt.containers.engine.errors import NotFound, NotImplementedHere, Unavailable
from dbt.containers.engine.router import Call, Route, json_answer
from dbt.daemon.http_messages import Answer

_NO_SWARM: Final = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
_NO_BUILDKIT: Final = (
    "this engine builds with docker's first builder, and not with BuildKit: set DOCKER_BUILDKIT=0, as in "
    "`DOCKER_BUILDKIT=0 docker build .`"
)
#: Lists that belong to a swarm's manager.
_OF_SWARM: Final = ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs")


def elsewhere_routes() -> list[Route]:
    """Return the routes of this subject."""
    return [
        *(Route("GET", path, _no_swarm) for path in _OF_SWARM),
        *(Route("GET", f"{path}/{{id}}", _no_swarm) for path in _OF_SWARM[1:]),
        *(Route("POST", f"/swarm/{verb}", _no_swarm_here) for verb in ("init", "join")),
        *(Route("POST", f"/{what}/create", _no_swarm) for what in ("services", "secrets", "configs")),
        Route("POST", "/session", _no_buildkit),
        Route("POST", "/grpc", _no_buildkit),
        Route("GET", "/plugins", _no_plugins),
        Route("GET", "/plugins/{name:path}/json", _no_such_plugin),
        *(Route("POST", f"/plugins/{{name:path}}/{verb}", _no_such_plugin) for verb in ("enable", "disable", "set")),
        Route("DELETE", "/plugins/{name:path}", _no_such_plugin),
        Route("POST", "/swarm/leave", _not_of_swarm),
    ]


async def _no_swarm(call: Call) -> Answer:
    raise Unavailable(_NO_SWARM)


async def _no_swarm_here(call: Call) -> Answer:
    raise NotImplementedHere("this engine is no part of a swarm: it runs the containers of one machine")


async def _not_of_swarm(call: Call) -> Answer:
    raise Unavailable("This node is not part of a swarm")


async def _no_such_plugin(call: Call) -> Answer:
    raise NotFound(f'plugin "{call.parts["name"]}" not found')


async def _no_buildkit(call: Call) -> Answer:
    raise NotImplementedHere(_NO_BUILDKIT)


async def _no_plugins(call: Call) -> Answer:
    return json_answer([])
