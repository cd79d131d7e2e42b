"""A walk through a guest by packets, forwards and backwards, without sockets. Each step has one right answer."""

from __future__ import annotations

import binascii

from dbt import CaptureConsole, Machine
from dbt.abi.addresses import Gva
from dbt.gdb import packets
from dbt.gdb.packets import MAX_PACKET, PacketReader, Signal
from dbt.gdb.session import Answer, Resume, Session
from dbt.gdb.target import Stop
from dbt.vm.debugger import Debugger
from dbt.vm.history import History
from tests.assembler import assemble
from tests.gdb.counter import COUNTED, RAM, TIMED
from tests.vm.programs import BASE, EXIT

#: Counts to COUNT at DATA, and writes a byte to the console each time. ``store`` is executed after 4 + LENGTH * n
#: instructions.
LOOP, STORE, CALL, NEXT = Gva(BASE + 12), Gva(BASE + 16), Gva(BASE + 32), Gva(BASE + 36)
DATA, COUNT, LENGTH = 0x20000, 600, 10
OUTPUT = b"\0" + b"x" * (COUNT - 1)
COUNTER = f"""
    ldr r5, =0x20000 ; ldr r6, ={COUNT} ; mov r4, #0
    loop: add r4, r4, #1
    store: str r4, [r5]
    add r1, r5, #64 ; mov r0, #3 ; mov r2, #120
    call: svc #0x123456
    strb r2, [r5, #64] ; ldr r3, [r5] ; subs r6, r6, #1 ; bne loop
    mov r2, #7 ; {EXIT}
    .ltorg
"""


