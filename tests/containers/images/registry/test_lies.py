"""A registry that lies: each answer that is wrong in its own way ends the pull, and nothing of it is kept."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbt.containers.images.errors import ImageError, RegistryError
from dbt.containers.images.reference import Reference
from dbt.containers.images.registry import blobs
from dbt.containers.images.registry.blobs import download
from dbt.containers.images.registry.credentials import NOBODY, Credentials, read_challenge, read_credentials
from dbt.containers.images.registry.hosts import InsecureHosts, check_hop, is_internal
from dbt.containers.images.registry.manifests import Descriptor, read_manifest
from tests.containers.images.registry.lying import (
    INDEX,
    SCHEMA2,
    Asked,
    LyingRegistry,
    Writer,
    answer,
    fixed,
    lying_registry,
)
from tests.containers.images.registry.made import MadeImage, digest, tar_of
from tests.containers.images.registry.pulling import Puller, with_registry

httpx = pytest.importorskip("httpx", reason="registries need httpx")

IMAGE = MadeImage(tar_of(a=b"base" * 5000), tar_of(b=b"top" * 3000))
LAYER = digest(IMAGE.layers[1])
CONFIG = digest(IMAGE.config)
ANN = Credentials(username="ann", password="secret")
NO_END = b"HTTP/1.1 200 X\r\nContent-Type: " + SCHEMA2.encode() + b"\r\n\r\n"


async def endless(asked: Asked, writer: Writer) -> None:
    """Answer with a body that has no end."""
    writer.write(NO_END)
    while True:
        writer.write(b" " * 65536)
        await writer.drain()


async def endless_head(asked: Asked, writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 X\r\n")
    while True:
        writer.write(b"X-More: " + b"x" * 65536 + b"\r\n")
        await writer.drain()


def changed(**fields: Any) -> Callable[[LyingRegistry], None]:
    """Return what gives the manifest other fields."""

    def change(registry: LyingRegistry) -> None:
        registry.put_manifest("x", "1", json.dumps(IMAGE.document() | fields).encode(), SCHEMA2)

    return change


def route(key: str, *data: bytes) -> Callable[[LyingRegistry], None]:
    """Return what lets the registry answer a request with bytes that are wrong."""

    def change(registry: LyingRegistry) -> None:
        registry.routes[key] = fixed(b"".join(data))

    return change


def layers(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [IMAGE.document()["layers"][0] | fields] * count


MANIFEST = "GET /v2/x/manifests/1"
BLOB = f"GET /v2/x/blobs/{LAYER}"
LIES: dict[str, tuple[Callable[[LyingRegistry], None], str]] = {
    "an endless manifest": (lambda r: r.routes.update({MANIFEST: endless}), "gives more than"),
    "an endless head": (lambda r: r.routes.update({MANIFEST: endless_head}), "Get "),
    "an endless configuration": (lambda r: r.routes.update({f"GET /v2/x/blobs/{CONFIG}": endless}), "gives more than"),
    "an endless layer": (lambda r: r.routes.update({BLOB: endless}), "gives more for a blob than"),
    "no HTTP": (route(MANIFEST, b"hello\r\n\r\n"), "Get "),
    "no status": (route(MANIFEST, b"HTTP/1.1 999999 X\r\n\r\n"), "Get "),
    "two lengths": (route(MANIFEST, b"HTTP/1.1 200 X\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), "Get "),
    "a bad piece": (route(MANIFEST, b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "Get "),
    "a manifest that is none": (route(MANIFEST, answer(200, b"[[" * 9000)), "a manifest that is none"),
    "a manifest of schema 1": (route(MANIFEST, answer(200, b'{"schemaVersion": 1}')), "schema 1"),
    "another digest than it says": (
        route(MANIFEST, answer(200, IMAGE.manifest, Docker_Content_Digest=LAYER, Content_Type=SCHEMA2)),
        "manifest verification failed",
    ),
    "another kind than it says": (route(MANIFEST, answer(200, IMAGE.manifest, Content_Type=INDEX)), "is called"),
    "an image and an index": (changed(manifests=[]), ""),
    "both": (changed(manifests=[{"digest": LAYER, "size": 1}]), "both of an image and of several"),
    "thousands of layers": (changed(layers=layers(100000 // 40)), "length <= 125"),
    "other layers than its configuration": (changed(layers=layers(1)), "layers from manifest don't match"),
    "layers of no end": (changed(layers=layers(2, size=1 << 61)), "at most"),
    "a layer of negative size": (changed(layers=layers(2, size=-1)), "Expected `int` >= 0"),
    "a layer that is elsewhere": (
        changed(layers=layers(2, mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", urls=["file:///"])),
        "kind that is not supported",
    ),
    "a digest that is a path": (changed(layers=layers(2, digest="sha256:../../../etc/passwd")), "that is none"),
    "another thing than an image": (
        changed(config=IMAGE.document()["config"] | {"mediaType": "application/vnd.cncf.helm.config.v1+json"}),
        "not of an image",
    ),
    "a huge configuration": (changed(config=IMAGE.document()["config"] | {"size": 1 << 40}), "at most"),
    "another configuration": (route(f"GET /v2/x/blobs/{CONFIG}", answer(200, b"{}")), "config verification failed"),
    "another layer": (route(BLOB, answer(200, IMAGE.layers[1][:-1] + b"x")), "filesystem layer verification failed"),
    "more than a layer": (route(BLOB, answer(200, IMAGE.layers[1] + b"x")), "gives more for a blob than"),
    "no layer": (route(BLOB, answer(404)), "404"),
    "a way to a file": (route(BLOB, answer(307, Location="file:///etc/passwd")), "leads to file"),
    "a way to nowhere": (route(BLOB, answer(307, Location="http:///x")), "404 Not Found"),
    "a way that is none": (route(MANIFEST, answer(307, Location="http://[::/x")), "Invalid URL in location"),
    "a way to a port that is none": (route(MANIFEST, answer(307, Location="http://127.0.0.1:99999/x")), "to no port"),
    "a way with a name": (route(BLOB, answer(307, Location="http://a:b@127.0.0.1/x")), "with a user's name"),
    "a way in a circle": (route(BLOB, answer(307, Location=BLOB[4:])), "redirects for ever"),
    "an unknown way to ask who we are": (
        route(MANIFEST, answer(401, WWW_Authenticate='Digest realm="x"')), "credentials in an unknown way"),
    "tokens from nowhere": (route(MANIFEST, answer(401, WWW_Authenticate="Bearer x")), "does not say from where"),
    "tokens from a file": (
        route(MANIFEST, answer(401, WWW_Authenticate='Bearer realm="file:///etc/passwd"')), "leads to file"),
    "tokens that are none": (
        route(MANIFEST, answer(401, WWW_Authenticate='Bearer realm="/token"')), "manifest unknown"),
    "refusals for ever": (route(MANIFEST, answer(401, WWW_Authenticate="Basic realm=x")), "pull access denied"),
    "colours": (
        route(MANIFEST, answer(500, b'{"errors": [{"code": "X", "message": "\\u001b[1m!\\u0007"}]}')), r"x:  \[1m! $"
    ),
}  # fmt: skip
HARMLESS = ("an image and an index",)  # the empty list of manifests means nothing


@pytest.mark.parametrize("name", sorted(LIES))
def test_a_lie_ends_the_pull(tmp_path: Path, name: str) -> None:
    change, text = LIES[name]

    async def test(puller: Puller) -> None:
        puller.registry.put("x", "1", IMAGE)
        change(puller.registry)
        if name in HARMLESS:
            assert (await puller.pull()).id == IMAGE.id
            return
        with pytest.raises(ImageError, match=text) as caught:
            await puller.pull()
        assert "\x1b" not in str(caught.value)
        assert puller.store.images() == []

    with_registry(tmp_path, test)


def test_a_layer_that_its_configuration_does_not_have(tmp_path: Path) -> None:
    async def test(puller: Puller) -> None:
        other = MadeImage(tar_of(c=b"c"), tar_of(d=b"d"))
        puller.registry.put("x", "1", IMAGE)
        puller.registry.put("x", "2", other)
        document = IMAGE.document() | {"layers": other.document()["layers"]}
        puller.registry.put_manifest("x", "1", json.dumps(document).encode(), SCHEMA2)
        with pytest.raises(ImageError, match="and should be"):
            await puller.pull()
        assert puller.store.images() == []

    with_registry(tmp_path, test)


def test_an_index_whose_manifest_is_another_one(tmp_path: Path) -> None:
    async def test(puller: Puller) -> None:
        puller.registry.put_index("x", "1", IMAGE)
        wrong = answer(200, MadeImage(tar_of(c=b"c")).manifest, Content_Type=SCHEMA2)
        puller.registry.routes[f"GET /v2/x/manifests/{digest(IMAGE.manifest)}"] = fixed(wrong)
        with pytest.raises(RegistryError, match="manifest verification failed for digest"):
            await puller.pull()

    with_registry(tmp_path, test)


def test_nobody_else_gets_credentials(tmp_path: Path) -> None:
    """Not those that a registry redirects to, and not a service of tokens but the one that the registry names."""

    async def test(puller: Puller) -> None:
        async with lying_registry() as other:
            realm = f'Bearer realm="http://{puller.registry.domain}/token",service="s",scope="x"'
            refused = answer(401, WWW_Authenticate=realm)

            async def manifest(asked: Asked, writer: Writer) -> None:
                good = asked.headers.get("authorization") == "Bearer t0"
                writer.write(answer(200, IMAGE.manifest, Content_Type=SCHEMA2) if good else refused)

            puller.registry.put("x", "1", IMAGE)
            puller.registry.routes["GET /v2/"] = fixed(refused)
            puller.registry.routes["GET /token"] = fixed(answer(200, b'{"token": "t0", "expires_in": 300}'))
            puller.registry.routes[MANIFEST] = manifest
            puller.registry.routes[BLOB] = fixed(answer(307, Location=f"http://{other.domain}/there?signed=1"))
            other.routes["GET /there"] = fixed(answer(200, IMAGE.layers[1]))
            assert (await puller.pull(who=ANN)).id == IMAGE.id
            (token,) = [asked for asked in puller.registry.asked if asked.path == "/token"]
            assert token.headers["authorization"] == "Basic " + base64.b64encode(b"ann:secret").decode()
            assert "service=s" in token.target and "scope=repository%3Ax%3Apull" in token.target
            (there,) = [asked for asked in other.asked if asked.path == "/there"]
            assert "authorization" not in there.headers
            blobs = [asked for asked in puller.registry.asked if "/blobs/" in asked.path]
            assert {asked.headers.get("authorization") for asked in blobs} == {"Bearer t0"}

    with_registry(tmp_path, test)


def test_a_push_that_is_led_elsewhere_goes_without_credentials(tmp_path: Path) -> None:
    async def test(puller: Puller) -> None:
        async with lying_registry() as other:
            registry = puller.registry
            registry.put("x", "1", IMAGE)
            reference = Reference.parse(f"{registry.domain}/y:1")
            puller.store.tag(await puller.pull(), reference)
            registry.routes["GET /v2/"] = fixed(answer(401, WWW_Authenticate="Basic realm=x"))
            place = f"http://{other.domain}/up"
            registry.routes["POST /v2/y/blobs/uploads/"] = fixed(answer(202, Location=place))
            other.routes["PATCH /up"] = fixed(answer(202, Location="ftp://a/b"))
            with pytest.raises(RegistryError, match="leads to ftp"):
                await puller.registries.push(reference, puller.said.append, ANN)
            assert other.asked and all("authorization" not in asked.headers for asked in other.asked)

    with_registry(tmp_path, test)


@pytest.mark.parametrize(
    ("origin", "target", "is_fine"),
    [
        ("https://r.example", "https://cdn.example/x", True),
        ("https://r.example", "http://r.example/x", False),
        ("https://r.example", "http://10.1.2.3:5000/x", True),
        ("https://r.example", "https://127.0.0.1/x", False),
        ("https://r.example", "https://localhost:2375/x", False),
        ("https://r.example", "http://127.0.0.1:2375/x", False),
        ("https://r.example", "https://[::ffff:127.0.0.1]/x", False),
        ("https://r.example", "https://[::1]/x", False),
        ("https://r.example", "https://169.254.169.254/latest", False),
        ("https://r.example", "gopher://r.example/x", False),
        ("http://127.0.0.1:5000", "http://127.0.0.1:6000/x", True),
        ("http://127.0.0.1:5000", "https://r.example/x", True),
    ],
)
def test_where_a_registry_may_lead_us(origin: str, target: str, is_fine: bool) -> None:
    insecure = InsecureHosts(["10.1.0.0/16"])
    if is_fine:
        check_hop(httpx.URL(origin), httpx.URL(target), insecure)
    else:
        with pytest.raises(RegistryError, match="leads to"):
            check_hop(httpx.URL(origin), httpx.URL(target), insecure)


def test_hosts() -> None:
    insecure = InsecureHosts(["plain.example:5000", "bare.example", "10.1.0.0/16"])
    good = ["127.3.2.1:80", "localhost:5000", "[::1]:5000", "plain.example:5000", "bare.example:1", "10.1.9.9"]
    assert all(insecure.allows(host) for host in good)
    assert not any(insecure.allows(host) for host in ("plain.example", "10.2.0.1", "r.example", "127.0.0.1.example"))
    assert is_internal("0.0.0.0") and not is_internal("r.example")
    with pytest.raises(RegistryError, match="is a host or a network"):
        InsecureHosts(["10.1.0.0/99"])


def test_credentials_as_docker_sends_them() -> None:
    document = json.dumps({"username": "ann", "password": "sec?ret", "serveraddress": "r.example"}).encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        found = read_credentials(encode(document).decode())
        assert (found.username, found.password, found.server_address) == ("ann", "sec?ret", "r.example")
        assert "ret" not in repr(found)
    assert read_credentials(base64.b64encode(b'{"auth": "YW5uOnNlY3JldA=="}').decode()).password == "secret"
    for wrong in ("", "!", "AAAA", base64.b64encode(b"[1]").decode(), "A" * 100000):
        assert read_credentials(wrong) == NOBODY


def test_random_bytes_are_no_manifest() -> None:
    seed = random.randrange(1 << 32)
    draw = random.Random(seed)
    document = bytearray(IMAGE.manifest)
    for _ in range(2000):
        damaged = bytearray(document)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        try:
            read_manifest(bytes(damaged), SCHEMA2)
        except RegistryError:
            continue
    header = "".join(chr(draw.randrange(32, 127)) for _ in range(4000))
    for start in range(0, 4000, 40):
        try:
            read_challenge("Bearer " + header[start : start + 40])
        except RegistryError:
            continue


def test_a_registry_that_breaks_off_for_ever(tmp_path: Path) -> None:
    async def run() -> None:
        async with lying_registry() as registry:
            key = "GET /v2/x/blobs/" + LAYER
            registry.routes[key] = fixed(answer(200, b"12345").replace(b"12345", b"1"))
            client = Puller(registry, tmp_path).registries.client(registry.domain, NOBODY, [])
            async with client:
                with pytest.raises(RegistryError):
                    await download(client, "x", Descriptor("", LAYER, 5), str(tmp_path), lambda _: None, 0.001)
            assert registry.count(key) == 5

    asyncio.run(run())


def test_a_registry_that_drips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes byte by byte is never silent, and would never end."""
    monkeypatch.setattr(blobs, "_WINDOW_S", 0.1)

    async def drip(asked: Asked, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def run() -> None:
        async with asyncio.timeout(30), lying_registry() as registry:
            key = "GET /v2/x/blobs/" + LAYER
            registry.routes[key] = drip
            client = Puller(registry, tmp_path).registries.client(registry.domain, NOBODY, [])
            async with client:
                with pytest.raises(RegistryError, match=r"the registry gives \d+ bytes of a blob in 0 seconds"):
                    await download(client, "x", Descriptor("", LAYER, 100_000), str(tmp_path), lambda _: None, 0.001)
            assert registry.count(key) == 5

    asyncio.run(run())
