"""Dockerfiles: words, lines and checks. The cases of words are those of the builder's own documentation and tests."""

from __future__ import annotations

import random

import pytest

from dbt.containers.build.dockerfile import parse
from dbt.containers.build.failures import BuildFailed
from dbt.containers.build.ignore import is_ignored
from dbt.containers.build.stages import health_check, plan
from dbt.containers.build.words import expand, split_words

VALUES = {"NAME": "value", "EMPTY": "", "A": "a", "A1": "a1"}


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("hello", "hello"),
        ("he'll'o", "hello"),
        ("he'llo$NAME'", "hello$NAME"),
        ('he"llo $NAME"', "hello value"),
        (r"he\'llo", "he'llo"),
        (r"he\\llo", r"he\llo"),
        (r'"he\"llo"', 'he"llo'),
        (r'"he\a\\"', r"he\a\ "[:-1]),
        (r"'he\a'", r"he\a"),
        (r"\$NAME", "$NAME"),
        ("$NAME.x", "value.x"),
        ("$NAMEx", ""),
        ("${NAME}x", "valuex"),
        ("$A1", "a1"),
        ("$1x", "x"),
        ("$", "$"),
        ("a$", "a$"),
        ("$.", "$."),
        ("${NOT:-default}", "default"),
        ("${EMPTY:-default}", "default"),
        ("${NAME:-default}", "value"),
        ("${NAME:+other}", "other"),
        ("${NOT:+other}", ""),
        ("${NOT:-${A:+$NAME}}", "value"),
        ("${NOT:-'}'}", "}"),
        ("${NAME:?no}", "value"),
        ("ünïcode$A", "ünïcodea"),
    ],
)
def test_words(word: str, found: str) -> None:
    assert expand(word, VALUES, "\\") == found


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("'open", "looking for matching single-quote"),
        ('"open', "looking for matching double-quote"),
        ("${", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${A-b}", "missing ':' in substitution"),
        ("${A:=b}", "unsupported modifier (=) in substitution"),
        ("${NOT:?why}", "NOT: why"),
        ("${NOT:?}", "NOT: message is not allowed to be empty"),
        ("${A:-x", "unexpected end of statement"),
    ],
)
def test_wrong_words(word: str, text: str) -> None:
    with pytest.raises(BuildFailed) as caught:
        expand(word, VALUES, "\\")
    assert text in str(caught.value)


def test_lines_split_into_words() -> None:
    assert split_words(r"a='b c' d=e\ f  g=\"h i=" + '"j k"', "\\") == ["a='b c'", r"d=e\ f", r"g=\"h", 'i="j k"']


def test_what_a_file_says() -> None:
    text = (
        b"\xef\xbb\xbf# syntax=x\n# escape=`\n#c\n\nFROM a:1 AS Build\r\n  run echo `\n# between\n  two  \n"
        b'COPY --from=build --chown=1 ["a b", "c"] \n HealthCheck --interval=1m30s --retries=3 CMD ["x"]\n'
        b'CMD [ "x", 1 ]'
    )
    found = parse(text)
    assert found.escape == "`" and found.empty_lines == ()
    first, run, copy, health, command = found.instructions
    assert (first.name, first.words, first.text) == ("from", ("a:1", "AS", "Build"), "FROM a:1 AS Build")
    assert (run.name, run.words, run.line) == ("run", ("echo   two",), 6)
    assert (copy.flags, copy.words) == ({"from": "build", "chown": "1"}, ("a b", "c"))
    assert health_check(health) == {"Test": ["CMD", "x"], "Interval": 90 * 10**9, "Retries": 3}
    assert (command.is_json, command.words) == (False, ('[ "x", 1 ]',))
    assert [stage.name for stage in plan(found).stages] == ["build"]


def test_damaged_files_are_refused_or_read() -> None:
    """Whatever stands in a file, there is an answer."""
    seed = random.randrange(1 << 32)
    draw = random.Random(seed)
    whole = b'FROM a AS b\nENV A=1 B="2 $A" C\\\n =x\nRUN ["a"]\nHEALTHCHECK --interval=1s CMD x\nCOPY --from=b . .\n'
    for _ in range(3000):
        text = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            text[draw.randrange(len(text))] = draw.choice(b"\\\"'$={}[]\n# \x00\xff`-:/")
        try:
            for instruction in plan(parse(bytes(text))).stages[-1].steps:
                for word in (*instruction.words, *(one or "" for pair in instruction.pairs for one in pair)):
                    expand(word, VALUES, "\\")
        except BuildFailed as error:
            assert str(error), seed


@pytest.mark.parametrize(
    ("rules", "path", "is_gone"),
    [
        ("Dockerfile", "Dockerfile", True),
        ("*", "Dockerfile", True),
        ("*\n!Dockerfile", "Dockerfile", False),
        ("!Dockerfile\n*", "Dockerfile", True),
        ("# Dockerfile", "Dockerfile", False),
        ("/Dockerfile", "Dockerfile", True),
        ("./Dockerfile/", "Dockerfile", True),
        ("**/Dockerfile", "Dockerfile", True),
        ("**/Dockerfile", "a/b/Dockerfile", True),
        ("a", "a/b/Dockerfile", True),
        ("a/*", "a/b/Dockerfile", True),
        ("*/b", "a/c/Dockerfile", False),
        ("a/**", "a/b/Dockerfile", True),
        ("a/**/Dockerfile", "a/Dockerfile", True),
        ("D?ckerfile", "Dockerfile", True),
        ("[A-E]ockerfile", "Dockerfile", True),
        (".docker*", ".dockerignore", True),
    ],
)
def test_ignored(rules: str, path: str, is_gone: bool) -> None:
    assert is_ignored(rules, path) is is_gone
