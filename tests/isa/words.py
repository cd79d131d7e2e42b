"""Every form of every instruction, and random words of it."""

from __future__ import annotations

import random

from isa.arm.a32 import REGISTRY
from isa.ir.registry import Form, Insn

#: Words of each form, with random free fields.
WORDS = 4


def words_of(insn: Insn, form: Form) -> list[int]:
    rng = random.Random(f"{insn.pattern.text} {form}")
    holes = form.excluded | insn.pattern.excluded

    def word() -> int:
        fields = {}
        for name, field in insn.pattern.fields.items():
            values = [v for v in (rng.randrange(1 << field.width) for _ in range(20)) if (name, v) not in holes]
            fields[name] = form.fixed.get(name, values[0])
        return insn.pattern.encode(fields)

    return [word() for _ in range(WORDS)]


FORMS = [(insn, form) for insn in REGISTRY for form in insn.forms()]
