"""The store: images and layers in a directory, which one process has at a time.

    lock            is locked (flock(2)) as long as the process has the store
    images.db       which layers and images there are
    layers/X.erofs  the file system of the layer with the digest sha256:X
    layers/X.recipe what makes its archive again (:mod:`dbt.containers.images.layer_files`)
    new/            what is not complete yet; a start empties it
    reserve         room for removing things when the disk is full

A layer is complete on the disk before the database has it, and is removed after the database has forgotten it. So a
process that is killed leaves files that nothing refers to, and never the reverse. A start removes such files.
"""

from __future__ import annotations

import fcntl
import gc
import hashlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, cast
from weakref import WeakValueDictionary

from dbt.containers.images.catalog import Catalog, StoredImage
from dbt.containers.images.config import read_config
from dbt.containers.images.disk import Reserve, disk_errors, remove_files, write_down, write_down_folder
from dbt.containers.images.errors import BadConfig, BadLayer, ImageNotFound, StoreError
from dbt.containers.images.image import Image, Layer
from dbt.containers.images.layer_files import Built, archive_of, build_layer, size_of_archive
from dbt.containers.images.reference import DEFAULT_TAG, Reference, id_prefix, is_digest
from dbt.containers.images.tar_reader import Limits
from dbt.containers.images.unpacking import ByteSource, unpacked

_SHA256: Final = "sha256:"
#: The time of a layer, in nanoseconds: it is one of the first two years after 1970, which every file system knows.
_TIME_BYTES: Final = 7
_ID_DIGITS: Final = 64
#: As docker has it.
_MOST_LAYERS: Final = 125


def layer_image(folder: str, diff_id: str) -> str | None:
    """Return the file system of a layer in the store in ``folder``, which another process may have, or None if it is
    not there. ``diff_id`` is a digest.
    """
    path = os.path.join(folder, "layers", f"{diff_id.removeprefix(_SHA256)}.erofs")
    return path if os.path.isfile(path) else None