class _Dense(History):
    """A history with checkpoints that are close to each other, wherever it runs."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, machine._parts)
        self._spacing = 500

    def _learn(self, executed: int, seconds: float) -> None:
        pass


class Walker:
    """Asks packets of a session with a machine of its own."""

    def __init__(self, source: str = COUNTER, history: bool = True) -> None:
        self.console = CaptureConsole()
        self.machine = Machine(RAM, "threaded", console=self.console)
        self.machine.load_bytes(assemble(source + ("" if source == COUNTER else EXIT)), base=BASE)
        self.debugger = Debugger(self.machine, history=_Dense(self.machine) if history else None)
        self.told: list[bytes] = []
        self.session = Session(self.debugger, self.told.append, lambda: False)

    def ask(self, packet: str | bytes) -> str:
        answer: Answer = self.session.answer(packet if isinstance(packet, bytes) else packet.encode())
        if isinstance(answer, Resume):
            self.session.stop = self._go(answer)
            return self.session.stop_reply().decode()
        assert isinstance(answer, bytes), answer
        return answer.decode("latin-1")

    def _go(self, wanted: Resume) -> Stop:
        debugger, never = self.debugger, lambda: False
        if wanted.back:
            return debugger.step_back() if wanted.step else debugger.resume_back(never)
        return debugger.step(wanted.start, wanted.end, never) if wanted.step else debugger.resume(never)

    def monitor(self, command: str) -> str:
        self.told.clear()
        assert self.ask(b"qRcmd," + binascii.hexlify(command.encode())) == "OK"
        return b"".join(binascii.unhexlify(packet[1:]) for packet in self.told).decode()

    def at(self, pc: int, count: int | None = None) -> None:
        """The guest must be at ``pc``, with this count in memory."""
        assert self.machine.pc == pc, hex(self.machine.pc)
        assert count is None or self.ask(f"m{DATA:x},4") == count.to_bytes(4, "little").hex()


def packets_are_taken_apart() -> None:
    """Frames, checksums, escapes and what is no packet."""
    assert packets.framed(b"OK") == b"$OK#9a" and packets.escaped(b"a#$}*") == b"a}\x03}\x04}]}\x0a"
    assert (
        packets.unescaped(packets.escaped(bytes(range(256)))) == bytes(range(256)) and packets.unescaped(b"a}") == b"a"
    )
    found = list(PacketReader().feed(b"+$OK#9a\x03-$OK#9b$O$OK#9A$OK#zz"))
    assert found == [b"OK", Signal.INTERRUPT, Signal.RESEND, Signal.DAMAGED, b"OK", Signal.DAMAGED]
    whole = b"0" * MAX_PACKET
    assert list(PacketReader().feed(packets.framed(whole) + packets.framed(whole + b"\0"))) == [whole, Signal.DAMAGED]


def registers_and_memory() -> None:
    walker = Walker(history=False)
    ask = walker.ask
    assert ask("bs") == ask("bc") == "" and "Reverse" not in ask("qSupported:swbreak+;hwbreak+")
    for count in range(4):
        assert ask("s") == "T05thread:1;" and walker.machine.icount == count + 1
    assert ask("p4") == "01000000" and ask("P4=05000000") == "OK" and ask("p4") == "05000000"
    before = ask("g")
    words = [before[at : at + 8] for at in range(0, len(before), 8)]
    words[3], words[13], words[-1] = "11223344", "00000300", "1f000000"  # in system mode, with its own SP
    assert ask("G" + "".join(words)) == "OK" and ask("g") == "".join(words)
    assert ask("G" + before) == "OK" and ask("g") == before
    assert ask("G00") == ask("p") == ask("P4=00") == ask(f"p{'0' * 17}") == "E01"
    assert ask("p1000").startswith("E.there is no register") and ask("Pffff=00000000").startswith("E.there is no")
    assert ask("M20100,2:abcd") == "OK" and ask(b"X20102,2:}\x03}]") == "OK" and ask("m20100,5") == "abcd237d00"
    assert ask("M20100,2:ab") == "E01" and ask("mfffff,10") == "00" and ask("m100000,1") == "E14"
    assert ask("M100000,1:00") == "E14" and len(ask("m8000,ffffff")) <= MAX_PACKET
    assert ask("Z0,100000000,4") == ask("Z0,8000") == "E01" and "multiple of 4" in ask("Z0,8002,4")
    for number in range(32):
        assert ask(f"Z2,{0x30000 + 4 * number:x},4") == "OK"
    assert "at most" in ask("Z2,40000,4") and ask("Z2,30000,4") == "OK" and "cannot be watched" in ask("Z2,30000,0")
    whole, piece = "", ""
    while not piece.startswith("l"):
        piece = ask(f"qXfer:features:read:target.xml:{len(whole):x},40")
        whole += piece[1:]
    assert (whole.startswith("<?xml") and whole.endswith("</target>\n")) or whole.rstrip().endswith("</target>")
    assert ask("qXfer:features:read:other:0,40") == "E00" and ask("T2") == ask("Hg2") == "E01" and ask("T1") == "OK"


def breakpoints_and_watchpoints() -> None:
    walker = Walker(history=False)
    ask, at = walker.ask, walker.at
    ask("qSupported:swbreak+;hwbreak+")
    ask(f"Z0,{STORE:x},4")
    ask(f"Z1,{STORE:x},4")
    for count in range(3):
        assert ask("c") == "T05thread:1;swbreak:;"
        at(STORE, count)
    ask(f"z0,{STORE:x},4")
    assert ask("c") == "T05thread:1;hwbreak:;"
    ask(f"z1,{STORE:x},4")
    assert ask(f"vCont;r{STORE:x},{CALL:x}") == "T05thread:1;" and walker.machine.pc == CALL
    is_100, is_200 = (f"X9,2600042a2022{value:02x}1327" for value in (100, 200))
    assert ask(f"Z0,{STORE:x},4;{is_100};{is_200}") == "OK"
    for count in (100, 200):
        assert ask("c") == "T05thread:1;swbreak:;" and ask("p4") == f"{count:02x}000000"
    ask(f"z0,{STORE:x},4")
    ask(f"Z2,{DATA:x},4")
    for count in (201, 202):
        assert ask("c") == f"T05thread:1;watch:{DATA:x};"
        at(STORE, count - 1)
    ask(f"z2,{DATA:x},4")
    ask(f"Z3,{DATA:x},4")
    ask(f"Z0,{NEXT:x},4")
    assert "stops the guest where ttbr0 is 0x5" in walker.monitor(f"limit {NEXT:#x} ttbr0 5")
    ask(f"Z4,{DATA + 64:x},1")
    assert ask("c") == f"T05thread:1;awatch:{DATA + 64:x};"
    assert ask("c") == f"T05thread:1;rwatch:{DATA:x};" and walker.machine.pc == NEXT + 4
    walker.debugger.detach()
    stop = walker.debugger.resume(lambda: False)
    assert stop.exit_code == 7 and bytes(walker.console.output) == OUTPUT


def steps_over_interrupts() -> None:
    walker = Walker(TIMED)
    while not walker.machine.r[7]:
        walker.ask("s")
    while walker.machine.read(COUNTED, 4)[0] < 2:
        walker.ask("s")
        assert walker.machine.cpsr & 0x1F == 0x13
    walker.monitor("stepirq on")
    while walker.machine.cpsr & 0x1F == 0x13:
        walker.ask("s")
    assert walker.machine.pc == 0x18
    walker.monitor("stepirq off")
    walker.monitor("catch irq")
    for _ in range(2):
        assert walker.ask("c") == "T05thread:1;" and walker.machine.pc == 0x18
    here = walker.machine.icount, walker.ask("g")
    assert "was last written" in walker.monitor(f"last-write {COUNTED:#x}")
    assert (walker.machine.icount, walker.ask("g")) == here
    assert walker.ask("bs") == "T05thread:1;"
    assert walker.machine.icount == here[0] and walker.machine.cpsr & 0x1F == 0x13
    walker.monitor("stepirq on")
    assert walker.ask("s") == "T05thread:1;" and (walker.machine.icount, walker.ask("g")) == here
    walker.debugger.detach()
    walker.debugger.resume(lambda: False)
    assert walker.debugger.resume(lambda: False).exit_code == 9


def backwards() -> None:
    walker = Walker()
    ask, at = walker.ask, walker.at
    assert "ReverseStep+;ReverseContinue+" in ask("qSupported:swbreak+;hwbreak+")
    assert ask("bs") == ask("bc") == "T05thread:1;replaylog:begin;"
    ask(f"Z0,{STORE:x},4")
    assert ask("c") == ask("c") == "T05thread:1;swbreak:;"
    ask(f"z0,{STORE:x},4")
    assert ask("bs") == "T05thread:1;" and ask("c") == "T05thread:1;replaylog:end;"
    at(STORE, 1)
    assert ask("c") == "T05thread:1;replaylog:end;"  # the guest has ended
    end = walker.machine.icount
    ask(f"Z2,{DATA:x},4")
    for count in (COUNT, COUNT - 1, COUNT - 2):
        assert ask("bc") == f"T05thread:1;watch:{DATA:x};"
        at(STORE + 4, count)
    assert ask("P4=00000000").startswith("E.the guest is") and ask(f"M{DATA:x},1:00") == "E14"
    ask(f"z2,{DATA:x},4")
    ask(f"Z0,{STORE:x},4")
    for count in (COUNT - 3, COUNT - 4):
        assert ask("bc") == "T05thread:1;swbreak:;"
        at(STORE, count)
    here = walker.machine.icount
    assert ask("bs") == "T05thread:1;" and walker.machine.icount == here - 1
    at(LOOP, COUNT - 4)
    assert ask("s") == "T05thread:1;" and walker.machine.icount == here
    assert "last written after" in walker.monitor(f"last-write {DATA:#x}") and walker.machine.icount == here
    written = int(walker.monitor(f"last-write {DATA:#x}").split("after ")[1].split()[0])
    assert written == here - LENGTH
    assert f"in a history from 0 to {end} instructions" in walker.monitor("when")
    assert f"here {here - 4000} instructions" in walker.monitor(f"seek {here - 4000}")
    ask(f"z0,{STORE:x},4")
    for count in range(40, 60):  # the only hit, near the checkpoint after 500 instructions
        assert ask("c") == "T05thread:1;replaylog:end;"
        ask(f"Z0,{STORE:x},4;X9,2600042a2022{count:02x}1327")
        assert ask("bc") == "T05thread:1;swbreak:;" and walker.machine.icount == 4 + LENGTH * (count - 1)
        ask(f"z0,{STORE:x},4")
    assert ask("c") == "T05thread:1;replaylog:end;" and walker.machine.icount == end
    assert ask("bc") == "T05thread:1;replaylog:begin;" and walker.machine.icount == 0
    assert "the history goes from" in walker.monitor(f"seek {end + 1}")
    walker.monitor(f"seek {end // 2}")
    assert "is forgotten" in walker.monitor("branch") and ask(f"M{DATA + 32:x},1:01") == "OK"
    assert f"from {end // 2} to {end // 2} instructions" in walker.monitor("when")
    assert ask("c") == "T05thread:1;replaylog:end;" and ask(f"m{DATA + 32:x},1") == "01"
    assert ask("c") == "W07"
    output = bytes(walker.console.output)
    assert len(output) == COUNT + COUNT // 2 and output[:COUNT] == OUTPUT and set(output[COUNT:]) == {120}


WALKS = (packets_are_taken_apart, registers_and_memory, breakpoints_and_watchpoints, steps_over_interrupts, backwards)
