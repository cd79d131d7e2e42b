"""A guest whose kernel runs in user mode: its hypercalls, after those that Xen has on x86, in the numbers that are
private to an architecture (__HYPERVISOR_arch_0 to 7).

The guest begins as any domain, with the MMU off, and makes its first page tables. ``set_trap_table`` checks them and
lets go of the privileged modes for ever: from then on exceptions come to the monitor (:mod:`.monitor`), which is in
pages of the hypervisor. The processor uses the guest's page tables themselves; the guest changes them by hypercalls.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.devices.fields import LARGEST_COUNT
from dbt.devices.shared import shared
from dbt.devices.state import Part, Stateful, Tick, Wiring, Word
from dbt.devices.wiring import Alarm, Time
from dbt.hypervisor.xen.arguments import Arguments
from dbt.hypervisor.xen.event_channels import EventChannels
from dbt.hypervisor.xen.interface import FIRST_SHARED_PAGE, SELF, Errno, HypercallError, Request
from dbt.hypervisor.xen.pv import monitor
from dbt.hypervisor.xen.pv.page_types import LEAF, ROOT, PageTypes
from dbt.memory.dma import Dma

SET_TRAP_TABLE, MMU_UPDATE, MMUEXT_OP, IRET, SET_PERIODIC_TIMER, SWITCH_USER_ROOT = range(48, 54)
#: Hypercalls of domains that a para-virtual guest can make too. The others write where it has given no leave.
ALLOWED: Final = frozenset({13, 17, 18, 29, 32, SET_TRAP_TABLE, MMU_UPDATE, MMUEXT_OP, SET_PERIODIC_TIMER})
#: Operations on event channels that name pages.
FORBIDDEN_EVENTS: Final = frozenset({11, 12})
_VIRQ_TIMER: Final = 0

_BEGINNING = struct.Struct("<IIII")  # root, entry of the kernel, its stack pointer, entry for exceptions
_UPDATE = struct.Struct("<QQ")
_EXTENDED = struct.Struct("<IxxxxQQ")
_DONE = struct.Struct("<I")
#: mmu_update: how long one request is, and how many are done at once.
UPDATE_BYTES: Final = 16
UPDATES_AT_ONCE: Final = 64
_EINVAL, _EPERM = int(Errno.EINVAL), int(Errno.EPERM)
_WORDS, _ACTION = monitor.WORDS, monitor.ACTION
_ACT_FLUSH, _ACT_CODE, _ACT_UPCALL = monitor.ACT_FLUSH, monitor.ACT_CODE, monitor.ACT_UPCALL
_PIN_LEAF, _PIN_ROOT, _UNPIN, _FLUSH_ALL, _FLUSH_ONE, _FLUSH_CODE, _NEW_USER_ROOT = 0, 1, 4, 6, 7, 12, 15
#: The operations of mmuext_op that look at no table.
_FLUSHES: Final = frozenset({_FLUSH_ALL, _FLUSH_ONE, _FLUSH_CODE})

#: A kernel's root is 16 KiB, of which the upper half is used, and a process's 8 KiB.
_ROOT_PAGES, _USED_ROOT_PAGES, _USER_PAGES = 4, 2, 2
_FIRST_RESERVED_SLOT: Final = 4094
_WORD: Final = 0xFFFFFFFF
_SECOND: Final = 10**9
#: Descriptors: a table of the kernel's or the hypervisor's domain; pages of the hypervisor, of a device, of the guest.
_KERNEL_TABLE, _OWN_TABLE = 1 | 1 << 5, 1 | 15 << 5
_OWN_CODE, _OWN_WORDS, _OWN_DEVICE, _FRAME_PAGE = 0x012 | 1 << 6, 0x013 | 1 << 6, 0x017, 0x033 | 1 << 6
_DOMAINS_OF_KERNEL, _DOMAINS_OF_PROCESS = 0x40000005, 0x40000001
_SCTLR: Final = 0x00C52079 | 1 << 1  # MMU, alignment checks, high vectors
#: The shortest period of the timer: what is shorter would leave the guest no time.
_SHORTEST_NS: Final = 10_000


@shared
@dataclass(eq=False)
class ParaVirtual(Stateful):
    """The para-virtual MMU, exceptions and timer of a domain. ``root`` is the kernel's table, 0 before it has one, and
    ``user_root`` that of the present process, 0 for none. ``pinned`` are pages with a pin. ``period`` is in ticks, 0
    for no timer.
    """

    dma: Wiring[Dma]
    arguments: Wiring[Arguments]
    time: Wiring[Time]
    channels: Wiring[EventChannels] = field(metadata={"count": 1})
    pages: Part[PageTypes] = field(metadata={"count": 1})
    root: Word = 0
    user_root: Word = 0
    pinned: list[Word] = field(default_factory=list, metadata={"in_python": True})
    period: int = 0
    next: Tick | None = None
    alarm: Wiring[Alarm] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.alarm = self.time.alarm("periodic timer", self.rings)

    def is_possible(self) -> bool:
        return (
            bool(self.root) == bool(self.pages.types)
            and self.root % (_ROOT_PAGES * PAGE_SIZE) == 0
            and (self.next is None) == (self.period == 0)
            and (not self.period or self._ticks_in(_SHORTEST_NS) <= self.period <= self._ticks_in(_WORD))
            and (self.next is None or self.next < LARGEST_COUNT)
        )

    @property
    def is_on(self) -> bool:
        """True if the kernel runs in user mode."""
        return self.root != 0

    # -- the beginning -------------------------------------------------------------------------

    def begin(self, args: list[int]) -> Request:
        """Do set_trap_table. ``args`` becomes what the monitor begins with."""
        if self.is_on:
            raise HypercallError(Errno.EBUSY)
        root, entry, stack, traps = self.arguments.unpack(args[0], _BEGINNING)
        if root % (_ROOT_PAGES * PAGE_SIZE):
            raise HypercallError(Errno.EINVAL)
        self.pages.begin()
        self.pages.begin_call()
        used = [Gpa(root + (_ROOT_PAGES - _USED_ROOT_PAGES + number) * PAGE_SIZE) for number in range(_USED_ROOT_PAGES)]
        try:
            if any(self.dma.read(root + 4 * _FIRST_RESERVED_SLOT, 8)):
                raise HypercallError(Errno.EINVAL)
            for page in used:
                _must(self.pages.get(page, ROOT))
        except (HypercallError, ValueError):
            self.pages.end()
            raise HypercallError(Errno.EINVAL) from None
        self.root = root
        self.channels.queues.shared.mask_upcall()
        self._make_own_pages(traps)
        args[:] = [root, monitor.IDLE_TABLE, _SCTLR, _DOMAINS_OF_KERNEL, entry, stack]
        return Request.DEPRIVILEGE

    def _make_own_pages(self, traps: int) -> None:
        """Make the monitor and its tables, and put them where the guest cannot reach them."""
        for page in (monitor.IDLE_TABLE, monitor.IDLE_TABLE + PAGE_SIZE, monitor.TABLES, monitor.WORDS, monitor.FRAME):
            self.dma.write(page, bytes(PAGE_SIZE))
        self.dma.write(monitor.CODE, monitor.monitor_code().ljust(PAGE_SIZE, b"\0"))
        of_guest, own, first = (Gpa(monitor.TABLES + 0x400 * number) for number in range(3))
        self._put(Gpa(self.root + 4 * _FIRST_RESERVED_SLOT), of_guest | _KERNEL_TABLE)
        self._put(Gpa(self.root + 4 * _FIRST_RESERVED_SLOT + 4), own | _OWN_TABLE)
        self._put(of_guest, monitor.FRAME | _FRAME_PAGE)
        kinds = (_OWN_CODE, _OWN_WORDS, _OWN_WORDS, _OWN_DEVICE)
        for number, (page, kind) in enumerate(zip(monitor.MAPPED, kinds, strict=True)):
            self._put(Gpa(own + 4 * (0xF0 + number)), page | kind)
        self._put(Gpa(monitor.IDLE_TABLE + 4 * (monitor.CODE >> 20)), first | _OWN_TABLE)
        self._put(Gpa(first + 4 * (monitor.CODE >> PAGE_SHIFT & 0xFF)), monitor.CODE | _OWN_CODE)
        for place, value in (
            (monitor.IN_KERNEL, 1),
            (monitor.ENTRY, traps),
            (monitor.KERNEL_DOMAINS, _DOMAINS_OF_KERNEL),
            (monitor.USER_DOMAINS, _DOMAINS_OF_PROCESS),
            (monitor.SLOT, monitor.NO_SLOT),
        ):
            self._put(place, value)

    def _put(self, place: Gpa, value: int) -> None:
        self.dma.write(place, value.to_bytes(4, "little"))

    # -- events --------------------------------------------------------------------------------

    @property
    def may_tell(self) -> bool:
        """True if native code can do :meth:`tell`."""
        return self.dma.is_plain(_WORDS)

    def tell(self) -> None:
        """Let the kernel take an event before it goes on behind its hypercall, if it has unmasked that. It is masked
        then.
        """
        if self.channels.queues.shared.is_upcall_pending and not self.channels.queues.shared.is_upcall_masked:
            self.channels.queues.shared.mask_upcall()
            self._act(_ACT_UPCALL)

    # -- page tables ---------------------------------------------------------------------------

    def update(self, args: list[int]) -> int | Request:
        """Do mmu_update: write descriptors. The third argument is where the number of those done goes, or 0."""
        requests, count, done, domain = args[:4]
        self._check(domain)
        finished = 0
        try:
            size = UPDATE_BYTES * min(count, UPDATES_AT_ONCE)
            for at, entry in _UPDATE.iter_unpack(self.arguments.read(requests, size)):
                _must(self._change(at & _WORD, entry & _WORD, at >> 32 | entry >> 32))
                finished += 1
        finally:
            self._flush_if_needed()
            if done:
                (before,) = self.arguments.unpack(done, _DONE)
                self.arguments.write(done, _DONE.pack(before + finished & _WORD))
        if count <= UPDATES_AT_ONCE:
            return 0
        args[0], args[1] = requests + UPDATES_AT_ONCE * UPDATE_BYTES & _WORD, count - UPDATES_AT_ONCE
        return Request.AGAIN

    def _change(self, at: int, entry: int, upper: int) -> int:
        """Write one descriptor. The two lowest bits of its address say what is to be done; Xen has others than 0.
        ``upper`` is not 0 if address or descriptor has more than 32 bits. Return an error number, or 0.
        """
        if at & 3 or upper:
            return _EINVAL
        if self.root + 4 * _FIRST_RESERVED_SLOT <= at < self.root + _ROOT_PAGES * PAGE_SIZE:
            return _EPERM
        return self.pages.change(at, entry)

    def is_hot(self, requests: int, count: int) -> bool:
        """Return True if native code can do as :meth:`update` with descriptors at a GPA.

        They are in a page that does not change while it does, and no region was made from the words that do: a table
        may be in a page that was a program's before.
        """
        if not self.dma.is_plain(_WORDS) or self.pages.index(requests) < 0 or self.pages.is_table(requests):
            return False
        done = 0
        while done < count and self._is_hot_place(self.dma.word(requests + done * UPDATE_BYTES)):
            done += 1
        return done == count

    def _is_hot_place(self, at: int) -> bool:
        return self.pages.index(at) < 0 or self.dma.takes_words(at)

    def do_hot(self, requests: int, count: int) -> int:
        """Do as :meth:`update` with descriptors at a GPA. Precondition: :meth:`is_hot`."""
        self.pages.begin_call()
        error = done = 0
        while done < count and not error:
            at = requests + done * UPDATE_BYTES
            upper = self.dma.word(at + 4) | self.dma.word(at + 12)
            error = self._change(self.dma.word(at), self.dma.word(at + 8), upper)
            done += 1
        self._flush_if_needed()
        return -error

    def extended(self, args: list[int]) -> int | Request:
        """Do mmuext_op: pins, flushes, and the table of the present process. After an operation that may look at many
        tables, the hypercall begins anew for the rest, as with more than are done at once.
        """
        operations, count, done, domain = args[:4]
        self._check(domain)
        finished, is_long = 0, False
        try:
            while finished < min(count, UPDATES_AT_ONCE) and not is_long:
                command, first, second = self.arguments.unpack(operations + finished * _EXTENDED.size, _EXTENDED)
                self._do(command, first, second)
                finished += 1
                is_long = command not in _FLUSHES
        finally:
            self._flush_if_needed()
            if done:
                (before,) = self.arguments.unpack(done, _DONE)
                self.arguments.write(done, _DONE.pack(before + finished & _WORD))
        if count <= finished:
            return 0
        args[0], args[1] = operations + finished * _EXTENDED.size & _WORD, count - finished
        return Request.AGAIN

    def _check(self, domain: int) -> None:
        if not self.is_on:
            raise HypercallError(Errno.ENOSYS)
        if domain != SELF:
            raise HypercallError(Errno.ESRCH)
        self.pages.begin_call()

    def _do(self, command: int, first: int, second: int) -> None:
        if command not in _FLUSHES and first >> 32 - PAGE_SHIFT:
            raise HypercallError(Errno.EINVAL)  # no frame has such a number
        page = Gpa(first << PAGE_SHIFT & _WORD)
        match command:
            case 0 | 1:
                if page in self.pinned:
                    raise HypercallError(Errno.EINVAL)
                _must(self.pages.get(page, LEAF if command == _PIN_LEAF else ROOT))
                self.pinned.append(page)
            case 4:
                if page not in self.pinned:
                    raise HypercallError(Errno.EINVAL)
                self.pinned.remove(page)
                self.pages.put(page, self.pages.type_of(page))
            case 6 | 7:
                self._act(monitor.ACT_FLUSH)
            case 12:
                self._act(monitor.ACT_CODE)
            case 15:
                self._switch(page)
            case 64:
                self._set_slot(second, page)
            case _:
                raise HypercallError(Errno.ENOSYS)

    def _switch(self, root: Gpa) -> None:
        """Let a table be that of the lower half of all addresses. 0 is one in which there is nothing."""
        self._get_user_root(root)
        before, self.user_root = Gpa(self.user_root), root
        self._put(monitor.TABLE, root or monitor.IDLE_TABLE)
        self._act(monitor.ACT_TABLE)
        self._put_user_root(before)

    def _set_slot(self, slot: int, root: Gpa) -> None:
        """Let a table be one that the monitor switches to by itself, by its number. 0 takes it back."""
        if slot >= monitor.MOST_SLOTS or slot == self._word(monitor.SLOT):
            raise HypercallError(Errno.EINVAL)
        self._get_user_root(root)
        place = Gpa(monitor.WORDS + 4 * slot)
        before = Gpa(self._word(place))
        self._put(place, root)
        self._put_user_root(before)
        self._act(monitor.ACT_FLUSH)  # the number is an address space identifier, too

    def _get_user_root(self, root: Gpa) -> None:
        if root % (_USER_PAGES * PAGE_SIZE):
            raise HypercallError(Errno.EINVAL)
        if root:
            _must(self.pages.get(root, ROOT))
            if error := self.pages.get(root + PAGE_SIZE, ROOT):
                self.pages.put(root, ROOT)
                _must(error)

    def _put_user_root(self, root: Gpa) -> None:
        if root:
            self.pages.put(root, ROOT)
            self.pages.put(root + PAGE_SIZE, ROOT)

    def _flush_if_needed(self) -> None:
        """Flush what the hypercall has changed, so that the guest need not ask for it."""
        if self.pages.flushes or self.pages.executables:
            self._act(_ACT_CODE if self.pages.executables else _ACT_FLUSH)

    def _act(self, action: int) -> None:
        """Let the monitor do something before the guest goes on."""
        self.dma.put_word(_ACTION, self.dma.word(_ACTION) | action)

    def _word(self, place: Gpa) -> int:
        return self.dma.word(place)

    # -- the timer -----------------------------------------------------------------------------

    def set_timer(self, args: list[int]) -> int:
        """Send VIRQ_TIMER every so many nanoseconds from now on; 0 for never."""
        if not self.is_on:
            raise HypercallError(Errno.ENOSYS)
        period = args[0]
        if period and period < _SHORTEST_NS:
            raise HypercallError(Errno.EINVAL)
        self.period = self._ticks_in(period) if period else 0
        self.next = self.time.now + self.period if period else None
        if self.next is None:
            self.alarm.cancel()
        else:
            self.alarm.set(self.next)
        return 0

    def _ticks_in(self, period_ns: int) -> int:
        return max(period_ns * self.time.ticks_per_second // _SECOND, 1)

    @property
    def may_ring(self) -> bool:
        """True if native code can do :meth:`rings`."""
        return self.channels.queues.is_plain

    def rings(self) -> None:
        if self.next is None:
            return
        self.channels.send_virq(_VIRQ_TIMER)
        self.next += self.period
        if self.next <= self.time.now:  # which only a state says that was not saved by us
            self.next = self.time.now + self.period
        self.alarm.set(self.next)


def _must(error: int) -> None:
    """Raise HypercallError for an error number."""
    if error:
        raise HypercallError(Errno(error))


def make_para_virtual(dma: Dma, arguments: Arguments, time: Time, channels: EventChannels) -> ParaVirtual:
    """Return what a domain has for a kernel in user mode, before there is one."""
    return ParaVirtual(dma, arguments, time, channels, PageTypes(dma, FIRST_SHARED_PAGE))
