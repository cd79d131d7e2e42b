"""VMs that a killed engine has left and that nobody wants any more."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection

from dbt.hypervisor.process.lease import leases, start_time


def end_orphans(directory: str, wanted: Collection[str]) -> int:
    """End the VMs that have leases in a directory, but for the ``wanted`` ones, by their ids. Return how many.

    A VM of a container that was being removed, of one whose files were read, and of a build are such. Nobody would find
    them later.
    """
    count = 0
    for lease in leases(directory):
        if lease.name in wanted:
            continue
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            pidfd = os.pidfd_open(lease.pid)  # the process that has this number now, which is looked at next
            try:
                if start_time(lease.pid) == lease.started:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    count += 1
            finally:
                os.close(pidfd)
    return count
