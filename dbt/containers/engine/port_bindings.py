"""Ports of this host that a client wants for a container."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dbt.containers.engine.config import HostConfig, PortBinding
from dbt.containers.engine.errors import BadParameter
from dbt.host.net_option import Forward

_MOST: Final = 65535


def container_port(text: str) -> tuple[int, str]:
    """Return the number and the protocol of a container's port: ``80/tcp``. Raise BadParameter."""
    number, _, kind = text.partition("/")
    if not (number.isascii() and number.isdigit() and 0 < int(number) <= _MOST):
        raise BadParameter(f"Invalid containerPort: {number}")
    return int(number), kind or "tcp"


def forwards(host: HostConfig, exposed: dict[str, Any]) -> list[Forward]:
    """Return the ports of this host that a container wants; those of number 0 may be any. Raise BadParameter."""
    found = []
    bindings = dict(host.port_bindings or {})
    if host.publish_all_ports:
        for name in exposed:
            bindings.setdefault(name, [])
    for name, places in bindings.items():
        number, kind = container_port(name)
        if not places and not host.publish_all_ports:
            continue
        for address, text in [(one.host_ip, one.host_port) for one in places or ()] or [("", "")]:
            first = text.partition("-")[0] or "0"
            if not _is_port(first):
                raise _no_port(text)
            found.append(Forward(kind, "" if address in ("::", "0.0.0.0") else address, int(first), number))
    return found


def check_bindings(bindings: Mapping[str, Sequence[PortBinding] | None]) -> None:
    """Raise BadParameter for ports that there are not."""
    for name, places in bindings.items():
        number = name.partition("/")[0]
        if not _is_port(number):
            raise _no_port(number)
        for one in places or ():
            first, dash, last = one.host_port.partition("-")
            if not (_is_port(first) and _is_port(last)) or (dash and not (first and last and int(first) <= int(last))):
                raise _no_port(one.host_port)


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and int(text) <= _MOST)


def _no_port(text: str) -> BadParameter:
    return BadParameter(f"invalid port specification: {json.dumps(text, ensure_ascii=False)}")
