"""Tests with a short form for each change, and a long one of the same kind for now and then: ``make long``."""

from __future__ import annotations

import os
from typing import Final

import pytest

#: True if the long forms are wanted, by DBT_LONG_TESTS.
LONG: Final = bool(os.environ.get("DBT_LONG_TESTS"))
long_only: Final = pytest.mark.skipif(not LONG, reason="takes minutes: make long")
