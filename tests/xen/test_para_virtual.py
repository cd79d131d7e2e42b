"""Kernels in user mode: minios' para-virtual form, what its kind may and may not have in page tables, and attacks."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.devices.state import StateError
from dbt.host.console import CaptureConsole
from dbt.hypervisor.xen.domain import NotHot
from dbt.hypervisor.xen.foreign_pages import ForeignMap
from dbt.hypervisor.xen.host import XenHost
from dbt.hypervisor.xen.interface import FIRST_SHARED_PAGE, PV_PAGES, Errno, Request
from dbt.hypervisor.xen.pv import monitor
from dbt.hypervisor.xen.pv.guest import ParaVirtual
from dbt.hypervisor.xen.pv.page_types import LEAF, NONE, ROOT, WRITABLE
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from isa.arm.state import Mode
from tests.xen.guests import ARGUMENTS, RAM, SELF, domain_machine
from tests.xen.pv import (
    DATA,
    KERNEL_ROOT,
    KERNEL_TABLE,
    LEAF_PAGE,
    OTHER_LEAF,
    PAGE,
    READ,
    TABLE,
    USER_ROOT,
    WRITE,
    Guest,
    minios,
)

_ROOT = Path(__file__).resolve().parents[2]
_EXPECTED = (_ROOT / "guests" / "expected" / "minios.txt").read_text()
#: The kernel's rights to the MMU's domains.
_OF_KERNEL = 0x40000005
#: Where minios has the shared page.
_SHARED = 0xC0000000 + (8 << 20)
_MONITOR = Path(monitor.__file__).with_name("monitor.S")


def test_minios_says_the_same_in_user_mode() -> None:
    """Whether its kernel is privileged or not. It ends in the same state in every tier."""
    ends = []
    for tier in ("reference", "threaded", "auto"):
        console = CaptureConsole()
        with minios(tier=tier, console=console) as machine:
            result = machine.run(timeout=300)
            assert (result.reason, result.exit_code) == (StopReason.EXITED, 0), console.output[-1000:]
            ends.append((result.icount, state_hash(machine)))
        assert console.output.decode().replace("\r", "") == _EXPECTED
    assert len(set(ends)) == 1


def test_native_code_rings_the_timer_unless_its_event_changes_code() -> None:
    """The guest executes two words of the shared page, which do nothing. From then on the page has code."""
    ends = []
    for tier in ("reference", "threaded"):
        with minios(tier=tier) as machine:
            machine.run(fuel=400_000)
            while machine.cpu.mode != Mode.USER or machine.cpu["dacr"] != _OF_KERNEL:
                machine.run(fuel=1)
            rung = machine.cpu.native("events_rung")
            assert rung > 5 if tier == "threaded" else not rung
            _make_executable(machine, _SHARED)
            before, machine.cpu.r[15] = machine.cpu.r[15], _SHARED + 0x700
            machine.run(fuel=2)
            assert machine.cpu.r[15] == _SHARED + 0x708
            machine.cpu.r[15] = before
            machine.run(fuel=400_000)
            assert machine.cpu.native("events_rung") == rung
            ends.append((machine.icount, state_hash(machine)))
    assert len(set(ends)) == 1


def test_native_code_writes_tables_where_programs_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames of programs that have ended become tables: pages with code. Python writes none of their descriptors,
    but where a region was made from the word.
    """
    updates = 0

    def update(pv: ParaVirtual, args: list[int]) -> int | Request:
        nonlocal updates
        updates += 1
        return do_update(pv, args)

    do_update = ParaVirtual.update
    monkeypatch.setattr(ParaVirtual, "update", update)
    with minios(tier="threaded") as machine:
        assert machine.run(timeout=300).reason is StopReason.EXITED
        assert machine.cpu.native("hypercalls") > 100
    assert not updates


def _make_executable(machine: Machine, address: int) -> None:
    """Clear XN in the descriptor of a page of the kernel's."""
    at = machine.cpu["ttbr1"] & ~0x3FFF
    for mask, index in ((~0x3FF, address >> 20), (0, address >> 12 & 0xFF)):
        place = Gpa(at + 4 * index)
        entry = int.from_bytes(machine.memory.read_ram(place, 4), "little")
        at = entry & mask
    machine.memory.write_ram(place, (entry & ~1).to_bytes(4, "little"))


