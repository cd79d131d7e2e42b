"""Steps, programs made of steps, and the images that run them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.assembler import assemble
from tests.oracle.privileged import layout, runner, tables
from tests.oracle.privileged.layout import CODE, CPUS, EXCEPTION_MODES, MODES, STATE, STATE_WORDS, Cpu

PSR_F, PSR_I, PSR_A = 1 << 6, 1 << 7, 1 << 8
_LOAD_PC = 0xE51FF004  # ldr pc, [pc, #-4]
_PADDING = 0xE7F000F0  # udf #0
_MOV_NOTHING = 0xE1A00000


@dataclass(frozen=True)
class Step:
    """A step, whose ``code`` is assembly.

    The code is executed in ``mode`` with ``masks`` and ``flags`` in the CPSR and R0 to R14 of the template. ``state``
    changes words of the state: registers of the mode by their names, banked ones as in ``sp_irq``, and those of CP15.
    ``pokes`` are stores that are made before it, with the MMU off. ``watch`` are words that are recorded after it.
    """

    name: str
    code: str
    mode: str = "svc"
    masks: int = PSR_I | PSR_F
    flags: int = 0
    state: Mapping[str, int] = field(default_factory=dict)
    pokes: Sequence[tuple[int, int]] = ()
    watch: Mapping[str, int] = field(default_factory=dict)

    def initial(self, cpu: Cpu) -> dict[str, int]:
        """Return every word of the state block except the PC."""
        words = layout.template(cpu)
        for name, value in self.state.items():
            words[banked(name, self.mode)] = value & 0xFFFFFFFF
        words |= {visible: words[banked(visible, self.mode)] for visible in layout.VISIBLE[8:15]}
        return words | {"cpsr": MODES[self.mode] | self.masks | self.flags}


def banked(name: str, mode: str) -> str:
    """Return the name of a register of ``mode`` in layout.template: ``sp`` as ``sp_irq``."""
    bank = "usr" if mode == "sys" else mode
    name = {"r13": "sp", "r14": "lr"}.get(name, name)
    if name in ("r8", "r9", "r10", "r11", "r12"):
        return f"{name}_{'fiq' if mode == 'fiq' else 'usr'}"
    if name == "spsr":
        assert mode in EXCEPTION_MODES
    return f"{name}_{bank}" if name in ("sp", "lr", "spsr") else name


@dataclass(frozen=True)
class Program:
    name: str
    cpu: Cpu
    steps: Sequence[Step]

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        assert len(set(names)) == len(names), next(name for name in names if names.count(name) > 1)

    def addresses(self) -> list[int]:
        """Return where the code of each step is."""
        addresses, address = [], CODE + 4
        for step in self.steps:
            addresses.append(address)
            address += len(code_bytes(step.code)) + 20
        assert address <= layout.STEPS
        return addresses

    def image(self) -> bytes:
        """Return a flat binary to be loaded and entered at 0."""
        image = bytearray(layout.RESULTS)
        for address, piece in runner.pieces(self.cpu).items():
            image[address : address + len(piece)] = piece
        initial = layout.template(self.cpu)
        initial |= {f"r{n}": initial[f"r{n}_usr"] for n in range(8, 13)}
        initial |= {"r13": initial["sp_svc"], "r14": initial["lr_svc"], "cpsr": 0xD3}
        _put(image, layout.TEMPLATE, *(initial.get(name, 0) for name in STATE_WORDS))
        _put(image, layout.STEP, layout.STEPS, layout.RESULTS, 0)
        for address, word in tables.memory(self.cpu).items():
            _put(image, address, word)
        stream: list[int] = []
        for step, address in zip(self.steps, self.addresses(), strict=True):
            code = code_bytes(step.code)
            image[address : address + len(code)] = code
            _put(image, address - 4, runner.MOV_PC_R3)
            # Two instructions for returns that skip one, and a word that QEMU may translate ahead.
            _put(image, address + len(code), _LOAD_PC, runner.stub(layout.END), _PADDING)
            stream += self._describe(step, address, initial)
        stream.append(0xFFFFFFFF)
        assert layout.STEPS + 4 * len(stream) <= layout.FRAMES
        _put(image, layout.STEPS, *stream)
        # The reset vector is where the image is entered.
        _put(image, 0, 0xEA000000 | (layout.RUNNER - 8) // 4)
        return bytes(image)

    def _describe(self, step: Step, address: int, default: Mapping[str, int]) -> list[int]:
        state = step.initial(self.cpu) | {"r15": address}
        pokes = list(step.pokes)
        pokes += [
            (STATE + 4 * n, state[name]) for n, name in enumerate(STATE_WORDS) if state[name] != default.get(name)
        ]
        flat = [word for poke in pokes for word in poke]
        return [len(pokes), *flat, len(step.watch), *step.watch.values()]


def code_bytes(code: str) -> bytes:
    return assemble(code) if code else b""


def _put(image: bytearray, address: int, *words: int) -> None:
    struct.pack_into(f"<{len(words)}I", image, address, *words)


__all__ = ["CPUS", "PSR_A", "PSR_F", "PSR_I", "Program", "Step"]
