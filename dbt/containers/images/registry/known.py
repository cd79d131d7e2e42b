"""Which blobs of registries have which layers: what has been pulled or pushed need not be sent again."""

from __future__ import annotations

from typing import Final

from dbt.containers.images.registry.manifests import LAYER, Descriptor

_MOST: Final = 4096
_MOST_PLACES: Final = 16


class KnownBlobs:
    """Remembers in which repositories of a domain a layer is, and as which blob. It forgets the oldest."""

    def __init__(self) -> None:
        self._blobs: dict[tuple[str, str], dict[str, Descriptor]] = {}

    def add(self, diff_id: str, domain: str, path: str, blob: Descriptor) -> None:
        """Note where a layer is. What is not compressed as pushes compress is of no use."""
        if blob.media_type != LAYER and not blob.media_type.endswith("+gzip"):
            return
        places = self._blobs.pop((diff_id, domain), {})
        places.pop(path, None)
        places[path] = Descriptor(LAYER, blob.digest, blob.size)
        self._blobs[diff_id, domain] = places
        if len(places) > _MOST_PLACES:
            del places[next(iter(places))]
        if len(self._blobs) > _MOST:
            del self._blobs[next(iter(self._blobs))]

    def blob(self, diff_id: str, domain: str, path: str) -> Descriptor | None:
        """Return the blob that a repository has had for a layer."""
        return self._blobs.get((diff_id, domain), {}).get(path)

    def elsewhere(self, diff_id: str, domain: str, path: str) -> tuple[str, Descriptor] | None:
        """Return another repository of the domain with a layer, the one that was seen last, and the blob."""
        places = self._blobs.get((diff_id, domain), {})
        return next(((other, places[other]) for other in reversed(places) if other != path), None)
