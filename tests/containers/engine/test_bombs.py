"""Archives that are small as long as they are packed, by every way into an engine: each ends with one sentence or is
harmless, takes little of memory and of the disk, and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import lzma
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.containers.engine.engines import Said, TestEngine, engine_in
from tests.containers.images.archives import archive, files, member, pax, raw, record
from tests.containers.images.registry.lying import INDEX, SCHEMA2, Asked, LyingRegistry, Writer, lying_registry
from tests.containers.images.registry.made import MadeImage, config_of, digest

zstandard = pytest.importorskip("zstandard", reason="containers need zstandard")
pytest.importorskip("httpx", reason="registries need httpx")

#: What an engine may take for one of them, in bytes: of memory at its peak, and of the disk.
_MEMORY, _DISK = 300 << 20, 48 << 20
#: What an engine may have of memory from before, in bytes.
_USED = 96 << 20
_MIB = 1 << 20


def _headers_without_an_entry() -> bytes:
    extended = [record(f"SCHILY.xattr.user.{number}", "v" * 1_000_000) for number in range(400)]
    heads = (raw(b"x", b"%011o" % len(data), b"x") + data + bytes(-len(data) % 512) for data in extended)
    return gzip.compress(b"".join(heads), 1)


def _long_names() -> bytes:
    return gzip.compress(b"".join(pax(record("path", f"{number}{'n' * 1_000_000}")) for number in range(400)), 1)


def _long_links() -> bytes:
    link = "l" * 1_000_000
    heads = [raw(b"x", b"%011o" % len(one), b"x") + one + bytes(-len(one) % 512) for one in [record("linkpath", link)]]
    return gzip.compress(b"".join(heads[0] + raw(b"link%d" % number, kind=b"2") for number in range(400)), 1)


def _deep_paths() -> bytes:
    return gzip.compress(archive(member(f"{number}/{'a/' * 1900}x") for number in range(600)), 1)


def _empty_frames() -> bytes:
    return bytes(zstandard.compress(files(a=b"1")) + zstandard.compress(b"") * 200_000)


def _zeros() -> bytes:
    """Return a packed file of 128 MiB, in some kilobytes."""
    packed = lzma.LZMACompressor(preset=0)
    head = raw(b"zeros", b"%011o" % (128 * _MIB))
    return packed.compress(head) + b"".join(packed.compress(bytes(_MIB)) for _ in range(128)) + packed.flush()


def _sparse() -> bytes:
    return pax(record("GNU.sparse.map", "0,0") + record("GNU.sparse.size", str(1 << 50)))


#: What is made, and what is said of it as a layer. Nothing is, if it is harmless.
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "headers without an entry": (_headers_without_an_entry, "extended headers of more than 1048576 bytes"),
    "long names": (_long_names, "a path of more than 4095 bytes"),
    "long links": (_long_links, "a symbolic link with a target of no use"),
    "deep paths": (_deep_paths, "directories without an entry"),
    "empty frames": (_empty_frames, ""),
    "zeros": (_zeros, ""),
    "a sparse file": (_sparse, "the files of the archive have more than|is a sparse file"),
}


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestEngine]:
    folder = tmp_path_factory.mktemp("b") / "c"
    folder.mkdir(0o700)
    with engine_in(folder) as made:
        yield made


@pytest.fixture
def engine(used: TestEngine) -> TestEngine:
    """An engine that has little of memory, because a peak begins at what it has from before."""
    if _memory(used, "VmRSS") > _USED:
        used.end()
        used.start()
    return used


def _memory(engine: TestEngine, field: str) -> int:
    """Return a field of an engine's status in bytes."""
    status = Path(f"/proc/{engine.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith(field))


def _allocated(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _files_of(folder: Path) -> list[str]:
    return sorted(str(path) for name in ("images/layers", "images/new", "spool") for path in (folder / name).iterdir())


class _Watched:
    """Sees what an engine takes of memory and of the disk while it is asked something, and what is left of it."""

    def __init__(self, engine: TestEngine) -> None:
        self._engine = engine
        self._files, self._disk = _files_of(engine.folder), _allocated(engine.folder)
        Path(f"/proc/{engine.pid}/clear_refs").write_text("5")  # the peak begins here

    def end(self, what: str = "") -> None:
        """See that it was little."""
        taken = _allocated(self._engine.folder) - self._disk
        for image in self._engine.ask("GET", "/images/json?all=1").json:
            self._engine.ask("DELETE", f"/images/{image['Id']}?force=1")
        end = time.monotonic() + 10
        while (left := _files_of(self._engine.folder)) != self._files and time.monotonic() < end:
            time.sleep(0.05)
        peak = _memory(self._engine, "VmHWM")
        assert left == self._files, what
        assert peak < _MEMORY, f"{what}: the engine has had {peak >> 20} MiB"
        assert taken < _DISK, f"{what}: the engine has taken {taken >> 20} MiB of the disk"


def _import(engine: TestEngine, bomb: bytes) -> Said:
    return engine.ask("POST", "/images/create?fromSrc=-&repo=bomb", bomb)


def _load(engine: TestEngine, bomb: bytes) -> Said:
    """Load an archive of an image whose layer the bomb is. What is no layer is a file that is missed."""
    manifest = json.dumps([{"Config": "config", "RepoTags": ["bomb:1"], "Layers": ["layer"]}]).encode()
    return engine.ask(
        "POST", "/images/load", files(**{"layer": bomb, "config": config_of([bomb]), "manifest.json": manifest})
    )


def _load_outside(engine: TestEngine, bomb: bytes) -> Said:
    return engine.ask("POST", "/images/load", bomb)


def _context(engine: TestEngine, bomb: bytes) -> Said:
    return engine.ask("POST", "/build?t=bomb", bomb)


def _add(engine: TestEngine, bomb: bytes) -> Said:
    context = files(**{"Dockerfile": b"FROM scratch\nADD bomb /there/\n", "bomb": bomb})
    return engine.ask("POST", "/build?t=bomb", context)


def _pull(engine: TestEngine, bomb: bytes) -> Said:
    def serve(registry: LyingRegistry) -> None:
        image = MadeImage(b"")
        image.layers, image.config = [bomb], config_of([_plain(bomb)])
        image.blobs = {digest(blob): blob for blob in (image.config, bomb)}
        registry.put("bomb", "1", image)

    return _pulled(engine, serve)


def _plain(bomb: bytes) -> bytes:
    """Return what is packed, if it is little. The digest of what is not is that of something else."""
    return zstandard.ZstdDecompressor().decompressobj().decompress(bomb) if bomb[:4] == b"\x28\xb5\x2f\xfd" else b""


def _pulled(engine: TestEngine, serve: Callable[[LyingRegistry], None]) -> Said:
    async def run() -> Said:
        async with lying_registry() as registry:
            serve(registry)
            path = f"/images/create?fromImage={registry.domain}/bomb&tag=1"
            return await asyncio.to_thread(engine.ask, "POST", path)

    return asyncio.run(run())


WAYS = {
    "import": _import, "load": _load, "an archive of images": _load_outside, "a context": _context, "ADD": _add,
    "pull": _pull,
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_harmless(engine: TestEngine, name: str) -> None:
    make, text = BOMBS[name]
    bomb = make()
    for way, ask in WAYS.items():
        watched = _Watched(engine)
        said = ask(engine, bomb).body.decode()
        assert "Traceback" not in said and "RecursionError" not in said and "recursion" not in said, (way, said)
        if way in ("import", "pull") and text:  # ADD copies what is no archive from its beginning
            assert any(one in said for one in text.split("|")), (way, said)
        watched.end(way)
    assert "Traceback" not in Path(f"{engine.folder}.log").read_text()


# -- what a registry says of images ----------------------------------------------------------------


def _endless(start: bytes) -> Callable[[Asked, Writer], Any]:
    async def answer(asked: Asked, writer: Writer) -> None:
        writer.write(start)
        for _ in range(300):
            writer.write(b" " * _MIB)
            await writer.drain()

    return answer


def _manifest_of_megabytes(registry: LyingRegistry) -> None:
    head = f"HTTP/1.1 200 X\r\nContent-Type: {SCHEMA2}\r\nContent-Length: {300 * _MIB}\r\n\r\n"
    registry.routes["GET /v2/bomb/manifests/1"] = _endless(head.encode())


def _index_of(count: int) -> Callable[[LyingRegistry], None]:
    entry = {"mediaType": SCHEMA2, "size": 1, "digest": digest(b""), "platform": {"os": "linux", "architecture": "x"}}

    def serve(registry: LyingRegistry) -> None:
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] * count}
        registry.put_manifest("bomb", "1", json.dumps(document).encode(), INDEX)

    return serve


def _index_of_itself(registry: LyingRegistry) -> None:
    """An index cannot have its own digest in it, but the registry may say that it has."""
    platform = {"os": "linux", "architecture": "arm", "variant": "v5"}
    entry = {"mediaType": INDEX, "size": 400, "digest": digest(b"itself"), "platform": platform}
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    data = json.dumps(document).encode().ljust(400)
    registry.put_manifest("bomb", "1", data, INDEX)
    registry.routes[f"GET /v2/bomb/manifests/{digest(b'itself')}"] = registry.routes["GET /v2/bomb/manifests/1"]


def _indexes_in_each_other(registry: LyingRegistry) -> None:
    image = MadeImage(files(a=b"1"))
    inner = registry.put_index("bomb", "inner", image)
    entry = {"mediaType": INDEX, "size": len(inner), "digest": digest(inner), "platform": image.platform}
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    registry.put_manifest("bomb", "1", json.dumps(document).encode(), INDEX)


def _config_of(**fields: Any) -> Callable[[LyingRegistry], None]:
    def serve(registry: LyingRegistry) -> None:
        image = MadeImage(files(a=b"1"))
        config = json.dumps(json.loads(image.config) | fields, separators=(",", ":")).encode()
        image.config = config
        image.blobs = {digest(blob): blob for blob in (config, *image.layers)}
        registry.put("bomb", "1", image)

    return serve


DOCUMENTS: dict[str, tuple[Callable[[LyingRegistry], None], str]] = {
    "a manifest of 300 MiB": (_manifest_of_megabytes, "gives more than 4194304 bytes for an answer"),
    "an index of thousands": (_index_of(4000), "no matching manifest for linux/arm/v5"),
    "an index of too many": (_index_of(20000), "gives more than|length <= 4096"),
    "an index of itself": (_index_of_itself, "manifest verification failed"),
    "indexes in each other": (_indexes_in_each_other, "a list of manifests in a list of manifests"),
    "a history of thousands": (_config_of(history=[{}] * 5000), "length <= 4096"),
    "a history of millions": (_config_of(history=[{}] * 2_500_000), "more than 524288 values"),
    "a configuration of nothing": (_config_of(config={"Volumes": {"/x": [[]] * 100_000}}), "Expected `object`"),
    "a configuration of too much": (_config_of(author="a" * (9 << 20)), "at most 8388608 are read"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_that_are_too_much(engine: TestEngine, name: str) -> None:
    serve, text = DOCUMENTS[name]
    watched = _Watched(engine)
    said = _pulled(engine, serve).body.decode()
    assert any(one in said for one in text.split("|")), said[:2000]
    watched.end()
    assert "Traceback" not in Path(f"{engine.folder}.log").read_text()


def test_an_image_whose_layers_are_each_other(engine: TestEngine) -> None:
    """The form of archives before docker 1.10, in which each layer names the one below."""
    step = json.dumps({"id": "a", "parent": "a", "x": [[]] * 200_000}, separators=(",", ":")).encode()
    listed = json.dumps({"bomb": {"1": "a"}}).encode()
    contents = {"a/json": step, "a/layer.tar": files(a=b"1"), "repositories": listed}
    watched = _Watched(engine)
    said = engine.ask("POST", "/images/load", archive(member(path, data=data) for path, data in contents.items()))
    assert b"too many layers" in said.body
    watched.end()


def test_what_has_holes_comes_out_whole(engine: TestEngine) -> None:
    """Zeros take no disk in a layer, and come out of it again."""
    data = b"begin" + bytes(3 * _MIB) + b"middle" + bytes(2 * _MIB)
    layer = files(zeros=data)
    manifest = json.dumps([{"Config": "config", "RepoTags": ["holes:1"], "Layers": ["layer"]}]).encode()
    loaded = files(**{"layer": layer, "config": config_of([layer]), "manifest.json": manifest})
    watched = _Watched(engine)
    assert b"Loaded image: holes:1" in engine.ask("POST", "/images/load", loaded).body
    (image,) = (engine.folder / "images" / "layers").glob("*.erofs")
    assert image.stat().st_blocks * 512 < _MIB < 5 * _MIB < image.stat().st_size
    assert layer in engine.ask("GET", "/images/holes:1/get").body
    context = files(**{"Dockerfile": b"FROM scratch\nCOPY zeros /\n", "zeros": data})
    assert b"Successfully built" in engine.ask("POST", "/build?t=built", context).body
    assert data in engine.ask("GET", "/images/built/get").body
    watched.end()
