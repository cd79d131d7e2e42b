"""What a registry has under a name, without pulling it: GET /distribution/NAME/json of docker's API."""

from __future__ import annotations

from typing import Any

from dbt.containers.images.config import MOST_BYTES, read_config
from dbt.containers.images.platform import Platform
from dbt.containers.images.reference import Reference
from dbt.containers.images.registry.blobs import read_small
from dbt.containers.images.registry.client import RegistryClient
from dbt.containers.images.registry.failures import Refusal, pull_failure
from dbt.containers.images.registry.manifests import Index
from dbt.containers.images.registry.pull import manifest_of


async def described(client: RegistryClient, reference: Reference) -> dict[str, Any]:
    """Return docker's description of what a name with a tag or digest stands for. Raise ImageError."""
    name = reference.digest or reference.tag
    assert name is not None
    try:
        found = await manifest_of(client, reference.path, name, reference.digest)
    except Refusal as error:
        raise pull_failure(error, reference) from None
    if isinstance(found.manifest, Index):
        platforms = found.manifest.platforms()
    else:
        config = read_config(await read_small(client, reference.path, found.manifest.config, MOST_BYTES))
        platforms = [Platform(config.os, config.architecture, config.variant)]
    return {
        "Descriptor": {"mediaType": found.media_type, "digest": found.digest, "size": found.size},
        "Platforms": [_json(platform) for platform in platforms],
    }


def _json(platform: Platform) -> dict[str, str]:
    variant = {"variant": platform.variant} if platform.variant else {}
    return {"architecture": platform.architecture, "os": platform.os, **variant}