class ImageStore:
    """The images and layers in ``folder``, which is made if it does not exist. Any thread may use it.

    Raise StoreError if another process has it. ``lost`` are the images that were there but whose layers are gone.
    """

    def __init__(self, folder: str, limits: Limits = Limits()) -> None:  # noqa: B008  (it is frozen)
        self._folder, self._limits = folder, limits
        self._layer_folder, self._new = os.path.join(folder, "layers"), os.path.join(folder, "new")
        self._mutex = threading.RLock()
        self._reserve = Reserve(os.path.join(folder, "reserve"))
        self._layers: WeakValueDictionary[str, Layer] = WeakValueDictionary()
        self._images: dict[str, Image] = {}
        self._names: dict[str, str] = {}
        self.lost: list[str] = []
        self._is_freeing = False
        with disk_errors(folder):
            for path in (folder, self._layer_folder):
                os.makedirs(path, 0o700, exist_ok=True)
            self._lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take()
        except BaseException:
            os.close(self._lock)
            raise

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"another process has the images in {self._folder}") from None
        with disk_errors(self._folder):
            shutil.rmtree(self._new, ignore_errors=True)
            os.makedirs(self._new, 0o700, exist_ok=True)
        with self.freeing():
            self._open()

    def _open(self) -> None:
        self._catalog = Catalog(os.path.join(self._folder, "images.db"))
        try:
            self._sizes = self._catalog.layers()
            self._sweep()
            self._holds = self._catalog.holds()
            for stored in self._catalog.images():
                self._read_back(stored)
            self.collect()
        except BaseException:
            self._catalog.close()
            raise

    def _sweep(self) -> None:
        """Remove files that belong to no layer, and forget layers that have no files."""
        with disk_errors(self._folder):
            there = set(os.listdir(self._layer_folder))
            expected = {os.path.basename(path): diff_id for diff_id in self._sizes for path in self._paths(diff_id)}
            for name in there - set(expected):
                os.unlink(os.path.join(self._layer_folder, name))
        gone = sorted({expected[name] for name in set(expected) - there})
        if gone:
            with self._catalog.change():
                self._catalog.remove_layers(gone)
            for diff_id in gone:
                del self._sizes[diff_id]

    def _read_back(self, stored: StoredImage) -> None:
        config = read_config(stored.document)
        missing = [diff_id for diff_id in config.diff_ids if diff_id not in self._sizes]
        if missing:
            name = ", ".join(stored.names) or stored.id
            self.lost.append(f"the image {name} is lost: its layer {missing[0]} is gone")
            with self._catalog.change():
                self._catalog.remove_image(stored.id)
            return
        self._remember(stored)

    def close(self) -> None:
        """Give the store to the next process. Nothing may be in progress."""
        with self._mutex:
            self._catalog.close()
            os.close(self._lock)

    # -- layers ------------------------------------------------------------------------------------

    def add_layer(self, tar: BinaryIO | ByteSource, expected_diff_id: str | None = None) -> Layer:
        """Add the layer whose archive is read from ``tar``, compressed or not, and return it. If the store has it
        already, that one is returned. Raise BadLayer for what is damaged or malicious, and StoreError.
        """
        image, recipe = (os.path.join(self._new, secrets.token_hex(8) + end) for end in (".erofs", ".recipe"))
        try:
            with disk_errors(self._folder):
                with open(image, "xb+") as image_file, open(recipe, "xb") as recipe_file:
                    built = build_layer(unpacked(tar), image_file, recipe_file, self._limits)
                    if expected_diff_id not in (None, built.diff_id):
                        raise BadLayer(f"the layer is {built.diff_id}, and should be {expected_diff_id}")
                    if built.diff_id not in self._sizes:
                        _date(image_file)
                        write_down(image_file, recipe_file)
                return self._commit(built, image, recipe)
        finally:
            remove_files(image, recipe)

    def _commit(self, built: Built, image: str, recipe: str) -> Layer:
        with self._mutex:
            if built.diff_id not in self._sizes:
                for source, target in zip((image, recipe), self._paths(built.diff_id), strict=True):
                    os.chmod(source, 0o400)
                    os.rename(source, target)
                try:
                    write_down_folder(self._layer_folder)
                    with self._catalog.change():
                        self._catalog.add_layer(built.diff_id, built.size)
                except BaseException:
                    remove_files(*self._paths(built.diff_id))
                    raise
                self._sizes[built.diff_id] = built.size
            found = self.layer(built.diff_id)
            assert found is not None
            return found

    def layer(self, diff_id: str) -> Layer | None:
        """Return the layer, or None if it is not in the store."""
        with self._mutex:
            if diff_id not in self._sizes:
                return None
            layer = self._layers.get(diff_id)
            if layer is None:
                layer = self._layers[diff_id] = Layer(diff_id, self._paths(diff_id)[0], self._sizes[diff_id])
            return layer

    def _paths(self, diff_id: str) -> tuple[str, str]:
        """Return where the image and the recipe of a layer are."""
        stem = os.path.join(self._layer_folder, diff_id.removeprefix(_SHA256))
        return f"{stem}.erofs", f"{stem}.recipe"

    def layer_tar(self, layer: Layer) -> Iterator[bytes]:
        """Yield the archive of which the layer was made, uncompressed. The layer stays until all has been read.

        Raise StoreError if it is damaged, at the end if need be.
        """
        yield from archive_of(*self._paths(layer.diff_id), layer.diff_id)

    def layer_tar_size(self, layer: Layer) -> int:
        """Return how many bytes :meth:`layer_tar` yields."""
        return size_of_archive(self._paths(layer.diff_id)[1], layer.diff_id)

    def hold(self, owner: str, layers: Iterable[Layer]) -> None:
        """Keep layers until :meth:`release`, also when their images are removed and the process ends."""
        with self._mutex, self._catalog.change():
            diff_ids = {layer.diff_id for layer in layers}
            self._catalog.hold(owner, diff_ids)
            self._holds.setdefault(owner, set()).update(diff_ids)

    def holds(self) -> dict[str, tuple[Layer, ...]]:
        """Return what each owner holds, in no order."""
        with self._mutex:
            return {
                owner: tuple(layer for diff_id in held if (layer := self.layer(diff_id)))
                for owner, held in self._holds.items()
            }

    def release(self, owner: str) -> None:
        """Let go what an owner holds, if it holds something."""
        with self.freeing():
            with self._catalog.change():
                self._catalog.release(owner)
            self._holds.pop(owner, None)
            self.collect()

    def collect(self) -> int:
        """Remove the layers that nobody has any more, and return the bytes of their files."""
        with self.freeing():
            held = set().union(*self._holds.values())
            owned = held.union(*(image.config.diff_ids for image in self._images.values()))
            if any(diff_id not in owned for diff_id in list(self._layers)):
                gc.collect()  # an error refers to itself by way of the frames that it has come through, and to a layer
            garbage = [diff_id for diff_id in self._sizes if diff_id not in held and diff_id not in self._layers]
            if not garbage:
                return 0
            with self._catalog.change():
                self._catalog.remove_layers(garbage)
            size = 0
            for diff_id in garbage:
                size += self._sizes.pop(diff_id)
                remove_files(*self._paths(diff_id))
            return size

    # -- images ------------------------------------------------------------------------------------

    def images(self) -> list[Image]:
        """Return all images, in the order in which they came."""
        with self._mutex:
            return list(self._images.values())

    def by_id(self, image_id: str) -> Image:
        """Return the image with an id, in full. Raise ImageNotFound."""
        with self._mutex:
            found = self._images.get(image_id)
            if found is None:
                raise ImageNotFound(f"No such image: {image_id}")
            return found

    def find(self, text: str) -> Image:
        """Return the image that a user means: a name, perhaps with a tag or a digest, or the beginning of an id.

        Raise InvalidReference, or ImageNotFound, also if several ids begin so.
        """
        if is_digest(text) or (len(text) == _ID_DIGITS and id_prefix(text)):
            return self.by_id(_SHA256 + text.removeprefix(_SHA256))
        reference = Reference.parse(text)
        with self._mutex:
            image = self._names.get(full_name(reference))
            if image is None and (prefix := id_prefix(text)):
                found = [one for one in self._images if one.startswith(_SHA256 + prefix)]
                image = found[0] if len(found) == 1 else None
            if image is None:
                raise ImageNotFound(f"No such image: {reference.with_default_tag().familiar}")
            return self._images[image]

    def children(self, image_id: str) -> list[Image]:
        """Return the images that were built on an image."""
        with self._mutex:
            return [image for image in self._images.values() if image.parent == image_id]

    def add_image(
        self, document: bytes, names: Sequence[str] = (), parent: str | None = None, digests: Sequence[str] = ()
    ) -> Image:
        """Add the image with this configuration, whose layers have to be there, give it names, and return it.

        If it is there already, it gets the names. Raise BadConfig, InvalidReference, or StoreError.
        """
        config = read_config(document)
        image_id = _SHA256 + hashlib.sha256(document).hexdigest()
        full_names = [full_name(Reference.parse(name)) for name in (*names, *digests)]
        with self._mutex:
            if len(config.diff_ids) > _MOST_LAYERS:
                raise BadConfig("max depth exceeded")
            for diff_id in config.diff_ids:
                if diff_id not in self._sizes:
                    raise BadConfig(f"the image's layer {diff_id} is not there")
            old = self._images.get(image_id)
            parent = parent if parent in self._images and parent != image_id else None
            with self._catalog.change():
                if old is None:
                    self._catalog.add_image(image_id, document, parent)
                elif parent is not None and old.parent is None:
                    self._catalog.set_parent(image_id, parent)
                for name in full_names:
                    self._catalog.name(name, image_id, time.time())
            self._reread(image_id, *(self._names.get(name) for name in full_names))
            return self._images[image_id]

    def tag(self, image: Image, reference: Reference) -> None:
        """Give an image a name, which another one loses that had it. Raise ImageNotFound, or StoreError."""
        name = full_name(reference)
        with self._mutex:
            self.by_id(image.id)
            with self._catalog.change():
                self._catalog.name(name, image.id, time.time())
            self._reread(image.id, self._names.get(name))

    def untag(self, name: str) -> Image:
        """Take a name, with its tag or digest, from its image, and return that. Raise ImageNotFound."""
        reference = Reference.parse(name)
        full = full_name(reference)
        with self._mutex:
            image_id = self._names.get(full)
            if image_id is None:
                raise ImageNotFound(f"No such image: {reference.with_default_tag().familiar}")
            with self._catalog.change():
                self._catalog.forget_name(full)
            self._reread(image_id)
            return self._images[image_id]

    def forget(self, image: Image) -> None:
        """Remove an image with all its names, whatever depends on it. Its layers stay until :meth:`collect`."""
        with self._mutex:
            with self._catalog.change():
                self._catalog.remove_image(image.id)
            self._reread()

    @contextmanager
    def freeing(self) -> Iterator[None]:
        """Let what is in the block have the room that is kept for removing things."""
        with self._mutex:
            if self._is_freeing:
                yield
                return
            self._is_freeing = True
            try:
                with disk_errors(self._folder), self._reserve.given():
                    yield
            finally:
                self._is_freeing = False

    @contextmanager
    def change(self) -> Iterator[None]:
        """Do what is in the block as one change, of which nothing stays if the block raises."""
        with self._mutex:
            try:
                with self._catalog.change():
                    yield
            except BaseException:
                self._reread(*self._images, *(stored.id for stored in self._catalog.images()))
                raise

    # -- what is in memory -------------------------------------------------------------------------

    def _reread(self, *changed: str | None) -> None:
        """Take over what the database has of images."""
        rows = {stored.id: stored for stored in self._catalog.images()}
        for image_id in set(self._images) - set(rows):
            del self._images[image_id]
        self._names = {name: stored.id for stored in rows.values() for name in stored.names}
        for image_id in filter(None, changed):
            if image_id in rows:
                self._remember(rows[image_id])

    def _remember(self, stored: StoredImage) -> None:
        config = read_config(stored.document)
        layers = tuple(layer for diff_id in config.diff_ids if (layer := self.layer(diff_id)))
        names = tuple(name for name in stored.names if "@" not in name)
        digests = tuple(name for name in stored.names if "@" in name)
        self._images[stored.id] = Image(
            *(stored.id, config, layers, names, digests, stored.parent, stored.tagged, stored.document)
        )
        self._names.update(dict.fromkeys(stored.names, stored.id))


def _date(image: BinaryIO) -> None:
    """Give a layer's image a time that follows from its content. By its time the state of a machine knows a disk, so
    that it may go on where another store has the same layer.
    """
    image.seek(0)
    found = hashlib.file_digest(cast("Any", image), "blake2b").digest()
    moment = int.from_bytes(found[:_TIME_BYTES], "little")
    os.utime(image.fileno(), ns=(moment, moment))


def full_name(reference: Reference) -> str:
    """Return the name under which an image is found: with a digest and no tag, or with a tag."""
    if reference.digest:
        return str(reference._replace(tag=None))
    return str(reference._replace(tag=reference.tag or DEFAULT_TAG))
