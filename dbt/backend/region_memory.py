"""The memory accesses of regions: one bound in flat RAM, or the shadow page tables with guesses and spans."""

from __future__ import annotations

from dbt.abi.cpu import NATIVE
from dbt.abi.layout import PAGE_SIZE, SideExit
from dbt.backend.access_checks import Check
from dbt.backend.lookups import Lookup
from dbt.backend.pointers import base_register
from dbt.backend.region_exits import RegionExits
from dbt.backend.spans import Span, displacement
from dbt.frontend.forming import Place
from isa.arm.operands import SP
from isa.ir.uop import Access, Uop

#: In place of the HVA of a table: it is not in one piece in the host, so each load has to look for its own page.
_IN_PIECES = "inttoptr (i64 1 to ptr)"

#: Why an access that fails its check leaves.
_REASONS = {"load": SideExit.LOAD, "store": SideExit.STORE}

#: After so many accesses on end by the same entry, the next one is expected to be by it too.
_SURE = 16


class RegionMemory(RegionExits):
    """Lowers loads and stores, each alone or those of a span together."""

    def _lower_in_span(self, span: Span, uop: Uop) -> None:
        """Lower an access that is checked together with others. The first of them makes the check."""
        f, access = self.f, uop.attr
        assert isinstance(access, Access)
        if not span.host:
            if self._is_check_needed(uop):
                span.host = self._check_span(span, uop.op, self._side_exit(_REASONS[uop.op]))
            else:
                span.host = self._known_host(self._span_address(span))
        address, ordinal = uop.args[0], 0
        place = displacement(address)
        if place is None:  # an access of a register list
            address, scaled = address.args
            place, ordinal = displacement(address), self._loop_numbers[scaled.args[0]]
        assert place is not None
        host = f.emit(f"getelementptr i8, ptr {span.host}, i64 {place[1] + 4 * ordinal - span.low}")
        if uop.op == "load":
            loaded = f.emit(f"load i{8 * access.size}, ptr {host}, align {self._alignment(access)}")
            self.values[uop] = self.extend(loaded, access)
        else:
            value = self.narrow(self.value(uop.args[1]), access.size)
            f.do(f"store i{8 * access.size} {value}, ptr {host}, align {self._alignment(access)}")

    def _is_check_needed(self, uop: Uop) -> bool:
        """Return True if an access of the current instruction has not been checked before."""
        return (self._block.place, self._index, uop) not in self._access_checks.needless

    def _known_host(self, address: str) -> str:
        """Return the HVA of an address in flat RAM that was checked before."""
        self._widen(address)
        return self.host_pointer(self._ram, address)

    def _span_address(self, span: Span) -> str:
        """Return the address of a span's first byte."""
        return self.f.emit(f"add i32 {self.f.emit(f'load i32, ptr {self._registers[span.base]}')}, {span.low}")

    def _check_ahead(self, check: Check, place: Place) -> None:
        side = self._aside(lambda: self._go_on_threaded(place.pc, 0, _REASONS[check.op]))
        self._check_span(Span(SP, check.low, check.high, check.align), check.op, side)

    def _check_span(self, span: Span, op: str, side: str) -> str:
        """Return the HVA of a span's first byte if all of it may be accessed. Branch to ``side`` if not."""
        f, size = self.f, span.high - span.low
        first = self._span_address(span)
        self._widen(first)
        if op == "load" and self._flat is not None:
            return self._flat_address(first, span.align, side, size)
        if op == "load":
            self.check_aligned(first, span.align, side)
            entry = self._span_entry(first, size, "%reads", side, span.base)
        else:
            slow = f.new_label("slow")
            self.check_aligned(first, span.align, slow)
            if self._flat is None:
                entry = self._span_entry(first, size, "%writes", slow, span.base)
            else:  # all entries are equal, so the two need not be compared with each other
                self.checked_entry(first, "%writes", slow)
                entry = self.checked_entry(f.emit(f"add i32 {first}, {size - 1}"), "%writes", slow)
            entry = self._or_writable(entry, slow, first, size, span.align, side)
        return self._store_pointer(entry, first)

    def _lower_lookup(self, lookup: Lookup, uop: Uop) -> None:
        """Lower a load by a register and a small index, which is added to the HVA that the register points to.

        That of the register is found once, until it is written, if the table is in one piece.
        """
        f, access = self.f, uop.attr
        assert isinstance(access, Access)
        side, align = self._side_exit(SideExit.LOAD), self._alignment(access)
        address = self.value(uop.args[0])
        self._widen(address)
        self._check_place(address, access.size, align, side)
        known, before = f.emit(f"load ptr, ptr {self._hosts[lookup.register]}"), f.current
        ready, unknown, one, each = (f.new_label(name) for name in ("ready", "unknown", "one", "each"))
        is_known = f.emit(f"icmp ugt ptr {known}, {_IN_PIECES}")
        f.do(f"br i1 {is_known}, label %{ready}, label %{unknown}, !prof !1")
        f.label(unknown)
        first = self._find_table(lookup, known, one, each)
        f.label(one)
        f.do(f"store ptr {first}, ptr {self._hosts[lookup.register]}")
        f.do(f"br label %{ready}")
        f.label(each)
        place = self.host_pointer(self.checked_entry(address, "%reads", side), address)
        other = f.emit(f"getelementptr i8, ptr {place}, i64 {f.emit(f'sub i64 0, {self._wide_index(lookup)}')}")
        last = f.current
        f.do(f"br label %{ready}")
        f.label(ready)
        table = f.emit(f"phi ptr [ {known}, %{before} ], [ {first}, %{one} ], [ {other}, %{last} ]")
        place = f.emit(f"getelementptr i8, ptr {table}, i64 {self._wide_index(lookup)}")
        self.values[uop] = self.extend(f.emit(f"load i{8 * access.size}, ptr {place}, align {align}"), access)

    def _find_table(self, lookup: Lookup, known: str, one: str, each: str) -> str:
        """Return the HVA that the register of a lookup points to, and go to ``one`` if all that is looked up by the
        register is in one piece from there on. Go to ``each`` if not, or if ``known`` says so.

        It is in one piece if its last byte is as far from its first one in the host as in the guest. Then there is no
        third page between them, and no way from the highest address to 0.
        """
        f, length = self.f, self._lookups.reach[lookup.register] - 1
        look, first = f.new_label("look"), self.value(lookup.base)
        f.do(f"br i1 {f.emit(f'icmp eq ptr {known}, null')}, label %{look}, label %{each}")
        f.label(look)
        f.do(f"store ptr {_IN_PIECES}, ptr {self._hosts[lookup.register]}")
        ends = [(self.table_entry(place, "%reads"), place) for place in (first, f.emit(f"add i32 {first}, {length}"))]
        low, high = (super(RegionMemory, self).host_pointer(*end) for end in ends)
        whole = f.emit(f"icmp eq ptr {f.emit(f'getelementptr i8, ptr {low}, i64 {length}')}, {high}")
        mapped = f.emit(f"icmp ne ptr {ends[0][0]}, null")
        f.do(f"br i1 {f.emit(f'and i1 {whole}, {mapped}')}, label %{one}, label %{each}")
        return low

    def _wide_index(self, lookup: Lookup) -> str:
        """Return the index of a lookup, as i64. It is small, so that a shift of it may be the host's addressing."""
        index, shift = lookup.index, None
        if index.op == "shl" and (shift := index.args[1].number) is not None:
            index = index.args[0]
        wide = self.f.emit(f"zext i32 {self.value(index)} to i64")
        return wide if shift is None else self.f.emit(f"shl nuw nsw i64 {wide}, {shift}")

    def _guessed_entry(self, address: str, table: str, bail: str, register: int | None) -> str:
        """Do as :meth:`checked_entry`, for an address that a register of the current block is a term of.

        If the block follows a pointer in the register, the result is the entry that was guessed, where that is right.
        The table is read only to check it. The host predicts the outcome, and so does not wait for the table.

        What is guessed is an entry that was the right one :data:`_SURE` times on end. If the pages change more often,
        a guess would be right or wrong as the data has it, which the host could not predict. So it stays wrong.
        """
        if register is None:
            return self.checked_entry(address, table, bail)
        f, guess = self.f, self._guesses[register]
        entry, guessed = self.table_entry(address, table), f.emit(f"load ptr, ptr {guess}")
        before, new, mapped, sure, known = (
            f.current,
            *(f.new_label(name) for name in ("new", "mapped", "sure", "known")),
        )
        f.do(f"br i1 {f.emit(f'icmp eq ptr {entry}, {guessed}')}, label %{known}, label %{new}, !prof !1")
        f.label(new)
        f.do(f"br i1 {f.emit(f'icmp eq ptr {entry}, null')}, label %{bail}, label %{mapped}, !prof !0")
        f.label(mapped)
        last, run = (self.state_pointer(NATIVE[name].offset + 8 * register) for name in ("last_entries", "entry_runs"))
        same = f.emit(f"icmp eq ptr {entry}, {f.emit(f'load ptr, ptr {last}')}")
        longer = f.emit(f"add i64 {f.emit(f'load i64, ptr {run}')}, 1")
        length = f.emit(f"select i1 {same}, i64 {longer}, i64 1, !unpredictable !2")
        f.do(f"store ptr {entry}, ptr {last}")
        f.do(f"store i64 {length}, ptr {run}")
        f.do(f"br i1 {f.emit(f'icmp ugt i64 {length}, {_SURE}')}, label %{sure}, label %{known}, !prof !0")
        f.label(sure)
        f.do(f"store ptr {entry}, ptr {guess}")
        f.do(f"store ptr {entry}, ptr {self._guess_word(register)}")
        f.do(f"br label %{known}")
        f.label(known)
        return f.emit(f"phi ptr [ {guessed}, %{before} ], [ {entry}, %{mapped} ], [ {entry}, %{sure} ]")

    def _followed_register(self, address: Uop) -> int | None:
        """Return the register of an address in which the current block follows a pointer, or None."""
        return base_register(address, self._followed.get(self._block.place, ()))

    def _span_entry(self, first: str, size: int, table: str, bail: str, base: int) -> str:
        """Return the entry of a span. If the same entry maps both ends, it maps all between them too."""
        f = self.f
        register = base if base in self._followed.get(self._block.place, ()) else None
        entry = self._guessed_entry(first, table, bail, register)
        last = self.table_entry(f.emit(f"add i32 {first}, {size - 1}"), table)
        whole = f.new_label("whole")
        f.do(f"br i1 {f.emit(f'icmp eq ptr {entry}, {last}')}, label %{whole}, label %{bail}, !prof !1")
        f.label(whole)
        return entry

    def _widen(self, address: str) -> None:
        """Extend an address to 64 bits before it is checked, not where it is used.

        It costs nothing here: an x86-64 instruction with a 32-bit result clears the upper half. Behind a branch LLVM
        does not see that, and extends by an instruction that the access has to wait for.
        """
        if self._optimizations.early_zext:
            self._wide[address] = self.f.emit(f"zext i32 {address} to i64")

    def host_pointer(self, entry: str, address: str) -> str:
        wide = self._wide.get(address)
        return (
            super().host_pointer(entry, address)
            if wide is None
            else self.f.emit(f"getelementptr i8, ptr {entry}, i64 {wide}")
        )

    def _store_pointer(self, entry: str, address: str) -> str:
        """Return the HVA for a store. Without an MMU all entries are equal, so the HVA need not wait for the load of
        one.
        """
        return self.host_pointer(entry if self._flat is None else self._ram, address)

    def _or_writable(self, entry: str, slow: str, address: str, size: int, align: int, side: str) -> str:
        """Return ``entry`` or, at the label ``slow``, that for a store beside code. Without one, branch to ``side``."""
        f = self.f
        fast, join = f.current, f.new_label("join")
        f.do(f"br label %{join}")
        f.label(slow)
        find = f.emit(f"load ptr, ptr {self.state_pointer(NATIVE['writable'].offset)}")
        arguments = f"ptr %cpu, i32 {address}, i32 {size}, i32 {align}"
        other = f.emit(f"call preserve_mostcc ptr {find}({arguments})")
        f.do(f"br i1 {f.emit(f'icmp eq ptr {other}, null')}, label %{side}, label %{join}, !prof !0")
        f.label(join)
        return f.emit(f"phi ptr [ {entry}, %{fast} ], [ {other}, %{slow} ]")

    def lower_load(self, address: str, access: Access) -> str:
        align = self._alignment(access)
        if not self._needs_check:
            return self.f.emit(f"load i{8 * access.size}, ptr {self._known_host(address)}, align {align}")
        self._widen(address)
        side = self._side_exit(SideExit.LOAD)
        if self._flat is None:
            self._check_place(address, access.size, align, side)
            host = self.host_pointer(self._guessed_entry(address, "%reads", side, self._followed_base), address)
        else:
            host = self._flat_address(address, align, side, access.size)
        return self.f.emit(f"load i{8 * access.size}, ptr {host}, align {align}")

    def _check_place(self, address: str, size: int, align: int, bail: str) -> None:
        """Branch to ``bail`` if the access is not aligned or, where it need not be, if it crosses the end of a page."""
        f = self.f
        if align == size:
            self.check_aligned(address, align, bail)
            return
        fits, odd = f.new_label("fits"), f.new_label("odd")
        low_bits = f.emit(f"and i32 {address}, {size - 1}")
        f.do(f"br i1 {f.emit(f'icmp eq i32 {low_bits}, 0')}, label %{fits}, label %{odd}, !prof !1")
        f.label(odd)
        inside = f.emit(f"icmp ule i32 {f.emit(f'and i32 {address}, {PAGE_SIZE - 1}')}, {PAGE_SIZE - size}")
        f.do(f"br i1 {inside}, label %{fits}, label %{bail}, !prof !1")
        f.label(fits)

    def _flat_address(self, address: str, align: int, bail: str, size: int) -> str:
        """Return the HVA of an aligned access of ``size`` bytes to RAM. Others branch to ``bail``.

        The address is rotated by its low bits, which must be 0, so that one comparison checks alignment and range.
        """
        assert self._flat is not None
        f = self.f
        offset = f.emit(f"sub i32 {address}, {self._flat.base}") if self._flat.base else address
        bits = align.bit_length() - 1
        rotated = f.emit(f"call i32 @llvm.fshl.i32(i32 {offset}, i32 {offset}, i32 {32 - bits})") if bits else offset
        inside = f.new_label("inside")
        below = f.emit(f"icmp ult i32 {rotated}, {(self._flat.size - size >> bits) + 1}")
        f.do(f"br i1 {below}, label %{inside}, label %{bail}, !prof !1")
        f.label(inside)
        return self.host_pointer(self._ram, address)

    def lower_store(self, address: str, value: str, access: Access) -> None:
        align = self._alignment(access)
        if not self._needs_check:
            host = self._known_host(address)
        else:
            self._widen(address)
            side, slow = self._side_exit(SideExit.STORE), self.f.new_label("slow")
            self._check_place(address, access.size, align, slow)
            entry = self._guessed_entry(address, "%writes", slow, self._followed_base)
            host = self._store_pointer(self._or_writable(entry, slow, address, access.size, align, side), address)
        self.f.do(f"store i{8 * access.size} {self.narrow(value, access.size)}, ptr {host}, align {align}")
