"""A domain as its hypervisor has it: the hypercalls of the guest, answered as Xen 4.17 on 32-bit ARM answers them.

A hypercall is guest data throughout. Its registers and structures are copied once and checked, and whatever they hold,
the result is a number for R0 or a :class:`dbt.hypervisor.xen.interface.Request`. What Xen does that this hypervisor
does not is answered with -ENOSYS, and told to the user once.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

from dbt.abi.layout import PAGE_SIZE
from dbt.devices.device import Device
from dbt.devices.receivers import Receive, numbered
from dbt.devices.shared import NONE, in_python, shared
from dbt.devices.state import Part, StateError, Wiring
from dbt.devices.wiring import Time
from dbt.hypervisor.xen.arguments import Arguments
from dbt.hypervisor.xen.back_ends.back_end import BackEnd, Phase
from dbt.hypervisor.xen.console import XenConsole
from dbt.hypervisor.xen.event_channels import SEND, EventChannels
from dbt.hypervisor.xen.foreign_pages import OPERATIONS as OF_FOREIGN_PAGES
from dbt.hypervisor.xen.foreign_pages import ForeignPages
from dbt.hypervisor.xen.grant_table import GrantTable
from dbt.hypervisor.xen.identity import Identity
from dbt.hypervisor.xen.interface import (
    CONSOLE_PAGE,
    FIRST_SHARED_PAGE,
    HYPERCALL_IMMEDIATE,
    SELF,
    STORE_PAGE,
    Errno,
    HypercallError,
    Request,
)
from dbt.hypervisor.xen.polling import Polling
from dbt.hypervisor.xen.pv.guest import (
    ALLOWED,
    FORBIDDEN_EVENTS,
    MMU_UPDATE,
    MMUEXT_OP,
    SET_PERIODIC_TIMER,
    SET_TRAP_TABLE,
    UPDATE_BYTES,
    UPDATES_AT_ONCE,
    ParaVirtual,
)
from dbt.hypervisor.xen.reservation import Reservation
from dbt.hypervisor.xen.shared_page import SharedPage
from dbt.hypervisor.xen.store.ring import StoreRing
from dbt.hypervisor.xen.version import xen_version
from dbt.hypervisor.xen.virtual_cpu import VirtualCpu
from dbt.memory.dma import Dma
from isa.arm.faults import AccessKind

if TYPE_CHECKING:
    from dbt.hypervisor.xen.host import XenHost

#: The hypercalls and operations that native code does.
_CONSOLE_OP, _SCHEDULE_OP, _EVENTS_OP, _YIELD, _BLOCK = 18, 29, 32, 0, 1
#: What a call returns: the value of R0, or what the machine is to do.
Answer = int | Request
_WORD: Final = 0xFFFFFFFF
_CONSOLE_AT_ONCE: Final = 4096
_CALLS_AT_ONCE: Final = 64
_MULTICALL_ENTRY = struct.Struct("<QQ6Q")
_RESULT = struct.Struct("<Q")
_SHUTDOWN = struct.Struct("<I")
_REMOTE_SHUTDOWN = struct.Struct("<HxxI")
_SHUTDOWN_REASONS: Final = {0: Request.POWER_OFF, 1: Request.REBOOT, 3: Request.CRASH}
#: SHUTDOWN_suspend: Xen answers 1 if the domain goes on without having been suspended.
_SUSPEND, _CANCELLED = 2, 1
_HVM_PARAM = struct.Struct("<HHIQ")
_RUNSTATE_UPDATE_FLAG: Final = 5
#: SMCCC_VERSION, and the version that is there (ARM DEN 0028).
_SMCCC_VERSION, _SMCCC_1_1, _PSCI_FEATURES = 0x80000000, 0x10001, 0x8400000A


#: The result of :meth:`XenDomain.answer_hot` if the guest waits for an interrupt. No hypercall returns so much.
_WAITS: Final = 1 << 32


class NotHot(Exception):
    """Raised by :meth:`XenDomain.answer_hot` where native code leaves for Python. Nothing has changed then."""


@shared
@dataclass(eq=False)
class XenDomain(Device):
    """The domain of a machine's guest. It has no registers, and is a device for its state alone.

    ``unknown`` is told number and command of hypercalls that are not answered. ``args`` are R0 to R4 of the present
    hypercall.
    """

    #: For native code, which does a part of the operations.
    HYPERCALL_IMMEDIATE: ClassVar = HYPERCALL_IMMEDIATE
    WAITS: ClassVar = _WAITS

    dma: Wiring[Dma]
    arguments: Wiring[Arguments]
    time: Wiring[Time]
    unknown: Wiring[Callable[[int, int], None]]
    identity: Part[Identity]
    channels: Part[EventChannels] = field(metadata={"count": 1})
    grants: Part[GrantTable]
    reservation: Part[Reservation]
    foreign: Part[ForeignPages]
    console: Part[XenConsole] = field(metadata={"count": 1})
    store: Part[StoreRing]
    back_ends: Part[list[BackEnd]]
    pv: Part[ParaVirtual] = field(metadata={"count": 1})
    processor: Part[VirtualCpu]
    polling: Part[Polling] = field(metadata={"count": 1})
    #: Whether the domain has made a hypercall. Until then its shared pages are not filled in.
    is_on: bool = False
    args: Wiring[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.foreign.guard()  # the domain of the machine that has been reset may have had pages mapped

    def is_possible(self) -> bool:
        held = Counter(number for one in self.back_ends for number in one.holds())
        return (
            self.grants.held == held
            and (not self.pv.is_on or not self._writes_to_ram)
            and (self.is_on or all(one.phase == Phase.UNKNOWN for one in self.back_ends))
        )

    @property
    def _writes_to_ram(self) -> bool:
        """True if the guest has told the hypervisor to write somewhere in its RAM, where it could make a page table.
        Other guests write to what it grants them, and what it has mapped of theirs is written by the host.
        """
        shared = self.shared
        told = shared.vcpu_info or self.channels.queues.control or self.processor.runstate or self.back_ends
        others = self.identity.host is not None or self.foreign.maps
        return bool(told or others) or shared.page != FIRST_SHARED_PAGE

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        pass

    def receivers(self) -> dict[str, Receive]:
        """Return what takes things from outside for the devices, by name; see :class:`dbt.board.board.Board`."""
        return numbered((one.receiver_name, one.receive) for one in self.back_ends)

    def enter(self, host: XenHost, number: int) -> None:
        """Be a domain of a host, with a number. Raise StateError if it is another one already."""
        if self.is_on and number != self.identity.number:
            raise StateError(f"the domain {self.identity.number} cannot become the domain {number}")
        if self.pv.is_on:
            raise StateError("a domain whose kernel is in user mode cannot be on a host with others")
        self.identity.host, self.identity.number = host, number

    @property
    def shared(self) -> SharedPage:
        return self.channels.queues.shared

    # -- calls ---------------------------------------------------------------------------------

    def call(self, number: int, args: list[int]) -> Answer:
        """Do hypercall ``number``, the value of R12. ``args`` are R0 to R4, which it changes for Request.AGAIN."""
        if not self.is_on:
            self._power_on()
        self.args = args
        self.arguments.access = AccessKind.USER if self.pv.is_on else 0
        return self._do(number)

    def answer_hot(self, number: int, first: int, second: int, third: int, fourth: int, lines: int) -> int:
        """Do a hypercall whose arguments are plain and which concerns nobody but the guest: to send and unmask events,
        to yield, to wait, to write to the console and into page tables. The result is that of :meth:`call`, or
        ``WAITS``. This is for native code, which leaves all others to Python, and waits that it cannot complete.

        ``lines`` are the interrupts that are pending.
        """
        if not self.is_on or self.polling.is_on:
            return self._leave()
        is_pv = self.pv.is_on
        if number == _EVENTS_OP:
            place = self.arguments.place(second, 4, is_pv)
            if place == NONE:
                return self._leave()
            if first == SEND and self._is_hot_console(self.dma.word(place)):
                if self.console.drain_hot():
                    self.channels.notify(self.console.port)
                return 0
            if not self.channels.is_hot(first, self.dma.word(place)):
                return self._leave()
            if is_pv and not self.pv.may_tell:
                return self._leave()
            self.channels.do_hot(first, self.dma.word(place))
            if is_pv:
                self.pv.tell()
            return 0
        if number == MMU_UPDATE:
            if not is_pv or third or fourth != SELF or not second or second > UPDATES_AT_ONCE:
                return self._leave()
            place = self.arguments.place(first, UPDATE_BYTES * second, is_pv)
            if place == NONE or not self.pv.is_hot(place, second):
                return self._leave()
            return self.pv.do_hot(place, second)
        if number == _CONSOLE_OP:
            if first or not second or second > _CONSOLE_AT_ONCE or not self.console.has_room(second):
                return self._leave()
            place = self.arguments.place(third, second, is_pv)
            if place == NONE:
                return self._leave()
            self.console.write_from(place, second)
            return 0
        if number != _SCHEDULE_OP:
            return self._leave()
        if first == _YIELD:
            return 0
        if first != _BLOCK:
            return self._leave()
        if self.channels.queues.shared.is_upcall_pending if is_pv else lines:
            return 0
        if is_pv:
            self.channels.queues.shared.lower_upcall()
        return _WAITS

    @property
    def has_upcall(self) -> bool:
        """True if a kernel in user mode has an event. It need not have an interrupt controller for that."""
        return self.pv.is_on and self.channels.queues.shared.is_upcall_pending

    @property
    def wakes(self) -> bool:
        """True if the guest waits for what has come, be it an interrupt or not."""
        return self.has_upcall or self.polling.wakes

    @property
    def waits_unseen(self) -> bool:
        """True if nothing of the domain's changes when it waits for an interrupt, but for how long it has waited."""
        return not self.polling.is_on and not self.processor.runstate

    def _is_hot_console(self, port: int) -> bool:
        """Return True if a port is that of the console's ring, which native code can empty."""
        if port != self.console.port or self.pv.is_on or not self.channels.queues.is_plain:
            return False
        return self.channels.is_bound_to(port, self.console.receiver) and self.console.is_hot

    @in_python
    def _leave(self) -> int:
        """Leave it to :meth:`call`."""
        raise NotHot

    def _power_on(self) -> None:
        """Do what the toolstack does when it creates the domain."""
        self.is_on = True
        self.shared.power_on()
        for page in (CONSOLE_PAGE, STORE_PAGE):
            self.dma.write(page, bytes(PAGE_SIZE))
        self.console.port, store_port = self.channels.power_on(2)
        console_page = CONSOLE_PAGE // PAGE_SIZE
        self.store.power_on(store_port, self.reservation.size, self.console.port, console_page)
        for back_end in self.back_ends:
            back_end.power_on()
        if self.identity.host is not None:
            self.identity.host.powered_on(self.identity.number)

    def _do(self, number: int) -> Answer:
        operation = _HYPERCALLS.get(number)
        try:
            if operation is None or (self.pv.is_on and number not in ALLOWED):
                raise HypercallError(Errno.ENOSYS)
            answer = operation(self)
        except HypercallError as error:
            if error.errno == Errno.ENOSYS:
                self.unknown(number, self.args[0])
            return -error.errno
        return answer

    @staticmethod
    def smccc(function: int, argument: int) -> int | None:
        """Return the answer to an HVC #0 that is no PSCI call, or None if it is one."""
        if function == _SMCCC_VERSION:
            return _SMCCC_1_1
        return 0 if (function, argument) == (_PSCI_FEATURES, _SMCCC_VERSION) else None

    def _multicall(self) -> Answer:
        """Do several calls. Their results are beside their arguments; what stops the domain ends the list.

        A call that is to be executed again finds its arguments in the list, and is the first one of the rest.
        """
        handle, count = self.args[:2]
        outer, done = self.args, 0
        while done < min(count, _CALLS_AT_ONCE):
            at = handle + done * _MULTICALL_ENTRY.size
            number, _, *args = self.arguments.unpack(at, _MULTICALL_ENTRY)
            answer: Answer = -Errno.EINVAL
            if number not in (_MULTICALL, SET_TRAP_TABLE):
                self.args = [value & _WORD for value in args[:5]]
                answer, args[:5], self.args = self._do(number), self.args, outer
            if answer is Request.AGAIN:
                self.arguments.write(at, _MULTICALL_ENTRY.pack(number, 0, *args))
                break
            done += 1
            self.arguments.write(at + 8, _RESULT.pack(0 if isinstance(answer, Request) else answer & (1 << 64) - 1))
            if answer is Request.BLOCK:
                self.polling.stop()  # The guest goes on, as if it had been woken up.
            elif isinstance(answer, Request):
                return answer
            if number in _LONG:
                break
        if done == count:
            return 0
        outer[0] = handle + done * _MULTICALL_ENTRY.size & _WORD
        outer[1] = count - done
        return Request.AGAIN

    # -- memory, events, grants ----------------------------------------------------------------

    def _version(self) -> Answer:
        return xen_version(self.arguments, *self.args[:2])

    def _note_frames(self) -> None:
        if self.identity.host is not None:
            self.identity.host.frames_changed(self.identity.number)

    def _memory(self) -> Answer:
        self._note_frames()
        result, again = self.reservation.call(*self.args[:2])
        if again is None:
            return result
        self.args[0] = again
        return Request.AGAIN

    def _events(self) -> Answer:
        if self.pv.is_on and self.args[0] in FORBIDDEN_EVENTS:
            raise HypercallError(Errno.ENOSYS)
        result = self.channels.call(*self.args[:2])
        if self.pv.is_on:
            self.pv.tell()
        return result

    def _grants(self) -> Answer:
        command, handle, count = self.args[:3]
        self._note_frames()
        if command not in OF_FOREIGN_PAGES:
            return self.grants.call(command, handle, count)
        result, again = self.foreign.call(command, handle, count)
        if again is None:
            return result
        self.args[1], self.args[2] = again
        return Request.AGAIN

    # -- kernels in user mode ------------------------------------------------------------------

    def _deprivilege(self) -> Answer:
        """The hypervisor writes to no page then that the guest could make a page table: there must be none yet."""
        if self._writes_to_ram:
            raise HypercallError(Errno.EINVAL)
        return self.pv.begin(self.args)

    # -- the virtual CPU -----------------------------------------------------------------------

    def _vcpu(self) -> Answer:
        return self.processor.call(*self.args[:3])

    def _schedule(self) -> Answer:
        command, handle = self.args[:2]
        match command:
            case 0:  # SCHEDOP_yield: nobody else is there to run
                return 0
            case 1:
                return self._block()
            case 2:
                (reason,) = self.arguments.unpack(handle, _SHUTDOWN)
                if reason & 0xFF == _SUSPEND:
                    return _CANCELLED
                return _SHUTDOWN_REASONS.get(reason & 0xFF, Request.CRASH)  # Xen ends the domain for any reason.
            case 3:
                return Request.BLOCK if self.polling.begin(handle) else 0
            case 4:  # remote_shutdown
                named, _ = self.arguments.unpack(handle, _REMOTE_SHUTDOWN)
                if self.identity.is_self(named):
                    raise HypercallError(Errno.ESRCH)
                self.identity.check_self(named)
                return 0
            case 5:  # shutdown_code: what the next shutdown would tell the toolstack
                self.arguments.unpack(handle, _SHUTDOWN)
                return 0
            case _:
                raise HypercallError(Errno.ENOSYS)

    def _block(self) -> Answer:
        """Wait for an event. A kernel in user mode has cleared evtchn_upcall_pending, and no interrupt controller that
        would have looked at it again.
        """
        if self.pv.is_on:
            if self.shared.is_upcall_pending:
                return 0
            self.shared.lower_upcall()
        return Request.BLOCK

    # -- the rest ------------------------------------------------------------------------------

    def _console_io(self) -> Answer:
        command, count, handle = self.args[:3]
        size = min(count, _CONSOLE_AT_ONCE)
        if command == 1:
            data = self.console.look(size)
            self.arguments.write(handle, data)
            self.console.take(len(data))
            return len(data)
        if command:
            raise HypercallError(Errno.ENOSYS)
        self.console.write(self.arguments.read(handle, size))
        if size == count:
            return 0
        self.args[1], self.args[2] = count - size, handle + size & _WORD
        return Request.AGAIN

    def _vm_assist(self) -> Answer:
        command, kind = self.args[:2]
        if command > 1:
            raise HypercallError(Errno.ENOSYS)
        return 0 if kind == _RUNSTATE_UPDATE_FLAG else -Errno.EINVAL

    def _hvm(self) -> Answer:
        command, handle = self.args[:2]
        if command > 1:
            raise HypercallError(Errno.ENOSYS)
        domain, pad, index, _ = self.arguments.unpack(handle, _HVM_PARAM)
        self.identity.check_self(domain)
        values = {
            0: 0,  # The event interrupt is in the device tree.
            1: STORE_PAGE // PAGE_SIZE,
            2: self.store.port,
            17: CONSOLE_PAGE // PAGE_SIZE,
            18: self.console.port,
        }
        if index not in values:
            raise HypercallError(Errno.EINVAL)
        if command == 0:
            raise HypercallError(Errno.EPERM)
        self.arguments.write(handle, _HVM_PARAM.pack(domain, pad, index, values[index]))
        return 0

    def _physdev(self) -> Answer:
        raise HypercallError(Errno.ENOSYS)


_MULTICALL: Final = 13
#: Calls that can take long. One execution of a multicall does one of them.
_LONG: Final = frozenset({12, 20, MMU_UPDATE, MMUEXT_OP})
#: The hypercalls by their numbers (xen/include/public/xen.h).
_HYPERCALLS: Final[dict[int, Callable[[XenDomain], Answer]]] = {
    12: XenDomain._memory,
    SET_TRAP_TABLE: XenDomain._deprivilege,
    MMU_UPDATE: lambda domain: domain.pv.update(domain.args),
    MMUEXT_OP: lambda domain: domain.pv.extended(domain.args),
    SET_PERIODIC_TIMER: lambda domain: domain.pv.set_timer(domain.args),
    _MULTICALL: XenDomain._multicall,
    17: XenDomain._version,
    _CONSOLE_OP: XenDomain._console_io,
    20: XenDomain._grants,
    21: XenDomain._vm_assist,
    24: XenDomain._vcpu,
    _SCHEDULE_OP: XenDomain._schedule,
    _EVENTS_OP: XenDomain._events,
    33: XenDomain._physdev,
    34: XenDomain._hvm,
}
