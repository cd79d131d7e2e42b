"""The guests of the repository, as ``guests/manifest.toml`` describes them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

GUESTS = Path(__file__).resolve().parents[1] / "guests"
#: Each guest by its name: its images, arguments, expected output and exit code.
MANIFEST: dict[str, dict[str, Any]] = tomllib.loads((GUESTS / "manifest.toml").read_text())
