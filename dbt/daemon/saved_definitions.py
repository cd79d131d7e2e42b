"""The definition of a saved machine, in a file beside its state: what the domain is defined as may have changed since,
and a state belongs to a machine with the devices that it had.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec

from dbt.daemon.definition import Definition, plain, read_definition
from dbt.daemon.errors import DefinitionError, NotFound

#: How the names end of saved machines in the daemon's directory, and of their definitions after that.
SAVED, DEFINITION = ".dbt", ".json"


def _beside(path: str) -> str:
    return f"{path}{DEFINITION}"


@contextmanager
def written_beside(path: str, definition: Definition) -> Iterator[None]:
    """Let the block write a state to ``path``, and put the definition beside it. Raise OSError.

    If either cannot be written, an older definition stays as it was.
    """
    from dbt.snapshot.replacement import replacing

    with replacing(_beside(path)) as handle:
        with open(handle, "wb", closefd=False) as file:
            file.write(msgspec.json.encode(plain(definition)))
        yield


def read_beside(path: str) -> Definition:
    """Return the definition that belongs to a saved machine. Raise NotFound and DefinitionError."""
    place = _beside(path)
    try:
        with open(place, "rb") as file:
            return read_definition(msgspec.json.decode(file.read()))
    except OSError as error:
        raise NotFound(
            f"the definition of the machine in {path} cannot be read from {place}: {error.strerror}. "
            "`dbt vm save` writes both"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DefinitionError(f"{place} is no definition of a saved machine: {error}") from None


def remove(path: str) -> None:
    """Remove a saved machine with its definition. Raise OSError if the state stays; it may be gone."""
    for one in (path, _beside(path)):
        with suppress(FileNotFoundError):
            os.unlink(one)
