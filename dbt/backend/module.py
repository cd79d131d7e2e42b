"""An LLVM function under construction, as lines of text."""

from __future__ import annotations


class Function:
    """Collects the lines of one function definition. Names are unique within it.

    ``current`` is the label of the block being written. ``emit`` appends an instruction and returns
    the name of its result; ``do`` appends one that has none; ``emit_entry`` puts it at the top of the
    entry block, where allocas belong. ``origin`` says what the lines that are appended are for.
    """

    def __init__(self, header: str) -> None:
        self.header = header
        self.current = "entry"
        self.origin: object = None
        self._origins: list[object] = []
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
        self._append(f"  {name} = {instruction}")
        return name

    def emit_entry(self, instruction: str) -> str:
        name = self.new_name()
        self._entry.append(f"  {name} = {instruction}")
        return name

    def do(self, instruction: str) -> None:
        self._append(f"  {instruction}")

    def label(self, name: str) -> None:
        self._append(f"{name}:")
        self.current = name

    def _append(self, line: str) -> None:
        self._lines.append(line)
        self._origins.append(self.origin)

    def origins(self) -> list[object]:
        """Return what each line of :meth:`text` is for."""
        return [None, None, *(None for _ in self._entry), *self._origins, None]

    def text(self) -> str:
        return "\n".join([f"{self.header} {{", "entry:", *self._entry, *self._lines, "}", ""])
