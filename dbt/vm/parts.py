"""Building the parts of a machine. Each part gets what it needs when it is made, and nothing is assigned afterwards."""

# There is no "from __future__ import annotations" here: NamedTuple would compile each annotation at each start.

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from dbt.abi.addresses import Gva
from dbt.abi.cpu import CpuState
from dbt.board.late_bus import LateBus
from dbt.engine.observer import Observer
from dbt.engine.tier import Allowance, Tier
from dbt.host.console import Console
from dbt.host.guest_notices import GuestNotices
from dbt.host.journal import HostJournal
from dbt.host.output_queue import OutputQueue
from dbt.host.semihosting import Semihosting
from dbt.inspector.inspector import Inspector
from dbt.memory.guest_memory import GuestMemory
from dbt.memory.ram import Ram
from dbt.memory.translation import Translation
from dbt.memory.virtual import VirtualMemory
from dbt.vm.attachments import Attachments
from dbt.vm.error_latch import ErrorLatch
from dbt.vm.exception_storm import ExceptionStorm
from dbt.vm.exit_handler import ExitHandler
from dbt.vm.guest import ProgramIdentity
from dbt.vm.host_loop import HostLoop
from dbt.vm.input import ConsoleInput, InputPort, Mailbox
from dbt.vm.options import MachineOptions, TierParts, open_jail
from dbt.vm.peripherals import Peripherals
from dbt.vm.signal_deferral import SignalDeferral
from dbt.vm.vcpu import Vcpu
from isa.arm.cpus import CPUS

if TYPE_CHECKING:
    from dbt.vm.silent_kernel import SilentKernel


def _hash_ram(ram: Ram) -> str:
    from dbt.vm.state import hash_ram  # hashlib takes some milliseconds, which few guests need

    return hash_ram(ram)


class Parts(NamedTuple):
    """The parts of a machine. :meth:`close` releases all that they use of the host."""

    cpu: CpuState
    ram: Ram
    memory: GuestMemory
    vcpu: Vcpu
    inspector: Inspector
    identity: ProgramIdentity
    semihosting: Semihosting
    port: InputPort
    peripherals: Peripherals
    storm: ExceptionStorm
    loop: HostLoop
    signals: SignalDeferral
    journal: HostJournal
    attachments: Attachments
    mailbox: Mailbox

    def close(self) -> None:
        self.vcpu.close()
        self.attachments.close()
        self.semihosting.close()
        self.ram.close()


def build_parts(options: MachineOptions, console: Console, notice: Callable[[str], None], observer: Observer) -> Parts:
    """Return the parts of a machine with these options. Raise OSError if the host has no room for it."""
    jail = open_jail(options.files)
    cpu = CpuState(CPUS[options.cpu or options.board_model.program_cpu])
    ram = Ram(options.layout.regions)

    def walk(gva: Gva, access: int) -> int:
        """Walk the guest's page tables while there is no tier, which has a faster way."""
        from dbt.engine.evaluator import compile_routine

        found: int = compile_routine("translate")(cpu.r, cpu.words, memory, gva, access)
        return found

    bus = LateBus(lambda: peripherals.board.bus)  # which are made later
    memory = GuestMemory(ram, bus, Translation(cpu, walk, keep=False))
    virtual = VirtualMemory(memory)
    inspector = Inspector(cpu, memory, virtual)
    latch = ErrorLatch()

    def must_stop() -> bool:
        return loop.must_stop  # which is made last

    identity = ProgramIdentity()

    def make_tier(allowance: Allowance) -> Tier:
        return options.make_tier(tier_parts, allowance)  # which are complete when a tier is made

    def wakes() -> bool:
        hypervisor = peripherals.hypervisor
        return hypervisor is not None and hypervisor.wakes

    vcpu = Vcpu(cpu, memory, make_tier, latch, options.insn_ns, wakes)
    journal = HostJournal()
    output = OutputQueue(console, journal, "port" in options.devices)

    def ask_outside(what: str, operation: Callable[[], bytes]) -> bytes:
        outcome: bytes = journal.ask(what, lambda: port.ask(vcpu.now(), operation))  # the port is made later
        return outcome

    attachments = Attachments(
        options.drives,
        options.nets,
        options.devices,
        options.rng_seed,
        options.shares,
        options.vsock,
        journal,
        ask_outside,
        notice,
        options.claims,
        options.xenstore,
    )
    mailbox = Mailbox(attachments if attachments.has_network else None)
    port = InputPort(ConsoleInput(console, mailbox), latch)
    semihosting = Semihosting(
        virtual,
        output,
        lambda size: port.source.read(vcpu.now(), size),
        lambda: vcpu.progress,
        jail,
        notice,
        options.epoch,
        vcpu.timeline.ticks_per_second,
        journal,
    )
    hypercalls = GuestNotices(notice, "hypercalls that do not exist")

    def tell_unknown(number: int, command: int) -> None:
        hypercalls.tell((number, command), f"the hypervisor does not know hypercall {number}, command {command}")

    peripherals = Peripherals(options.board_model, vcpu, output, port, memory, options.epoch, attachments, tell_unknown)

    def is_alone() -> bool:
        return vcpu.timeline.next_tick is None and not peripherals.expects_input

    storm = ExceptionStorm(vcpu.situation, is_alone, lambda: _hash_ram(ram))
    exits = ExitHandler(
        vcpu, inspector, semihosting, notice, storm, options.board_model.has_psci, lambda: peripherals.hypervisor
    )
    tier_parts = TierParts(
        cpu,
        memory,
        notice,
        observer,
        latch,
        lambda gva: inspector.symbolize(Gva(gva)),
        must_stop,
        identity.digest,
        exits.answer_within_slice,
    )
    signals = SignalDeferral()

    @cache
    def silence() -> "SilentKernel":
        from dbt.vm.silent_kernel import SilentKernel

        return SilentKernel(options.board_model, output, notice)

    loop = HostLoop(
        vcpu,
        peripherals,
        inspector,
        exits,
        port,
        output,
        console,
        observer,
        options.realtime,
        options.hears_outside,
        signals,
        journal,
        silence,
    )
    return Parts(
        cpu,
        ram,
        memory,
        vcpu,
        inspector,
        identity,
        semihosting,
        port,
        peripherals,
        storm,
        loop,
        signals,
        journal,
        attachments,
        mailbox,
    )
