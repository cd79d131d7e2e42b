"""The guest's side of XenStore's ring."""

from __future__ import annotations

import struct

from dbt.abi.addresses import Gpa
from dbt.hypervisor.xen.store.server import Type
from tests.xen.guests import SELF, Caller

PAGE = 0x39001000
HOME = "/local/domain/1"


class Client:
    """A guest's side of the ring."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        assert caller.call(34, 1, caller.put("HHIQ", SELF, 0, 2, 0)) == 0
        self.port = caller.get("HHIQ")[3]
        self.events: list[bytes] = []
        self.received = b""

    def _ring(self, size: int) -> bytes:
        return self.caller.machine.memory.read_ram(Gpa(PAGE), size)

    def send(self, data: bytes) -> None:
        """Send bytes, in pieces if there is no room, and take what comes back."""
        memory = self.caller.machine.memory
        while True:
            taken, given, got, put = struct.unpack("<IIII", self._ring(2064)[2048:])
            answers = self._ring(2048)[1024:]
            self.received += bytes(answers[number % 1024] for number in range(got, put))
            piece, data = data[:700], data[700:]
            assert taken == given, "all that was sent has been taken"
            for number, byte in enumerate(piece):
                memory.write_ram(Gpa(PAGE + (given + number) % 1024), bytes([byte]))
            memory.write_ram(Gpa(PAGE + 2048), struct.pack("<IIII", taken, given + len(piece), put, put))
            assert self.caller.events(4, "I", self.port) == 0
            if not piece and got == put:
                return

    def ask(self, kind: int, payload: bytes, transaction: int = 0) -> bytes:
        """Return the payload of the answer, or the name of an error."""
        self.send(struct.pack("<IIII", kind, 77, transaction, len(payload)) + payload)
        answer = b""
        while self.received:
            found, request, _, size = struct.unpack_from("<IIII", self.received)
            data, self.received = self.received[16 : 16 + size], self.received[16 + size :]
            assert len(data) == size
            if found == Type.WATCH_EVENT:
                self.events.append(data)
            else:
                assert request == 77 and found in (kind, Type.ERROR)
                answer = data
        return answer
