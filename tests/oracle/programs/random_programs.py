"""Random programs that end: loops, calls, recursion, computed jumps, switches, literals, flags that live long,
faults, devices, code and constants that change.

R0 to R7 are data; R8 points to data, R9 and R12 are scratch, R10 and R11 count loops.
"""

from __future__ import annotations

from random import Random

CONDITIONS = ("eq", "ne", "cs", "cc", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le")
FUNCTIONS = 4
RECURSIVE = 3
DATA = 0x10000


class ProgramWriter:
    """Writes one program; the same seed writes the same one."""

    def __init__(self, seed: int | str) -> None:
        self._random = Random(seed)
        self._lines: list[str] = []
        self._labels = 0
        self._literals: list[tuple[str, str]] = []  # to be written where control does not come: label, value
        self._items = (
            *[self._alu] * 6, *[self._flags] * 4, *[self._media] * 3, *[self._load] * 3, *[self._store] * 3,
            self._block_transfer, *[self._skip] * 3, self._loop, *[self._call] * 2, self._table,
            self._add_pc, self._patch, self._fault,
            self._device, self._status, self._exclusive, self._thumb, self._condition_holds_late,
            *[self._flag_loop] * 2, *[self._flags_meet] * 2, self._recurse, self._switch, self._call_one_of,
            *[self._literal] * 2, self._literal_jump, *[self._digits] * 2,
        )  # fmt: skip

    def write(self) -> str:
        random = self._random
        for number in range(8):
            value = random.choice((0, 1, 0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, random.getrandbits(32)))
            self._say(f"movw r{number}, #{value & 0xFFFF}")
            self._say(f"movt r{number}, #{value >> 16}")
        self._say(f"movw r8, #{DATA & 0xFFFF}", f"movt r8, #{DATA >> 16}")
        self._say(f"mov r11, #{random.randrange(40, 120)}", "main:")
        self._body(random.randrange(16, 48), calls=FUNCTIONS, depth=0)
        self._say("subs r11, r11, #1", "bne main", "svc #0")
        self._write_literals()
        for number in range(FUNCTIONS):
            self._function(number)
        for number in range(RECURSIVE):
            self._recursive_function(number)
        return "\n".join(self._lines)

    def _function(self, number: int) -> None:
        leaf = number == 0 or self._random.random() < 0.2
        self._say(f"f{number}:")
        if not leaf:
            self._say("push {r4, r10, lr}")
        self._body(self._random.randrange(2, 9), calls=0 if leaf else number, depth=2 if leaf else 1)
        if leaf:
            self._say(self._random.choice(("bx lr", "mov pc, lr")))
        else:
            returns = [["pop {r4, r10, pc}"], ["pop {r4, r10, lr}", "bx lr"]]
            tail_call = ["pop {r4, r10, lr}", f"b f{self._random.randrange(number)}"]
            self._say(*self._random.choice((*returns, tail_call)))
        self._write_literals()

    def _recursive_function(self, number: int) -> None:
        """Calls itself or its like, once or twice, R10 levels deep; its frame is on the stack."""
        random, end = self._random, self._label()
        frame = random.choice(("r4", "r2, r4", "r3, r4, r5"))
        self._say(f"g{number}:", f"push {{{frame}, r10, lr}}", "subs r10, r10, #1", f"ble {end}")
        for _ in range(random.randrange(1, 3)):
            self._body(random.randrange(1, 4), calls=1, depth=2)
            self._say(f"bl g{random.choice((number, number, random.randrange(RECURSIVE)))}")
        self._body(random.randrange(1, 3), calls=1, depth=2)
        self._say(f"{end}:")
        if random.random() < 0.3:
            self._say(f"pop {{{frame}, r10, lr}}", "b f0")
        else:
            self._say(f"pop {{{frame}, r10, pc}}")
        self._write_literals()

    # -- pieces ------------------------------------------------------------------------------------

    def _say(self, *lines: str) -> None:
        self._lines += lines

    def _label(self) -> str:
        self._labels += 1
        return f"l{self._labels}"

    def _reg(self) -> str:
        return f"r{self._random.randrange(8)}"

    def _cond(self, chance: float = 0.3) -> str:
        return self._random.choice(CONDITIONS) if self._random.random() < chance else ""

    def _body(self, length: int, calls: int, depth: int) -> None:
        self._calls, self._depth = calls, depth
        for _ in range(length):
            self._random.choice(self._items)()
            self._calls, self._depth = calls, depth

    def _load_literal(self, register: str, value: str) -> None:
        """Load a word from the pool behind the function."""
        label = self._label()
        self._literals.append((label, value))
        self._say(f"ldr {register}, {label}")

    def _write_literals(self) -> None:
        self._say(*(f"{label}: .word {value}" for label, value in self._literals))
        self._literals.clear()

    def _operand(self) -> str:
        choice = self._random.random()
        if choice < 0.3:
            return f"#{self._random.choice((0, 1, 0x80000000, 0xF000000F, self._random.randrange(256)))}"
        shift = self._random.choice(("lsl", "lsr", "asr", "ror"))
        if choice < 0.5:
            return f"{self._reg()}, {shift} {self._reg()}"
        return f"{self._reg()}, {shift} #{self._random.randrange(1, 32)}" if choice < 0.8 else self._reg()

    def _alu(self) -> None:
        random, cond = self._random, self._cond()
        if random.random() < 0.25:
            self._say(f"{random.choice(('cmp', 'cmn', 'tst', 'teq'))}{cond} {self._reg()}, {self._operand()}")
            return
        op = random.choice(("add", "sub", "rsb", "adc", "sbc", "rsc", "and", "orr", "eor", "bic"))
        self._say(f"{op}{random.choice(('', 's'))}{cond} {self._reg()}, {self._reg()}, {self._operand()}")

    def _media(self) -> None:
        r, cond = self._reg, self._cond()
        low, high = self._random.sample(range(8), 2)
        self._say(
            self._random.choice(
                (
                    f"mul{cond} {r()}, {r()}, {r()}", f"mla{cond} {r()}, {r()}, {r()}, {r()}",
                    f"umull{cond} r{low}, r{high}, {r()}, {r()}", f"smlal{cond} r{low}, r{high}, {r()}, {r()}",
                    f"clz{cond} {r()}, {r()}", f"rev{cond} {r()}, {r()}", f"sxtb{cond} {r()}, {r()}, ror #8",
                    f"ubfx{cond} {r()}, {r()}, #3, #9", f"bfi{cond} {r()}, {r()}, #5, #11",
                    f"ssat{cond} {r()}, #9, {r()}", f"sadd8{cond} {r()}, {r()}, {r()}",
                    f"sel{cond} {r()}, {r()}, {r()}",
                    f"qadd{cond} {r()}, {r()}, {r()}", f"uadd16{cond} {r()}, {r()}, {r()}", f"rbit {r()}, {r()}",
                )
            )
        )  # fmt: skip

    def _address(self, signed_form: bool) -> str:
        """Makes an address, maybe not aligned, in R9; gives the operand."""
        self._say(f"and r9, {self._reg()}, #{self._random.choice((0xFF, 0xFC, 0xFC, 0xF8))}")
        if self._random.random() < 0.2:
            self._say("add r9, r9, #0xf00")  # around the end of the page
        if self._random.random() < 0.5:
            return "[r8, r9]"
        self._say("add r9, r8, r9")
        offset = self._random.randrange(0, 64, 4)
        return self._random.choice((f"[r9, #{offset}]", f"[r9], #{offset}", f"[r9, #{offset}]!", "[r9]"))

    def _load(self) -> None:
        op = self._random.choice(("ldr", "ldr", "ldrb", "ldrh", "ldrsb", "ldrsh"))
        address = self._address(op not in ("ldr", "ldrb"))
        self._say(f"{op}{self._cond()} {self._reg()}, {address}")

    def _store(self) -> None:
        op = self._random.choice(("str", "str", "strb", "strh"))
        address = self._address(op == "strh")
        self._say(f"{op}{self._cond()} {self._reg()}, {address}")

    def _block_transfer(self) -> None:
        regs = ", ".join(f"r{n}" for n in sorted(self._random.sample(range(8), self._random.randrange(1, 6))))
        self._say(f"add r9, r8, #{4 * self._random.randrange(64)}")
        mode, bang = self._random.choice(("ia", "ib", "da", "db")), self._random.choice(("", "!"))
        self._say(f"{self._random.choice(('ldm', 'stm'))}{mode}{self._cond()} r9{bang}, {{{regs}}}")

    def _skip(self) -> None:
        label = self._label()
        self._say(f"b{self._random.choice(CONDITIONS)} {label}")
        for _ in range(self._random.randrange(1, 4)):
            self._random.choice((self._alu, self._media, self._load, self._store))()
        self._say(f"{label}:")

    def _loop(self) -> None:
        if self._depth >= 2:
            return self._alu()
        label = self._label()
        self._depth += 1
        self._say(f"mov r10, #{self._random.randrange(2, 12)}", f"{label}:")
        for _ in range(self._random.randrange(1, 5)):
            self._random.choice((self._alu, self._media, self._load, self._store, self._skip))()
        if self._calls and self._random.random() < 0.5:
            self._say("push {r10, r12}")
            self._call()
            self._say("pop {r10, r12}")
        self._say("subs r10, r10, #1", f"bne {label}")
        return None

    def _digits(self) -> None:
        """Digits of a quotient or the like: branches around subtractions, with one way or two that meet again."""
        if self._depth >= 2:
            return self._alu()
        random, (head, taken, end) = self._random, (self._label() for _ in range(3))
        x, y, high = (f"r{number}" for number in random.sample(range(8), 3))
        compare = [f"cmp {x}, {y}", f"sbcs r9, {high}, {self._operand()}"][: random.randrange(1, 3)]
        subtract = [f"sub{random.choice(('', 's'))} {x}, {x}, {self._operand()}", f"sbc {high}, {high}, {self._reg()}"]
        layout, branch = random.randrange(4), f"b{random.choice(('cs', 'cc'))} {taken}"
        self._say(f"mov r10, #{random.randrange(2, 12)}")
        if layout == 0:  # both ways end in branches
            self._say(f"b {head}", f"{taken}:", *subtract)
            self._way()
            self._say("subs r10, r10, #1", f"beq {end}")
        elif layout == 3:  # one way, elsewhere
            self._say(f"b {head}", f"{taken}:", *subtract, f"b {end}")
        self._say(f"{head}:")
        self._alu()
        self._say(*compare, branch, *([f"{end}:"] if layout == 3 else subtract[: random.randrange(3)]))
        if layout != 3:
            self._way()
        if layout == 1:  # two ways
            self._say(f"b {end}", f"{taken}:", *subtract)
            self._way()
            self._say(f"{end}:")
        elif layout == 2:  # one way, in between
            self._say(f"{taken}:")
        if layout != 0:
            self._alu()
        self._say("subs r10, r10, #1", f"bne {head}")
        if layout in (0, 2):
            self._say(f"{end}:")
        return None

    def _way(self) -> None:
        for _ in range(self._random.randrange(3)):
            self._random.choice((self._alu, self._alu, self._media, self._stack_load))()

    def _stack_load(self) -> None:
        """Loads from the stack, or from behind it, where no memory may be."""
        self._say(f"ldr {self._reg()}, [sp, #{self._random.choice((0, 4, -8, 6, 0xFF8, 0xFFE))}]")

    def _call(self) -> None:
        if not self._calls:
            return self._media()
        name = f"f{self._random.randrange(self._calls)}"
        kind = self._random.random()
        if kind < 0.6:
            self._say(f"bl{self._cond()} {name}")
        elif kind < 0.8:
            self._load_literal("r9", name)
            self._say(f"blx{self._cond()} r9")
        else:
            self._load_literal("r9", name)
            self._say("mov lr, pc", "bx r9")
        return None

    def _call_one_of(self) -> None:
        """A call through a register that goes to one function or another."""
        if not self._calls:
            return self._flags()
        for cond in ("", *self._random.sample(CONDITIONS, 2)):
            self._load_literal(f"r{9 if not cond else 12}", f"f{self._random.randrange(self._calls)}")
            if cond:
                self._say(f"tst r11, #{self._random.choice((1, 2, 4))}", f"mov{cond} r9, r12")
        self._say("blx r9")
        return None

    def _recurse(self) -> None:
        if self._depth or not self._calls:
            return self._flag_loop()
        self._say("push {r10, r12}", f"mov r10, #{self._random.randrange(1, 6)}")
        self._say(f"bl g{self._random.randrange(RECURSIVE)}", "pop {r10, r12}")
        return None

    def _table(self) -> None:
        labels = [self._label() for _ in range(4)]
        table, end = self._label(), self._label()
        self._say(f"and r9, {self._reg()}, #3", f"adr r12, {table}", "ldr pc, [r12, r9, lsl #2]")
        self._say(f"{table}:", *(f".word {label}" for label in labels))
        self._targets(labels, end)

    def _add_pc(self) -> None:
        labels = [self._label() for _ in range(4)]
        end = self._label()
        self._say(f"and r9, {self._reg()}, #3", "add pc, pc, r9, lsl #2", "nop", *(f"b {label}" for label in labels))
        self._targets(labels, end)

    def _switch(self) -> None:
        """What compilers make of a switch; its table may change."""
        random = self._random
        labels = [self._label() for _ in range(random.randrange(2, 6))]
        other, table, end = self._label(), self._label(), self._label()
        self._say(f"and r9, {self._reg()}, #7")
        if random.random() < 0.3:
            self._say(f"cmp r9, #{len(labels) - 1}", "addls pc, pc, r9, lsl #2", f"b {other}")
            self._say(*(f"b {label}" for label in labels))
        else:
            if random.random() < 0.3:
                self._say("tst r11, #7", f"ldr r12, {table}", "eor r12, r12, #0", f"streq r12, {table}_1")
            self._say(f"cmp r9, #{len(labels) - 1}", "ldrls pc, [pc, r9, lsl #2]", f"b {other}", f"{table}:")
            for number, label in enumerate(labels):
                self._say(f"{table}_{number}:", f".word {label}")
        self._targets([*labels, other], end)

    # -- literals --------------------------------------------------------------------------------------

    def _literal(self) -> None:
        """A word behind a branch over it: read, and now and then written."""
        random = self._random
        literal, before, over = self._label(), self._label(), self._label()
        store = random.choice(("", "", "str", "strb", "strh"))
        if store:
            self._say(f"tst r11, #{random.choice((0, 1, 3, 7))}", f"adr r12, {literal}")
            self._say(f"{store}eq {self._reg()}, [r12{random.choice(('', ', #1', ', #3')) if store == 'strb' else ''}]")
        self._say(f"{before}: ldr{self._cond()} {self._reg()}, {random.choice((literal, literal, before))}")
        if random.random() < 0.5:
            self._say(f"ldrb {self._reg()}, {literal}")
        self._say(f"b {over}", f"{literal}: .word {random.getrandbits(32):#x}", f"{over}:")

    def _literal_jump(self) -> None:
        """A jump by way of a literal, which may change."""
        random = self._random
        literal, *ways = (self._label() for _ in range(3))
        end = self._label()
        if random.random() < 0.5:
            self._say(f"tst r11, #{random.choice((3, 4, 8))}")
            for way, cond in zip(ways, ("eq", "ne"), strict=True):
                self._load_literal("r12", way)
                self._say(f"str{cond} r12, {literal}")
        self._say(f"ldr pc, {literal}", f"{literal}: .word {ways[0]}")
        self._targets(ways, end)

    # -- flags -----------------------------------------------------------------------------------------

    def _set_flags(self) -> None:
        """One instruction that sets flags, under a condition or not: each way of setting them."""
        random, cond, a, b, c = self._random, self._cond(0.4), self._reg(), self._reg(), self._reg()
        shift = random.choice(("lsl #1", "lsr #32", "asr #32", "ror #7", "rrx", f"lsl {c}", f"lsr {c}", f"ror {c}"))
        edge = random.choice((0, 1, 0x80000000, 0xF0000000, 0xFF))
        self._say(
            random.choice(
                (
                    f"cmp{cond} {a}, {b}", f"cmp{cond} {a}, #{edge}", f"cmn{cond} {a}, {b}", f"cmn{cond} {a}, #{edge}",
                    f"tst{cond} {a}, #{edge}", f"teq{cond} {a}, {b}", f"teq{cond} {a}, {b}, {shift}",
                    f"movs{cond} {a}, {b}, {shift}", f"mvns{cond} {a}, {b}, {shift}", f"movs{cond} {a}, #{edge}",
                    f"ands{cond} {a}, {b}, {c}, {shift}", f"bics{cond} {a}, {b}, #{edge}",
                    f"subs{cond} {a}, {b}, {c}", f"subs{cond} {a}, {b}, #{edge}", f"rsbs{cond} {a}, {b}, #{edge}",
                    f"adds{cond} {a}, {b}, {c}", f"adds{cond} {a}, {b}, #{edge}",
                    f"adcs{cond} {a}, {b}, {c}", f"sbcs{cond} {a}, {b}, {c}", f"rscs{cond} {a}, {b}, {c}",
                    f"adcs{cond} {a}, {b}, #{edge}", f"sbcs{cond} {a}, {b}, #{edge}",
                    f"muls{cond} {a}, {b}, {c}", f"mlas{cond} {a}, {b}, {c}, {b}",
                    f"cmp {a}, {b} \n cmp{random.choice(CONDITIONS)} {b}, {c}",
                    f"adds {a}, {a}, {b} \n adcs {c}, {c}, {b} \n adc {b}, {b}, {a}",
                    f"subs {a}, {a}, {b} \n sbcs {c}, {c}, {b} \n sbc {b}, {b}, #0",
                )
            ).replace("muls", "mul" if cond else "muls").replace("mlas", "mla" if cond else "mlas")
        )  # fmt: skip

    def _use_flags(self) -> None:
        """One instruction that shows flags in a register."""
        cond = self._random.choice(CONDITIONS)
        self._say(
            self._random.choice(
                (f"add{cond} {self._reg()}, {self._reg()}, #1", f"adc {self._reg()}, {self._reg()}, #0",
                 f"mov{cond} {self._reg()}, {self._reg()}", f"mov {self._reg()}, {self._reg()}, rrx")
            )
        )  # fmt: skip

    def _flags(self) -> None:
        for _ in range(self._random.randrange(1, 4)):
            self._set_flags()
        for _ in range(self._random.randrange(1, 3)):
            self._use_flags()

    def _flags_meet(self) -> None:
        """Flags that were set in one way or another when they are used."""
        random = self._random
        other, meet = self._label(), self._label()
        self._set_flags()
        self._say(f"b{random.choice(CONDITIONS)} {other}")
        self._set_flags()
        self._say(f"b {meet}", f"{other}:")
        if random.random() < 0.7:
            self._set_flags()
        self._say(f"{meet}:")
        for _ in range(random.randrange(1, 4)):
            self._use_flags()

    def _flag_loop(self) -> None:
        """A loop whose flags go from block to block and into an access that the fast path cannot do."""
        if self._depth >= 2:
            return self._flags_meet()
        random = self._random
        label, skip, word = self._label(), self._label(), self._label()
        where = random.choice(
            ("moveq r9, #0x10000000", "addeq r9, r9, #1", f"adreq r9, {word}", "moveq r9, #0x40000000", "nop")
        )
        self._say(f"mov r10, #{random.randrange(2, 12)}", f"{label}:")
        self._use_flags()
        self._say(f"tst r10, #{random.choice((1, 2, 3))}", f"add r9, r8, #{4 * random.randrange(60)}", where)
        self._set_flags()
        self._say(f"{random.choice(('ldr', 'str', 'ldrh', 'strb'))}{self._cond(0.2)} {self._reg()}, [r9]")
        self._use_flags()
        if random.random() < 0.5:
            self._say(f"b{random.choice(CONDITIONS)} {skip}")
            self._set_flags()
        self._say(f"{skip}:", "sub r10, r10, #1", "tst r10, r10", f"bne {label}")
        if random.random() < 0.3:
            self._use_flags()
        over = self._label()
        self._say(f"b {over}", f"{word}: .word {random.getrandbits(32)}", f"{over}:")
        return None

    def _targets(self, labels: list[str], end: str) -> None:
        for label in labels:
            self._say(f"{label}:")
            self._random.choice((self._alu, self._media, self._load))()
            if label != labels[-1]:
                self._say(f"b {end}")
        self._say(f"{end}:")

    def _patch(self) -> None:
        """Changes the immediate of an instruction before or behind, every time or not."""
        label = self._label()
        bit = 1 << self._random.randrange(7)
        target = f"{label}: add {self._reg()}, {self._reg()}, #{self._random.randrange(256)}"
        before = self._random.random() < 0.5
        if before:
            self._say(target)
            self._random.choice((self._alu, self._load))()
        cond = ""
        if self._random.random() < 0.8:
            self._say(f"tst r11, #{self._random.choice((1, 3, 7, 15))}")
            cond = "eq"
        self._say(f"adr r12, {label}", "ldrb r9, [r12]", f"eor r9, r9, #{bit}", f"strb{cond} r9, [r12]")
        if not before:
            self._say(target)

    def _fault(self) -> None:
        """A load or store that faults in one of the rounds, or in all."""
        self._say(f"add r9, r8, #{4 * self._random.randrange(64)}")
        self._say(f"tst r11, #{self._random.choice((1, 4, 8, 7))}", "moveq r9, #0x40000000")
        self._say(
            self._random.choice(
                (
                    f"ldr {self._reg()}, [r9, #4]!", f"str {self._reg()}, [r9], #8", "ldmia r9!, {r0, r3, r5}",
                    "stmdb r9!, {r1, r2}", f"ldrh{self._cond()} {self._reg()}, [r9]",
                )
            )
        )  # fmt: skip

    def _device(self) -> None:
        self._say("mov r9, #0x10000000")
        self._say(self._random.choice((f"ldr {self._reg()}, [r9, #8]", f"strb {self._reg()}, [r9, #3]",
                                       "ldm r9, {r2, r5}", "stm r9, {r1, r6}")))  # fmt: skip

    def _status(self) -> None:
        self._say(self._random.choice((f"mrs {self._reg()}, cpsr", f"msr cpsr_f, {self._reg()}", "svc #5")))

    def _exclusive(self) -> None:
        self._say(f"add r9, r8, #{4 * self._random.randrange(64)}", f"ldrex {self._reg()}, [r9]")
        status, value = self._random.sample(range(8), 2)
        self._say(f"strex{self._cond()} r{status}, r{value}, [r9]")

    def _thumb(self) -> None:
        """A branch to Thumb state, which is an exit; skipped, it does nothing."""
        self._load_literal("r9", "main + 1")
        self._say("tst r11, #7")
        branch = self._random.choice((["bxeq r9"], ["blxeq r9"], ["push {r9}", "popeq {pc}", "add sp, sp, #4"]))
        self._say(*branch)

    def _condition_holds_late(self) -> None:
        """A branch whose other side is executed only late, after the region was made."""
        label = self._label()
        self._say("cmp r11, #3", f"bhi {label}")
        self._alu()
        self._load()
        self._say(f"{label}:")
