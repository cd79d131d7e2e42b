"""Images go to a registry and come from it, by docker's own commands.

What is expected of their output was printed by dockerd 20.10 with the same registry. It has no search in registries.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.engine.engines import TestEngine
from tests.containers.images.registry.real import docker_registry

pytest.importorskip("httpx", reason="registries need httpx")

#: Debian's command and another one, where they are.
COMMANDS = [path for path in ("/usr/bin/docker", "/usr/local/bin/docker") if shutil.which(path)]
DOCKERFILE = 'FROM words\nLABEL a={}\nCMD ["words", "say", "pulled"]\n'


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as domain:
        yield domain


def masked(output: bytes, domain: str) -> list[str]:
    text = re.sub(r"[0-9a-f]{64}", "DIGEST", output.decode().replace(domain, "HOST"))
    return re.sub(r"size: \d+", "size: N", re.sub(r"\b[0-9a-f]{12}\b", "ID", text)).splitlines()


@pytest.mark.parametrize("command", COMMANDS or [pytest.param("", marks=pytest.mark.skip("docker is not installed"))])
def test_dockers_command_pushes_pulls_and_searches(
    engine: TestEngine, registry: str, command: str, tmp_path: Path
) -> None:
    def docker(*arguments: str) -> list[str]:
        said = engine.docker(*arguments, command=command)
        assert said.returncode == 0, said
        return masked(said.stdout, registry)

    name = f"{registry}/some/{Path(command).parent.parent.name}"
    shown = name.replace(registry, "HOST")
    for tag in ("one", "two"):
        (tmp_path / "Dockerfile").write_text(DOCKERFILE.format(Path(command).parent.parent.name + tag))
        docker("build", "-q", "-t", f"{name}:{tag}", str(tmp_path))
    said = docker("push", f"{name}:one")
    assert said[0] == f"The push refers to repository [{shown}]"
    assert said[-1] == "one: digest: sha256:DIGEST size: N"
    assert said[1:-1] == ["ID: Preparing", *said[2:-1]] and said[-2] in ("ID: Pushed", "ID: Mounted from some/usr")
    assert "ID: Layer already exists" in docker("push", f"{name}:two")
    assert f"Untagged: {shown}@sha256:DIGEST" in docker("rmi", f"{name}:one", f"{name}:two")
    assert docker("pull", f"{name}:one")[-3:] == [
        "Digest: sha256:DIGEST",
        f"Status: Downloaded newer image for {shown}:one",
        f"{shown}:one",
    ]
    assert docker("pull", f"{name}:one")[-2] == f"Status: Image is up to date for {shown}:one"
    assert docker("run", "--rm", f"{name}:one") == ["pulled"]
    assert docker("pull", "-a", name) == [
        f"one: Pulling from {shown.removeprefix('HOST/')}",
        "Digest: sha256:DIGEST",
        f"two: Pulling from {shown.removeprefix('HOST/')}",
        "ID: Already exists",
        "Digest: sha256:DIGEST",
        f"Status: Downloaded newer image for {shown}",
        shown,
    ]
    assert shown in "\n".join(docker("search", f"{registry}/some"))
    nowhere = f"{registry}/no"
    for wrong, text in (
        (f"{name}:gone", f"tag does not exist: {name}:gone"),
        (f"{nowhere}:tag", f"An image does not exist locally with the tag: {nowhere}"),
    ):
        assert engine.docker("push", wrong, command=command).stderr.decode().splitlines()[-1] == text
    missing = engine.docker("pull", f"{name}:none", command=command)
    expected = f"manifest for {name}:none not found: manifest unknown: manifest unknown\n"
    assert (missing.returncode, missing.stderr.decode()) == (1, f"Error response from daemon: {expected}")
