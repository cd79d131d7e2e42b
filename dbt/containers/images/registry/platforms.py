"""Which images can run here: linux/arm/v5, which is ARM state with floating point in software."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dbt.containers.images.errors import WrongPlatform
from dbt.containers.images.image import Layer
from dbt.containers.images.platform import Platform, parse_platform
from dbt.containers.images.reference import DEFAULT_DOMAIN, Reference
from dbt.containers.images.view import FilesView

#: The variants, the best one first. "docker import" names none. What is for v6 has hard floating point in most cases,
#: which is seen when it is here.
_VARIANTS: Final = ("v5", "", "v6")
#: The loaders of programs with hard floating point, of glibc and of musl.
_LOADERS: Final = ("/lib/ld-linux-armhf.so.3", "/lib/ld-musl-armhf.so.1")
_HARD_FLOAT: Final = "needs a floating point unit"
OURS: Final = Platform("linux", "arm", "v5")


def read_platform(text: str) -> Platform:
    """Return the platform that a user asks for. An empty text is ours.

    Raise WrongPlatform for what cannot run here, and InvalidPlatform for what is none.
    """
    if not text:
        return OURS
    found = parse_platform(f"{OURS.os}/{text}" if text.lower().startswith("arm/") else text)
    if rank(found) is None:
        raise WrongPlatform(f"images of {text[:64]} cannot run here, those of {OURS} can")
    return found


def rank(platform: Platform) -> int | None:
    """Return how well images of a platform run here, 0 is best, or None if they do not."""
    if (platform.os, platform.architecture) != (OURS.os, OURS.architecture) or platform.variant not in _VARIANTS:
        return None
    return _VARIANTS.index(platform.variant)


def refusal(reference: Reference, offered: list[Platform]) -> WrongPlatform:
    """Return why none of the platforms of an image will do, and what to take instead."""
    arm = [platform for platform in offered if platform[:2] == OURS[:2]]
    listed = ", ".join(dict.fromkeys(str(platform) for platform in (arm or offered)[:8])) or "none"
    text = f"no matching manifest for {OURS} in the manifest list entries: {reference.familiar} is for {listed}"
    if arm:
        text += f". An armhf image ({arm[0]}) {_HARD_FLOAT}, which this processor does not have"
    return WrongPlatform(f"{text}{_instead(reference)}")


def check_platform(reference: Reference, platform: Platform) -> None:
    """Raise WrongPlatform for an image that cannot run here, with what to take instead."""
    if rank(platform) is not None:
        return
    text = f"{reference.familiar} is an image for {platform or 'no platform'}, and {OURS} is what runs here"
    if platform[:2] == OURS[:2]:
        text += f": armhf {_HARD_FLOAT}, which this processor does not have"
    raise WrongPlatform(f"{text}{_instead(reference)}")


def check_soft_float(reference: Reference, layers: Sequence[Layer]) -> None:
    """Raise WrongPlatform for an image with programs that have hard floating point, whatever platform it says."""
    with FilesView(layers) as files:
        for loader in _LOADERS:
            if files.exists(loader):
                text = f"{reference.familiar} has {loader}: its programs are of armhf, which {_HARD_FLOAT}"
                raise WrongPlatform(f"{text}, which this processor does not have{_instead(reference)}")


def _instead(reference: Reference) -> str:
    """Return what to take, for images that Docker's library has for each platform in a repository of its own."""
    if reference.domain == DEFAULT_DOMAIN and reference.path.startswith("library/"):
        name = reference.familiar_repository
        return f"; take arm32v5/{name}{':' + reference.tag if reference.tag else ''} instead, if there is one"
    return "; take one that is made for armel, such as those in arm32v5/ of Docker Hub"
