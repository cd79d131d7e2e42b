"""Removing images: docker's rules of which may go, and its texts for those that may not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal, NamedTuple

from dbt.containers.images.errors import ImageConflict, ImageNotFound
from dbt.containers.images.image import Image
from dbt.containers.images.reference import Reference, familiar, id_prefix
from dbt.containers.images.store import ImageStore, full_name

_SHORT: Final = 12


class User(NamedTuple):
    """A container that uses an image. ``id`` has 64 digits."""

    id: str
    running: bool


class Removal(NamedTuple):
    """A line of docker's answer: a name that is "Untagged", or the id of an image or a layer that is "Deleted".

    ``image`` is the id of the image that this is an event of, and None for layers.
    """

    kind: Literal["Untagged", "Deleted"]
    what: str
    image: str | None = None


#: Returns the containers that use the image with an id.
Users = Callable[[str], list[User]]


def short_id(full: str) -> str:
    """Return an id as docker shows it in its texts."""
    return full.removeprefix("sha256:")[:_SHORT]


def remove(store: ImageStore, text: str, force: bool, users: Users, prune: bool = True) -> list[Removal]:
    """Remove the image that a user means, or a name of it, and with ``prune`` those that it alone was built on.

    Raise ImageConflict, with docker's text, for an image that is needed, and what :meth:`ImageStore.find` raises.
    """
    with store.freeing():
        with store.change():
            removing = _Removing(store, users, force, prune)
            removed = removing.by_text(text)
        store.collect()
    if removing.conflict is not None:
        raise removing.conflict
    return removed


def prune(
    store: ImageStore, dangling_only: bool, users: Users, wanted: Callable[[Image], bool] = lambda image: True
) -> tuple[list[Removal], int]:
    """Remove the images that no container uses, of those that are ``wanted``, or only those of them without a tag.

    Return what was removed, and the bytes of the layers that went with them.
    """
    removed: list[Removal] = []
    with store.freeing(), store.change():
        sizes = dict(_chain_sizes(store.images()))
        for image in [image for image in store.images() if wanted(image)]:
            if dangling_only and image.names:
                continue
            references = sorted((*image.names, *image.digests))
            if not references and store.children(image.id):
                continue
            for text in references or [image.id]:
                try:
                    removed += _Removing(store, users, False, True).by_text(text)
                except ImageNotFound:
                    continue  # it went with another name
                except ImageConflict:
                    continue  # it is used: it stays
    store.collect()
    return removed, sum(sizes.get(removal.what, 0) for removal in removed if removal.kind == "Deleted")


class _Removing:
    """One removal, whose lines come together in ``lines``. As in docker, a name goes even if a ``conflict`` keeps the
    image.
    """

    def __init__(self, store: ImageStore, users: Users, force: bool, prune: bool) -> None:
        self._store, self._users, self._force, self._prune = store, users, force, prune
        self.lines: list[Removal] = []
        self.conflict: ImageConflict | None = None

    def by_text(self, text: str) -> list[Removal]:
        image = self._store.find(text)
        prefix = id_prefix(text)
        quiet = False
        if not prefix or not image.id.removeprefix("sha256:").startswith(prefix):
            if not self._untag_one(image, text):
                return self.lines
            quiet = True
        elif _is_single(image):
            if conflict := self._conflict(image, with_names=False):
                raise conflict[0]
            self._untag(image, _references(image))
        self._remove(self._store.by_id(image.id), quiet, self._force)
        return self.lines

    def _untag_one(self, image: Image, text: str) -> bool:
        """Take a name from an image. Return True if it has none any more."""
        users = self._users(image.id)
        if not self._force and _is_single(image) and users:
            raise ImageConflict(
                f'conflict: unable to remove repository reference "{text}" (must force) - container '
                f"{short_id(users[0].id)} is using its referenced image {short_id(image.id)}"
            )
        reference = Reference.parse(text)
        name = full_name(reference)
        self._untag(image, [name])
        left = self._store.by_id(image.id)
        if "@" not in name and not any(_repository(tag) == reference.repository for tag in left.names):
            self._untag(image, [digest for digest in left.digests if _repository(digest) == reference.repository])
            left = self._store.by_id(image.id)
        return not _references(left)

    def _untag(self, image: Image, names: Iterable[str]) -> None:
        for name in names:
            self._store.untag(name)
            self.lines.append(Removal("Untagged", familiar(name), image.id))

    def _remove(self, image: Image, quiet: bool, force: bool) -> None:
        """Remove an image, and what it was built on as far as nobody else needs that."""
        found: Image | None = image
        while found is not None:
            conflict = self._conflict(found, with_names=True, force=force)
            if conflict is not None:
                error, used = conflict
                if not quiet or not (_references(found) or used):
                    self.conflict = error
                return
            self._untag(found, _references(found))
            others = {chain for other in self._store.images() if other.id != found.id for chain in chain_ids(other)}
            self._store.forget(found)
            self.lines.append(Removal("Deleted", found.id, found.id))
            self.lines += [Removal("Deleted", chain) for chain in chain_ids(found)[::-1] if chain not in others]
            parent = found.parent if self._prune else None
            found = next((one for one in self._store.images() if one.id == parent), None)
            quiet, force = True, False

    def _conflict(self, image: Image, with_names: bool, force: bool | None = None) -> tuple[ImageConflict, bool] | None:
        """Return why an image cannot be removed, and whether that is because of a container, or None."""
        force = self._force if force is None else force
        users = self._users(image.id)
        running = [user for user in users if user.running]
        if self._store.children(image.id):
            return _conflict(image, "cannot be forced", "image has dependent child images"), False
        if running:
            text = f"image is being used by running container {short_id(running[0].id)}"
            return _conflict(image, "cannot be forced", text), True
        if force:
            return None
        if with_names and _references(image):
            return _conflict(image, "must be forced", "image is referenced in multiple repositories"), False
        if users:
            text = f"image is being used by stopped container {short_id(users[0].id)}"
            return _conflict(image, "must be forced", text), True
        return None


def _conflict(image: Image, how: str, why: str) -> ImageConflict:
    return ImageConflict(f"conflict: unable to delete {short_id(image.id)} ({how}) - {why}")


def _references(image: Image) -> list[str]:
    return sorted((*image.names, *image.digests))


def _repository(name: str) -> str:
    return Reference.parse(name).repository


def _is_single(image: Image) -> bool:
    """Return True if an image has one name at most, with digests of the same repository."""
    if len(_references(image)) <= 1:
        return True
    if len(image.names) > 1:
        return False
    repositories = {_repository(digest) for digest in image.digests}
    first = _repository(image.names[0] if image.names else _references(image)[0])
    return repositories == {first}


def chain_ids(image: Image) -> list[str]:
    """Return the id of each layer together with those below it, as docker names layers, the lowest first."""
    found: list[str] = []
    for diff_id in image.config.diff_ids:
        text = f"{found[-1]} {diff_id}" if found else None
        found.append(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" if text else diff_id)
    return found


def _chain_sizes(images: Iterable[Image]) -> Iterator[tuple[str, int]]:
    for image in images:
        yield from zip(chain_ids(image), (layer.size for layer in image.layers), strict=True)
