"""The target description: which registers there are and how they are numbered, in XML for gdb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import quoteattr

from dbt.gdb.target import Register

_HEAD = '<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "gdb-target.dtd">\n'


def target_xml(features: Mapping[str, Sequence[Register]], architecture: str = "arm") -> str:
    """Return the description of a target with these features ("Target Description Format" in gdb's manual)."""
    lines = [f'<target version="1.0">\n<architecture>{architecture}</architecture>']
    for name, registers in features.items():
        lines.append(f"<feature name={quoteattr(name)}>")
        lines += map(_register_xml, registers)
        lines.append("</feature>")
    lines.append("</target>\n")
    return _HEAD + "\n".join(lines)


def _register_xml(register: Register) -> str:
    group = f' group={quoteattr(register.group)} save-restore="no"' if register.group else ""
    return (
        f'<reg name={quoteattr(register.name)} bitsize="32" type={quoteattr(register.type)} '
        f'regnum="{register.number}"{group}/>'
    )


def threads_xml(threads: Mapping[int, str]) -> str:
    """Return the list of threads, numbers and what they do."""
    lines = [
        f'<thread id="{number:x}" core="{number - 1}" name="CPU {number - 1}">{_text(what)}</thread>'
        for number, what in threads.items()
    ]
    return "\n".join(['<?xml version="1.0"?>', "<threads>", *lines, "</threads>", ""])


def _text(text: str) -> str:
    from xml.sax.saxutils import escape

    return escape(text)
