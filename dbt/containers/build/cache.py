"""The cache of builds: the image that a step has made before, here or, with --cache-from, anywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dbt.containers.build.state import State
from dbt.containers.images.errors import ImageNotFound, InvalidReference
from dbt.containers.images.image import Image
from dbt.containers.images.store import ImageStore


class StepCache:
    """Finds images of steps in a store. Given ``sources``, names of images, it takes those alone that led to one of
    them, as docker does: also steps of images that came from a registry, which are known by their history.
    """

    def __init__(self, store: ImageStore, sources: Sequence[str]) -> None:
        self._store = store
        self._has_sources = bool(sources)
        self._sources: list[Image] = []
        for name in sources:
            try:
                self._sources.append(store.find(name))
            except (ImageNotFound, InvalidReference):
                continue  # it is nothing to begin with, as with docker

    def find(self, state: State, container: dict[str, Any]) -> Image | None:
        """Return the image that a step has made, whose container has this configuration, or None."""
        if state.image is not None:
            candidates = self._store.children(state.id)
        else:
            candidates = [image for image in self._store.images() if image.parent is None]
        fitting = [image for image in candidates if image.json().get("container_config") == container]
        if self._has_sources:
            fitting = [image for image in fitting if any(self._leads_to(image, one) for one in self._sources)]
        made_here = max(fitting, key=lambda image: image.created_seconds, default=None)
        return made_here or self._from_history(state, container)

    def _leads_to(self, image: Image, source: Image) -> bool:
        known = {one.id: one for one in self._store.images()}
        now: Image | None = source
        while now is not None:
            if now.id == image.id:
                return True
            now = known.get(now.parent or "")
        return False

    def _from_history(self, state: State, container: dict[str, Any]) -> Image | None:
        before = (state.image.json().get("history") or []) if state.image else []
        said = " ".join(container.get("Cmd") or [])
        for source in self._sources:
            history = source.json().get("history") or []
            layers = source.layers[: len(state.layers)]
            is_fitting = history[: len(before)] == before and tuple(layers) == state.layers
            if len(history) <= len(before) or not is_fitting or history[len(before)].get("created_by") != said:
                continue
            self._sources = [source]  # the next steps are this one's, too
            if len(history) == len(before) + 1:
                return self._store.add_image(source.document, (), state.id or None)  # which has a parent now
            return self._step_of(state, container, source, history[len(before)])
        return None

    def _step_of(self, state: State, container: dict[str, Any], source: Image, step: dict[str, Any]) -> Image | None:
        """Return an image of one of the steps of a source, which is made of its history and its layers."""
        number = len(state.layers)
        if not step.get("empty_layer") and number >= len(source.layers):
            return None  # its history tells of more layers than it has
        layer = None if step.get("empty_layer") else source.layers[number]
        document = json.loads(state.document(container, "", layer))
        document["history"][-1] = step
        document["created"] = step.get("created", document["created"])
        return self._store.add_image(json.dumps(document, sort_keys=True).encode(), (), state.id or None)
