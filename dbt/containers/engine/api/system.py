"""What the engine says of itself, and what happens."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import AsyncGenerator
from typing import Any, Final

from dbt.containers.engine.engine import Engine
from dbt.containers.engine.errors import BadParameter
from dbt.containers.engine.events import KNOWN
from dbt.containers.engine.router import Call, Route, json_answer, json_stream
from dbt.containers.engine.timestamps import asked_ns, text_of
from dbt.containers.engine.versions import NEWEST, OLDEST, ApiVersion
from dbt.daemon.http_messages import Answer, Response

#: What the client is told of building: docker's first builder, which is a request of this API.
_BUILDER: Final = "1"
_PING: Final = {
    "Builder-Version": _BUILDER,
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Swarm": "inactive",
}
_REGISTRIES: Final = {
    "AllowNondistributableArtifactsCIDRs": [],
    "AllowNondistributableArtifactsHostnames": [],
    "InsecureRegistryCIDRs": ["127.0.0.0/8"],
    "IndexConfigs": {"docker.io": {"Name": "docker.io", "Mirrors": [], "Secure": True, "Official": True}},
    "Mirrors": [],
}
_SWARM: Final = {
    "NodeID": "",
    "NodeAddr": "",
    "LocalNodeState": "inactive",
    "ControlAvailable": False,
    "Error": "",
    "RemoteManagers": None,
}
#: What clients are told up to a version of the API, that there is not.
_UNTIL: Final = {
    ApiVersion(1, 41): ("KernelMemory", "KernelMemoryTCP"),
    ApiVersion(1, 47): ("BridgeNfIptables", "BridgeNfIp6tables"),
}
#: What containers have: the guest's processor, and not this host's.
ARCHITECTURE: Final = "arm"


def system_routes(engine: Engine) -> list[Route]:
    """Return the routes of this subject."""
    system = _System(engine)
    return [
        Route("GET", "/_ping", system.ping),
        Route("HEAD", "/_ping", system.ping),
        Route("GET", "/version", system.version),
        Route("GET", "/info", system.info),
        Route("GET", "/events", system.events),
    ]


class _System:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ping(self, call: Call) -> Answer:
        return Response(200, b"OK", "text/plain; charset=utf-8", _PING)

    async def version(self, call: Call) -> Answer:
        version, built = self._engine.version, text_of(0)
        details = {
            "ApiVersion": str(NEWEST),
            "Arch": ARCHITECTURE,
            "BuildTime": built,
            "Experimental": "true",
            "GitCommit": version,
            "GoVersion": "none",
            "KernelVersion": platform.release(),
            "MinAPIVersion": str(OLDEST),
            "Os": "linux",
        }
        found = {
            "Platform": {"Name": "dbt"},
            "Components": [{"Name": "Engine", "Version": version, "Details": details}],
            "Version": version,
            "ApiVersion": str(NEWEST),
            "MinAPIVersion": str(OLDEST),
            "GitCommit": version,
            "GoVersion": "none",
            "Os": "linux",
            "Arch": ARCHITECTURE,
            "KernelVersion": platform.release(),
            "Experimental": True,
            "BuildTime": built,
        }
        return json_answer(found)

    async def info(self, call: Call) -> Answer:
        older = {name: False for version, names in _UNTIL.items() if call.version <= version for name in names}
        return json_answer({**older, **self._counts(), **self._what_there_is()})

    def _counts(self) -> dict[str, Any]:
        states = [one.shown_state for one in self._engine.containers]
        return {
            "ID": self._engine.id,
            "Containers": len(states),
            "ContainersRunning": sum(state.running and not state.paused for state in states),
            "ContainersPaused": sum(state.paused for state in states),
            "ContainersStopped": sum(not state.running for state in states),
            "Images": len(self._engine.store.images()),
        }

    def _what_there_is(self) -> dict[str, Any]:
        engine = self._engine
        pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        return {
            "Driver": "erofs",
            "DriverStatus": [["Backing Filesystem", "ext4 in each container's own disk"]],
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "none"],
                "Authorization": None,
                "Log": ["json-file"],
            },
            "MemoryLimit": True,
            "SwapLimit": False,
            "CpuCfsPeriod": True,
            "CpuCfsQuota": True,
            "CPUShares": True,
            "CPUSet": False,
            "PidsLimit": True,
            "IPv4Forwarding": True,
            "Debug": False,
            "NFd": len(os.listdir("/proc/self/fd")),
            "OomKillDisable": False,
            "NGoroutines": 0,
            "SystemTime": text_of(time.time_ns()),
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2",
            "NEventsListener": engine.events.listeners,
            "KernelVersion": platform.release(),
            "OperatingSystem": "dbt",
            "OSVersion": "",
            "OSType": "linux",
            "Architecture": ARCHITECTURE,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": _REGISTRIES,
            "NCPU": 1,
            "MemTotal": pages * page,
            "GenericResources": None,
            "DockerRootDir": engine.places.directory,
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "Name": platform.node(),
            "Labels": [],
            "ExperimentalBuild": True,
            "ServerVersion": engine.version,
            "Runtimes": {"dbt": {"path": "dbt"}},
            "DefaultRuntime": "dbt",
            "Swarm": _SWARM,
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "",
            "SecurityOptions": ["name=vm"],
            "Warnings": None,
        }

    async def events(self, call: Call) -> Answer:
        since, until = asked_ns(call.text("since")), asked_ns(call.text("until"))
        if since is not None and until is not None and since > until:
            raise BadParameter(
                f"`since` time ({call.text('since')}) cannot be after `until` time ({call.text('until')})"
            )
        heard = self._engine.events.listen(since, until, call.filters(KNOWN))

        async def values() -> AsyncGenerator[object, None]:
            try:
                async for event in heard:
                    yield event.json()
            finally:
                await heard.aclose()

        return json_stream(values())
