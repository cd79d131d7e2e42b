"""The quick way from a command line to its options: it gives what argparse gives, or leaves the words to that."""

import random

import pytest

from dbt.cli.parser import make_parser
from dbt.cli.run_options import RunOptions
from dbt.cli.status import CommandError

_OPTIONS = [f"--{name.replace('_', '-')}" for name in RunOptions._fields if name not in ("program", "args")]
_FLAGS = [name for name in _OPTIONS if RunOptions._field_defaults[name[2:].replace("-", "_")] is False]


def _by_argparse(words: list[str]) -> RunOptions | None:
    """Return the options, or None for a command line that argparse refuses."""
    arguments = ["run", *words]
    try:
        parsed, unknown = make_parser(arguments).parse_known_args(arguments)
    except CommandError:
        return None
    if unknown:
        return None
    given = parsed.program[1:] if parsed.program[:1] == ["--"] else parsed.program
    parsed.program, parsed.args = (given[0] if given else None), tuple(given[1:])
    return RunOptions.of(parsed)


def test_every_option_has_the_default_that_argparse_gives_it() -> None:
    assert RunOptions.parse([]) == RunOptions() == _by_argparse([])


def test_every_option_goes_the_quick_way() -> None:
    for option in _OPTIONS:
        for words in ([option],) if option in _FLAGS else ([option, "x"], [f"{option}=x"], [f"{option}="]):
            line = [*words, "guest.elf", "--fuel", "-x", "--", ""]
            assert RunOptions.parse(line) == _by_argparse(line) is not None, line


@pytest.mark.parametrize(
    "line",
    (
        *("--fuel", "--fuel -1 x", "--fuel --stats x", "--stats=1 x", "--no-such x", "-h", "--help", "- x", "-- x"),
        *("--program x", "--args x", "--trace_counts x", "--record_trace t x", "--stat x", "---stats x"),
    ),
)
def test_what_is_not_plain_is_left_to_argparse(line: str) -> None:
    assert RunOptions.parse(line.split(" ")) is None


def test_random_command_lines_mean_the_same_to_both() -> None:
    words = [
        *_OPTIONS,
        *(f"{name}=v" for name in _OPTIONS),
        "",
        "-",
        "--",
        "-x",
        "-1",
        "a b",
        "-a b",
        "guest.elf",
        "x=y",
    ]
    chosen = random.Random(14)
    quick = 0
    for _ in range(3000):
        line = [chosen.choice(words) for _ in range(chosen.randrange(6))]
        options = RunOptions.parse(line)
        if options is not None:
            quick += 1
            assert options == _by_argparse(line), line
    assert quick > 500
