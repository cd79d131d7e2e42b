"""``dbt isa``: lists the instructions, and which of them are sensitive."""

from __future__ import annotations

from dbt.cli.status import CommandError, Status


def list_instructions(sensitivity: str | None, as_json: bool) -> int:
    """Print a line for each instruction, or a JSON array, to standard output. A class restricts the list."""
    from isa.arm.a32 import REGISTRY
    from isa.ir.sensitivity import Classified, Sensitivity, answered_by, classify

    classes = [kind.value for kind in Sensitivity]
    if sensitivity is not None and sensitivity not in classes:
        raise CommandError(f"--class {sensitivity}: this is none of {', '.join(classes)}.", Status.USAGE)
    found = [classify(insn) for insn in REGISTRY]
    chosen = [one for one in found if sensitivity in (None, one.sensitivity.value)]

    def row(one: Classified) -> dict[str, object]:
        insn = one.insn
        return {
            "name": insn.name,
            "syntax": insn.syntax,
            "section": insn.section,
            "since": insn.since,
            "pattern": insn.pattern.text,
            "class": one.sensitivity.value,
            "callouts": {callout.name: answered_by(callout) for callout in one.callouts},
        }

    if as_json:
        import json

        print(json.dumps([row(one) for one in chosen], indent=2))
        return 0
    print(f"{'instruction':38} {'since':6}{'class':11} callouts")
    for one in chosen:
        names = tuple(callout.name for callout in one.callouts)
        callouts = ", ".join(names)
        line = f"{one.insn.name[:38]:38} {_version(one.insn.since)} {one.sensitivity.value:11} {callouts}".rstrip()
        print(line if len(line) <= 80 else _wrapped(one.insn.name, one.insn.since, one.sensitivity.value, names))
    counts = ", ".join(f"{sum(one.sensitivity.value == name for one in found)} {name}" for name in classes)
    print(f"{len(found)} instructions: {counts}")
    return 0


def _version(since: int) -> str:
    """Return the name of a version of the architecture. The one since the Virtualization Extensions is of ARMv7."""
    from isa.arm.state import Architecture

    return "v7VE " if since == Architecture.V7VE else f"ARMv{since}"


def _wrapped(name: str, since: int, sensitivity: str, callouts: tuple[str, ...]) -> str:
    """Return the row with each callout on a line of its own."""
    head = f"{name[:38]:38} {_version(since)} {sensitivity:11} "
    return head + f",\n{'':{len(head)}}".join(callouts)
