"""The layout of a guest's architectural state: named words of 32 bits, in order."""

from __future__ import annotations

from collections.abc import Collection


class Word:
    """``count`` consecutive words of the state, of which the first has the number ``index``.

    ``sensitive``: reading it shows in which mode the processor is.
    """

    def __init__(self, name: str, index: int, count: int, meaning: str, sensitive: bool = False) -> None:
        self.name, self.index, self.count = name, index, count
        self.meaning, self.sensitive = meaning, sensitive

    @property
    def offset(self) -> int:
        """The offset in the state, in bytes."""
        return self.index * 4


class StateLayout:
    """The words of the state in order; ``words`` finds one by name. ``size`` is in bytes.

    An entry is a name, a number of words and what they are. ``sensitive`` names those that tell the mode.
    """

    def __init__(self, *entries: tuple[str, int, str], sensitive: Collection[str] = ()) -> None:
        self.words: dict[str, Word] = {}
        index = 0
        for name, count, meaning in entries:
            if name in self.words:
                raise ValueError(f"the state has two words named {name}")
            self.words[name] = Word(name, index, count, meaning, name in sensitive)
            index += count
        self.size = index * 4

    def __getitem__(self, name: str) -> Word:
        return self.words[name]
