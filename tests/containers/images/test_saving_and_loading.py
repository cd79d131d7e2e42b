"""Archives of images: what is saved is loaded as it was, and those of docker and of others, of every form."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dbt.containers.images.errors import BadArchive, BadConfig, BadLayer, ImageError, WrongPlatform
from dbt.containers.images.history import history, import_tar
from dbt.containers.images.image import Image
from dbt.containers.images.loading import load
from dbt.containers.images.saving import Saved, save
from dbt.containers.images.store import ImageStore
from tests.containers.images.archives import archive, config, diff_id, files, member, summed

ONE, TWO = files(one=b"1" * 5000), files(two=b"2")
BOX = "docker.io/library/box:latest"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    made = ImageStore(str(tmp_path / "store"))
    yield made
    made.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[ImageStore]:
    made = ImageStore(str(tmp_path / "other"))
    yield made
    made.close()


def add(store: ImageStore, *layers: bytes, names: tuple[str, ...] = ()) -> Image:
    kept = [store.add_layer(io.BytesIO(layer)) for layer in layers]
    image = store.add_image(config(*layers), names)
    assert len(kept) == len(layers)
    return image


def loaded(store: ImageStore, data: bytes) -> list[tuple[str, list[str]]]:
    return [(one.image.id, one.names) for one in load(store, io.BytesIO(data))]


def blob(data: bytes) -> str:
    return f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"


def descriptor(data: bytes, **fields: Any) -> dict[str, Any]:
    return {"digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data), **fields}


def documents(**contents: Any) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [member(name.replace("_", "."), data=json.dumps(value).encode()) for name, value in contents.items()]


def test_what_is_saved_is_loaded_as_it_was(store: ImageStore, other: ImageStore) -> None:
    first, second = add(store, ONE, TWO, names=("box", "box:2")), add(store, ONE)
    wanted = [Saved(first, [BOX]), Saved(second, []), Saved(first, ["docker.io/library/box:2"])]
    data = b"".join(save(store, wanted))
    assert len(data) % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as saved:
        assert len(saved.getnames()) == len(set(saved.getnames()))
    names = [BOX, "docker.io/library/box:2"]
    assert loaded(other, data) == [(first.id, names), (second.id, [])]
    assert b"".join(other.layer_tar(other.by_id(first.id).layers[1])) == TWO
    found = loaded(other, gzip.compress(_without_manifest(data)))
    assert found == [(first.id, names[:1]), (first.id, names[1:]), (second.id, [])]


class Dripping(io.RawIOBase):
    """A stream that gives some bytes at once, as a connection may."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data, self._size = io.BytesIO(data), size

    def read(self, size: int = -1) -> bytes:
        return self._data.read(self._size)


@pytest.mark.parametrize("size", [1, 300, 511])
def test_how_an_archive_comes_does_not_matter(store: ImageStore, other: ImageStore, size: int) -> None:
    image = add(store, ONE, names=("box",))
    data = b"".join(save(store, [Saved(image, [BOX])]))
    (found,) = load(other, Dripping(data, size))
    assert (found.image.id, found.names) == (image.id, [BOX])


