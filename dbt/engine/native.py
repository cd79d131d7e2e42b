"""The handlers' image in this process: its executable code, and its functions for Python to call."""

from __future__ import annotations

import ctypes
import threading
from array import array
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from dbt.abi.addresses import Hva
from dbt.abi.hostmemory import executable_copy
from dbt.abi.stitching import FORM, NO_STENCIL
from dbt.codecache.handlers import image_version, load_image

if TYPE_CHECKING:
    from dbt.engine.initial_ops import InitialOps
    from dbt.engine.warm_code import WarmCode

_SHARING = threading.Lock()
_SHARED: WeakValueDictionary[tuple[object, ...] | None, NativeCode] = WeakValueDictionary()


class NativeCode:
    """The image, mapped for execution. ``notice`` is called with one line about what takes long or fails."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._users = 1
        self.image = image = load_image(notice)
        self._mapping = executable_copy(image.code)
        self.address, self.size = self._mapping.address, self._mapping.size
        self._offsets = image.entry_points()
        self.decode_handler = self.entry("decode")
        tables = (image.lists, image.pool, image.rows, image.guards)
        self._tables = [ctypes.create_string_buffer(table, len(table)) for table in tables]
        stencils = (image.stencil_code, image.stencils, image.patches, image.forms)
        self._stencils = [ctypes.create_string_buffer(table, len(table)) for table in stencils]
        self.initial_ops: InitialOps | None = None
        self.warm_code: WarmCode | None = None

    @cached_property
    def host_clock(self) -> Hva:
        """The HVA of the C library's clock_gettime."""
        address = ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p).value
        assert address is not None
        return Hva(address)

    def share_initial_ops(self) -> None:
        """Let machines that are made from now on, in this process and those forked from it, share their code pages as
        long as nothing is decoded there.
        """
        from dbt.engine.initial_ops import InitialOps

        if self.initial_ops is None:
            self.initial_ops = InitialOps(self.decode_handler, self.entry("sentinel"))

    def entry(self, name: str) -> Hva:
        """Return the address of a function of :data:`dbt.backend.image.ENTRY_POINTS`."""
        return Hva(self.address + self._offsets[name])

    def function(self, name: str, *arguments: Any, result: Any = None) -> Callable[..., Any]:
        """Return a function of the image, which takes CpuState and arguments of these ctypes."""
        return ctypes.CFUNCTYPE(result, ctypes.c_void_p, *arguments)(self.entry(name))

    def decoder_tables(self) -> Iterator[tuple[str, Hva]]:
        """Return the slots of CpuState for the decoder's tables, and the addresses of these."""
        names = ("decode_index", "decode_pool", "decode_rows", "decode_guards")
        return zip(names, (Hva(ctypes.addressof(table)) for table in self._tables), strict=True)

    def stencil_tables(self) -> Iterator[tuple[str, Hva]]:
        """Return the fields of the stitcher's workspace for the tables of stencils, and the addresses of these."""
        names = ("code", "stencils", "patches", "forms")
        return zip(names, (Hva(ctypes.addressof(table)) for table in self._stencils), strict=True)

    def form_stencils(self) -> Iterator[tuple[int, str]]:
        """Yield the number of each stencil of a form, and the form's name. Unrolled ones have a name for each count."""
        from dbt.backend.image import ENTRY_POINTS

        lines = self.image.symbols.decode().splitlines()[len(ENTRY_POINTS) :]
        for (number, _, _, _, count, unrolled), line in zip(FORM.iter_unpack(self.image.forms), lines, strict=True):
            name = line.split(" ", 2)[2]
            if number != NO_STENCIL:
                yield number, name
            yield from ((unrolled + one, f"{name} of {one + 1}") for one in range(count))

    @cached_property
    def guards(self) -> frozenset[int]:
        """The HVAs of the guards, which are the handlers of ops whose own handler is elsewhere in the op."""
        return self._addresses(self.image.guards)

    @cached_property
    def counting_handlers(self) -> frozenset[int]:
        """The HVAs of the handlers that count their executions in the op."""
        return self._addresses(self.image.counting)

    @cached_property
    def callouts(self) -> list[str]:
        """The names of callouts by their numbers."""
        return self.image.callouts.decode().splitlines()

    def _addresses(self, offsets: bytes) -> frozenset[int]:
        return frozenset(self.address + offset for offset in array("I", offsets))

    def symbols(self) -> Iterator[tuple[Hva, int, str]]:
        """Return address, size in bytes and name of each function."""
        lines = [line.split(" ", 1) for line in self.image.symbols.decode().splitlines()]
        starts = sorted({int(offset): name for offset, name in lines}.items())
        ends = [offset for offset, _ in starts[1:]] + [self.size]
        for (offset, name), end in zip(starts, ends, strict=True):
            yield Hva(self.address + offset), end - offset, name

    @classmethod
    def share(cls, notice: Callable[[str], None]) -> NativeCode:
        """Return the image that the machines of this process share as long as its file is the same. Each calls
        :meth:`close`.
        """
        with _SHARING:
            key = image_version()
            native = _SHARED.get(key)
            if native is not None and native._users:
                native._users += 1
                return native
            native = cls(notice)
            if (key := image_version()) is not None:
                _SHARED[key] = native
            return native

    def close(self) -> None:
        """Unmap the code, unless another machine shares it. The caller may not execute it any more."""
        with _SHARING:
            self._users -= 1
            if not self._users:
                self._mapping.close()
                if self.initial_ops is not None:
                    self.initial_ops.close()
                if self.warm_code is not None:
                    self.warm_code.close()
