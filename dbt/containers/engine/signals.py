"""Signals by name and number, as docker's clients write them. The guest's numbers are those of ARM, as this host's."""

from __future__ import annotations

import signal
from typing import Final

from dbt.containers.engine.errors import BadParameter

_REAL_TIME: Final = {"RTMIN": int(signal.SIGRTMIN), "RTMAX": int(signal.SIGRTMAX)}
_MOST: Final = 64


def signal_number(text: str) -> int:
    """Return the number of a signal: 9, KILL, SIGKILL or RTMIN+3. Raise BadParameter."""
    if text.isascii() and text.isdigit() and 0 < int(text) <= _MOST:
        return int(text)
    name = text.upper().removeprefix("SIG")
    base, sign, offset = name, "", ""
    for one in "+-":
        if one in name:
            base, sign, offset = name.partition(one)
    if base in _REAL_TIME and (not sign or offset.isdigit()):
        number = _REAL_TIME[base] + (int(sign + offset) if sign else 0)
        if _REAL_TIME["RTMIN"] <= number <= _REAL_TIME["RTMAX"]:
            return number
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise BadParameter(f"Invalid signal: {text}") from None