@pytest.mark.parametrize("icount", [200_000, 600_001, 1_234_567, 1_500_003])
def test_it_goes_on_from_a_saved_state(icount: int) -> None:
    with minios(tier="auto") as machine:
        machine.run(fuel=icount)
        with machine.save() as state, machine.fork() as child, Machine.restore(state, tier="threaded") as again:
            ends = set()
            for one in (machine, child, again):
                assert one.run(timeout=300).reason is StopReason.EXITED
                ends.add((one.icount, state_hash(one)))
    assert len(ends) == 1


def test_the_words_are_those_of_the_source(tmp_path: Path) -> None:
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("gcc-arm-none-eabi is not installed")
    made, binary = tmp_path / "monitor.o", tmp_path / "monitor.bin"
    subprocess.run(["arm-none-eabi-gcc", "-c", "-march=armv7-a", "-o", made, _MONITOR], check=True)
    subprocess.run(["arm-none-eabi-objcopy", "-O", "binary", made, binary], check=True)
    data, mine = binary.read_bytes(), monitor.monitor_code()
    assert mine[monitor.BEGIN :] == data[monitor.BEGIN :]
    code = mine[: monitor.BEGIN].rstrip(b"\0")
    assert data.startswith(code) and set(
        struct.unpack_from(f"<{(monitor.BEGIN - len(code)) // 4}I", data, len(code))
    ) <= {
        0,
        0xE320F000,
        0xE1A00000,
    }


# -- page tables ---------------------------------------------------------------------------------


@pytest.fixture
def guest() -> Iterator[Guest]:
    """It has RAM mapped once, for reading."""
    with domain_machine() as machine:
        guest = Guest(machine)
        guest.table(LEAF_PAGE, *(RAM + PAGE * number | READ for number in range(256)))
        guest.table(KERNEL_ROOT + 4 * 0xC00, LEAF_PAGE | KERNEL_TABLE)
        assert guest.begin() is Request.DEPRIVILEGE
        yield guest


EINVAL, EPERM = -Errno.EINVAL, -Errno.EPERM
SLOT, OTHER_SLOT = LEAF_PAGE + 4 * 0x50, LEAF_PAGE + 4 * 0x51


def test_a_page_is_a_table_or_writable(guest: Guest) -> None:
    types = guest.domain.pv.pages
    assert types.type_of(Gpa(LEAF_PAGE)) == LEAF and types.type_of(Gpa(DATA)) == NONE
    assert guest.update(SLOT, DATA | WRITE) == 0 and types.type_of(Gpa(DATA)) == WRITABLE
    assert guest.extended(0, DATA) == EINVAL, "it is writable"
    assert guest.update(KERNEL_ROOT + 4 * 0xC01, DATA | KERNEL_TABLE) == EINVAL
    assert guest.update(SLOT, DATA | READ) == 0 and types.type_of(Gpa(DATA)) == NONE
    assert guest.update(KERNEL_ROOT + 4 * 0xC01, DATA | KERNEL_TABLE) == 0 and types.type_of(Gpa(DATA)) == LEAF
    assert guest.update(SLOT, DATA | WRITE) == EINVAL, "it is a table"
    assert guest.word(SLOT) == DATA | READ
    assert guest.update(KERNEL_ROOT + 4 * 0xC01, 0) == 0 and types.type_of(Gpa(DATA)) == NONE


