"""Push to Debian's docker-registry, and pull from it."""

from __future__ import annotations

import asyncio
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dbt.containers.images.errors import ImageError, ImageNotFound, PullDenied, RegistryError
from dbt.containers.images.image import Image
from dbt.containers.images.reference import Reference
from dbt.containers.images.registry.credentials import NOBODY, Credentials
from dbt.containers.images.registry.hosts import InsecureHosts
from dbt.containers.images.registry.registries import Registries
from dbt.containers.images.store import ImageStore
from tests.containers.images.registry.made import config_of, content, digest, tar_of
from tests.containers.images.registry.real import docker_registry

pytest.importorskip("httpx", reason="registries need httpx")

_NUMBERS = itertools.count()
BASE, TOP = tar_of(a=b"base" * 500000), tar_of(b=b"top" * 3000)
#: The password of "ann" is "secret", with an arbitrary salt.
HTPASSWD = "ann:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
ANN = Credentials(username="ann", password="secret")


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as domain:
        yield domain


class User:
    """Somebody with a store of their own."""

    def __init__(self, folder: Path) -> None:
        self.underway = folder / f"underway-{next(_NUMBERS)}"
        self.underway.mkdir()
        self.store = ImageStore(f"{self.underway}.store")
        self.registries = Registries(self.store, str(self.underway))
        self.said: list[dict[str, Any]] = []

    def make(self, name: str, *tars: bytes) -> Image:
        self.layers = [self.store.add_layer(io.BytesIO(tar)) for tar in tars]
        return self.store.add_image(config_of(tars), [name])

    def push(self, name: str, who: Credentials = NOBODY) -> list[str]:
        self.said.clear()
        asyncio.run(self.registries.push(Reference.parse(name), self.said.append, who))
        return [line["status"] for line in self.said if "status" in line]

    def pull(self, name: str, who: Credentials = NOBODY) -> Image:
        self.said.clear()
        return asyncio.run(self.registries.pull(Reference.parse(name), self.said.append, who))


def test_what_is_pushed_is_pulled(domain: str, tmp_path: Path) -> None:
    one, other = User(tmp_path), User(tmp_path)
    image = one.make(f"{domain}/a/b:1", BASE, TOP)
    texts = one.push(f"{domain}/a/b:1")
    assert texts[0] == f"The push refers to repository [{domain}/a/b]"
    assert texts[1:3] == ["Preparing", "Preparing"]
    assert texts.count("Pushed") == 2
    assert one.said[1]["id"] == digest(TOP)[7:19]
    aux = one.said[-1]["aux"]
    assert texts[-1] == f"1: digest: {aux['Digest']} size: {aux['Size']}"
    pulled = other.pull(f"{domain}/a/b:1")
    assert (pulled.id, pulled.digests) == (image.id, (f"{domain}/a/b@{aux['Digest']}",))
    assert content(other.store, pulled) == [BASE, TOP]
    assert other.pull(f"{domain}/a/b@{aux['Digest']}").id == image.id
    assert not [*one.underway.iterdir(), *other.underway.iterdir()]


def test_layers_are_sent_once_and_mounted_from_other_repositories(domain: str, tmp_path: Path) -> None:
    one = User(tmp_path)
    one.make(f"{domain}/once:1", BASE, TOP)
    one.push(f"{domain}/once:1")
    assert one.push(f"{domain}/once:1").count("Layer already exists") == 2
    one.make(f"{domain}/twice:1", BASE, TOP)
    assert one.push(f"{domain}/twice:1").count("Mounted from once") == 2
    stranger = User(tmp_path)  # knows of no blob, and makes the same bytes
    stranger.make(f"{domain}/once:2", TOP, BASE)
    assert stranger.push(f"{domain}/once:2").count("Layer already exists") == 2
    puller = User(tmp_path)
    puller.pull(f"{domain}/once:2")
    puller.make(f"{domain}/thrice:1", BASE, TOP)
    assert puller.push(f"{domain}/thrice:1").count("Mounted from once") == 2


def test_all_tags_of_a_repository_are_pushed(domain: str, tmp_path: Path) -> None:
    one = User(tmp_path)
    one.make(f"{domain}/many:b", TOP)
    one.make(f"{domain}/many:a", BASE)
    texts = one.push(f"{domain}/many")
    assert [line["aux"]["Tag"] for line in one.said if "aux" in line] == ["a", "b"]
    assert len(texts) == len(one.said) - 2
    with pytest.raises(ImageNotFound, match="An image does not exist locally with the tag: "):
        one.push(f"{domain}/none")


def test_a_missing_image(domain: str, tmp_path: Path) -> None:
    with pytest.raises(PullDenied, match=r"^manifest for .*/no:such not found: manifest unknown: manifest unknown$"):
        User(tmp_path).pull(f"{domain}/no:such")


def test_who_may_push_and_pull(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "temporary").mkdir()
    with docker_registry(tmp_path / "registry", HTPASSWD) as domain:
        one = User(tmp_path / "temporary")
        image = one.make(f"{domain}/x:1", TOP)
        wrong = Credentials(username="ann", password="wrong")
        for who in (NOBODY, wrong):
            with pytest.raises(RegistryError, match="unauthorized: authentication required"):
                one.push(f"{domain}/x:1", who)
            with pytest.raises(PullDenied, match=r"pull access denied for .*/x, repository does not exist or may"):
                one.pull(f"{domain}/x:1", who)
        one.push(f"{domain}/x:1", ANN)
        assert User(tmp_path / "temporary").pull(f"{domain}/x:1", ANN).id == image.id


def test_search_and_login(domain: str, tmp_path: Path) -> None:
    one = User(tmp_path)
    for name in ("some/one", "some/two", "other"):
        one.make(f"{domain}/{name}:1", TOP)
        one.push(f"{domain}/{name}:1")
    found = asyncio.run(one.registries.search(f"{domain}/some"))
    assert [entry["name"] for entry in found] == [f"{domain}/some/one", f"{domain}/some/two"]
    assert len(asyncio.run(one.registries.search(f"{domain}/o", limit=1))) == 1
    with pytest.raises(ImageError, match="limit 101 is outside the range of"):
        asyncio.run(one.registries.search("x", limit=101))
    (tmp_path / "registry").mkdir()
    with docker_registry(tmp_path / "registry", HTPASSWD) as locked:
        for password, is_right in (("secret", True), ("wrong", False)):
            who = Credentials(username="ann", password=password, server_address=locked)
            if is_right:
                assert asyncio.run(one.registries.login(who)) == ""
            else:
                with pytest.raises(ImageError, match="failed with status: 401 Unauthorized"):
                    asyncio.run(one.registries.login(who))


def test_certificates_are_checked_but_for_this_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "registry").mkdir()
    with docker_registry(tmp_path / "registry", has_tls=True) as domain:
        one = User(tmp_path)
        image = one.make(f"{domain}/x:1", TOP)
        one.push(f"{domain}/x:1")
        assert User(tmp_path).pull(f"{domain}/x:1").id == image.id
        monkeypatch.setattr(InsecureHosts, "allows", lambda self, host: False)  # as if it were elsewhere
        with pytest.raises(RegistryError, match=rf'^Get "https://{domain}/v2/": x509: self.signed certificate'):
            User(tmp_path).pull(f"{domain}/x:1")


def test_no_http_without_tls_but_on_this_host(domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InsecureHosts, "allows", lambda self, host: False)
    with pytest.raises(RegistryError, match="http: server gave HTTP response to HTTPS client"):
        User(tmp_path).pull(f"{domain}/x:1")
