"""Which containers are recorded, and where: who makes a container asks for it by a label, which docker's clients have.

A label of an image does not ask for it, because whoever made the image would choose what is written on this host. The
recording is in the engine's directory, and nobody chooses more of its place than its name there.
"""

from __future__ import annotations

import os
import re
from typing import Final

from dbt.containers.engine.config import ContainerConfig
from dbt.containers.engine.errors import BadParameter, Conflict
from dbt.containers.engine.places import Places
from dbt.containers.engine.records import Definition
from dbt.containers.runtime.recordings import RecordingPlan

#: The label with the name of the recording.
LABEL: Final = "dbt.record"
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,99}")


def wanted_recording(config: ContainerConfig, places: Places) -> str:
    """Return the name of the recording that the maker of a container wants, or an empty text. ``config`` does not have
    the image's labels yet. Raise BadParameter, or Conflict if there is one of that name.
    """
    name = (config.labels or {}).get(LABEL, "")
    if not name:
        return ""
    if not _NAME.fullmatch(name):
        raise BadParameter(
            f"invalid name of a recording ({LABEL}={name!r:.120}): it has up to 100 letters, digits, and _.-"
        )
    if os.path.lexists(path := os.path.join(places.recordings, name)):
        raise Conflict(f"there is a recording {name} already: remove {path}, or choose another name")
    return name


def recording_plan(definition: Definition, places: Places) -> RecordingPlan | None:
    """Return the recording of the next start of a container, or None. Later starts are NAME-2, NAME-3 and so on."""
    if not definition.recording:
        return None
    path, number = os.path.join(places.recordings, definition.recording), 2
    chosen = path
    while os.path.lexists(chosen):
        chosen, number = f"{path}-{number}", number + 1
    return RecordingPlan(chosen, tuple(definition.layers))
