"""What `--platform` means, compared with the answers of a dockerd 20.10 that had images for four variants of arm."""

from __future__ import annotations

import pytest

from dbt.containers.images.config import ImageConfig
from dbt.containers.images.errors import ImageNotFound, InvalidPlatform
from dbt.containers.images.platform import check_wanted, parse_platform

#: What is asked for, the variants whose images are taken (``-`` has none), and what others are told was wanted.
_ANSWERS = """
    linux/amd64     |            | linux/amd64
    linux/386       |            | linux/386
    linux/arm       | - v5 v6 v7 |
    linux/arm/v4    | -          | linux/arm/v4
    linux/arm/v5    | - v5       | linux/arm/v5
    linux/arm/v6    | - v5 v6    | linux/arm/v6
    linux/arm/v7    | - v5 v6 v7 |
    linux/arm/v8    | - v5 v6 v7 |
    linux/arm/v9    | - v5 v6 v7 |
    linux/arm/5     | - v5       | linux/arm/v5
    linux/arm/7     | - v5 v6 v7 |
    linux/arm/x     | -          | linux/arm/x
    linux/arm64     | - v5 v6 v7 |
    linux/aarch64   | - v5 v6 v7 |
    linux/arm64/v8  | - v5 v6 v7 |
    arm             | - v5 v6 v7 |
    armel           | - v5 v6    | linux/arm/v6
    armhf           | - v5 v6 v7 |
    linux/armel     | - v5 v6    | linux/arm/v6
    linux/armhf     | - v5 v6 v7 |
    linux/armhf/v5  | - v5 v6 v7 |
    linux/armel/v7  | - v5 v6    | linux/arm/v6
    arm/v5          |            | arm/v5
    amd64           |            | linux/amd64
    windows/amd64   |            | windows/amd64
    windows/arm     |            | windows/arm
    macos/arm       |            | darwin/arm
    linux/ARM       | - v5 v6 v7 |
    Linux/Arm/V5    | - v5       | linux/arm/v5
    linux/x86_64    |            | linux/amd64
    linux/x86-64    |            | linux/amd64
    x86_64          |            | linux/amd64
    i386            |            | linux/386
    aarch64         | - v5 v6 v7 |
    arm64           | - v5 v6 v7 |
    armel/v5        |            | armel/v5
    linux/i686      |            | linux/i686
    ppc64le         |            | linux/ppc64le
    s390x           |            | linux/s390x
    amd64/v2/x      |            | amd64/v2/x
    linux/amd64/v2  |            | linux/amd64/v2
"""
_NONE = {
    "bogus": '"bogus": unknown operating system or architecture',
    "v5": '"v5": unknown operating system or architecture',
    "a/b/c/d": '"a/b/c/d": cannot parse platform specifier',
    "linux/arm/": '"" is an invalid component of "linux/arm/": platform specifier component must match '
    '"^[A-Za-z0-9_-]+$"',
    "linux/é": '"é" is an invalid component of "linux/é": platform specifier component must match "^[A-Za-z0-9_-]+$"',
    "linux\n": r'"linux\n" is an invalid component of "linux\n": platform specifier component must match '
    '"^[A-Za-z0-9_-]+$"',
    'a"b': r'"a\"b" is an invalid component of "a\"b": platform specifier component must match "^[A-Za-z0-9_-]+$"',
}


@pytest.mark.parametrize("line", [line.strip() for line in _ANSWERS.strip().splitlines()])
def test_an_image_is_taken_as_dockerd_takes_it(line: str) -> None:
    text, taken, told = (part.strip() for part in line.split("|"))
    for variant in ("-", "v5", "v6", "v7"):
        config = ImageConfig("arm", "linux", variant.strip("-"))
        actual = "linux/arm" if variant == "-" else f"linux/arm/{variant}"
        if variant in taken.split():
            check_wanted("box:1", config, parse_platform(text))
            continue
        with pytest.raises(ImageNotFound) as caught:
            check_wanted("box:1", config, parse_platform(text))
        assert str(caught.value) == (
            "image with reference box:1 was found but does not match the specified platform: "
            f"wanted {told}, actual: {actual}"
        )


def test_a_system_alone_means_what_runs_here() -> None:
    assert str(parse_platform("linux")) == "linux/arm"
    check_wanted("box", ImageConfig("arm", "linux", "v5"), parse_platform("linux"))
    with pytest.raises(ImageNotFound, match="wanted windows/arm, actual: linux/arm/v5"):
        check_wanted("box", ImageConfig("arm", "linux", "v5"), parse_platform("windows"))


@pytest.mark.parametrize("text", _NONE)
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(InvalidPlatform) as caught:
        parse_platform(text)
    assert str(caught.value) == f"{_NONE[text]}: invalid argument"
