"""The store: layers and images by name, and what is there after a process was killed at any step."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard

from dbt.containers.images.erofs_reader import ErofsReader
from dbt.containers.images.errors import BadConfig, BadLayer, ImageNotFound, InvalidReference, StoreError
from dbt.containers.images.image import Image, Layer
from dbt.containers.images.reference import Reference
from dbt.containers.images.store import ImageStore
from tests.containers.images.archives import archive, config, diff_id, files, member

ONE, TWO = files(one=b"1" * 10_000), files(two=b"2")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    made = ImageStore(str(tmp_path / "images"))
    yield made
    made.close()


def add(store: ImageStore, *layers: bytes, names: tuple[str, ...] = (), parent: str | None = None) -> Image:
    kept = [store.add_layer(io.BytesIO(layer)) for layer in layers]
    image = store.add_image(config(*layers), names, parent)
    assert [layer.diff_id for layer in image.layers] == [layer.diff_id for layer in kept]
    return image


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_a_layer_is_the_same_however_it_is_packed(store: ImageStore, pack: type[bytes]) -> None:
    layer = store.add_layer(io.BytesIO(pack(ONE)), diff_id(ONE))
    assert (layer.diff_id, layer.size) == (diff_id(ONE), 10_000)
    assert os.stat(layer.erofs).st_size % 4096 == 0
    assert b"".join(store.layer_tar(layer)) == ONE
    assert store.add_layer(io.BytesIO(ONE)) is layer


def test_a_layer_that_is_another_is_refused(store: ImageStore) -> None:
    with pytest.raises(BadLayer, match=f"the layer is {diff_id(ONE)}, and should be {diff_id(TWO)}"):
        store.add_layer(io.BytesIO(ONE), diff_id(TWO))
    assert store.layer(diff_id(ONE)) is None


def test_a_damaged_layer_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(BadLayer, match="ends too early"):
        store.add_layer(io.BytesIO(ONE[:5000]))
    with pytest.raises(BadLayer, match="the gzip stream of the archive is damaged"):
        store.add_layer(io.BytesIO(gzip.compress(ONE)[:-10]))
    assert not [*(tmp_path / "images/new").iterdir(), *(tmp_path / "images/layers").iterdir()]


def test_images_are_found_by_names_and_ids(store: ImageStore) -> None:
    digest = f"sha256:{'ab' * 32}"
    image = add(store, ONE, TWO, names=("busybox", "example.org:5000/a/b:c"))
    image = store.add_image(image.document, digests=(f"busybox@{digest}",))
    for text in (
        *("busybox", "busybox:latest", "docker.io/library/busybox", "example.org:5000/a/b:c", f"busybox@{digest}"),
        *(image.id, image.id[7:], image.id[7:19], image.id[:19], f"busybox:other@{digest}"),
    ):
        assert store.find(text) == image, text
    assert image.repo_tags == ["busybox:latest", "example.org:5000/a/b:c"]
    assert image.repo_digests == [f"busybox@{digest}"]
    assert image.size == 10_001


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("busybox", "No such image: busybox:latest"),
        ("busybox:1", "No such image: busybox:1"),
        ("ff", "No such image: ff:latest"),
        ("f" * 64, f"No such image: sha256:{'f' * 64}"),
        (f"a/b@sha256:{'f' * 64}", f"No such image: a/b@sha256:{'f' * 64}"),
    ],
)
def test_what_is_not_there_is_named_as_docker_does(store: ImageStore, text: str, said: str) -> None:
    with pytest.raises(ImageNotFound) as error:
        store.find(text)
    assert str(error.value) == said
    with pytest.raises(InvalidReference):
        store.find("No Name")


def test_a_name_goes_from_one_image_to_another(store: ImageStore) -> None:
    first, second = add(store, ONE, names=("box",)), add(store, TWO)
    store.tag(second, Reference.parse("box"))
    assert store.find("box").id == second.id
    assert store.by_id(first.id).names == ()
    assert store.untag("box").id == second.id
    with pytest.raises(ImageNotFound):
        store.find("box")


def test_an_image_needs_its_layers(store: ImageStore) -> None:
    with pytest.raises(BadConfig, match=f"the image's layer {diff_id(ONE)} is not there"):
        store.add_image(config(ONE))


def test_layers_go_with_the_last_who_has_them(store: ImageStore) -> None:
    image = add(store, ONE, TWO)
    other = add(store, ONE)
    layer = image.layers[1]
    store.forget(image)
    del image
    assert store.collect() == 0  # somebody has the object
    path = layer.erofs
    store.hold("somebody", [layer])
    del layer
    assert store.collect() == 0
    assert [layer.diff_id for layer in store.holds()["somebody"]] == [diff_id(TWO)]
    store.release("somebody")
    assert not os.path.exists(path)
    assert os.path.exists(other.layers[0].erofs)
    assert store.layer(diff_id(TWO)) is None


def test_a_layer_goes_that_only_an_error_refers_to(store: ImageStore) -> None:
    def broken() -> None:
        layer = store.add_layer(io.BytesIO(ONE))
        try:
            raise ValueError(layer.diff_id)
        except ValueError as error:
            kept = error  # it has this frame, which has it
        assert kept and layer

    broken()
    assert store.collect() == 10_000


def test_a_layer_stays_while_its_archive_is_read(store: ImageStore) -> None:
    layer: Layer | None = store.add_layer(io.BytesIO(ONE))
    assert layer is not None
    pieces = store.layer_tar(layer)
    first = next(pieces)
    layer = None
    store.collect()
    assert first + b"".join(pieces) == ONE
    assert store.collect() == 10_000


def test_a_damaged_layer_is_told_when_it_is_read(store: ImageStore) -> None:
    layer = store.add_layer(io.BytesIO(ONE))
    os.chmod(layer.erofs, 0o600)
    with open(layer.erofs, "r+b") as file:
        file.seek(5000)
        file.write(b"2")
    with pytest.raises(StoreError, match=f"the layer {layer.diff_id} is damaged"):
        list(store.layer_tar(layer))
    os.truncate(layer.erofs, 4096)
    with pytest.raises(StoreError, match="is damaged"):
        list(store.layer_tar(layer))
    with pytest.raises(StoreError, match="is damaged"):
        ErofsReader(layer.erofs)


def test_a_store_is_one_process(tmp_path: Path) -> None:
    store = ImageStore(str(tmp_path))
    with pytest.raises(StoreError, match="another process has the images in"):
        ImageStore(str(tmp_path))
    store.close()
    ImageStore(str(tmp_path)).close()


def test_the_next_process_finds_everything(tmp_path: Path) -> None:
    store = ImageStore(str(tmp_path))
    image = add(store, ONE, names=("box",))
    loose = store.add_layer(io.BytesIO(TWO)).erofs
    held = store.add_layer(io.BytesIO(files(three=b"")))
    store.hold("somebody", [held])
    store.close()
    (tmp_path / "new/rubbish").write_bytes(b"")
    (tmp_path / f"layers/{'a' * 64}.erofs").write_bytes(b"")
    store = ImageStore(str(tmp_path))
    assert store.find("box") == image
    assert store.holds() == {"somebody": (held,)}
    assert not os.path.exists(loose)
    assert {path.suffix for path in (tmp_path / "layers").iterdir()} == {".erofs", ".recipe"}
    assert not list((tmp_path / "new").iterdir())
    store.close()


def test_an_image_without_its_layer_is_told(tmp_path: Path) -> None:
    store = ImageStore(str(tmp_path))
    image = add(store, ONE, names=("box",))
    add(store, TWO, names=("other",))
    store.close()
    os.unlink(image.layers[0].erofs)
    store = ImageStore(str(tmp_path))
    assert [one.repo_tags for one in store.images()] == [["other:latest"]]
    assert store.lost == [f"the image docker.io/library/box:latest is lost: its layer {diff_id(ONE)} is gone"]
    assert add(store, ONE, names=("box",)).id == image.id
    store.close()


_KILLED = """
import io, os, signal, sys
from dbt.containers.images.store import ImageStore
from tests.containers.images.archives import config, files
calls = 0
def step(event, arguments):
    global calls
    if event in ("open", "os.rename", "os.remove", "os.chmod", "sqlite3.connect", "os.mkdir"):
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
store = ImageStore(sys.argv[1])
sys.addaudithook(step)
for number in range(3):
    layer = files(**{f"file{number}": bytes(9000)})
    added = store.add_layer(io.BytesIO(layer))
    image = store.add_image(config(layer), (f"box{number}",))
    print(number, flush=True)
    del added
    if number == 1:
        store.forget(image)
        del image
        store.collect()
