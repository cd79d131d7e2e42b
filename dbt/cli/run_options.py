"""The options of ``dbt run`` as texts and flags, and the quick way to them from a plain command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

if TYPE_CHECKING:
    from argparse import Namespace


class RunOptions:
    """The options of ``dbt run``. An option with a value is a text, or None if it was not given. One that may be given
    several times is a tuple of texts. The others are flags.

    The help of the command explains them. They do not change, and have what a named tuple has for its fields by name.
    To define a named tuple of so many fields takes two milliseconds at each start.
    """

    program: str | None = None
    args: tuple[str, ...] = ()
    os: str | None = None
    root: str | None = None
    kernel: str | None = None
    initrd: str | None = None
    dtb: str | None = None
    append: str | None = None
    atags: bool = False
    board: str | None = None
    xen: bool = False
    cpu: str | None = None
    smp: str | None = None
    rng: str | None = None
    drive: tuple[str, ...] = ()
    balloon: bool = False
    balloon_size: str | None = None
    net: tuple[str, ...] = ()
    forward: tuple[str, ...] = ()
    share: tuple[str, ...] = ()
    vsock: str | None = None
    xenstore: str | None = None
    semihosting: str | None = None
    memory: str | None = None
    fuel: str | None = None
    timeout: str | None = None
    tier: str = "auto"
    jit: str = "async"
    without: str | None = None
    dump: str | None = None
    base: str | None = None
    entry: str | None = None
    files: str | None = None
    epoch: str | None = None
    realtime: str | None = None
    insn_ns: str | None = None
    console: str | None = None
    serial: str | None = None
    record: str | None = None
    replay: str | None = None
    gdb: str | None = None
    qmp: str | None = None
    wait: bool = False
    history: bool = False
    save: str | None = None
    save_at: str | None = None
    restore: str | None = None
    incoming: str | None = None
    tls_creds: str | None = None
    increment: bool = False
    stats: bool = False
    registers: bool = False
    trace: str | None = None
    record_trace: str | None = None
    trace_counts: bool = False
    perf_map: bool = False
    json: bool = False
    _field_defaults: ClassVar[Mapping[str, Any]] = {
        name: default for name, default in vars().items() if not name.startswith("_")
    }
    _fields: ClassVar[tuple[str, ...]] = tuple(_field_defaults)

    def __init__(self, **given: Any) -> None:
        if unknown := given.keys() - self._field_defaults.keys():
            raise TypeError(f"dbt run has no option {', '.join(sorted(unknown))}")
        vars(self).update(given)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"options do not change: {name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunOptions) and self._asdict() == other._asdict()

    def __hash__(self) -> int:
        return hash(tuple(self._asdict().values()))

    def __repr__(self) -> str:
        return f"RunOptions({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def _asdict(self) -> dict[str, Any]:
        return {**self._field_defaults, **vars(self)}

    def _replace(self, **changes: Any) -> RunOptions:
        return RunOptions(**{**vars(self), **changes})

    @classmethod
    def of(cls, parsed: Namespace) -> RunOptions:
        """Return the options that argparse made of the command line."""
        return cls(**{name: getattr(parsed, name) for name in cls._fields})._with_board()

    def _with_board(self) -> RunOptions:
        """Return the options with the board that --xen stands for, unless there is another one."""
        return self._replace(board="xen") if self.xen and self.board is None else self

    @classmethod
    def parse(cls, words: Sequence[str]) -> RunOptions | None:
        """Return the options that argparse would make of the words after ``dbt run``. Return None if it must be asked.

        That is so for everything that is not plain: help, errors, and a value that could be an option. Loading
        argparse and telling it of all options takes a fifth of the time that a short guest takes.
        """
        given: dict[str, Any] = {}
        rest = iter(words)
        for word in rest:
            if not word.startswith("-"):
                return cls(**given, program=word, args=tuple(rest))._with_board() if word else None
            name, equals, value = word.removeprefix("--").partition("=")
            default = cls._field_defaults.get(name.replace("-", "_"), ...)
            if not word.startswith("--") or "_" in name or name in ("program", "args") or default is ...:
                return None
            if default is False:
                if equals:
                    return None
            elif not equals and (value := next(rest, "-")).startswith("-"):
                return None
            field = name.replace("-", "_")
            given[field] = (*given.get(field, ()), value) if default == () else default is False or value
        return cls(**given)._with_board()
