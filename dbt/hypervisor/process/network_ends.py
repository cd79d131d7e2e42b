"""Connections of network cards for a jailed process, which cannot make any by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dbt.host.net_option import NOWHERE
from dbt.host.network import adopt_end, open_end
from dbt.hypervisor.process import messages as say
from dbt.hypervisor.threads import silent

if TYPE_CHECKING:
    from dbt.host.net_option import Net
    from dbt.host.network import Handover, NetworkEnd


@contextmanager
def opened(
    nets: Sequence[Net], handed: Sequence[Handover | None]
) -> Iterator[tuple[list[say.NetworkEnd | None], list[int]]]:
    """Give the ends of network cards, and descriptors that come along with the message that has them: what was
    ``handed`` over, which is looked at here, and for other networks that reach outside new connections. All are closed
    here afterwards. Raise NetworkError if there is no connection, or what was handed over is none.
    """
    given = dict(enumerate(handed))
    made: list[NetworkEnd] = []
    try:
        ends: list[say.NetworkEnd | None] = []
        files: list[int] = []
        for card, net in enumerate(nets):
            one = given.pop(card, None)
            if one is not None and net.end == NOWHERE:  # what the other side had is given up
                os.close(one.descriptor)
                ends.append(None)
                continue
            if one is not None:
                made.append(adopt_end(net, one, silent))
            elif net.reaches_outside:
                made.append(open_end(net, silent))
            else:
                ends.append(None)
                continue
            end = made[-1].hand_over()
            ends.append(None if end is None else say.NetworkEnd(end.received, end.waiting))
            files += [] if end is None else [end.descriptor]
        yield ends, files
    finally:
        for connection in made:
            connection.close()
        for unused in given.values():
            if unused is not None:
                os.close(unused.descriptor)
