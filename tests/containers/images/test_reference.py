"""Names of images. The cases of the grammar are those of the distribution project's description of it."""

from __future__ import annotations

import pytest

from dbt.containers.images.config import read_config
from dbt.containers.images.errors import BadConfig, InvalidReference
from dbt.containers.images.image import Image
from dbt.containers.images.reference import Reference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full", "shown"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("arm32v5/debian", "docker.io/arm32v5/debian", "arm32v5/debian"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/a/b:c", "docker.io/a/b:c", "a/b:c"),
        ("localhost/a", "localhost/a", "localhost/a"),
        ("localhost:5000/a:b", "localhost:5000/a:b", "localhost:5000/a:b"),
        ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
        ("registry.example/a__b/c.d-e--f", "registry.example/a__b/c.d-e--f", "registry.example/a__b/c.d-e--f"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}", f"busybox@{DIGEST}"),
        (f"h:1/a:t@{DIGEST}", f"h:1/a:t@{DIGEST}", f"h:1/a:t@{DIGEST}"),
        ("UPPER/a", "UPPER/a", "UPPER/a"),
    ],
)
def test_names(text: str, full: str, shown: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == full
    assert reference.familiar == shown
    assert Reference.parse(full) == reference == Reference.parse(shown)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ":tag",
            "a:",
            "a::b",
            "Uppercase",
            "a/Upper",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a//b",
            "/a",
            "a/",
            "a b",
            "a\n",
        ),
        *("a@", "a@sha256:12", "a@md5:" + "0" * 32, "a:" + "b" * 129, "0" * 64, "a" * 256, "x.y/" + "a" * 252),
        *("../a", "a/../b", "http://a/b", "a:b:c", "é", "a:é", "host:port/a", "-h.x/a", "a?b=c", "a#b", "a%2fb"),
    ],
)
def test_what_names_nothing(text: str) -> None:
    with pytest.raises(InvalidReference):
        Reference.parse(text)


def test_the_default_tag() -> None:
    assert Reference.parse("a").with_default_tag().familiar == "a:latest"
    assert Reference.parse("a:b").with_default_tag().familiar == "a:b"
    assert Reference.parse(f"a@{DIGEST}").with_default_tag().tag is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"config": {"Env": "A=1"}}', "config.Env"),
        ('{"rootfs": {"type": "layers", "diff_ids": ["sha256:../../etc/passwd"]}}', "rootfs.diff_ids"),
        ('{"architecture": 5}', "architecture"),
        ("[]", "the image's configuration is wrong"),
        ("{", "no JSON"),
        ("[" * 100_000, "is"),
    ],
)
def test_a_wrong_configuration(text: str, place: str) -> None:
    with pytest.raises(BadConfig, match=place.replace(".", r"\.")):
        read_config(text.encode())


@pytest.mark.parametrize(
    ("created", "seconds"),
    [
        ("2023-04-05T06:07:08.123456789Z", 1680674828),
        ("2023-04-05T06:07:08+02:00", 1680667628),
        ("not a time", -62135596800),
        (None, -62135596800),
    ],
)
def test_when_an_image_was_made(created: str | None, seconds: int) -> None:
    text = b"{}" if created is None else b'{"created": "%s"}' % created.encode()
    assert Image("sha256:" + "0" * 64, read_config(text), ()).created_seconds == seconds