def test_a_mapping_that_was_writable_is_flushed_before_the_page_is_a_table(guest: Guest) -> None:
    assert guest.update(OTHER_SLOT, 0) == 0
    guest.table(monitor.ACTION, 0)
    assert guest.update(OTHER_SLOT, DATA | WRITE) == 0
    assert guest.word(monitor.ACTION) == 0, "nothing was valid there"
    assert guest.update(OTHER_SLOT, 0) == 0 and guest.word(monitor.ACTION) == monitor.ACT_FLUSH
    guest.table(monitor.ACTION, 0)
    assert guest.update(OTHER_SLOT, DATA | READ & ~1) == 0 and guest.word(monitor.ACTION) == monitor.ACT_CODE


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (LEAF_PAGE | WRITE, "a table that is writable by itself"),
        (KERNEL_ROOT + 0x3000 | WRITE, "the root"),
        (PV_PAGES | READ, "a page of the hypervisor"),
        (monitor.WORDS | WRITE, "the monitor's words"),
        (0x39000000 | WRITE, "the ring of the console, which no guest of this kind has"),
        (0x03001000 | WRITE, "a device"),
        (0x38000000 | WRITE, "the grant table"),
        (RAM + (1 << 20) | READ, "what is behind RAM"),
        (DATA | 0x013 | 1 << 6, "a page for privileged code"),
        (DATA | 0x233 | 1 << 6, "a reserved permission"),
        (DATA | 0x031, "a page of 64 KB"),
    ],
)
def test_what_a_second_level_table_cannot_have(guest: Guest, entry: int, why: str) -> None:
    assert guest.update(SLOT, entry) == EINVAL, why
    assert guest.word(SLOT) == RAM + 0x50000 | READ
    guest.table(OTHER_LEAF, entry)
    assert guest.extended(0, OTHER_LEAF) == EINVAL, why
    assert guest.domain.pv.pages.type_of(Gpa(OTHER_LEAF)) == NONE


@pytest.mark.parametrize(
    ("entry", "answer"),
    [
        (RAM | 0x402, EINVAL),  # a section
        (RAM | 0x40402, EINVAL),  # a supersection
        (DATA | KERNEL_TABLE | 4, EINVAL),  # PXN
        (DATA | KERNEL_TABLE | 2, EINVAL),
        (DATA | 1 | 15 << 5, EPERM),  # the hypervisor's domain
        (KERNEL_ROOT + 0x3000 | KERNEL_TABLE, EINVAL),  # a root as a second-level table
        (monitor.TABLES | KERNEL_TABLE, EINVAL),
        (0x38000000 | TABLE, EINVAL),
    ],
)
def test_what_a_root_cannot_have(guest: Guest, entry: int, answer: int) -> None:
    at = KERNEL_ROOT + 4 * 0xC02
    assert guest.update(at, entry) == answer and guest.word(at) == 0
    guest.table(USER_ROOT, entry)
    assert guest.extended(1, USER_ROOT) == answer


def test_the_tables_of_processes(guest: Guest) -> None:
    assert guest.extended(15, USER_ROOT + PAGE) == EINVAL, "not aligned"
    assert guest.extended(15, USER_ROOT) == 0, "an empty one"
    assert guest.word(monitor.TABLE) == USER_ROOT
    types = guest.domain.pv.pages
    assert types.type_of(Gpa(USER_ROOT)) == types.type_of(Gpa(USER_ROOT + PAGE)) == ROOT
    assert guest.update(SLOT - 0x40, USER_ROOT | WRITE) == EINVAL
    assert guest.extended(15) == 0 and guest.word(monitor.TABLE) == monitor.IDLE_TABLE
    assert types.type_of(Gpa(USER_ROOT)) == NONE
    assert guest.update(SLOT - 0x40, USER_ROOT | WRITE) == 0
    assert guest.extended(15, USER_ROOT) == EINVAL and types.type_of(Gpa(USER_ROOT + PAGE)) == NONE


#: Where a hypercall is to say how much of it is done.
DONE = DATA + 0x800


