"""Removing images, with docker's texts. What is expected is what dockerd 20.10 does (daemon/images/image_delete.go)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbt.containers.images.errors import ImageConflict, StoreError
from dbt.containers.images.image import Image
from dbt.containers.images.removal import Removal, User, chain_ids, prune, remove, short_id
from dbt.containers.images.store import ImageStore
from tests.containers.images.archives import config, files

ONE, TWO = files(one=b"1" * 100), files(two=b"22")
DIGEST = f"sha256:{'d' * 64}"
_UNABLE = "conflict: unable to delete {0}"
RUNNING, STOPPED = User("a" * 64, True), User("b" * 64, False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    made = ImageStore(str(tmp_path))
    yield made
    made.close()


def add(store: ImageStore, *layers: bytes, parent: str | None = None, **names: tuple[str, ...]) -> Image:
    kept = [store.add_layer(io.BytesIO(layer)) for layer in layers]
    image = store.add_image(config(*layers), parent=parent, **names)
    assert len(kept) == len(layers)
    return image


def nobody(image: str) -> list[User]:
    return []


def lines(found: list[Removal]) -> list[tuple[str, str]]:
    return [(removal.kind, removal.what) for removal in found]


def test_the_last_name_takes_the_image_along(store: ImageStore) -> None:
    image = add(store, ONE, TWO, names=("box", "box:2"))
    assert lines(remove(store, "box:2", False, nobody)) == [("Untagged", "box:2")]
    low, high = chain_ids(image)
    deleted = [("Untagged", "box:latest"), ("Deleted", image.id), ("Deleted", high), ("Deleted", low)]
    layers = image.layers
    found = remove(store, "box", False, nobody)
    assert lines(found) == deleted
    assert [removal.image for removal in found] == [image.id, image.id, None, None]
    assert store.images() == []
    assert len(layers) == 2


def test_digests_go_with_the_last_tag_of_their_repository(store: ImageStore) -> None:
    image = add(store, ONE, names=("box",), digests=(f"box@{DIGEST}", f"other@{DIGEST}"))
    assert lines(remove(store, "box", False, nobody)) == [("Untagged", "box:latest"), ("Untagged", f"box@{DIGEST}")]
    assert store.by_id(image.id).repo_digests == [f"other@{DIGEST}"]


def test_an_id_removes_one_name_but_not_several(store: ImageStore) -> None:
    image = add(store, ONE, names=("box", "other"))
    with pytest.raises(ImageConflict) as error:
        remove(store, image.id[7:19], False, nobody)
    short = short_id(image.id)
    assert str(error.value) == (
        f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    )
    names = [("Untagged", "box:latest"), ("Untagged", "other:latest")]
    assert lines(remove(store, short, True, nobody)) == [
        *names,
        ("Deleted", image.id),
        ("Deleted", chain_ids(image)[0]),
    ]
    image = add(store, ONE, names=("box",), digests=(f"box@{DIGEST}",))
    assert lines(remove(store, short, False, nobody))[:3] == [
        *(("Untagged", "box:latest"), ("Untagged", f"box@{DIGEST}"), ("Deleted", image.id)),
    ]


@pytest.mark.parametrize(
    ("user", "by_name", "said"),
    [
        (
            RUNNING,
            False,
            "conflict: unable to delete {0} (cannot be forced) - image is being used by running container {1}",
        ),
        (
            STOPPED,
            False,
            "conflict: unable to delete {0} (must be forced) - image is being used by stopped container {1}",
        ),
        (
            *(STOPPED, True),
            'conflict: unable to remove repository reference "box" (must force) - container {1} is using its '
            "referenced image {0}",
        ),
    ],
)
def test_an_image_that_is_used_stays(store: ImageStore, user: User, by_name: bool, said: str) -> None:
    image = add(store, ONE, names=("box",))
    with pytest.raises(ImageConflict) as error:
        remove(store, "box" if by_name else image.id, False, lambda image: [user])
    assert str(error.value) == said.format(short_id(image.id), user.id[:12])
    assert store.find("box") == image


def test_force_takes_the_name_from_a_used_image_and_a_stopped_container_does_not_keep_it(store: ImageStore) -> None:
    image = add(store, ONE, names=("box",))
    assert lines(remove(store, "box", True, lambda image: [RUNNING])) == [("Untagged", "box:latest")]
    assert store.by_id(image.id).names == ()
    store.hold(STOPPED.id, image.layers)
    path = image.layers[0].erofs
    assert ("Deleted", image.id) in lines(remove(store, image.id, True, lambda image: [STOPPED]))
    del image
    store.collect()
    assert Path(path).exists()


def test_parents_without_a_name_go_along(store: ImageStore) -> None:
    base = add(store, ONE)
    child = add(store, ONE, TWO, names=("box",), parent=base.id)
    with pytest.raises(ImageConflict) as error:
        remove(store, base.id, True, nobody)
    assert str(error.value) == (
        f"conflict: unable to delete {short_id(base.id)} (cannot be forced) - image has dependent child images"
    )
    low, high = chain_ids(child)
    expected = [
        ("Untagged", "box:latest"),
        ("Deleted", child.id),
        ("Deleted", high),
        ("Deleted", base.id),
        ("Deleted", low),
    ]
    assert lines(remove(store, "box", False, nobody)) == expected


def test_a_name_goes_although_its_image_stays(store: ImageStore) -> None:
    base = add(store, ONE, names=("base",))
    add(store, ONE, TWO, names=("box",), parent=base.id)
    with pytest.raises(ImageConflict, match="image has dependent child images"):
        remove(store, "base", False, nobody)
    assert store.by_id(base.id).names == ()


def test_a_removal_that_fails_changes_nothing(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    image = add(store, ONE, names=("box",))

    def fail(image: Image) -> None:
        raise StoreError("there is no room left")

    monkeypatch.setattr(store, "forget", fail)
    with pytest.raises(StoreError):
        remove(store, "box", False, nobody)
    assert store.find("box") == image
    assert store.images() == [image]


def test_prune_takes_what_nobody_uses(store: ImageStore) -> None:
    add(store, ONE, TWO)
    named = add(store, ONE, names=("box",), digests=(f"box@{DIGEST}",))
    used = add(store, TWO, names=("used",))
    removed, size = prune(store, True, nobody)
    assert [kind for kind, _ in lines(removed)] == ["Deleted", "Deleted"]
    assert size == 2
    removed, size = prune(store, False, lambda image: [STOPPED] if image == used.id else [])
    names = [("Untagged", "box:latest"), ("Untagged", f"box@{DIGEST}")]
    assert lines(removed)[:3] == [*names, ("Deleted", named.id)]
    assert size == 100
    assert store.images() == [used]
    assert prune(store, False, nobody, lambda image: False) == ([], 0)
