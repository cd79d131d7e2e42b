"""What is seen of layers that are put on each other, without a guest."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbt.containers.images.errors import PathError
from dbt.containers.images.store import ImageStore
from dbt.containers.images.view import FilesView
from tests.containers.images.archives import HIGH, LOW


@pytest.fixture
def view(tmp_path: Path) -> Iterator[FilesView]:
    store = ImageStore(str(tmp_path))
    with FilesView([store.add_layer(io.BytesIO(layer)) for layer in (LOW, HIGH)]) as made:
        yield made
    store.close()


def test_layers_are_put_on_each_other(view: FilesView) -> None:
    assert view.names("/") == ["absolute", "became", "etc", "lib", "loop", "opaque", "out", "pair", "usr"]
    assert view.names("etc") == ["new", "passwd"]
    assert view.names("/opaque") == ["high"]
    assert view.names("/lib") == ["high", "low"]
    assert stat.S_IMODE(view.stat("etc").mode) == 0o700
    assert view.read("became", 100) == b"a file"
    assert view.stat("/etc/new").uid == 7
    assert view.stat("pair").identity == view.stat("etc/new").identity
    assert b"".join(view.pieces("/etc/new")) == b"n" * 5000


def test_links_stay_in_the_image(view: FilesView) -> None:
    assert view.read("absolute", 100) == b"low"
    assert view.names("out") == view.names("etc") == view.names("/lib/../../../out/../etc")
    assert view.readlink("lib") == "usr/lib"
    assert view.resolve("absolute") == "/usr/lib/low"
    assert view.stat("lib", follow=False).link == "usr/lib"


def test_walking_gives_everything_once(view: FilesView) -> None:
    found = [path for path, _ in view.walk("/")]
    assert found == sorted(found) and len(set(found)) == len(found)
    assert found[0] == "/" and "/usr/lib/high" in found and "/lib/high" not in found
    assert [path for path, _ in view.walk("opaque")] == ["/opaque", "/opaque/high"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("gone", "No such file or directory"),
        ("etc/gone", "No such file or directory"),
        ("opaque/low", "No such file or directory"),
        ("became/low", "Not a directory"),
        ("became/", "Not a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("etc", "Is a directory"),
        ("etc/new", "File too large"),
    ],
)
def test_what_cannot_be_read_is_told_as_linux_does(view: FilesView, path: str, said: str) -> None:
    with pytest.raises(PathError) as error:
        view.read(path, 100)
    assert str(error.value) == f"{path}: {said}"