print("done", flush=True)
store.close()
"""


def test_a_killed_process_loses_no_image_and_leaves_nothing(tmp_path: Path) -> None:
    """The process is killed before each of the steps that change the directory."""
    for step in range(1, 100):
        folder = tmp_path / str(step)
        command = (sys.executable, "-c", _KILLED, str(folder), str(step))
        root = Path(__file__).parents[3]
        said = subprocess.run(command, check=False, capture_output=True, text=True, cwd=root).stdout.split()
        store = ImageStore(str(folder))
        there = [name for image in store.images() for name in image.repo_tags]
        for number in ("0", "2"):
            assert number not in said or f"box{number}:latest" in there, step
        for image in store.images():
            assert b"".join(store.layer_tar(image.layers[0])).startswith(b"file")
        layers = len(list((folder / "layers").iterdir()))
        assert layers == 2 * len(store.images()), step
        assert store.lost == []
        store.close()
        if "done" in said:
            break
    assert 10 < step < 99


_FULL = """
import io, os, subprocess, sys
from dbt.containers.images.errors import StoreError
from dbt.containers.images.removal import remove
from dbt.containers.images.store import ImageStore
from tests.containers.images.archives import config, files

def add(store, name, layer):
    added = store.add_layer(io.BytesIO(layer))
    store.add_image(config(layer), (name,))

