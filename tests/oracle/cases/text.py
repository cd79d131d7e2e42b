"""The text form of cases: one per line, ``code ; before => after``.

    adds r0, r1, r2, lsr #32 ; r1=1 r2=0x80000000 => r0=1 nzcv=nzCv   // a comment
    ldrex r0, [r1] | strex r2, r3, [r1] ; r1=0x3000 r3=7 => r0=0xda7a3000 r2=0 [0x3000]=7
    ldr r0, [r1] ; r1=0x8000 => abort

``code``    instructions for Keystone, separated by ``|``; ``.word`` for what it does not know. They
            stand at 0x5000 and run until control leaves them, at most as many as there are.
``before``  what is not mentioned has a recognisable value of its own: R0 to R14 are 0x99000000 + n,
            RAM is [0, 0x8000) and the word at ``a`` is 0xda7a0000 + a, all flags are 0, the mode is
            usr, banked registers are those of :data:`tests.oracle.cases.case.DEFAULT_BANKS`.
``after``   everything that changed: what is not mentioned must be as before, and the PC behind the
            code. The first word may be an exit, which leaves the PC at the last instruction:
            undefined, abort, alignment, svc N, bkpt N, hvc N, smc N, wait, or thumb. The accesses that
            faulted may follow: abort read 0x8000.

Names: ``r0`` ... ``r12 sp lr pc``; ``nzcv=nZcV`` (capital: 1), ``q=1``, ``ge=0b0101``,
``mode=svc``, ``cpsr=`` the whole, ``spsr=`` of the mode before; ``[0x3000]=`` a word of RAM; before:
``sctlr=``; after: ``sp_usr lr_irq r8_fiq spsr_abt`` ... A value is a number as Python writes it, negative ones too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from isa.arm.state import BANKS, PSR_MODE
from tests.oracle.cases.case import (
    CODE,
    DEFAULT_BANKS,
    MODE_NAMES,
    USER_CPSR,
    USER_SPSR,
    Case,
    Outcome,
    bank_name,
    banked_names,
    changed_words,
    default_register,
    overlay_banks,
    word_at,
)

_REGISTERS = {**{f"r{n}": n for n in range(16)}, "sp": 13, "lr": 14, "pc": 15}
_ITEM = re.compile(r"(\[\w+\]|\w+)=(\S+)")
_EXITS_WITH_NUMBER = ("svc", "bkpt", "hvc", "smc")
_EXITS = ("undefined", "abort", "alignment", "thumb", "wait", "unsupported", "prefetchabort", *_EXITS_WITH_NUMBER)
_FLAG_BITS = (("n", 31), ("z", 30), ("c", 29), ("v", 28))


class CaseSyntaxError(ValueError):
    """Raised for a line that is not a case."""


def read_cases(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and text of the cases in a file."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.split("//", maxsplit=1)[0].strip()
        if text:
            yield number, text


def parse(line: str) -> tuple[Case, Outcome]:
    """Return the case and the outcome that the line expects."""
    try:
        text = line.split("//", maxsplit=1)[0]
        code, states = text.rsplit(";", 1)
        before, after = states.split("=>")
    except ValueError:
        raise CaseSyntaxError(f"{line!r} is not of the form 'code ; before => after'") from None
    case = _parse_before(assemble(code), before)
    return case, _parse_after(case, after)


def assemble(code: str) -> tuple[int, ...]:
    """Return the words of ``|``-separated instructions at CODE."""
    literal = [part.strip().removeprefix(".word ") for part in code.split("|")]
    if all(part.startswith("0x") for part in literal):
        return tuple(int(part, 16) for part in literal)
    from keystone import KS_ARCH_ARM, KS_MODE_ARM, Ks, KsError  # 30 ms, and only for assembly

    try:
        encoded, _ = Ks(KS_ARCH_ARM, KS_MODE_ARM).asm(".cpu cortex-a15\n" + code.replace("|", "\n"), CODE, True)
    except KsError as error:
        raise CaseSyntaxError(f"{code.strip()!r}: {error}") from None
    if not encoded:
        raise CaseSyntaxError(f"{code.strip()!r}: Keystone assembles nothing")
    return tuple(int.from_bytes(encoded[i : i + 4], "little") for i in range(0, len(encoded), 4))


# -- reading -----------------------------------------------------------------------------------


def _items(text: str) -> Iterator[tuple[str, str]]:
    for part in text.split():
        match = _ITEM.fullmatch(part)
        if match is None:
            raise CaseSyntaxError(f"cannot read {part!r}")
        yield match[1], match[2]


def _number(text: str) -> int:
    return int(text, 0) & 0xFFFFFFFF


def _change_cpsr(cpsr: int, name: str, value: str) -> int | None:
    """Return the CPSR with one of its parts changed, or None if ``name`` is not a part of it."""
    match name:
        case "cpsr":
            return _number(value)
        case "mode":
            return cpsr & ~PSR_MODE | MODE_NAMES[value]
        case "q":
            return cpsr & ~(1 << 27) | int(value) << 27
        case "ge":
            return cpsr & ~(15 << 16) | _number(value) << 16
        case "nzcv":
            if value.lower() != "nzcv":
                raise CaseSyntaxError(f"nzcv={value}: write all four letters, capitals for 1")
            for (flag, bit), letter in zip(_FLAG_BITS, value, strict=True):
                cpsr = cpsr & ~(1 << bit) | (letter != flag) << bit
            return cpsr
    return None


def _parse_before(code: tuple[int, ...], text: str) -> Case:
    registers = [default_register(n) for n in range(15)]
    cpsr, spsr, sctlr = USER_CPSR, USER_SPSR, 0
    memory: list[tuple[int, int]] = []
    for name, value in _items(text):
        changed = _change_cpsr(cpsr, name, value)
        if changed is not None:
            cpsr = changed
        elif name == "spsr":
            spsr = _number(value)
        elif name == "sctlr":
            sctlr = _number(value)
        elif name.startswith("["):
            memory.append((_number(name[1:-1]), _number(value)))
        elif _REGISTERS.get(name, 15) < 15:
            registers[_REGISTERS[name]] = _number(value)
        else:
            raise CaseSyntaxError(f"{name} cannot be set before the run")
    return Case(code, tuple(registers), cpsr, spsr, tuple(memory), sctlr)


def _parse_exit(words: list[str]) -> tuple[str, str]:
    """Take the exit and the fault, if there are any, off the front of ``words``."""
    if not words or words[0] not in _EXITS:
        return "ok", ""
    end = words.pop(0)
    if end in _EXITS_WITH_NUMBER:
        return f"{end} {_number(words.pop(0)):#x}", ""
    if end in ("abort", "alignment") and words and words[0] in ("read", "write"):
        return end, f"{words.pop(0)} {_number(words.pop(0)):#x}"
    return end, ""


def _parse_after(case: Case, text: str) -> Outcome:
    words = text.split()
    end, fault = _parse_exit(words)
    cpsr, banks, ram = case.cpsr, case.banks(), case.ram()
    for name, value in _items(" ".join(words)):
        cpsr = changed if (changed := _change_cpsr(cpsr, name, value)) is not None else cpsr
    registers = [*case.registers, case.code_end if end in ("ok", "thumb") else case.code_end - 4]
    if cpsr & PSR_MODE != case.mode:
        for number, name in banked_names(cpsr & PSR_MODE):
            registers[number] = banks[name]
    for name, value in _items(" ".join(words)):
        if name in _REGISTERS:
            registers[_REGISTERS[name]] = _number(value)
        elif name.startswith("["):
            gpa = _number(name[1:-1])
            ram[gpa : gpa + 4] = _number(value).to_bytes(4, "little")
        elif name == "spsr":
            banks[f"spsr_{bank_name(case.mode)}"] = _number(value)
        elif name in DEFAULT_BANKS:
            banks[name] = _number(value)
        elif _change_cpsr(cpsr, name, value) is None:
            raise CaseSyntaxError(f"cannot read {name}={value}")
    shown = overlay_banks(banks, registers, cpsr & PSR_MODE) if case.privileged else None
    return Outcome(end, tuple(registers), cpsr, bytes(ram), shown, fault)


# -- writing -----------------------------------------------------------------------------------


def format_case(case: Case, outcome: Outcome) -> str:
    """Return the line that :func:`parse` reads back as this case and this outcome."""
    code = " | ".join(f".word {word:#010x}" for word in case.code)
    before = [
        *_cpsr_items(USER_CPSR, case.cpsr),
        *(f"r{n}={value:#x}" for n, value in enumerate(case.registers) if value != default_register(n)),
        *([f"spsr={case.spsr:#x}"] if case.spsr != USER_SPSR and BANKS[case.mode] else []),
        *([f"sctlr={case.sctlr:#x}"] if case.sctlr else []),
        *(f"[{gpa:#x}]={word:#x}" for gpa, word in case.memory),
    ]
    end = f"{outcome.end} {outcome.fault}".rstrip()
    after = [*([end] if end != "ok" else []), *_cpsr_items(case.cpsr, outcome.cpsr)]
    expected = _parse_after(case, " ".join(after))
    ram = case.ram()
    after += [f"r{n}={outcome.registers[n]:#x}" for n in range(16) if outcome.registers[n] != expected.registers[n]]
    after += [f"[{gpa:#x}]={word_at(outcome.memory, gpa):#x}" for gpa in changed_words(ram, outcome.memory)]
    expected = _parse_after(case, " ".join(after))
    if outcome.banks is not None and expected.banks is not None:
        after += [f"{n}={value:#x}" for n, value in outcome.banks.items() if expected.banks[n] != value]
    return f"{code} ; {' '.join(before)} => {' '.join(after)}"


def _cpsr_items(before: int, after: int) -> Iterator[str]:
    """Yield the parts in which two CPSRs differ."""
    if (before ^ after) & ~(0xF80F0000 | PSR_MODE):
        yield f"cpsr={after:#x}"
        return
    if (before ^ after) >> 28:
        yield "nzcv=" + "".join(f.upper() if after >> bit & 1 else f for f, bit in _FLAG_BITS)
    if (before ^ after) & 1 << 27:
        yield f"q={after >> 27 & 1}"
    if (before ^ after) & 15 << 16:
        yield f"ge={after >> 16 & 15:#06b}"
    if (before ^ after) & PSR_MODE:
        yield "mode=" + next(name for name, mode in MODE_NAMES.items() if mode == after & PSR_MODE)


def disassemble(code: tuple[int, ...]) -> str:
    """Return the code as a human reads it, for the comment behind a line."""
    import capstone  # 70 ms, and only for failures

    engine = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_ARM)
    texts = []
    for n, word in enumerate(code):
        insns = list(engine.disasm(word.to_bytes(4, "little"), CODE + 4 * n))
        texts.append(f"{insns[0].mnemonic} {insns[0].op_str}".strip() if insns else f"? {word:#010x}")
    return " | ".join(texts)
