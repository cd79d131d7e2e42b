"""What a new container is made of: the client's wishes, what the image says, and docker's defaults."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from dbt.containers.engine.config import ContainerConfig, words
from dbt.containers.engine.errors import BadParameter
from dbt.containers.engine.signals import signal_number
from dbt.containers.images.config import HealthCheck, RunConfig
from dbt.containers.runtime.root_request import check_texts
from dbt.containers.runtime.spec import RuntimeFailure

_LEAST_INTERVAL: Final = 1_000_000
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")


def merge_config(config: ContainerConfig, image: RunConfig | None) -> None:
    """Complete a configuration by what the image says, as docker does. Raise BadParameter."""
    of_image = image or RunConfig()
    config.user = config.user or of_image.user
    config.working_dir = config.working_dir or of_image.working_dir
    config.stop_signal = config.stop_signal or of_image.stop_signal
    config.stop_timeout = of_image.stop_timeout if config.stop_timeout is None else config.stop_timeout
    config.shell = config.shell or of_image.shell
    config.exposed_ports = {**(of_image.exposed_ports or {}), **(config.exposed_ports or {})} or None
    config.volumes = {**(of_image.volumes or {}), **(config.volumes or {})} or None
    config.labels = {**(of_image.labels or {}), **(config.labels or {})}
    config.env = _merged_env(config.env or [], of_image.env or [])
    config.on_build = of_image.on_build
    if not words(config.entrypoint):
        if not words(config.cmd):
            config.cmd = of_image.cmd
        if config.entrypoint is None:
            config.entrypoint = of_image.entrypoint
    config.entrypoint = None if words(config.entrypoint) in ([""], []) else words(config.entrypoint)
    config.cmd = words(config.cmd) or None
    if of_image.healthcheck is not None:
        config.healthcheck = _merged_check(config.healthcheck, of_image.healthcheck)
    if not config.entrypoint and not config.cmd:
        raise BadParameter("No command specified")


def _merged_env(chosen: list[str], of_image: list[str]) -> list[str]:
    """Return the variables, each once: the image's come after those that the user has chosen."""
    found: dict[str, str] = {}
    for one in chosen:
        found[one.partition("=")[0]] = one
    for one in of_image:
        found.setdefault(one.partition("=")[0], one)
    return list(found.values())


def _merged_check(chosen: HealthCheck | None, of_image: HealthCheck) -> HealthCheck:
    if chosen is None:
        return of_image
    given = {name: value for name, value in msgspec.structs.asdict(chosen).items() if value}
    return msgspec.structs.replace(of_image, **given)


def check_config(config: ContainerConfig) -> None:
    """Raise BadParameter for a configuration that no container can have."""
    if config.hostname and not _HOST_NAME.fullmatch(config.hostname):
        raise BadParameter(f"invalid hostname format: {config.hostname}")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise BadParameter(f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path")
    check_program_texts(
        (config.hostname, config.domainname, config.user, config.working_dir, *(config.env or ()),
         *words(config.entrypoint), *words(config.cmd), *(config.volumes or ()))
    )  # fmt: skip
    for one in config.env or []:
        if not one.partition("=")[0]:
            raise BadParameter(f"invalid environment variable: {one}")
    if config.stop_signal:
        signal_number(config.stop_signal)
    check = config.healthcheck
    if check is not None:
        for name in ("interval", "timeout", "start_period", "start_interval"):
            value = getattr(check, name)
            if value and value < _LEAST_INTERVAL:
                words_ = "".join(part.title() for part in name.split("_"))
                raise BadParameter(f"{words_} in Healthcheck cannot be less than 1ms")
        if check.retries < 0:
            raise BadParameter("Retries in Healthcheck cannot be negative")


def check_program_texts(texts: Iterable[str]) -> None:
    """Raise BadParameter for texts that no program can be given: with a zero character, or that are no Unicode."""
    try:
        check_texts(tuple(texts))
    except RuntimeFailure as failure:
        raise BadParameter(str(failure)) from None


def environment(config: ContainerConfig, host_name: str) -> tuple[str, ...]:
    """Return the environment of a container's program: docker's variables, and then the container's own."""
    found: dict[str, str | None] = {
        "PATH": "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME": f"HOSTNAME={host_name}",
    }
    if config.tty:
        found["TERM"] = "TERM=xterm"
    return with_variables(found, config.env or [])


def with_variables(found: Mapping[str, Any], more: list[str]) -> tuple[str, ...]:
    """Return the variables in ``found`` with others in their place or behind them. A name without a value takes its
    variable away.
    """
    made = dict(found)
    for one in more:
        name, equals, _ = one.partition("=")
        made[name] = one if equals else None
    return tuple(one for one in made.values() if one is not None)
