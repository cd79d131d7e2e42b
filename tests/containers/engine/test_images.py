"""Images, volumes and the room that they take, by requests."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

from tests.containers.engine.engines import TestEngine
from tests.containers.images.registry.made import tar_of
from tests.containers.images.registry.real import docker_registry


def messages(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines() if line]


def import_tar(engine: TestEngine, name: str, *changes: str, **files: bytes) -> str:
    """Import an image of some files, and return its id."""
    query = "".join(f"&changes={quote(change)}" for change in changes)
    answer = engine.ask("POST", f"/images/create?fromSrc=-&repo={name}{query}", tar_of(**files))
    assert answer.status == 200, answer.body
    status = messages(answer.body)[-1]["status"]
    assert isinstance(status, str) and status.startswith("sha256:")
    return status


def names(engine: TestEngine) -> set[str]:
    return {tag for image in engine.ask("GET", "/images/json").json for tag in image["RepoTags"]}


def test_an_imported_image_has_the_changes(engine: TestEngine) -> None:
    made = import_tar(engine, "imported", 'CMD ["a", "b"]', "ENV A=1", file=b"content")
    found = engine.ask("GET", "/images/imported/json").json
    assert (found["Id"], found["Config"]["Cmd"], found["Config"]["Env"]) == (made, ["a", "b"], ["A=1"])
    assert "VirtualSize" not in found
    assert "ContainerConfig" in engine.ask("GET", "/images/imported/json", api="/v1.41").json


class _Server(BaseHTTPRequestHandler):
    """Has an archive, one that is cut off, and a way to files of this host."""

    def do_GET(self) -> None:
        archive = tar_of(file=b"from the web")
        self.send_response({"/good": 200, "/short": 200, "/file": 302}.get(self.path, 404))
        self.send_header("Content-Length", str(len(archive)))
        self.send_header("Location", "file:///etc/passwd")
        self.end_headers()
        self.wfile.write(archive if self.path == "/good" else archive[:600])
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def test_an_archive_is_imported_from_an_address(engine: TestEngine) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    Thread(target=server.serve_forever).start()
    try:
        address = f"127.0.0.1:{server.server_port}"
        said = messages(engine.ask("POST", f"/images/create?fromSrc={address}/good&repo=web").body)
        assert said[0] == {"status": f"Downloading from http://{address}/good"}
        found = engine.ask("GET", "/images/web/json").json
        assert (found["Id"], found["Comment"]) == (said[-1]["status"], f"Imported from {address}/good")
        for path, text in (("none", "with status 404"), ("short", "too early"), ("file", "is not allowed")):
            refused = engine.ask("POST", f"/images/create?fromSrc=http://{address}/{path}&repo=no")
            assert refused.status == 500 and text in refused.message
        assert engine.ask("POST", "/images/create?fromSrc=file:///etc/passwd&repo=no").status == 500
        assert "no:latest" not in names(engine)
    finally:
        server.shutdown()
        server.server_close()


def test_a_saved_image_is_the_same_when_it_is_loaded(engine: TestEngine) -> None:
    made = import_tar(engine, "saved:1", file=b"content " * 100_000)
    archive = engine.ask("GET", "/images/saved:1/get").body
    engine.ask("DELETE", "/images/saved:1")
    assert "saved:1" not in names(engine)
    loaded = engine.ask("POST", "/images/load?quiet=1", archive)
    assert messages(loaded.body) == [{"stream": "Loaded image: saved:1\n"}]
    assert engine.ask("GET", "/images/saved:1/json").json["Id"] == made


def test_what_is_no_archive_of_images_is_told_in_the_stream(engine: TestEngine) -> None:
    answer = engine.ask("POST", "/images/load", b"nonsense")
    assert answer.status == 200
    assert messages(answer.body)[-1]["error"].startswith("Error processing tar file: ")


def test_two_names_are_saved_in_one_archive(engine: TestEngine) -> None:
    import_tar(engine, "one:a", file=b"1")
    import_tar(engine, "two:b", file=b"2")
    archive = engine.ask("GET", "/images/get?names=one:a&names=two:b").body
    for name in ("one:a", "two:b"):
        engine.ask("DELETE", f"/images/{name}")
    loaded = messages(engine.ask("POST", "/images/load", archive).body)
    assert [message["stream"] for message in loaded] == ["Loaded image: one:a\n", "Loaded image: two:b\n"]


def test_filters_of_the_list(engine: TestEngine) -> None:
    import_tar(engine, "reg/filtered:1", "LABEL colour=red", file=b"f")

    def found(**filters: list[str]) -> set[str]:
        answer = engine.ask("GET", f"/images/json?filters={quote(json.dumps(filters))}")
        return {tag for image in answer.json for tag in image["RepoTags"]}

    assert found(reference=["reg/filtered"]) == found(reference=["*/filt*:1"]) == {"reg/filtered:1"}
    assert found(reference=["filtered"]) == set()
    engine.ask("POST", "/images/reg/filtered:1/tag?repo=elsewhere/also&tag=2")
    assert found(reference=["elsewhere/*"]) == {"elsewhere/also:2"}
    engine.ask("DELETE", "/images/elsewhere/also:2")
    assert found(label=["colour=red"]) == {"reg/filtered:1"}
    assert "reg/filtered:1" in found(dangling=["false"])
    assert found(until=["1h"]) == {name for name in names(engine) if name.startswith(("words", "busybox"))}


def test_images_without_a_name_are_pruned(engine: TestEngine) -> None:
    first = import_tar(engine, "moved", file=b"first")
    import_tar(engine, "moved", file=b"second")
    pruned = engine.ask("POST", "/images/prune").json
    assert {"Deleted": first} in pruned["ImagesDeleted"]
    assert pruned["SpaceReclaimed"] == len(b"first")
    assert "moved:latest" in names(engine)


def test_a_registry_gives_back_what_was_pushed(engine: TestEngine, tmp_path: Path) -> None:
    with docker_registry(tmp_path) as domain:
        made = import_tar(engine, f"{domain}/pushed:1", file=b"content")
        pushed = messages(engine.ask("POST", f"/images/{domain}/pushed/push?tag=1", b"").body)
        assert pushed[0] == {"status": f"The push refers to repository [{domain}/pushed]"}
        assert pushed[-1]["aux"]["Tag"] == "1"
        engine.ask("DELETE", f"/images/{domain}/pushed:1")
        pulled = messages(engine.ask("POST", f"/images/create?fromImage={domain}/pushed&tag=1").body)
        assert pulled[-1] == {"status": f"Status: Downloaded newer image for {domain}/pushed:1"}
        found = engine.ask("GET", f"/images/{domain}/pushed:1/json").json
        assert found["Id"] == made
        assert found["RepoDigests"] == [f"{domain}/pushed@{pushed[-1]['aux']['Digest']}"]
        described = engine.ask("GET", f"/distribution/{domain}/pushed:1/json").json
        assert described["Descriptor"]["digest"] == pushed[-1]["aux"]["Digest"]
        assert described["Platforms"] == [{"architecture": "arm", "os": "linux", "variant": "v5"}]
        assert engine.ask("GET", f"/distribution/{domain}/pushed:none/json").status == 404
        (result,) = engine.ask("GET", f"/images/search?term={domain}/push").json
        assert result["name"] == f"{domain}/pushed"


def test_nobody_at_a_registry_is_an_error_with_its_status(engine: TestEngine) -> None:
    answer = engine.ask("POST", "/images/create?fromImage=127.0.0.1:1/x&tag=1")
    assert (answer.status, "127.0.0.1:1" in answer.message) == (500, True)
    answer = engine.ask("POST", "/auth", {"username": "u", "password": "p", "serveraddress": "127.0.0.1:1"})
    assert answer.status == 500


def test_room_is_told(engine: TestEngine) -> None:
    made = import_tar(engine, "room", file=b"x" * 1000)
    engine.ask("POST", "/volumes/create", {"Name": "room", "Labels": {"a": "b"}})
    used = engine.ask("GET", "/system/df").json
    (image,) = [one for one in used["Images"] if one["Id"] == made]
    assert (image["Size"], image["SharedSize"], image["Containers"]) == (1000, 0, 0)
    assert used["LayersSize"] >= 1000
    (volume,) = [one for one in used["Volumes"] if one["Name"] == "room"]
    assert (volume["UsageData"], volume["Labels"]) == ({"Size": 0, "RefCount": 0}, {"a": "b"})
    assert engine.ask("GET", "/system/df?type=volume").json["Images"] is None


def test_volumes_are_pruned_by_the_versions_rules(engine: TestEngine) -> None:
    engine.ask("POST", "/volumes/create", {"Name": "named"})
    anonymous = engine.ask("POST", "/volumes/create", {}).json["Name"]
    assert engine.ask("POST", "/volumes/prune").json["VolumesDeleted"] == [anonymous]
    assert "named" in engine.ask("POST", "/volumes/prune", api="/v1.41").json["VolumesDeleted"]
    assert engine.ask("GET", "/volumes/named").status == 404
