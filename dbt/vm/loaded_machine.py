"""What a machine runs: loading a program or a kernel, and the reset that starts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dbt.board.loader import read_file
from dbt.inspector.symbols import SymbolTable
from dbt.vm.guest import Guest, read_kernel, read_program
from dbt.vm.guest_access import GuestAccess
from dbt.vm.options import path_text
from isa.arm.cpus import CPUS

if TYPE_CHECKING:
    from os import PathLike


class LoadedMachine(GuestAccess):
    """What :class:`dbt.vm.machine.Machine` has for the guest's program."""

    def reset(self) -> None:
        """Set registers, devices, time and counts as at power-on. RAM keeps what it holds."""
        self._ownership.check_stopped()
        self.semihosting.reset()
        self.vcpu.reset()
        holes_read_zero = self._guest.is_kernel and self.options.board_model.holes_read_zero  # choice: no-device
        self._parts.peripherals.reset(holes_read_zero)
        self._parts.loop.reset()
        guest = self._guest
        if guest.image is not None:
            self.cpu.r[15] = guest.image.entry
        for number, value in enumerate(guest.registers):
            self.cpu.r[number] = value

    # -- programs ------------------------------------------------------------------------------

    def load(
        self,
        path: str | PathLike[str],
        base: int | None = None,
        entry: int | None = None,
        args: Sequence[str] = (),
    ) -> None:
        """Load an ELF executable, or a flat binary to ``base``, and reset. Raise ImageError if it cannot be loaded.

        ``base`` and ``entry`` are physical addresses; ``entry`` replaces the program's own. ``args`` are the guest's
        arguments after its own name.
        """
        self._ownership.check_stopped()
        name = path_text("path", path)
        self.load_bytes(read_file(name, self.ram.size), base, entry, args, name)

    def load_bytes(
        self,
        data: bytes,
        base: int | None = None,
        entry: int | None = None,
        args: Sequence[str] = (),
        path: str | PathLike[str] = "(bytes)",
    ) -> None:
        """Load a program as :meth:`load` does, from the bytes of the file. ``path`` names it in messages."""
        self._ownership.check_stopped()
        name = path_text("path", path)
        self._start(read_program(self.options.board_model, data, name, self.ram.layout, base, entry, args))

    def load_kernel(
        self,
        path: str | PathLike[str],
        initrd: str | PathLike[str] | None = None,
        dtb: str | PathLike[str] | None = None,
        append: str = "",
        atags: bool = False,
        base: int | None = None,
        entry: int | None = None,
    ) -> None:
        """Load a kernel as a boot loader does (:mod:`dbt.board.boot`) and reset. Raise ImageError if it cannot be
        loaded.

        ``path`` is a zImage, a uImage, an ELF kernel or a flat image. A flat image goes to ``base``, by default 0x10000
        or where Linux expects to be. ``initrd`` is the initial RAM disk, and ``append`` the kernel's command line.
        ``entry`` replaces the kernel's own.

        The board is described to the kernel by the device tree ``dtb``, to which memory, command line and RAM disk are
        added. Without ``dtb`` a tree of the board's devices is made. With ``atags``, and for a flat image that is not
        Linux, it is described by ATAGs, as by QEMU.
        """
        self._ownership.check_stopped()
        has_device = self.board.bus.has_device
        ram = self.options.board_model.kernel_layout(self.ram.layout)
        guest = read_kernel(
            self.options.board_model,
            self.options.cpu,
            self.options.rng_seed,
            path_text("path", path),
            ram,
            lambda gpa: has_device(gpa, 4),
            None if initrd is None else path_text("initrd", initrd),
            None if dtb is None else path_text("dtb", dtb),
            append,
            atags,
            base,
            entry,
            self.options.device_count > 0,
        )
        self._start(guest)

    def restart(self) -> None:
        """Load the present guest again, as it was read from its file, and reset. What else RAM holds stays.

        A machine that was restored from a saved state has no file, and is only reset.
        """
        self._ownership.check_stopped()
        if self._guest.image is not None:
            self._guest.image.place(self.memory)
        self.reset()

    def _start(self, guest: Guest) -> None:
        assert guest.image is not None
        if guest.is_kernel and self.ram.file is None:
            from dbt.memory.contents import touched

            if not any(touched(self.ram)):
                self.ram.keep_in_file()  # which makes the first fork of a large guest as fast as further ones
        guest.image.place(self.memory)
        self._parts.identity.use(guest.image)
        self._become(guest)

    def _become(self, guest: Guest) -> None:
        """Be what this guest wants, and reset. Its program is in RAM, or will be."""
        self._guest = guest
        self.cpu.use_model(CPUS[self.cpu_model])
        self.inspector.use_symbols(SymbolTable(guest.elf))
        self.semihosting.describe_program(guest.command_line, guest.layout)
        self.reset()
