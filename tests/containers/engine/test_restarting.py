"""Which containers are started again when the engine is, as by dockerd."""

from __future__ import annotations

import pytest

from dbt.containers.engine.config import RestartPolicy
from dbt.containers.engine.restarting import Restarts


@pytest.mark.parametrize(
    ("policy", "stopped_by_user", "restarts", "code", "starts"),
    [
        (RestartPolicy("no"), False, 0, 1, False),
        (RestartPolicy("always"), True, 0, 0, True),
        (RestartPolicy("unless-stopped"), True, 0, 0, False),
        (RestartPolicy("unless-stopped"), False, 0, 0, True),
        (RestartPolicy("on-failure"), False, 0, 0, False),
        (RestartPolicy("on-failure"), False, 7, 255, True),
        (RestartPolicy("on-failure"), True, 0, 255, False),
        (RestartPolicy("on-failure", 2), False, 1, 4, True),
        (RestartPolicy("on-failure", 2), False, 2, 4, False),
    ],
)
def test_what_runs_again(policy: RestartPolicy, stopped_by_user: bool, restarts: int, code: int, starts: bool) -> None:
    assert Restarts.at_begin(policy, stopped_by_user, restarts, code) is starts
