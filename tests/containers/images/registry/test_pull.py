"""Pull from a registry that tells the truth, which is ours: what docker shows of it, and what is chosen and kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dbt.containers.images.errors import InvalidPlatform, PullDenied, RegistryError, WrongPlatform
from dbt.containers.images.reference import Reference
from dbt.containers.images.registry.messages import action, bar
from dbt.containers.images.registry.platforms import read_platform
from tests.containers.images.registry.lying import Asked, Writer, answer, error, fixed
from tests.containers.images.registry.made import MadeImage, content, digest, tar_of
from tests.containers.images.registry.pulling import Puller, with_registry

pytest.importorskip("httpx", reason="registries need httpx")

BASE, TOP = tar_of(a=b"base" * 5000), tar_of(b=b"top" * 3000)
IMAGE = MadeImage(BASE, TOP)


def test_an_image_comes_with_dockers_messages(tmp_path: Path) -> None:
    async def test(puller: Puller) -> None:
        puller.registry.put("x", "1", IMAGE)
        image = await puller.pull()
        domain = puller.registry.domain
        assert (image.id, image.names) == (IMAGE.id, (f"{domain}/x:1",))
        assert image.digests == (f"{domain}/x@{digest(IMAGE.manifest)}",)
        assert content(puller.store, image) == [BASE, TOP]
        assert puller.said[0] == {"status": "Pulling from x", "id": "1"}
        first = digest(IMAGE.layers[0])[7:19]
        assert action("Pulling fs layer", first) in puller.said
        assert [text for text in puller.texts(first) if text not in ("Downloading", "Extracting")] == [
            "Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete",
        ]  # fmt: skip
        assert puller.texts()[-2:] == [
            f"Digest: {digest(IMAGE.manifest)}",
            f"Status: Downloaded newer image for {domain}/x:1",
        ]

    with_registry(tmp_path, test)


def test_what_is_there_already_does_not_come_again(tmp_path: Path) -> None:
    async def test(puller: Puller) -> None:
        puller.registry.put("x", "1", IMAGE)
        await puller.pull()
        puller.registry.put("x", "2", MadeImage(BASE, tar_of(c=b"c")))
        await puller.pull("x:2")
        assert puller.texts(digest(IMAGE.layers[0])[7:19]) == ["Already exists"]
        assert puller.registry.count(f"GET /v2/x/blobs/{digest(IMAGE.layers[0])}") == 1
        await puller.pull("x:1")
        assert puller.texts()[-1] == f"Status: Image is up to date for {puller.registry.domain}/x:1"

    with_registry(tmp_path, test)


def test_of_several_platforms_ours_is_taken(tmp_path: Path) -> None:
    others = [MadeImage(BASE, architecture="amd64", variant=""), MadeImage(BASE, variant="v7"), MadeImage(TOP, BASE)]

    async def test(puller: Puller) -> None:
        index = puller.registry.put_index("x", "1", *others, IMAGE)
        image = await puller.pull()
        assert image.id == others[2].id
        assert image.digests == (f"{puller.registry.domain}/x@{digest(index)}",)
        assert (await puller.pull(f"x@{digest(index)}")).id == image.id
        assert puller.said[0] == {"status": "Pulling from x", "id": digest(index)}

    with_registry(tmp_path, test)


def test_armhf_is_refused_with_what_to_take_instead(tmp_path: Path) -> None:
    async def test(puller: Puller) -> None:
        v7 = MadeImage(BASE, variant="v7")
        puller.registry.put_index("x", "list", v7, MadeImage(BASE, architecture="amd64", variant=""))
        puller.registry.put("x", "one", v7)
        for name, start in (("x:list", "no matching manifest for linux/arm/v5"), ("x:one", puller.registry.domain)):
            with pytest.raises(WrongPlatform, match=start) as caught:
                await puller.pull(name)
            text = str(caught.value)
            assert "linux/arm/v7" in text and "floating point" in text and "arm32v5/" in text
        assert puller.registry.count("GET /v2/x/blobs") == 1  # a configuration, and no layer
        with pytest.raises(WrongPlatform, match="images of linux/amd64 cannot run here"):
            await puller.pull("x:list", platform="linux/amd64")

    with_registry(tmp_path, test)


def test_what_is_for_v6_is_taken_if_it_has_soft_float(tmp_path: Path) -> None:
    loader = tar_of(**{"lib/ld-musl-armhf.so.1": b"loader"})

    async def test(puller: Puller) -> None:
        soft = MadeImage(BASE, variant="v6")
        puller.registry.put_index("x", "1", MadeImage(BASE, variant="v7"), soft)
        assert (await puller.pull()).id == soft.id
        for tag, variant in (("hard", "v6"), ("lies", "v5")):
            puller.registry.put("x", tag, MadeImage(BASE, loader, variant=variant))
            with pytest.raises(WrongPlatform, match=r"has /lib/ld-musl-armhf.so.1: its programs are of armhf"):
                await puller.pull(f"x:{tag}")
        assert len(puller.store.images()) == 1

    with_registry(tmp_path, test)


@pytest.mark.parametrize("text", ["", "linux", "linux/arm/v5", "linux/arm", "arm/v5", "arm", "armel", "linux/armel"])
def test_ways_to_say_our_platform(text: str) -> None:
    assert read_platform(text)[:2] == ("linux", "arm")


@pytest.mark.parametrize("text", ["linux/arm/v7", "arm64", "windows", "arm/v8", "x/y/z"])
def test_other_platforms_are_refused(text: str) -> None:
    with pytest.raises(WrongPlatform):
        read_platform(text)


@pytest.mark.parametrize("text", ["linux/arm/v5/x", "/", "linux/arm/", "linux/arm v5", "arm/"])
def test_what_is_no_platform_is_named(text: str) -> None:
    with pytest.raises(InvalidPlatform, match="invalid argument"):
        read_platform(text)


@pytest.mark.parametrize(
    ("refused", "text"),
    [
        (error(404, "MANIFEST_UNKNOWN", "manifest unknown"), "manifest for {}/x:1 not found: manifest unknown: m"),
        (error(404, "NAME_UNKNOWN", "no such"), "repository {}/x not found: name unknown: no such"),
        (error(403, "DENIED", "no"), "pull access denied for {}/x, repository does not exist or may require 'docker l"),
    ],
)  # fmt: skip
def test_what_a_registry_does_not_have(tmp_path: Path, refused: bytes, text: str) -> None:
    async def test(puller: Puller) -> None:
        puller.registry.routes["GET /v2/x/manifests/1"] = fixed(refused)
        with pytest.raises(PullDenied) as caught:
            await puller.pull()
        assert str(caught.value).startswith(text.format(puller.registry.domain))
        assert puller.said == []

    with_registry(tmp_path, test)


def test_a_layer_goes_on_where_its_connection_broke(tmp_path: Path) -> None:
    noise = b"".join(digest(bytes([i & 255, i >> 8])).encode() for i in range(20000))
    image = MadeImage(tar_of(noise=noise))
    blob = image.layers[0]
    ends = iter((len(blob) // 3, len(blob) // 2, len(blob)))

    async def part(asked: Asked, writer: Writer) -> None:
        start = int(asked.headers.get("range", "bytes=0-")[6:-1])
        end = next(ends)
        lines = [f"Content-Length: {len(blob) - start}"]
        if start:
            lines.append(f"Content-Range: bytes {start}-{len(blob) - 1}/{len(blob)}")
        writer.write(f"HTTP/1.1 {206 if start else 200} X\r\n".encode() + "\r\n".join(lines).encode() + b"\r\n\r\n")
        writer.write(blob[start:end])

    async def test(puller: Puller) -> None:
        puller.registry.put("x", "1", image)
        puller.registry.routes[f"GET /v2/x/blobs/{digest(blob)}"] = part
        await puller.pull()
        ranges = [asked.headers.get("range") for asked in puller.registry.asked if asked.path.endswith(digest(blob))]
        assert ranges[0] is None and len(ranges) == 3
        starts = [int(text[6:-1]) for text in ranges[1:] if text]
        assert 0 < starts[0] <= len(blob) // 3 < starts[1] <= len(blob) // 2

    with_registry(tmp_path, test)


def test_a_registry_that_cannot_go_on_is_asked_for_all_again(tmp_path: Path) -> None:
    blob = IMAGE.layers[0]
    broken = answer(200, blob).replace(blob, blob[: len(blob) // 2])
    answers = iter((broken, answer(200, blob)))

    async def some(asked: Asked, writer: Writer) -> None:
        writer.write(next(answers))

    async def test(puller: Puller) -> None:
        puller.registry.put("x", "1", IMAGE)
        puller.registry.routes[f"GET /v2/x/blobs/{digest(blob)}"] = some
        assert (await puller.pull()).id == IMAGE.id

    with_registry(tmp_path, test)


def test_nobody_listens(tmp_path: Path) -> None:
    async def test(puller: Puller) -> None:
        domain = "127.0.0.1:1"
        with pytest.raises(RegistryError) as caught:
            await puller.registries.pull(Reference.parse(f"{domain}/x"), puller.said.append)
        assert str(caught.value) == f'Get "http://{domain}/v2/": dial tcp {domain}: connect: connection refused'

    with_registry(tmp_path, test)


def test_the_bar_is_dockers() -> None:
    assert bar(0, 0) == "      0B"
    assert bar(12345, 40000) == f"[{'=' * 15}>{' ' * 35}]  12.35kB/40kB"
    assert bar(40000, 40000) == f"[{'=' * 50}>]     40kB/40kB"
    assert json.dumps(action("Downloading", "a", 5)) == (
        '{"status": "Downloading", "progressDetail": {"current": 5}, "progress": "      5B", "id": "a"}'
    )
