"""The records of a program as lines of text: ``step => event, what it changed``.

Register values are written symbolically: ``sp_irq`` is the value of that register at the beginning of the step, and
``code+8`` is an address within the step.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from tests.oracle.privileged import layout
from tests.oracle.privileged.layout import HIGH, KINDS, MODES, OTHER, RECORD_WORDS
from tests.oracle.privileged.program import Program, Step, banked, code_bytes

Result = dict[str, str]
_MODE_NAMES = {int(number): name for name, number in MODES.items()}


def describe_psr(psr: int) -> str:
    """Return a PSR as ``ZC,IF,svc``, with further bits in hexadecimal."""
    flags = "".join(name for name, bit in zip("NZCVQ", range(31, 26, -1), strict=True) if psr >> bit & 1)
    masks = "".join(name for name, bit in zip("EAIFT", range(9, 4, -1), strict=True) if psr >> bit & 1)
    mode = _MODE_NAMES.get(psr & 0x1F, f"{psr & 0x1F:#x}")
    rest = psr & 0x07FFFC00
    return f"{flags or '-'},{masks or '-'},{mode}" + (f",{rest:#x}" if rest else "")


class Reader:
    """Reads the records of ``program``, of which there may be too few."""

    def __init__(self, program: Program, data: bytes) -> None:
        self.program = program
        self._words = struct.unpack(f"<{len(data) // 4}I", data[: len(data) & ~3])

    def results(self) -> Iterator[tuple[Step, Result]]:
        place = 0
        for step, address in zip(self.program.steps, self.program.addresses(), strict=True):
            names = [*RECORD_WORDS, *step.watch]
            if place + len(names) > len(self._words):
                return
            values = self._words[place : place + len(names)]
            place += len(names)
            yield step, self._result(step, address, dict(zip(names, values, strict=True)))

    def _result(self, step: Step, address: int, words: Mapping[str, int]) -> Result:
        """Return the fields of the line, in order."""
        initial = step.initial(self.program.cpu)
        symbols = {value: name for name, value in layout.template(self.program.cpu).items() if value >> 16 == 0x5EED}
        end = address + len(code_bytes(step.code)) + 16

        def describe(value: int) -> str:
            if address <= value <= end:
                return f"code+{value - address}"
            return symbols.get(value, f"{value:#x}")

        mode = _MODE_NAMES.get(words["cpsr"] & 0x1F, "usr")
        result = {"event": _kind(words["kind"]), "cpsr": describe_psr(words["cpsr"])}
        unknown = ("lr_svc", "spsr_svc") if mode == "usr" else ()  # lost on the way out of user mode
        for name in (*layout.VISIBLE[:8], *layout.BANKS):
            if words[name] != initial[name] and name not in unknown:
                result[name] = describe_psr(words[name]) if name.startswith("spsr") else describe(words[name])
        for name in layout.VISIBLE[8:15]:  # the values that the step saw, if they differ from the banked ones
            if words[name] != words[banked(name, mode)]:
                result[name] = describe(words[name])
        for name in ("dfsr", "dfar", "ifsr", "ifar"):
            if words[name] != initial[name]:
                result[name] = describe(words[name])
        poked = dict(step.pokes)
        changed = {name: words[name] for name, place in step.watch.items() if words[name] != poked.get(place, 0)}
        return result | {name: describe(value) for name, value in changed.items()}


def _kind(number: int) -> str:
    base = min(number & 0xF, len(KINDS) - 1)
    suffix = {0: "", HIGH: " (high)", OTHER: " (VBAR)"}.get(number & 0xFFFFFFF0, f" {number:#x}")
    return KINDS[base] + suffix


def text(result: Result) -> str:
    return f"{result['event']}: " + " ".join(f"{name}={value}" for name, value in result.items() if name != "event")


def line(step: Step, result: Result) -> str:
    return f"{step.name} => {text(result)}"


def parse(lines: str) -> dict[str, Result]:
    """Return the results by the names of their steps."""
    found = {}
    for entry in lines.splitlines():
        name, _, rest = entry.partition(" => ")
        event, _, fields = rest.partition(": ")
        found[name] = {"event": event} | dict(field.split("=", 1) for field in fields.split())
    return found
