"""Lines of a Dockerfile as commit and import take them."""

from __future__ import annotations

import pytest

from dbt.containers.images.changes import apply_changes
from dbt.containers.images.errors import BadConfig


def test_changes() -> None:
    config = {"Env": ["A=1", "B=2"], "Cmd": ["old"], "WorkingDir": "/w", "Labels": {"x": "y"}}
    lines = [
        'CMD ["a", "b c"]',
        "entrypoint exec x",
        "ENV B=3 C='4 5'",
        "ENV D 6 7",
        "LABEL z=1",
        "EXPOSE 80 53/udp",
        'VOLUME ["/a", "/b"]',
        "USER ann",
        "WORKDIR sub",
        "STOPSIGNAL SIGINT\nONBUILD RUN x",
    ]
    assert apply_changes(config, lines) == {
        "Cmd": ["a", "b c"],
        "Entrypoint": ["/bin/sh", "-c", "exec x"],
        "Env": ["A=1", "B=3", "C=4 5", "D=6 7"],
        "Labels": {"x": "y", "z": "1"},
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Volumes": {"/a": {}, "/b": {}},
        "User": "ann",
        "WorkingDir": "/w/sub",
        "StopSignal": "SIGINT",
        "OnBuild": ["RUN x"],
    }
    assert config["Cmd"] == ["old"]


@pytest.mark.parametrize("line", ["RUN x", "CMD", "ENV x", "LABEL a=b c", "!", "ENV a='b"])
def test_what_is_no_change(line: str) -> None:
    with pytest.raises(BadConfig):
        apply_changes({}, [line])
