"""Which images a list with filters has."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable
from dataclasses import replace

from dbt.containers.engine.errors import BadParameter
from dbt.containers.engine.filters import Filters
from dbt.containers.engine.timestamps import asked_ns
from dbt.containers.images.image import Image
from dbt.containers.images.reference import Reference
from dbt.containers.images.store import ImageStore

LIST_FILTERS = frozenset({"dangling", "label", "label!", "before", "since", "until", "reference"})
PRUNE_FILTERS = frozenset({"dangling", "label", "label!", "until"})
_NS = 10**9
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def listed(store: ImageStore, filters: Filters, everything: bool) -> list[Image]:
    """Return the images of a list, the newest first. Without ``everything`` there are none that are only parents."""
    images = store.images()
    parents = {image.parent for image in images}
    bounds = {name: [store.find(text).created_seconds for text in filters.get(name)] for name in ("before", "since")}
    wanted = passes(filters)
    dangling = filters.boolean("dangling")
    found = []
    for image in images:
        is_parent = image.id in parents
        if (
            (everything or has_names(image) or not is_parent)
            and (dangling is None or dangling == (not image.names and not is_parent))
            and all(image.created_seconds < bound for bound in bounds["before"])
            and all(image.created_seconds > bound for bound in bounds["since"])
            and wanted(image)
        ):
            found.append(image)
    return [with_names_of(one, filters) for one in sorted(found, key=lambda one: one.created_seconds, reverse=True)]


def passes(filters: Filters) -> Callable[[Image], bool]:
    """Return what says whether an image passes the filters that depend on it alone. Raise BadParameter."""
    until = [moment_ns(text) for text in filters.get("until")]

    def wanted(image: Image) -> bool:
        labels = (image.config.run.labels if image.config.run else None) or {}
        return (
            filters.labels(labels)
            and filters.no_labels(labels)
            and all(image.created_seconds * _NS < moment for moment in until)
            and ("reference" not in filters or has_names(with_names_of(image, filters)))
        )

    return wanted


def moment_ns(text: str) -> int:
    """Return a moment in nanoseconds since 1970: a time, or how long ago it was, as "1h30m". Raise BadParameter."""
    total, number = 0.0, ""
    for one in text:
        if one.isdecimal() or one == ".":
            number += one
        elif one in _UNITS and number.replace(".", "", 1).isdecimal():
            total, number = total + float(number) * _UNITS[one], ""
        else:
            break
    else:
        if not number:
            return time.time_ns() - int(total * _NS)
    found = asked_ns(text)
    if found is None:
        raise BadParameter(f'invalid value: parsing time "{text}"')
    return found


def has_names(image: Image) -> bool:
    """Return True for an image that has a name, or the digest of one."""
    return bool(image.names or image.digests)


def with_names_of(image: Image, filters: Filters) -> Image:
    """Return an image as a list shows it: with the names alone that were asked for, if any were."""
    patterns = filters.get("reference")
    if not patterns:
        return image
    names, digests = (
        tuple(name for name in all_names if any(_fits(pattern, name) for pattern in patterns))
        for all_names in (image.names, image.digests)
    )
    return replace(image, names=names, digests=digests)


def _fits(pattern: str, name: str) -> bool:
    """Return True if a name of an image fits a pattern of the shell, with or without its tag."""
    reference = Reference.parse(name)
    shown = (reference.familiar, reference.familiar_repository, str(reference), reference.repository)
    return any(fnmatch.fnmatchcase(one, pattern) and one.count("/") == pattern.count("/") for one in shown)
