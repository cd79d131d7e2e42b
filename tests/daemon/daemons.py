"""A daemon of its own for tests, in a directory of its own, and the command that speaks to it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dbt.daemon.client import Client
from tests.assembler import assemble
from tests.cli.command import dbt
from tests.domains.guests import GUESTS

#: It answers each byte with the next letter, so the letters tell what its state is.
LETTERS = (
    GUESTS["echo"]
    .replace("start:", "start: mov r6, #65 ;")
    .replace("streq r0, [r8]", "streq r6, [r8] ; addeq r6, r6, #1")
)


class TestDaemon:
    """The daemon whose directory is ``folder``. It starts with the first command."""

    __test__ = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "vm"

    def vm(self, *arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a verb to its end."""
        return dbt("vm", *arguments, stdin=stdin, DBT_VM_DIR=str(self.state))

    def ok(self, *arguments: str | Path, stdin: bytes = b"") -> str:
        """Run a verb that succeeds; what it printed."""
        done = self.vm(*arguments, stdin=stdin)
        assert done.returncode == 0, (arguments, done.stderr.decode())
        return done.stdout.decode()

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    def state_of(self, name: str) -> str:
        state = self.json("dominfo", name)["state"]
        assert isinstance(state, str)
        return state

    def ask(self, method: str, path: str, body: object = None) -> Any:
        with self.client() as client:
            return client.ask(method, path, body)

    def client(self) -> Client:
        return Client(str(self.state / "vm.sock"))

    def definition(self, name: str, guest: str, lines: Sequence[str] = (), machine: Sequence[str] = ()) -> Path:
        """Write a definition with a guest of :mod:`tests.domains.guests`, or with "letters"."""
        image = self.folder / f"{guest}.bin"
        image.write_bytes(assemble(LETTERS if guest == "letters" else GUESTS[guest], 0))
        path = self.folder / f"{name}.toml"
        of_machine = [f'program = "{image.name}"', "base = 0", 'memory = "1M"', 'jit = "off"', *machine]
        path.write_text("\n".join([f'name = "{name}"', *lines, "[machine]", *of_machine, ""]))
        return path

    def define(self, name: str, guest: str, lines: Sequence[str] = (), machine: Sequence[str] = ()) -> None:
        self.ok("define", self.definition(name, guest, lines, machine))

    def define_deaf(self, name: str) -> None:
        """Define a domain on the board virt, whose guest does not hear the power key."""
        path = self.definition(name, "branch")
        on_virt = 'base = 0x40000000\nboard = "virt"\ncpu = "cortex-a15"'
        path.write_text(path.read_text().replace("base = 0", on_virt))
        self.ok("define", path)

    def type(self, name: str, text: bytes = b"x") -> str:
        """Type, and return what the guest answers: as many bytes, the last that it has written."""
        stats = f"/v1/domains/{name}/stats"
        written = self.ask("GET", stats)["console_bytes"]
        with self.client() as client:
            answer = bytearray(client.hijack(f"/v1/domains/{name}/console", position=written))
            client.socket.sendall(text)
            while len(answer) < len(text):
                piece = client.socket.recv(4096)
                assert piece, f"the console of {name} has ended"
                answer += piece
            return answer.decode()

    def remove_all(self) -> None:
        """End and forget all domains, for the next test."""
        for domain in self.json("list", "--all"):
            if domain["state"] != "defined":
                self.vm("destroy", domain["name"])  # a transient one is gone then
            self.vm("undefine", domain["name"])


@contextmanager
def daemon_in(folder: Path) -> Iterator[TestDaemon]:
    daemon = TestDaemon(folder)
    try:
        yield daemon
    finally:
        daemon.remove_all()
        daemon.vm("daemon", "--stop")
