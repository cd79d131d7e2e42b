"""Containers: programs of images, each in a micro VM that goes on from a booted template of Linux."""

from typing import Final

#: The variable of the environment that names the directory with everything that the engine keeps.
VARIABLE: Final = "DBT_CONTAINER_DIR"
