"""LLVM text by the line: a function under construction."""

from __future__ import annotations


class Function:
    """Collects the lines of one function definition; names are unique within it.

    ``current`` is the label of the block being written. ``emit`` appends an instruction and returns
    the name of its result; ``do`` appends one that has none; ``emit_entry`` puts it at the top of the
    entry block, where allocas belong.
    """

    def __init__(self, header: str) -> None:
        self.header = header
        self.current = "entry"
        self._entry: list[str] = []
        self._lines: list[str] = []
        self._count = 0

    def new_name(self) -> str:
        self._count += 1
        return f"%t{self._count}"

    def new_label(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"

    def emit(self, instruction: str) -> str:
        name = self.new_name()
        self._lines.append(f"  {name} = {instruction}")
        return name

    def emit_entry(self, instruction: str) -> str:
        name = self.new_name()
        self._entry.append(f"  {name} = {instruction}")
        return name

    def do(self, instruction: str) -> None:
        self._lines.append(f"  {instruction}")

    def label(self, name: str) -> None:
        self._lines.append(f"{name}:")
        self.current = name

    def text(self) -> str:
        return "\n".join([f"{self.header} {{", "entry:", *self._entry, *self._lines, "}", ""])
