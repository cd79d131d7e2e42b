"""Images as they were before docker 1.10: a document for each layer. They get a configuration of today's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

#: What is said of a single layer, and not of an image.
_OF_THE_LAYER: Final = ("id", "parent", "Size", "parent_id", "layer_id", "throwaway")


def legacy_config(steps: Sequence[dict[str, Any]], diff_ids: Sequence[str]) -> bytes:
    """Return the configuration of the image of these documents, the lowest first, as JSON."""
    top = {key: value for key, value in steps[-1].items() if key not in _OF_THE_LAYER}
    return msgspec.json.encode(
        {
            **top,
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
            "history": [_history(step) for step in steps],
        }
    )


def _history(step: dict[str, Any]) -> dict[str, Any]:
    container = step.get("container_config")
    command = container.get("Cmd") if isinstance(container, dict) else None
    words = [word for word in command if isinstance(word, str)] if isinstance(command, list) else []
    found = {"created": step.get("created"), "author": step.get("author"), "comment": step.get("comment")}
    return {**{key: value for key, value in found.items() if value}, "created_by": " ".join(words)}