def test_tables_of_processes_by_number(guest: Guest) -> None:
    def set_slot(slot: int, root: int) -> object:
        return guest.call(50, guest.put("IxxxxQQ", 64, root // PAGE, slot), 1, 0, SELF)

    types = guest.domain.pv.pages
    assert set_slot(128, USER_ROOT) == set_slot(0xFF, USER_ROOT) == set_slot(1, USER_ROOT + PAGE) == EINVAL
    assert set_slot(127, USER_ROOT) == 0 and guest.word(monitor.WORDS + 4 * 127) == USER_ROOT
    assert types.type_of(Gpa(USER_ROOT + PAGE)) == ROOT
    guest.table(monitor.SLOT, 127)
    assert set_slot(127, 0) == EINVAL, "it is in use"
    guest.table(monitor.SLOT, monitor.NO_SLOT)
    assert set_slot(127, 0) == 0 and types.type_of(Gpa(USER_ROOT)) == NONE


def test_pins(guest: Guest) -> None:
    assert guest.extended(4, USER_ROOT) == EINVAL, "it has no pin"
    assert guest.extended(1, USER_ROOT) == 0
    assert guest.extended(1, USER_ROOT) == guest.extended(0, USER_ROOT) == EINVAL, "it has one"
    assert guest.extended(4, USER_ROOT) == 0
    assert guest.extended(4, USER_ROOT) == EINVAL, "twice"
    assert guest.extended(4, KERNEL_ROOT + 0x3000) == EINVAL, "a reference, and no pin"


def test_a_saved_state_may_say_what_is_not_so_about_pages(guest: Guest) -> None:
    """Who made it has the guest, and no more of the host: counts are of pages, and each is taken back once."""
    types = guest.domain.pv.pages
    behind = Gpa(RAM + PAGE * len(types.types))
    for entry in (behind | WRITE, 0xFFFFF000 | WRITE, DATA | WRITE, LEAF_PAGE | WRITE):
        guest.table(SLOT, entry)
        before = list(types.counts)
        assert guest.update(SLOT, 0) == 0 and list(types.counts) == before
    for entry in (behind | KERNEL_TABLE, KERNEL_ROOT + 0x3000 | KERNEL_TABLE, DATA | KERNEL_TABLE):
        guest.table(KERNEL_ROOT + 4 * 0xC03, entry)
        before = list(types.counts)
        assert guest.update(KERNEL_ROOT + 4 * 0xC03, 0) == 0 and list(types.counts) == before
    guest.domain.pv.user_root, guest.domain.pv.pinned = behind, [behind]
    assert guest.extended(15) == guest.extended(4, behind) == 0 and list(types.counts) == before


def test_a_saved_state_has_no_timer_that_rings_for_ever(guest: Guest) -> None:
    pv = guest.domain.pv
    assert pv.is_possible() and guest.call(52, 10_000) == 0 and pv.is_possible()
    shortest, pv.period = pv.period, 0
    assert not pv.is_possible()
    pv.period = shortest - 1
    assert not pv.is_possible()
    pv.period, pv.next = shortest, 1 - (1 << 62)
    pv.rings()
    assert pv.next == pv.time.now + shortest
    pv.next = None
    assert not pv.is_possible()


def test_nobody_else_is_on_its_host(guest: Guest) -> None:
    """Others would write to what it has granted, and may have made a page table since."""
    with pytest.raises(StateError, match="in user mode cannot be on a host with others"):
        XenHost().enter(guest.domain, guest.domain.identity.number)
    guest.domain.foreign.maps = {0: ForeignMap(7, 0, RAM, RAM, True, False).pack()}
    assert not guest.domain.is_possible()
    guest.domain.foreign.maps = {}
    assert guest.domain.is_possible()


def test_a_frame_has_no_more_than_32_bits_of_address(guest: Guest) -> None:
    for command in (0, 1, 15):
        assert guest.extended(command, USER_ROOT | 1 << 32) == EINVAL


def test_what_is_the_hypervisors_stays_so(guest: Guest) -> None:
    for slot in (4094, 4095):
        assert guest.update(KERNEL_ROOT + 4 * slot, 0) == EPERM
    assert guest.update(monitor.TABLES, 0) == guest.update(monitor.IDLE_TABLE, 0) == EINVAL
    assert guest.update(DATA, DATA | WRITE) == EINVAL, "no table"
    assert guest.update(SLOT + 1, 0) == guest.update(SLOT | 1 << 32, 0) == guest.update(SLOT, 1 << 32) == EINVAL
    assert guest.call(49, guest.put("QQ", SLOT, 0), 1, 0, 2) == -Errno.ESRCH
    assert guest.begin() == -Errno.EBUSY
    for number in (12, 20, 21, 24, 33, 34, 51, 53, 54, 55):
        assert guest.call(number) == -Errno.ENOSYS
    for command in (11, 12):
        assert guest.events(command, "QIIQ", RAM // PAGE, 0, 0, 0) == -Errno.ENOSYS
    assert guest.update(SLOT, FIRST_SHARED_PAGE | WRITE) == 0


def test_a_beginning_that_is_refused_leaves_a_domain_as_it_was() -> None:
    with domain_machine() as machine:
        guest = Guest(machine)
        for root in (KERNEL_ROOT + PAGE, 0, 0xFFFFC000, 0x38000000):
            assert guest.call(48, guest.put("4I", root, 0, 0, 0)) == EINVAL
        guest.table(KERNEL_ROOT + 4 * 4095, DATA | TABLE)
        assert guest.begin() == EINVAL, "the hypervisor's slot is in use"
        guest.table(KERNEL_ROOT + 4 * 4095, 0)
        guest.table(KERNEL_ROOT + 4 * 4000, RAM | 0x402)
        assert guest.begin() == EINVAL
        assert not guest.domain.pv.is_on and guest.call(17, 0) == 4 << 16 | 17
        assert guest.update(SLOT, 0) == guest.extended(6) == guest.call(52, 10**6) == -Errno.ENOSYS
        guest.table(KERNEL_ROOT + 4 * 4000, 0)
        guest.domain.shared.move(Gpa(DATA))
        assert guest.begin() == EINVAL, "the hypervisor writes to a page of the guest's"
        guest.domain.shared.move(FIRST_SHARED_PAGE)
        assert guest.call(24, 5, 0, guest.put("Q", DATA)) == 0, "where the guest's times are to be"
        assert guest.begin() == EINVAL, "the hypervisor writes to a page of the guest's when the guest is woken"
        assert guest.call(24, 5, 0, guest.put("Q", 0)) == 0
        assert guest.begin() is Request.DEPRIVILEGE
        guest.domain.processor.runstate = [DATA]
        assert not guest.domain.is_possible(), "no saved state says so, either"
        guest.domain.processor.runstate = []


def test_one_hypercall_checks_a_bounded_number_of_tables(guest: Guest) -> None:
    guest.table(USER_ROOT, *(RAM + PAGE * (0x60 + number) | TABLE for number in range(100)))
    assert guest.extended(1, USER_ROOT) == -Errno.EBUSY
    assert guest.domain.pv.pages.type_of(Gpa(RAM + 0x60000)) == NONE
    for number in range(100):
        assert guest.extended(0, RAM + PAGE * (0x60 + number)) == 0
    assert guest.extended(1, USER_ROOT) == 0


def test_one_hypercall_takes_a_bounded_number_of_tables_back(guest: Guest) -> None:
    """Of several operations, each that is about tables is done by itself, and flushes with what follows them."""
    commands = [(6, 0), (1, USER_ROOT), (4, USER_ROOT), (6, 0), (12, 0), (0, OTHER_LEAF), (4, OTHER_LEAF), (7, 0)]
    words = [word for command, page in commands for word in (command, page // PAGE, 0)]
    args = [guest.put("IxxxxQQ" * len(words[::3]), *words), len(commands), DONE, SELF]
    guest.table(DONE, 0)
    done = []
    while guest.domain.pv.extended(args) is Request.AGAIN:
        done.append(guest.word(DONE))
    assert (done, guest.word(DONE)) == ([2, 3, 6, 7], 8)


def recount(guest: Guest) -> None:
    """Count anew what the tables say. A page that is a table is writable nowhere."""
    pv = guest.domain.pv
    count: Counter[tuple[int, int]] = Counter()
    for page, kind in enumerate(pv.pages.types):
        if kind not in (LEAF, ROOT):
            continue
        data = guest.machine.memory.read_ram(Gpa(RAM + page * PAGE), PAGE)
        for slot, entry in enumerate(struct.unpack("<1024I", data)):
            own = RAM + page * PAGE + 4 * slot >= KERNEL_ROOT + 4 * 4094 and RAM + page * PAGE < KERNEL_ROOT + 0x4000
            if own or not entry or entry & ~0xFFF == FIRST_SHARED_PAGE:
                continue
            if kind == ROOT:
                count[(entry - RAM) >> 12, LEAF] += 1
            elif entry & 0x230 == 0x30:
                count[(entry - RAM) >> 12, WRITABLE] += 1
    for page in (
        KERNEL_ROOT + 0x2000,
        KERNEL_ROOT + 0x3000,
        *(pv.user_root + n * PAGE for n in (0, 1) if pv.user_root),
    ):
        count[(page - RAM) >> 12, ROOT] += 1
    for page in pv.pinned:
        number = (page - RAM) >> 12
        count[number, pv.pages.types[number]] += 1
    found = {
        (n, kind): held for n, (kind, held) in enumerate(zip(pv.pages.types, pv.pages.counts, strict=True)) if held
    }
    assert found == dict(count)


@pytest.mark.parametrize("seed", range(4))
def test_random_hypercalls_keep_the_account(guest: Guest, seed: int) -> None:
    """20,000 of them. Many succeed, and never is a table writable."""
    data = random.Random(seed)
    pages = [RAM + PAGE * number for number in range(0x20, 0x34)] + [USER_ROOT, USER_ROOT + PAGE, DATA]
    done = Counter[str]()
    for step in range(5000):
        page, other = data.choice(pages), data.choice(pages)
        match data.randrange(8):
            case 0:
                answer = guest.extended(data.choice((0, 1, 4, 4, 6, 15)), data.choice((page, 0)))
            case 1:
                answer = guest.update(
                    data.choice((KERNEL_ROOT + 0x2000, page)) + 4 * data.randrange(1024), other | KERNEL_TABLE
                )
            case 2:
                answer = guest.update(page + 4 * data.randrange(1024), data.randrange(1 << 32))
            case 3:
                answer = guest.call(data.randrange(48, 53), *(data.randrange(1 << 32) for _ in range(5)))
            case _:
                entry = data.choice((0, other | WRITE, other | READ))
                answer = guest.update(data.choice((LEAF_PAGE, OTHER_LEAF, page)) + 4 * data.randrange(64), entry)
        done["yes" if answer == 0 else "no"] += 1
        if step % 100 == 0:
            recount(guest)
    recount(guest)
    assert min(done["yes"], done["no"]) > 500, done


@pytest.mark.parametrize("seed", range(2))
def test_native_code_writes_descriptors_as_python_does(guest: Guest, seed: int) -> None:
    """Batches of all kinds, on two domains: one by what is compiled, one by the whole call. Then they are equal."""
    data = random.Random(seed)
    pages = [RAM + PAGE * number for number in range(0x20, 0x34)] + [USER_ROOT, USER_ROOT + PAGE, DATA]
    places = (LEAF_PAGE, LEAF_PAGE, OTHER_LEAF, KERNEL_ROOT + 0x2000, USER_ROOT, DATA)
    found = Counter[object]()
    with domain_machine() as machine:
        other = Guest(machine)
        other.table(LEAF_PAGE, *(RAM + PAGE * number | READ for number in range(256)))
        other.table(KERNEL_ROOT + 4 * 0xC00, LEAF_PAGE | KERNEL_TABLE)
        assert other.begin() is Request.DEPRIVILEGE
        for step in range(1500):
            batch = []
            for _ in range(data.choice((1, 1, 2, 5, 64))):
                at = data.choice(places) + 4 * data.randrange(80)
                flags = data.choice((WRITE, READ, WRITE & ~1, READ & ~1, TABLE, KERNEL_TABLE))
                batch.append((at, data.choice((0, data.choice(pages) | flags, data.choice(pages) | flags))))
            if not data.randrange(9):
                batch.append((data.getrandbits(34), data.getrandbits(34)))
            values = [number for pair in batch for number in pair]
            for one in (guest, other):
                one.put(f"{len(values)}Q", *values)
            before = state_hash(machine) if step % 50 == 0 else None
            hot: object = None
            try:
                hot = other.domain.answer_hot(49, ARGUMENTS, len(batch), 0, SELF, 0)
            except NotHot:
                assert before is None or state_hash(machine) == before
                hot = other.call(49, ARGUMENTS, len(batch), 0, SELF)
                found["left"] += 1
            assert hot == guest.call(49, ARGUMENTS, len(batch), 0, SELF)
            found[hot if isinstance(hot, int) else "again"] += 1
        assert isinstance(guest.machine, Machine) and state_hash(machine) == state_hash(guest.machine)
        recount(other)
    assert found[0] > 100 and found[EINVAL] > 100 and found["left"] < 200, found
