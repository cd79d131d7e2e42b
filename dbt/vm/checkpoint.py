"""Checkpoints: returning a machine to an earlier point of its run, in place and within microseconds.

Only the pages of RAM that were written since are written back (:mod:`dbt.memory.epochs`). Decoded and compiled code
stays, but for what was made from words that change. All other state is kept in a form that is put back without being
checked, because it goes back into the same objects.
"""

from __future__ import annotations

from dbt.memory.closing import Closing
from dbt.vm.parts import Parts


class CheckpointError(RuntimeError):
    """Raised if a machine cannot be rolled back to a checkpoint. Nothing has changed then."""


class Checkpoint(Closing):
    """A point of a machine's run, to which it returns any number of times: see
    :meth:`dbt.vm.controlled_machine.ControlledMachine.rollback`.

    ``icount`` is the number of instructions that had retired. While a checkpoint is open, the first store to each page
    of RAM copies the page, and files that the guest has open stay open. :meth:`close`, or the end of a ``with`` block,
    gives both up.
    """

    def __init__(self, parts: Parts) -> None:
        """Begin it. Raise CheckpointError if the guest writes to a disk. Precondition: the machine is not running."""
        if written := parts.attachments.written_files:
            raise CheckpointError(
                f"the guest writes to the disk {written[0]} itself, which cannot go back: "
                "give it the disk with `snapshot`"
            )
        self._parts = parts
        self._board = parts.peripherals.board
        self.icount = parts.vcpu.icount
        self._input = parts.port.keep()
        self._handles = parts.semihosting.keep()
        self._vcpu, self._devices = parts.vcpu.keep(), self._board.keep()
        self._ended, self._proved = parts.loop.ended, parts.storm.proved
        self._epoch = parts.memory.begin_epoch(keeps_contents=True)

    @property
    def journal_position(self) -> int:
        """Where the machine stood in its journal of the host's files (:mod:`dbt.host.journal`)."""
        return self._handles.journal_position

    def dirty_pages(self) -> list[int]:
        """Return the numbers of the pages of RAM that may differ from what they held at this point, in order.

        A page has 4096 bytes, and number 0 is that of GPA 0. Raise CheckpointError if the checkpoint is closed.
        """
        self._check_open()
        return self._epoch.dirty_pages()

    def roll_back(self, parts: Parts) -> None:
        """Return the machine with these parts to this point. Raise CheckpointError if it is another machine, or if it
        has been reset.
        """
        self._check_open()
        if parts is not self._parts:
            raise CheckpointError("this checkpoint belongs to another machine")
        if parts.peripherals.board is not self._board:
            raise CheckpointError("the machine has been reset since this checkpoint, so it cannot be rolled back to it")
        self._input()  # which may refuse
        parts.memory.roll_back(self._epoch)
        self._vcpu()
        self._devices()
        self._handles.put_back()
        parts.loop.ended = self._ended
        parts.storm.restore(self._proved)

    def _check_open(self) -> None:
        if self._epoch.is_closed:
            raise CheckpointError("this checkpoint has been closed: make another one")

    def close(self) -> None:
        """Give up what is kept for the checkpoint. A second call does nothing."""
        self._epoch.close()
        self._handles.close()
