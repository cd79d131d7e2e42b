"""Instructions that change a configuration, with what docker makes of them."""

from __future__ import annotations

from typing import Any

import pytest

from dbt.containers.images.changes import apply_changes, split_words
from dbt.containers.images.errors import BadConfig


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ('CMD ["cat", "/file"]', {"Cmd": ["cat", "/file"]}),
        ("cmd echo $HOME", {"Cmd": ["/bin/sh", "-c", "echo $HOME"]}),
        ("ENTRYPOINT [not json]", {"Entrypoint": ["/bin/sh", "-c", "[not json]"]}),
        ("ENV A=1 B='two words' C=\"x y\"\\ z", {"Env": ["OLD=1", "A=1", "B=two words", "C=x y z"]}),
        ("ENV OLD 2  3", {"Env": ["OLD=2  3"]}),
        ("LABEL one=two three=", {"Labels": {"one": "two", "three": ""}}),
        ("EXPOSE 80 53/udp", {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}),
        ("EXPOSE 8000-8001", {"ExposedPorts": {"8000/tcp": {}, "8001/tcp": {}}}),
        ('VOLUME ["/a b"]', {"Volumes": {"/a b": {}}}),
        ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
        ("USER 1:2", {"User": "1:2"}),
        ("WORKDIR /a/./b/../c", {"WorkingDir": "/a/c"}),
        ("WORKDIR relative", {"WorkingDir": "/work/relative"}),
        ("ONBUILD RUN true", {"OnBuild": ["RUN true"]}),
        ("STOPSIGNAL SIGUSR1", {"StopSignal": "SIGUSR1"}),
        ('SHELL ["/bin/bash", "-c"]', {"Shell": ["/bin/bash", "-c"]}),
        ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
        (
            "HEALTHCHECK --interval=1m30s --retries=2 CMD test -e /well",
            {"Healthcheck": {"Interval": 90 * 10**9, "Retries": 2, "Test": ["CMD-SHELL", "test -e /well"]}},
        ),
    ],
)
def test_each_instruction_changes_its_field(change: str, expected: dict[str, Any]) -> None:
    before = {"Env": ["OLD=1"], "WorkingDir": "/work"}
    assert apply_changes(before, [change]) == {**before, **expected}
    assert before == {"Env": ["OLD=1"], "WorkingDir": "/work"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("RUN true", "run is not a valid change command"),
        ("", "an empty line is not a valid change command"),
        ("CMD", "CMD requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=1 B", "Syntax error - can't find = in 'B'. Must be of the form: name=value"),
        ("LABEL a='b", "unexpected end of statement while looking for matching '"),
        ("EXPOSE nonsense", "invalid containerPort: nonsense"),
        ("EXPOSE 70000", "invalid containerPort: 70000"),
        ("ONBUILD ONBUILD RUN true", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("HEALTHCHECK --interval=soon CMD true", 'time: invalid duration "soon"'),
        ("HEALTHCHECK maybe", 'Unknown type "MAYBE" in HEALTHCHECK (try CMD)'),
        ("SHELL bash", "SHELL requires the arguments to be in JSON form"),
    ],
)
def test_what_is_wrong_is_named(change: str, text: str) -> None:
    with pytest.raises(BadConfig) as caught:
        apply_changes({}, [change])
    assert str(caught.value) == text


def test_a_shell_is_that_of_the_commands_after_it() -> None:
    found = apply_changes({}, ['SHELL ["/bin/bash", "-c"]', "CMD echo"])
    assert found["Cmd"] == ["/bin/bash", "-c", "echo"]


def test_words_keep_what_is_quoted() -> None:
    assert split_words("a 'b c' \"d\\\"e\" '' f\\ g") == ["a", "b c", 'd"e', "", "f g"]


def test_a_change_may_have_several_lines() -> None:
    assert apply_changes({}, ["USER ann\n\nCMD echo"]) == {"User": "ann", "Cmd": ["/bin/sh", "-c", "echo"]}