folder = sys.argv[1]
for size in range(1300, 1500, 12):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", folder], check=True)
    store, names = ImageStore(folder), []
    try:
        while len(names) < 50:
            add(store, f"box{len(names)}", files(file=os.urandom(30000)))
            names.append(f"box{len(names)}:latest")
    except StoreError as error:
        assert "there is no room left" in str(error), error
        del error
    assert 0 < len(names) < 50
    removed = names.pop(0)
    remove(store, removed, False, lambda image: [])
    store.close()
    store = ImageStore(folder)
    there = [name for image in store.images() for name in image.repo_tags]
    assert there == names, (there, names)
    for image in store.images():
        for layer in image.layers:
            assert sum(map(len, store.layer_tar(layer))) == store.layer_tar_size(layer)
    assert len(os.listdir(os.path.join(folder, "layers"))) == 2 * len(names)
    assert not os.listdir(os.path.join(folder, "new")) and not store.lost
    store.close()
    subprocess.run(["umount", folder], check=True)
print("done")
"""
_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


def _can_mount(folder: Path) -> bool:
    command = (*_UNSHARE, "mount", "-t", "tmpfs", "none", str(folder))
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, check=False, capture_output=True).returncode == 0
    )


def test_a_full_disk_is_told_loses_nothing_and_can_be_emptied(tmp_path: Path) -> None:
    """Disks of many sizes, so that each is full at another step."""
    if not _can_mount(tmp_path):
        pytest.skip("there are no user namespaces here, in which one may mount a small disk")
    command = (*_UNSHARE, sys.executable, "-c", _FULL, str(tmp_path))
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_threads_may_add_the_same_layer(store: ImageStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        layers = list(pool.map(lambda _: store.add_layer(io.BytesIO(ONE)), range(24)))
    assert all(layer is layers[0] for layer in layers)
    assert b"".join(store.layer_tar(layers[0])) == ONE


def test_special_files_keep_what_the_archive_says(store: ImageStore) -> None:
    layer = archive(
        [
            member("dev", tarfile.DIRTYPE),
            member("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
            member("link", tarfile.SYMTYPE, linkname="/dev/null"),
            member("big", data=bytes(range(256)) * 5000),
            member("again", tarfile.LNKTYPE, linkname="big"),
        ]
    )
    added = store.add_layer(io.BytesIO(layer))
    assert added.size == 256 * 5000
    assert b"".join(store.layer_tar(added)) == layer