def _without_manifest(data: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as saved:
        files = {info: saved.extractfile(info) for info in saved if info.name != "manifest.json"}
        return archive((info, file.read() if file else b"") for info, file in files.items())


def test_a_name_that_another_image_had_is_told(store: ImageStore, other: ImageStore) -> None:
    data = b"".join(save(store, [Saved(add(store, ONE), [BOX])]))
    old = add(other, TWO, names=("box",))
    (found,) = load(other, io.BytesIO(data))
    assert found.renamed == [(BOX, old.id)]
    assert [one.renamed for one in load(other, io.BytesIO(data))] == [[]]


def test_archives_of_older_dockers(store: ImageStore) -> None:
    """Layers are in directories, and one that is there twice is a link. Names are short."""
    document = config(ONE, TWO, ONE)
    listed = [{"Config": "c.json", "RepoTags": ["box:latest"], "Layers": [f"{one}/layer.tar" for one in "abd"]}]
    data = archive(
        [
            *(member(one, tarfile.DIRTYPE) for one in "abd"),
            *(member(f"{one}/VERSION", data=b"1.0") for one in "abd"),
            member("a/layer.tar", data=ONE),
            member("b/layer.tar", data=TWO),
            member("d/layer.tar", tarfile.SYMTYPE, linkname="../a/layer.tar"),
            member("c.json", data=document),
            *documents(manifest_json=listed),
        ]
    )
    assert loaded(store, data) == [(f"sha256:{hashlib.sha256(document).hexdigest()}", [BOX])]
    assert [layer.diff_id for layer in store.find("box").layers] == [diff_id(ONE), diff_id(TWO), diff_id(ONE)]


def test_archives_before_manifests(store: ImageStore) -> None:
    low = {"id": "a", "created": "2015-01-01T00:00:00Z", "container_config": {"Cmd": ["/bin/sh", "-c", "add"]}}
    top = {"id": "b", "parent": "a", "architecture": "arm", "os": "linux", "config": {"Cmd": ["sh"]}, "comment": "last"}
    data = archive(
        [
            *(member("a/layer.tar", data=ONE), member("a/json", data=json.dumps(low).encode())),
            *(member("b/layer.tar", data=TWO), member("b/json", data=json.dumps(top).encode())),
            *documents(repositories={"box": {"latest": "b"}}),
        ]
    )
    assert [names for _, names in loaded(store, data)] == [[BOX]]
    image = store.find("box")
    assert image.config.architecture == "arm"
    assert image.config.run is not None and image.config.run.cmd == ["sh"]
    steps = [(row.created_by, row.size, row.comment) for row in history(store, image)]
    assert steps == [("", 1, "last"), ("/bin/sh -c add", 5000, "")]


def layout(*platforms: str, tamper: bytes = b"") -> bytes:
    """Return an OCI layout with an index of images, each of one packed layer, for these platforms."""
    members, manifests = [], []
    for platform in platforms:
        system, architecture, variant = platform.split("/")
        layer = files(name=platform.encode())
        document, packed = config(layer, variant=variant), gzip.compress(layer)
        manifest = json.dumps({"config": descriptor(document), "layers": [descriptor(packed)]}).encode()
        members += [member(blob(one), data=one) for one in (document, packed)]
        members.append(member(blob(manifest), data=manifest + tamper))
        one = {"os": system, "architecture": architecture, "variant": variant}
        manifests.append(descriptor(manifest, platform=one))
    index = json.dumps({"manifests": manifests}).encode()
    annotations = {"org.opencontainers.image.ref.name": "example.org/box:1"}
    members.append(member(blob(index), data=index))
    top = {"schemaVersion": 2, "manifests": [descriptor(index, annotations=annotations)]}
    return archive([*members, *documents(index_json=top), member("oci-layout", data=b"{}")])


def test_layouts_with_several_platforms(store: ImageStore) -> None:
    data = layout("linux/amd64/", "linux/arm/v7", "linux/arm/v5", "unknown/unknown/")
    assert [names for _, names in loaded(store, data)] == [["example.org/box:1"]]
    image = store.find("example.org/box:1")
    assert image.config.variant == "v5"
    with pytest.raises(WrongPlatform, match="the archive has no image for linux/arm"):
        loaded(store, layout("linux/amd64/"))
    with pytest.raises(BadArchive, match="the archive has a document that is not sha256:"):
        loaded(store, layout("linux/arm/v5", tamper=b" "))


@pytest.mark.parametrize(
    ("members", "error", "said"),
    [
        ([], BadArchive, "there is no manifest.json, index.json or repositories"),
        (documents(manifest_json=[{"Config": "x"}] * 1025), BadArchive, "more than 1024 images"),
        (documents(manifest_json={}), BadArchive, "a wrong manifest.json: Expected `array`"),
        (documents(manifest_json=[{"Config": "x"}]), BadArchive, "no file x, which an image needs"),
        (documents(manifest_json=[{"Config": "x", "Layers": ["y"]}]), BadArchive, "no file y, which an image needs"),
        (documents(manifest_json=[{"Config": "../x"}]), BadArchive, r"a path that leads out of it: \.\./x"),
        ([member("../x", data=b"{}")], BadArchive, "a path that leads out of it"),
        (documents(manifest_json=[{"Config": "x", "Layers": ["manifest.json"]}]), BadLayer, "it is no archive"),
        (
            [member("y", data=b"x" * 600), *documents(manifest_json=[{"Config": "x", "Layers": ["y"]}])],
            *(BadLayer, "the layer y: the archive has a header with"),
        ),
        (
            [
                member("x", tarfile.SYMTYPE, linkname="y"),
                member("y", tarfile.LNKTYPE, linkname="x"),
                *documents(manifest_json=[{"Config": "x"}]),
            ],
            *(BadArchive, "too many links"),
        ),
        (
            [member("x", data=config(ONE)), *documents(manifest_json=[{"Config": "x"}])],
            *(BadConfig, "layers length mismatch: expected 0, got 1"),
        ),
        (
            [
                member("x", data=config(ONE)),
                member("y", data=TWO),
                *documents(manifest_json=[{"Config": "x", "Layers": ["y"]}]),
            ],
            *(BadConfig, "invalid diffID for layer 0: expected"),
        ),
        (
            [
                *(member("x", data=config(*[ONE] * 126)), member("y", data=ONE)),
                *documents(manifest_json=[{"Config": "x", "Layers": ["y"] * 126}]),
            ],
            *(BadConfig, "max depth exceeded"),
        ),
        (
            [member("x", data=config()), *documents(manifest_json=[{"Config": "x", "RepoTags": ["A B"]}])],
            *(BadArchive, "an image named 'A B'"),
        ),
        (
            [*documents(repositories={"box": {"latest": "a"}}), member("a/layer.tar", data=ONE)],
            *(BadArchive, "no file a/json, which an image needs"),
        ),
        (
            [
                *documents(repositories={"box": {"latest": "a"}}),
                *(member("a/layer.tar", data=ONE), member("a/json", data=b'{"parent": "a"}')),
            ],
            *(BadArchive, "an image of too many layers"),
        ),
        ([member("index.json", data=b"[" * 100_000)], BadArchive, "a wrong index.json"),
    ],
)
def test_wrong_archives_are_told(
    store: ImageStore, members: list[tuple[tarfile.TarInfo, bytes]], error: type[ImageError], said: str
) -> None:
    with pytest.raises(error, match=said):
        list(load(store, io.BytesIO(archive(members))))
    assert store.images() == []


def test_an_archive_becomes_an_image(store: ImageStore) -> None:
    time = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    image = import_tar(store, io.BytesIO(gzip.compress(ONE)), time, "Imported from -", {"Cmd": ["sh"]}, ("box",))
    assert image == store.find("box")
    assert (image.config.architecture, image.config.variant, image.config.os) == ("arm", "v5", "linux")
    assert image.created == "2024-01-02T03:04:05Z"
    (row,) = history(store, image)
    assert row == (image.id, int(time.timestamp()), "", ["box:latest"], 5000, "Imported from -")


def test_history_follows_the_parents_that_are_here(store: ImageStore) -> None:
    low = add(store, ONE)
    layers = [store.add_layer(io.BytesIO(layer)) for layer in (ONE, TWO)]
    steps = [{"created_by": "one"}, {"created_by": "env", "empty_layer": True}, {"created_by": "two"}]
    image = store.add_image(config(ONE, TWO, history=steps), ("box",), low.id)
    found = [(row.id, row.created_by, row.size, row.tags) for row in history(store, image)]
    assert found == [(image.id, "two", 1, ["box:latest"]), (low.id, "env", 0, []), ("<missing>", "one", 5000, [])]
    wrong = store.add_image(config(ONE, history=steps))
    with pytest.raises(ImageError, match="too many non-empty layers in History section"):
        history(store, wrong)
    assert len(layers) == 2


def test_mutants_are_refused_or_loaded(store: ImageStore, other: ImageStore) -> None:
    """Nothing but an ImageError comes of a changed archive, and what is loaded has the layers that it says."""
    chance = random.Random(7)
    data = bytearray(b"".join(save(store, [Saved(add(store, ONE, TWO), [BOX])])))
    used = [at for at in range(0, len(data), 64) if any(data[at : at + 64])]
    refused = 0
    for number in range(120):
        mutant = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            at = chance.choice(used) + chance.randrange(64)
            mutant[at] = chance.choice((mutant[at] ^ 1, 0x30, 0x22, 0x7D, chance.randrange(256)))
        for at in range(0, len(mutant), 512):
            if mutant[at + 257 : at + 262] == b"ustar" and chance.random() < 0.9:
                mutant[at : at + 512] = summed(mutant[at : at + 512])
        try:
            for one in load(other, io.BytesIO(mutant)):
                assert [diff_id(b"".join(other.layer_tar(layer))) for layer in one.image.layers] == (
                    one.image.config.diff_ids
                ), number
        except ImageError:
            refused += 1
    assert 30 < refused < 120
