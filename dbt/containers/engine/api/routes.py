"""All routes."""

from __future__ import annotations

from dbt.containers.engine.api.system import system_routes
from dbt.containers.engine.engine import Engine
from dbt.containers.engine.router import Route


def all_routes(engine: Engine) -> list[Route]:
    """Return the routes of all subjects. The first that fits answers."""
    return [*system_routes(engine)]
