"""The calling convention of native code: the arguments of a handler.

A handler executes one guest instruction and tail-calls the next one's. All of them have one
signature, with LLVM's ``preserve_nonecc``, which passes twelve arguments in registers and preserves
none, so that the state of the machine stays in registers from handler to handler:

=========  ===========================================================================
``op``     the predecoded op being executed; the op pointer is the PC
``cpu``    CpuState
``budget`` instructions that this slice may still retire
``n z c v`` the guest's flags, each 0 or 1
``reads``  the shadow page table for loads: 2^20 pointers, host = entry + gva, null = slow path
``writes`` the one for stores
=========  ===========================================================================
"""

from __future__ import annotations

ARGUMENTS = (
    ("ptr", "op"), ("ptr", "cpu"), ("i64", "budget"),
    ("i32", "n"), ("i32", "z"), ("i32", "c"), ("i32", "v"),
    ("ptr", "reads"), ("ptr", "writes"),
)  # fmt: skip
PARAMETERS = ", ".join(f"{type_} {'range(i32 0, 2) ' if type_ == 'i32' else ''}%{name}" for type_, name in ARGUMENTS)


def header(name: str) -> str:
    """Return the first line of a handler's definition."""
    return f"define hidden preserve_nonecc void @{name}({PARAMETERS})"


def tail_call(callee: str, **changed: str) -> str:
    """Return a tail call of a handler with some of the arguments replaced. A ``ret`` must follow."""
    arguments = ", ".join(f"{type_} {changed.get(name, '%' + name)}" for type_, name in ARGUMENTS)
    return f"musttail call preserve_nonecc void {callee}({arguments})"
