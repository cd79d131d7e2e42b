"""One debugger's session: what each packet of the remote protocol asks for, and the answer.

See the appendix "GDB Remote Serial Protocol" of gdb's manual for the packets. One that is not known gets an empty
answer, as the protocol wants it.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Collection
from functools import partial
from typing import NamedTuple

from dbt.abi.addresses import Gva
from dbt.gdb.description import target_xml, threads_xml
from dbt.gdb.expressions import MAX_EXPRESSION, Expression
from dbt.gdb.packets import MAX_PACKET, escaped, unescaped
from dbt.gdb.target import BreakpointKind, Condition, Stop, StopSignal, Target, TargetError, WatchKind

#: What a reply to qXfer or to the reading of memory may have, in bytes before it is escaped or written as digits.
_MOST_READ = MAX_PACKET // 2 - 16
_WORD = 1 << 32
_NO_MEMORY = b"E14"  # the number of EFAULT, for which gdb has a text of its own
_BREAKPOINTS = {b"0": BreakpointKind.SOFTWARE, b"1": BreakpointKind.HARDWARE}
_WATCHPOINTS = {b"2": WatchKind.WRITE, b"3": WatchKind.READ, b"4": WatchKind.ACCESS}
_FEATURES = (
    f"PacketSize={MAX_PACKET:x};qXfer:features:read+;qXfer:threads:read+;QStartNoAckMode+;swbreak+;hwbreak+;"
    "vContSupported+;ConditionalBreakpoints+"
)
_BACKWARDS = ";ReverseStep+;ReverseContinue+"


class WrongPacket(Exception):
    """Raised for a packet that does not have the form that the protocol prescribes."""


class Resume(NamedTuple):
    """The guest is to go on: an instruction if ``step``, and further ones while the PC is in [``start``, ``end``).

    ``back``: it is to go backwards.
    """

    step: bool = False
    start: Gva = Gva(0)
    end: Gva = Gva(0)
    back: bool = False


class Leave(NamedTuple):
    """The session ends, after a reply if there is one. ``kill``: the guest is to end too."""

    kill: bool
    reply: bytes | None = b"OK"


#: An answer to send, or None for a packet that has none, or what is to happen instead.
Answer = bytes | Resume | Leave | None


class Session:
    """The session of one client. ``send`` sends packets that are no answers. While a command of the user is done,
    ``interrupted`` says whether it is to be given up.
    """

    def __init__(self, target: Target, send: Callable[[bytes], None], interrupted: Callable[[], bool]) -> None:
        self._target, self._send, self._interrupted = target, send, interrupted
        self.stop = Stop(StopSignal.TRAP)  # why the guest has stopped the last time
        self.acknowledges = True  # packets are acknowledged, until the client wants it otherwise
        self._hears_breakpoints = False  # the client knows swbreak and hwbreak
        self._thread = target.vcpus[0]
        self._description = b""
        self._threads = b""
        self._packets: dict[bytes, Callable[[bytes], Answer]] = {
            b"?": lambda rest: self.stop_reply(),
            b"!": lambda rest: b"OK",
            b"g": self._read_registers,
            b"G": self._write_registers,
            b"p": self._read_register,
            b"P": self._write_register,
            b"m": self._read_memory,
            b"M": self._write_memory,
            b"X": self._write_binary,
            b"Z": self._insert,
            b"z": self._remove,
            b"c": partial(self._resume_at, False),
            b"s": partial(self._resume_at, True),
            b"C": partial(self._resume_with_signal, False),
            b"S": partial(self._resume_with_signal, True),
            b"b": self._resume_back,
            b"D": lambda rest: Leave(kill=False),
            b"k": lambda rest: Leave(kill=True, reply=None),
            b"R": self._restart,
            b"H": self._choose_thread,
            b"T": self._is_alive,
            b"v": self._verbose,
            b"q": self._query,
            b"Q": self._set,
        }

    def answer(self, packet: bytes) -> Answer:
        """Return the answer to a packet."""
        handler = self._packets.get(packet[:1])
        if handler is None:
            return b""
        try:
            return handler(packet[1:])
        except WrongPacket:
            return b"E01"
        except TargetError as error:
            return _error(str(error))

    def stop_reply(self) -> bytes:
        """Return why the guest has stopped."""
        stop = self.stop
        if stop.exit_code is not None:
            return b"W%02x" % (stop.exit_code & 0xFF)
        reply = f"T{stop.signal:02x}thread:{self._thread:x};"
        if isinstance(stop.what, WatchKind):
            reply += f"{stop.what.value}:{stop.address or 0:x};"
        elif stop.what is not None and self._hears_breakpoints:
            reply += f"{stop.what.value}:;"
        elif stop.log_end is not None:
            reply += f"replaylog:{stop.log_end.value};"
        return reply.encode()

    def tell(self, text: str) -> None:
        """Show text to the user. It is allowed before the reply to a stop, and while a command of the user is done."""
        data = text.encode(errors="replace")
        for at in range(0, len(data), _MOST_READ):
            self._send(b"O" + binascii.hexlify(data[at : at + _MOST_READ]))

    # -- registers -----------------------------------------------------------------------------

    def _core(self) -> list[int]:
        return [register.number for register in next(iter(self._target.features.values()))]

    def _read_registers(self, rest: bytes) -> bytes:
        return b"".join(_word_text(self._target.read_register(self._thread, number)) for number in self._core())

    def _write_registers(self, rest: bytes) -> bytes:
        data, numbers = _from_hex(rest), self._core()
        if len(data) != 4 * len(numbers):
            raise WrongPacket
        values = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
        # The CPSR is the last of them, but selects the banks of the others.
        for number, value in sorted(zip(numbers, values, strict=True), reverse=True):
            if self._target.read_register(self._thread, number) != value:
                self._target.write_register(self._thread, number, value)
        return b"OK"

    def _read_register(self, rest: bytes) -> bytes:
        return _word_text(self._target.read_register(self._thread, _number(rest)))

    def _write_register(self, rest: bytes) -> bytes:
        number, value = _parts(rest, b"=", 2)
        data = _from_hex(value)
        if len(data) != 4:
            raise WrongPacket
        self._target.write_register(self._thread, _number(number), int.from_bytes(data, "little"))
        return b"OK"

    # -- memory --------------------------------------------------------------------------------

    def _read_memory(self, rest: bytes) -> bytes:
        address, size = map(_number, _parts(rest, b",", 2))
        try:
            return binascii.hexlify(self._target.read_memory(address, min(size, _MOST_READ))) if size else b""
        except TargetError:
            return _NO_MEMORY

    def _write_memory(self, rest: bytes) -> bytes:
        place, data = _parts(rest, b":", 2)
        return self._write(place, _from_hex(data))

    def _write_binary(self, rest: bytes) -> bytes:
        place, data = _parts(rest, b":", 2)
        return self._write(place, unescaped(data))

    def _write(self, place: bytes, data: bytes) -> bytes:
        address, size = map(_number, _parts(place, b",", 2))
        if size != len(data):
            raise WrongPacket
        try:
            if data:
                self._target.write_memory(address, data)
        except TargetError:
            return _NO_MEMORY
        return b"OK"

    # -- breakpoints and watchpoints -------------------------------------------------------------

    def _insert(self, rest: bytes) -> bytes:
        place, _, conditions = rest.partition(b";")
        kind, gva, size = self._point(place)
        if kind in _BREAKPOINTS:
            self._target.insert_breakpoint(_BREAKPOINTS[kind], gva, self._conditions(conditions))
        elif kind in _WATCHPOINTS:
            self._target.insert_watchpoint(_WATCHPOINTS[kind], gva, size)
        else:
            return b""
        return b"OK"

    def _remove(self, rest: bytes) -> bytes:
        kind, gva, size = self._point(rest)
        if kind in _BREAKPOINTS:
            self._target.remove_breakpoint(_BREAKPOINTS[kind], gva)
        elif kind in _WATCHPOINTS:
            self._target.remove_watchpoint(_WATCHPOINTS[kind], gva, size)
        else:
            return b""
        return b"OK"

    def _point(self, text: bytes) -> tuple[bytes, Gva, int]:
        kind, address, size = _parts(text, b",", 3)
        return kind, Gva(_word(address)), _number(size)

    def _conditions(self, text: bytes) -> Collection[Condition]:
        """Return the conditions of a breakpoint: ``X`` length ``,`` expression, one behind the other."""
        found: list[Condition] = []
        while text.startswith(b"X"):
            length, _, rest = text[1:].partition(b",")
            size = _number(length)
            code = _from_hex(rest[: 2 * size])
            if not 0 < size <= MAX_EXPRESSION or len(code) != size:
                raise WrongPacket
            found.append(partial(self._holds, Expression(code)))
            text = rest[2 * size :].removeprefix(b";")
        if text:  # commands, which gdb sends only if they are announced
            raise WrongPacket
        return found

    def _holds(self, expression: Expression) -> bool:
        """Return True if the condition holds, or if that cannot be told, so that the user sees the place."""
        try:
            return bool(expression.evaluate(self._target, self._thread))
        except TargetError:
            return True

    # -- going on ------------------------------------------------------------------------------

    def _resume_at(self, step: bool, rest: bytes) -> Resume:
        if rest:
            self._target.write_register(self._thread, 15, _word(rest))
        return Resume(step)

    def _resume_back(self, rest: bytes) -> Answer:
        if rest not in (b"c", b"s") or not self._target.goes_back:
            return b""
        return Resume(rest == b"s", back=True)

    def _resume_with_signal(self, step: bool, rest: bytes) -> Resume:
        """Go on. There is no signal that could be delivered to a whole machine."""
        _, _, address = rest.partition(b";")
        return self._resume_at(step, address)

    def _restart(self, rest: bytes) -> None:
        self._target.restart()
        self.stop = Stop(StopSignal.TRAP)

    def _verbose(self, rest: bytes) -> Answer:
        name, _, value = rest.partition(b";")
        if name == b"Cont?":
            return b"vCont;c;C;s;S;r"
        if name == b"Cont":
            return self._continue(value)
        if name == b"Kill":
            return Leave(kill=True)
        return b""

    def _continue(self, actions: bytes) -> Resume:
        """Do what vCont asks for: the first action that is for the current thread or for all."""
        for action in actions.split(b";"):
            what, _, thread = action.partition(b":")
            if thread and _thread(thread) not in (-1, 0, self._thread):
                continue
            match what[:1]:
                case b"c" | b"C":
                    return Resume()
                case b"s" | b"S":
                    return Resume(True)
                case b"r":
                    start, end = map(_word, _parts(what[1:], b",", 2))
                    return Resume(True, Gva(start), Gva(end))
        raise WrongPacket

    # -- threads -------------------------------------------------------------------------------

    def _choose_thread(self, rest: bytes) -> bytes:
        if rest[:1] not in (b"g", b"c"):
            return b""
        number = _thread(rest[1:])
        if number in (-1, 0):
            return b"OK"
        self._check_thread(number)
        if rest[:1] == b"g":
            self._thread = number
        return b"OK"

    def _is_alive(self, rest: bytes) -> bytes:
        self._check_thread(_thread(rest))
        return b"OK"

    def _check_thread(self, number: int) -> None:
        if number not in self._target.vcpus:
            raise WrongPacket

    # -- queries -------------------------------------------------------------------------------

    def _query(self, rest: bytes) -> bytes:
        name, _, value = rest.partition(b":")
        match name:
            case b"Supported":
                known = value.split(b";")
                self._hears_breakpoints = b"swbreak+" in known and b"hwbreak+" in known
                return (_FEATURES + _BACKWARDS * self._target.goes_back).encode()
            case b"Attached":
                return b"1"  # at its end the debugger is to leave the guest running
            case b"C":
                return b"QC%x" % self._thread
            case b"fThreadInfo":
                return b"m" + b",".join(b"%x" % number for number in self._target.vcpus)
            case b"sThreadInfo":
                return b"l"
            case b"Symbol":
                return b"OK"  # no symbol is wanted
            case b"Xfer":
                return self._transfer(value)
        if rest.startswith(b"ThreadExtraInfo,"):
            number = _thread(rest.partition(b",")[2])
            self._check_thread(number)
            return binascii.hexlify(self._target.describe_vcpu(number).encode())
        if rest.startswith(b"Rcmd,"):
            return self._command(_from_hex(rest[5:]))
        return b""

    def _set(self, rest: bytes) -> bytes:
        if rest != b"StartNoAckMode":
            return b""
        self.acknowledges = False
        return b"OK"

    def _transfer(self, rest: bytes) -> bytes:
        """Return a part of an object: ``object:read:annex:offset,length``."""
        what, verb, annex, place = _parts(rest, b":", 4)
        offset, length = map(_number, _parts(place, b",", 2))
        if verb != b"read":
            return b""
        if (what, annex) == (b"features", b"target.xml"):
            whole = self._description = self._description or target_xml(self._target.features).encode()
        elif what == b"threads" and not annex:
            if not offset:
                threads = {number: self._target.describe_vcpu(number) for number in self._target.vcpus}
                self._threads = threads_xml(threads).encode()
            whole = self._threads
        else:
            return b"E00" if what == b"features" else b""
        part = whole[offset : offset + min(length, _MOST_READ)]
        return (b"m" if offset + len(part) < len(whole) else b"l") + escaped(part)

    def _command(self, text: bytes) -> bytes:
        """Do a command of gdb's ``monitor``. What is wrong is told as its output: gdb shows no text of errors here."""
        try:
            answer = self._target.monitor(text.decode(errors="replace").split(), self._interrupted)
        except TargetError as error:
            answer = str(error)
        if answer:
            self.tell(answer if answer.endswith("\n") else answer + "\n")
        return b"OK"


def _error(text: str) -> bytes:
    return b"E." + text.encode("ascii", errors="replace").replace(b"#", b"?").replace(b"$", b"?").replace(b"}", b")")


def _parts(text: bytes, separator: bytes, count: int) -> list[bytes]:
    found = text.split(separator, count - 1)
    if len(found) != count:
        raise WrongPacket
    return found


def _number(digits: bytes) -> int:
    """Return a number of at most 16 hexadecimal digits."""
    if not digits or len(digits) > 16 or not digits.isalnum():
        raise WrongPacket
    try:
        return int(digits, 16)
    except ValueError:
        raise WrongPacket from None


def _word(digits: bytes) -> int:
    found = _number(digits)
    if found >= _WORD:
        raise WrongPacket
    return found


def _thread(text: bytes) -> int:
    """Return the number of a thread; -1 stands for all and 0 for any."""
    return -1 if text == b"-1" else _number(text)


def _from_hex(digits: bytes) -> bytes:
    try:
        return binascii.unhexlify(digits)
    except ValueError:
        raise WrongPacket from None


def _word_text(value: int) -> bytes:
    return binascii.hexlify(value.to_bytes(4, "little"))
