"""The board of a machine, from one reset to the next, and the input that its UART receives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from dbt.abi.cpu import INPUT_DUE, PRIVATE_PERIPHERALS
from dbt.board.boards import BoardModel
from dbt.devices.state import Stateful
from dbt.host.output_queue import OutputQueue
from dbt.memory.guest_memory import GuestMemory
from dbt.vm.attachments import Attachments
from dbt.vm.input import InputPort, RecordingError
from dbt.vm.vcpu import Vcpu
from isa.arm.state import PSR_F, PSR_I, Architecture

if TYPE_CHECKING:
    from dbt.board.board import Board
    from dbt.board.bus import DeviceBus
    from dbt.devices.virtio.attached import Attached
    from dbt.hypervisor.xen.domain import XenDomain
    from dbt.hypervisor.xen.host import XenHost

#: A tick that never comes.
_LATEST = (1 << 63) - 1


class Peripherals:
    """The board of a machine. After each :meth:`reset` it is another one of the ``model``.

    A board of which no device can act before the guest has accessed one is made when it is needed. To import and make
    devices takes longer than many guests run, and many access none.

    ``output`` gets what the guest sends to its console. ``epoch`` is the time of day at power-on, in
    seconds since 1970. ``attachments`` make the virtio devices, whose queues are in ``memory``, or the back ends of
    para-virtual ones. ``unknown`` is told
    number and command of hypercalls that a hypervisor does not answer.
    """

    def __init__(
        self,
        model: BoardModel,
        vcpu: Vcpu,
        output: OutputQueue,
        port: InputPort,
        memory: GuestMemory,
        epoch: int,
        attachments: Attachments,
        unknown: Callable[[int, int], None],
    ) -> None:
        self._model = model
        self._unknown = unknown
        self._vcpu = vcpu
        self._output = output
        self._port = port
        self._memory = memory
        self._epoch = epoch
        self._attachments = attachments
        self._place: tuple[XenHost, int] | None = None
        self._board: Board | None = None
        self.reset()

    def reset(self, holes_read_zero: bool = False) -> None:
        """Have the devices as they are at power-on. ``holes_read_zero``: see :class:`dbt.board.bus.DeviceBus`."""
        is_domain = self._model.is_domain
        self._holes_read_zero = holes_read_zero
        self._attached = None if is_domain else self._attachments.make(self._memory, self._output)
        self._board = None
        if is_domain or self._attached is not None or self._has_private:
            self._make_board(self._attached)

    @property
    def _has_private(self) -> bool:
        """True if the processor has private peripherals, which native code finds without an access to the bus."""
        return bool(self._vcpu.cpu["architecture"] == Architecture.V7VE)

    @property
    def board(self) -> Board:
        """The present board."""
        return self._make_board(self._attached) if self._board is None else self._board

    @property
    def hypervisor(self) -> XenDomain | None:
        """The hypervisor of a domain of Xen."""
        return None if self._board is None else self._board.hypervisor

    def _make_board(self, attached: Attached | None) -> Board:
        """Make the board as after a reset."""
        from dbt.board.board import BoardWiring
        from dbt.devices.shared import native_address
        from dbt.devices.wiring import CpuInput

        vcpu, is_domain = self._vcpu, self._model.is_domain
        wiring = BoardWiring(
            self._output.uart,
            self._memory.ram.layout,
            vcpu.timeline,
            CpuInput(vcpu.set_line, PSR_I),
            CpuInput(vcpu.set_line, PSR_F),
            vcpu.request_reset,
            self._epoch,
            self.receive_at_access,
            self._holes_read_zero,
            attached,
            self._memory,
            self._unknown,
            self._attachments.back_ends() if is_domain else (),
            self._attachments.store_socket,
        )
        board = self._board = self._model.build(wiring)
        if self._has_private:
            self._connect_private(board.bus)
        if board.hypervisor is not None:
            vcpu.cpu.set_native("domain", native_address(board.hypervisor) or 0)
        self._enter_host()
        return board

    def join_host(self, host: XenHost, number: int) -> None:
        """Let the domain be one of a host with other guests, also after resets. Raise ValueError if the board is none,
        or StateError if it is another one already.
        """
        if self.hypervisor is None:
            raise ValueError("the board is no domain of Xen")
        self._place = host, number
        self._enter_host()

    def _enter_host(self) -> None:
        if self._place is not None and self.hypervisor is not None:
            host, number = self._place
            host.enter(self.hypervisor, number)

    def _connect_private(self, bus: DeviceBus) -> None:
        """Give the processor its private peripherals, also on a board that does not connect them. Let native code have
        them if it can.
        """
        from dbt.board.bus import private_window
        from dbt.devices.generic_timer import GenericTimer
        from dbt.devices.performance_monitors import PerformanceMonitors
        from dbt.devices.shared import native_address
        from dbt.devices.wiring import unconnected
        from isa.arm.private import MONITORS, NUMBERS_OF_EACH

        vcpu = self._vcpu
        if bus.private(0) is None:
            timer = GenericTimer(vcpu.timeline.named("generic timer"), unconnected, unconnected)
            bus.attach(private_window(timer, "generic timer"))
        if bus.private(MONITORS) is None:
            monitors = PerformanceMonitors(vcpu.timeline.named("performance monitors"), unconnected)
            bus.attach(private_window(monitors, "performance monitors"))
        for kind in range(PRIVATE_PERIPHERALS):
            found = bus.private(kind * NUMBERS_OF_EACH)
            address = native_address(found[0]) if found is not None and isinstance(found[0], Stateful) else None
            vcpu.cpu.set_native("private", address or 0, kind)

    @property
    def expects_input(self) -> bool:
        """Return True if the guest has enabled interrupts for input."""
        return self._board is not None and self._board.console.expects_input

    def receive_at_access(self) -> None:
        """Push what has arrived into the UART, for an access of the guest's to it."""
        self._receive(access=True)

    def _receive(self, access: bool) -> None:
        console, now = self.board.console, self._vcpu.now()
        while (room := console.room) and (data := self._port.poll(now, room, access)):
            console.push(data)

    def take_arrivals(self) -> None:
        """Give the receivers of the board what has come for them. Time has just come to the present tick, between two
        instructions.
        """
        vcpu = self._vcpu
        arrivals = self._port.source.arrivals(vcpu.now())
        if not arrivals:
            return
        for receiver, group in groupby(arrivals, itemgetter(0)):
            vcpu.timeline.run_due()  # as native code may have done already
            receive = self.board.receivers.get(receiver)
            if receive is None:
                raise RecordingError(f"something comes for {receiver!r:.100}, which this board does not have")
            try:
                receive([data for _, data in group])
            except ValueError as error:
                raise RecordingError(f"what comes for {receiver!r} makes no sense: {error}") from None

    def expect_input(self) -> bool:
        """Say from which tick on an access to the UART has to ask for input. A slice is about to begin.

        Return True if some has arrived, and :meth:`receive_expected` would push it as far as there is room.
        """
        now = self._vcpu.now()
        due = self._port.source.due(now)
        self._vcpu.cpu.native64[INPUT_DUE] = _LATEST if due is None else due
        return due is not None and due <= now and self.expects_input

    def receive_expected(self) -> None:
        """Push what has arrived into the UART, between two instructions, if the guest expects input."""
        if self.expects_input:
            self._receive(access=False)
