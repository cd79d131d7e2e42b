"""What goes wrong with images. Where docker has a text for it, that is the text."""

from __future__ import annotations

from typing import ClassVar


class ImageError(Exception):
    """Raised for what cannot be done with an image. ``status`` is that of the HTTP answer of Docker's API."""

    status: ClassVar[int] = 500


class InvalidReference(ImageError):
    """Raised for a text that can name no image."""

    status = 400


class InvalidPlatform(ImageError):
    """Raised for a text that names no platform."""

    status = 400


class ImageNotFound(ImageError):
    """Raised for an image that is not in the store."""

    status = 404


class ImageConflict(ImageError):
    """Raised for what other images or containers do not allow."""

    status = 409


class BadConfig(ImageError):
    """Raised for the configuration of an image that is wrong. The text names the field."""

    status = 400


class BadLayer(ImageError):
    """Raised for a layer that is damaged or malicious, or exceeds a limit. The text names the entry."""

    status = 400


class BadArchive(ImageError):
    """Raised for an archive of images that is none."""

    status = 400


class PathError(ImageError):
    """Raised for a path that leads to nothing in an image, or not to what it should."""

    status = 404


class StoreError(ImageError):
    """Raised if the store's directory cannot be used: it is full, damaged, or another process has it."""


class RegistryError(ImageError):
    """Raised if a registry refuses, cannot be reached, or does not tell the truth."""


class PullDenied(RegistryError):
    """Raised for an image that a registry does not have, or does not give to this user."""

    status = 404


class WrongPlatform(RegistryError):
    """Raised for an image of a platform that cannot run here. The text says what to take instead."""

    status = 404
