"""Would the tests notice what epochs and the dirty log do wrong?"""

from __future__ import annotations

import pytest

from dbt.memory import epochs
from dbt.memory.dirty_log import DirtyLog
from dbt.memory.epochs import Epochs
from tests.memory.modelled_epochs import any_order_of_steps, inner_loop
from tests.mutants.mutant import Mutant, require_noticed

MUTANTS = [
    Mutant(DirtyLog, "note", "first : last + 1].tobytes()", "first : last].tobytes()"),
    Mutant(DirtyLog, "note", "if self.keeps_contents:", "if self.keeps_contents and len(new) < 2:"),
    Mutant(DirtyLog, "_empty", "flags[page] &= ~PAGE_LOGGED", "pass"),
    Mutant(Epochs, "dirty_pages", "span.number >= epoch.start", "span.number > epoch.start"),
    Mutant(Epochs, "dirty_pages", ", *epoch.elsewhere", ""),
    Mutant(Epochs, "settle", "span.number >= oldest", "span.number > oldest"),
    Mutant(Epochs, "settle", "any(", "all("),
    Mutant(Epochs, "_begin_span", "any(", "all("),
    Mutant(Epochs, "roll_back", "epoch.start == self._number and", ""),
    Mutant(Epochs, "roll_back", "and not epoch.elsewhere", ""),
    Mutant(Epochs, "_undo", "epoch.elsewhere or other.start > epoch.start", "other.start > epoch.start"),
    Mutant(Epochs, "_undo", "epoch.elsewhere or other.start > epoch.start", "epoch.elsewhere"),
    Mutant(Epochs, "_undo", "span.number < epoch.start", "True"),
    Mutant(Epochs, "_changes", "reversed(self._spans)", "self._spans"),
    Mutant(Epochs, "_changes", "found.update(epoch.elsewhere)", "pass"),
    Mutant(Epochs, "_set_apart", "own[page] if page in own else self._log.page(page)", "self._log.page(page)"),
    Mutant(Epochs, "_set_apart", "own.keys() | changes.keys()", "own.keys()"),
    Mutant(epochs, "_pairs", "at << PAGE_SHIFT :", "at - 1 << PAGE_SHIFT :"),
]


def _notices() -> bool:
    """Whether the model and the epochs differ for one of some seeds."""
    inner_loop()
    for seed in range(12):
        any_order_of_steps(seed)  # which raises
    return False


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_mutant_is_noticed(mutant: Mutant) -> None:
    require_noticed(mutant, _notices)
