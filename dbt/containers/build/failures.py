"""What a build ends with if it cannot be done. The texts are the classic builder's."""

from __future__ import annotations

from dbt.containers.images.errors import ImageError


class BuildFailed(ImageError):
    """Raised if a build cannot go on. ``code`` is the exit code of a program that has failed, or 0."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class BadDockerfile(BuildFailed):
    """Raised for a Dockerfile, or an option, that means nothing."""

    status = 400
