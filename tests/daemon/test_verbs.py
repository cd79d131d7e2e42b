"""`dbt vm` and its daemon: domains are defined, started, looked at, used and ended."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer
from time import monotonic
from uuid import UUID

import pytest

from dbt.cli.status import Status
from tests.cli.command import COMMAND, dbt, environment, paragraph
from tests.daemon.daemons import TestDaemon, daemon_in
from tests.waiting import wait_until


def test_the_daemon_starts_on_demand_once_and_only_its_user_reaches_it(tmp_path: Path) -> None:
    with daemon_in(tmp_path) as daemon:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda _: daemon.ok("list"), range(4))) == ["name  state  weight\n"] * 4
        assert stat.S_IMODE(daemon.state.stat().st_mode) == 0o700
        pid = daemon.ask("GET", "/v1")["pid"]
        again = dbt("vm", "daemon", DBT_VM_DIR=str(daemon.state))
        assert "a daemon runs already" in paragraph(again, 125)
        assert daemon.ask("GET", "/v1")["pid"] == pid


def test_the_life_of_a_domain(daemon: TestDaemon) -> None:
    daemon.define("one", "ticker")
    assert daemon.state_of("one") == "defined"
    assert daemon.ok("list", "--name") == ""
    assert daemon.ok("start", "one") == "domain one started\n"
    wait_until(lambda: daemon.json("domstats", "one")[0]["instructions"] > 100, "instructions")
    assert daemon.ok("list", "--name") == "one\n"
    daemon.ok("suspend", "one")
    assert daemon.state_of("one") == "paused"
    before = daemon.json("domstats", "one")[0]["instructions"]
    daemon.ok("resume", "one")
    wait_until(lambda: daemon.json("domstats", "one")[0]["instructions"] > before, "more instructions")
    daemon.ok("reset", "one")
    assert daemon.state_of("one") in ("running", "blocked")
    daemon.ok("destroy", "one")
    assert daemon.json("dominfo", "one")["reason"] == "it was destroyed"
    daemon.ok("undefine", "one")
    assert daemon.json("list", "--all") == []


def test_a_transient_domain_is_forgotten_when_its_guest_ends(daemon: TestDaemon) -> None:
    daemon.ok("create", daemon.definition("short", "exits"))
    wait_until(lambda: daemon.json("list", "--all") == [], "the end of a guest")


def test_a_transient_domain_has_no_next_start(daemon: TestDaemon) -> None:
    daemon.ok("create", daemon.definition("one", "letters"))
    for verb, why in (("autostart", "it cannot start with the daemon"), ("managedsave", "`dbt vm save` writes it")):
        said = paragraph(daemon.vm(verb, "one"), 125)
        assert "the domain one is transient: it is forgotten when its guest ends" in said
        assert why in said
    assert daemon.type("one") == "A"
    daemon.define("one", "letters")
    daemon.ok("autostart", "one")
    daemon.ok("undefine", "one")
    found = daemon.json("dominfo", "one")
    assert (found["persistent"], found["autostart"]) == (False, False)


def test_a_guest_that_crashes_is_kept_and_the_reason_said(daemon: TestDaemon) -> None:
    daemon.define("bad", "thumb")
    daemon.ok("start", "bad")
    wait_until(lambda: daemon.state_of("bad") == "crashed", "a crash")
    assert "Thumb" in daemon.json("dominfo", "bad")["reason"]
    assert "is crashed" in paragraph(daemon.vm("suspend", "bad"), 125)


def test_a_shared_console_has_all_bytes_and_ends_with_the_machine(daemon: TestDaemon) -> None:
    """The guest sends back what it gets. Standard input ends before the answer comes, and the machine after it."""
    daemon.define("echo", "echo")
    daemon.ok("start", "echo")
    console = subprocess.Popen(
        [*COMMAND, "vm", "console", "echo", "--history"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(DBT_VM_DIR=str(daemon.state)),
    )
    assert console.stdin is not None and console.stdout is not None
    with console:
        text = bytes(range(256)) * 16
        console.stdin.write(text)
        console.stdin.close()
        assert console.stdout.read(len(text)) == text
        daemon.ok("destroy", "echo")
        assert console.stdout.read() == b""
    assert console.returncode == 0


def test_who_goes_from_a_silent_console_leaves_no_connection(daemon: TestDaemon) -> None:
    """Also who has ended standard input before: the daemon hears of it neither by reading nor by writing."""
    daemon.define("one", "sleeper")
    daemon.ok("start", "one")
    descriptors = Path(f"/proc/{daemon.ask('GET', '/v1')['pid']}/fd")
    before = len(list(descriptors.iterdir()))
    consoles = [
        subprocess.Popen([*COMMAND, "vm", "console", "one"], env=environment(DBT_VM_DIR=str(daemon.state)), stdin=stdin)
        for stdin in (subprocess.DEVNULL, subprocess.PIPE)
    ]
    wait_until(lambda: len(list(descriptors.iterdir())) >= before + len(consoles), "consoles")
    for console in consoles:
        console.kill()
        console.wait()
    wait_until(lambda: len(list(descriptors.iterdir())) <= before, "the end of their connections")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(
    ("verb", "why"), [(("console", "one"), "there is no daemon"), (("event",), "the daemon has gone")]
)
def test_who_listens_is_told_that_the_daemon_has_ended(
    tmp_path: Path, how: signal.Signals, verb: tuple[str, ...], why: str
) -> None:
    with daemon_in(tmp_path) as daemon:
        daemon.define("one", "letters")
        daemon.ok("start", "one")
        users = environment(DBT_VM_DIR=str(daemon.state))
        with subprocess.Popen(
            [*COMMAND, "vm", *verb], env=users, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as listener:
            assert listener.stdout is not None
            while not select.select([listener.stdout], [], [], 0.1)[0]:  # until it is there
                daemon.ok("suspend", "one")
                daemon.ok("resume", "one")
                daemon.type("one")
            os.kill(daemon.ask("GET", "/v1")["pid"], how)
            _, said = listener.communicate(timeout=60)
        assert listener.returncode == Status.FAILURE
        assert why in said.decode() and "bug" not in said.decode()


def test_events_say_what_happens(daemon: TestDaemon) -> None:
    client = daemon.client()
    heard = client.listen("/v1/events")
    assert next(heard) == ("", None)
    daemon.define("one", "sleeper")
    daemon.ok("start", "one")
    daemon.ok("suspend", "one")
    daemon.ok("resume", "one")
    daemon.ok("destroy", "one")
    daemon.ok("undefine", "one")
    told = [next(heard) for _ in range(6)]
    assert [kind for kind, _ in told] == ["defined", "started", "suspended", "resumed", "stopped", "undefined"]
    assert {event["domain"] for _, event in told} == {"one"}
    assert told[4][1]["detail"] == "it was destroyed"
    client.close()


def test_shares_are_changed_and_remembered(daemon: TestDaemon) -> None:
    daemon.define("one", "spinner", ["[share]", "weight = 100", "cap = 0.5"])
    assert daemon.json("schedinfo", "one") == {"weight": 100, "cap": 0.5, "latency": "normal"}
    changed = daemon.json("schedinfo", "one", "--weight", "7", "--cap", "1", "--latency", "batch")
    assert changed == {"weight": 7, "cap": None, "latency": "batch"}
    assert daemon.ask("GET", "/v1/domains/one/definition")["share"] == changed
    assert "no part of a core" in paragraph(daemon.vm("schedinfo", "one", "--cap", "2"), 120)


def test_a_cap_holds_over_the_wall_clock(daemon: TestDaemon) -> None:
    daemon.define("one", "spinner", ["[share]", "cap = 0.05"])
    daemon.ok("start", "one")
    wait_until(lambda: daemon.json("domstats", "one")[0]["share"] > 0, "a period")
    assert daemon.json("domstats", "one")[0]["share"] <= 0.05


def test_what_cannot_be_is_said_in_one_paragraph(daemon: TestDaemon) -> None:
    assert "there is no domain none" in paragraph(daemon.vm("start", "none"), 120)
    daemon.define("one", "sleeper")
    assert "cannot pause the domain one, which is defined" in paragraph(daemon.vm("suspend", "one"), 125)
    assert "it has no console" in paragraph(daemon.vm("console", "one"), 125)
    missing = daemon.folder / "missing.toml"
    missing.write_text('name = "m"\n[machine]\nkernel = "nowhere"\n')
    daemon.ok("define", missing)
    said = paragraph(daemon.vm("start", "m"), 121)
    assert "the domain m cannot start" in said and str(daemon.folder / "nowhere") in said
    assert daemon.state_of("m") == "defined"
    missing.write_text("name = ")
    assert "this is no TOML file" in paragraph(daemon.vm("define", missing), 121)
    missing.write_text('name = "m"\nuuid = "12345678-1234-4234-8234-123456789abc"\n[machine]\nkernel = "x"\n')
    assert "there is a domain m already" in paragraph(daemon.vm("define", missing), 125)


def test_definitions_survive_the_daemon_and_autostart_starts(tmp_path: Path) -> None:
    with daemon_in(tmp_path) as daemon:
        daemon.define("one", "sleeper", ["[share]", "weight = 9"])
        daemon.define("two", "sleeper")
        daemon.ok("autostart", "one")
        daemon.ok("daemon", "--stop")
        wait_until(lambda: not _is_reachable(daemon), "the end of the daemon")
        found = {domain["name"]: domain for domain in daemon.json("list", "--all")}
        assert (found["one"]["weight"], found["two"]["state"]) == (9, "defined")
        assert found["one"]["state"] in ("running", "blocked")


def _is_reachable(daemon: TestDaemon) -> bool:
    try:
        daemon.client().close()
    except OSError:
        return False
    return True


def _has_ended(daemon: TestDaemon) -> bool:
    """True if no process has the directory of a daemon, and so none writes to its database any more."""
    with open(daemon.state / "lock", "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_daemon_that_is_about_to_end_is_waited_for(tmp_path: Path) -> None:
    """It does not listen any more, and still has the directory."""
    with daemon_in(tmp_path) as daemon:
        daemon.state.mkdir(mode=0o700)
        with open(daemon.state / "lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            timer = Timer(1.0, lambda: fcntl.flock(lock, fcntl.LOCK_UN))
            timer.start()
            assert daemon.json("list") == []
            timer.join()


def test_a_second_daemon_is_refused_at_once(daemon: TestDaemon) -> None:
    daemon.ok("list")
    began = monotonic()
    assert "a daemon runs already" in paragraph(daemon.vm("daemon"), 125)
    assert monotonic() - began < 9


def test_a_database_of_another_version_is_refused(tmp_path: Path) -> None:
    import sqlite3

    daemon = TestDaemon(tmp_path)
    daemon.state.mkdir(mode=0o700)
    database = sqlite3.connect(daemon.state / "vm.sqlite")
    database.execute("PRAGMA user_version = 99")
    database.close()
    assert "has version 99" in paragraph(daemon.vm("list"), 125)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("when = 1979-05-27", "wrong at when: dates"),
        ("machine.memory = [07:32:00]", "wrong at machine.memory[0]: dates"),
        ("share.cap = inf", "wrong at share.cap: dates, times, inf"),
        ("share.cap = nan", "wrong at share.cap: dates, times, inf and nan"),
    ],
)
def test_values_that_only_toml_has_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.toml").write_text(f'name = "x"\n{text}\n')
    assert said in paragraph(TestDaemon(tmp_path).vm("define", str(tmp_path / "x.toml")), 121)


def test_names_that_nothing_can_have_are_named(daemon: TestDaemon) -> None:
    daemon.define("one", "sleeper")
    for name in ("", "../one", "one/definition"):
        assert f"nothing can have the name {name!r}" in paragraph(daemon.vm("dominfo", name), 120)
    assert "nothing can have the name '../x'" in paragraph(daemon.vm("snapshot-delete", "one", "../x"), 120)
    assert "there is no domain" in paragraph(daemon.vm("dominfo", os.fsdecode(b"\xff")), 120)
    assert "no text in UTF-8" in paragraph(daemon.vm("dump", "one", os.fsdecode(b"/tmp/\xff")), 120)
    assert "this is to begin with a letter" in paragraph(daemon.vm("clone", "one", "../x"), 120)


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    import sqlite3

    with daemon_in(tmp_path) as daemon:
        daemon.define("one", "sleeper")
        daemon.ok("daemon", "--stop")
        wait_until(lambda: _has_ended(daemon), "the end of the daemon")
        path = daemon.state / "vm.sqlite"
        sound = path.read_bytes()
        path.write_bytes(b"damaged" + sound[7:])
        assert f"the database {path} cannot be used" in paragraph(daemon.vm("list"), 125)
        wait_until(lambda: _has_ended(daemon), "the end of the next daemon")
        path.write_bytes(sound)
        (definition,) = sqlite3.connect(path).execute("SELECT definition FROM domains").fetchone()
        uuid = json.loads(definition)["uuid"]
        for text, said in (
            ("{", f"the database {path} has a domain"),
            (definition.replace(uuid, str(UUID(int=5))), f"it is of another domain than one, whose UUID is {uuid}"),
            (definition.replace('"base":', '"newer":'), "has an option that this dbt does not know: newer"),
        ):
            database = sqlite3.connect(path)
            with database:
                database.execute("UPDATE domains SET definition = ?, made = ?", (text, text))
            database.close()
            assert said in paragraph(daemon.vm("list"), 125)
            wait_until(lambda: _has_ended(daemon), "the end of the next daemon")
        with sqlite3.connect(path) as database:
            database.execute("UPDATE domains SET definition = ?, made = ?", (definition, definition))
        database.close()


def test_a_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    daemon = TestDaemon(tmp_path)
    daemon.state.mkdir(mode=0o755)
    assert f"chmod 700 {daemon.state}" in paragraph(daemon.vm("list"), 125)


def test_a_socket_that_systemd_passes_is_used(tmp_path: Path) -> None:
    """As systemd does: the socket is descriptor 3, and two variables say so."""
    path = tmp_path / "passed.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    script = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
        "os.execv(sys.executable, [sys.executable, '-m', 'dbt', 'vm', 'daemon'])"
    )
    import sys

    users = environment(DBT_VM_DIR=str(tmp_path / "vm"), LISTEN_FDS="1")
    number = listening.fileno()
    process = subprocess.Popen([sys.executable, "-c", script, str(number)], pass_fds=[number], env=users)
    try:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(120)
        client.connect(str(path))
        client.sendall(b"GET /v1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := client.recv(4096):
            answer += piece
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["pid"] == process.pid
    finally:
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(120) == 0


@pytest.mark.parametrize("arguments", [("vm", "--help"), ("vm", "list", "--help"), ("vm", "daemon", "--help")])
def test_the_help_fits_in_80_columns(arguments: tuple[str, ...]) -> None:
    done = dbt(*arguments, COLUMNS="80")
    assert done.returncode == 0
    assert max(len(line) for line in done.stdout.decode().splitlines()) <= 80


#: Says what the command has imported that the interpreter had not before.
_IMPORTED = """
import os, sys
before, leave = set(sys.modules), os._exit
def report(status):
    print(*sorted(set(sys.modules) - before), file=sys.stderr, flush=True)
    leave(status)
os._exit = report
from dbt.cli import main
try:
    main()
finally:
    report(0)
"""


def test_a_list_imports_nothing_that_takes_long(daemon: TestDaemon) -> None:
    """It is what people and scripts say most often, and to import takes longer than to ask."""
    daemon.ok("list")
    command = [sys.executable, "-c", _IMPORTED, "vm", "list"]
    users = environment(DBT_VM_DIR=str(daemon.state))
    imported = set(subprocess.run(command, env=users, capture_output=True, check=True, text=True).stderr.split())
    assert "dbt.daemon.client" in imported
    heavy = {"ctypes", "dataclasses", "hashlib", "platform", "random", "secrets", "subprocess", "urllib.parse", "uuid"}
    assert not imported & heavy
    assert not {name for name in imported if name.startswith(("dbt.memory", "dbt.vm.", "dbt.engine", "dbt.hypervisor"))}
