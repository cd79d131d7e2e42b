"""What these tests share."""

from __future__ import annotations

from tests.linux_guests import hot_as_users_have_it

__all__ = ["hot_as_users_have_it"]
