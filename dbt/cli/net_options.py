"""``--net`` and ``--forward``: the network cards of a machine and what they are connected to."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from dbt.cli.run_options import RunOptions
from dbt.cli.status import CommandError, Status
from dbt.host.net_option import NOWHERE, USER, Forward, Net

if TYPE_CHECKING:
    from dbt.cli.argument_parser import Options

_NAMED: Final = ("unix", "tap", "hub")
_NET: Final = "user, unix:PATH, tap:NAME, hub:NAME or none, and perhaps ,mac=52:54:00:12:34:56 behind it"
_FORWARD: Final = "[tcp:|udp:][HOSTADDR:]HOST:GUEST, such as 8080:80: a port of the host, and one of the guest"


def add_net_options(options: Options) -> None:
    help_ = (
        "give the guest a virtio network card. user: a network of its own with a way out through the host, by "
        "the program passt; unix: a unix stream socket at which somebody listens, as with QEMU's `-netdev stream`; "
        "tap: a tap interface of the host; hub: other machines of this process. May be given several times [none]"
    )
    options.texts("user|unix:PATH|tap:NAME|hub:NAME|none[,mac=ADDRESS]", help_, "--net")
    help_ = (
        "with --net user: what comes to the port HOST of the host goes to the guest's port GUEST. HOSTADDR is the "
        "host's address, 0.0.0.0 for all [tcp, 127.0.0.1]. May be given several times"
    )
    options.texts("[tcp:|udp:][HOSTADDR:]HOST:GUEST", help_, "--forward")


def parse_net(option: str, text: str) -> Net:
    """Return the network card of a text such as ``unix:PATH,mac=52:54:00:12:34:56``."""
    end, _, mac = text.partition(",mac=")
    kind, _, name = end.partition(":")
    if end not in (NOWHERE, USER) and (kind not in _NAMED or not name):
        raise _wrong(option, text, _NET)
    if kind in ("hub", "tap") and "," in name:
        raise _wrong(option, text, _NET)
    digits = mac.split(":") if mac else []
    try:
        address = bytes(int(pair, 16) for pair in digits)
    except ValueError:
        raise _wrong(option, text, _NET) from None
    if len(address) not in (0, 6) or (address and address[0] & 1):
        raise _wrong(option, text, _NET)
    return Net(end, address)


def parse_forward(option: str, text: str) -> Forward:
    """Return the forwarded port of a text such as ``udp:0.0.0.0:5353:53``."""
    kind, colon, rest = text.partition(":")
    protocol, rest = (kind, rest) if colon and kind in ("tcp", "udp") else ("tcp", text)
    rest, _, guest = rest.rpartition(":")
    address, colon, host = rest.rpartition(":")
    if not host or not guest or (colon and not address):
        raise _wrong(option, text, _FORWARD)
    try:
        socket.inet_pton(socket.AF_INET, address or "127.0.0.1")
    except (OSError, ValueError):
        message = f"{option} {text}: {address} is no IPv4 address of the host, such as 127.0.0.1."
        raise CommandError(message, Status.USAGE) from None
    return Forward(protocol, address or "127.0.0.1", _port(option, text, host), _port(option, text, guest))


def _port(option: str, text: str, digits: str) -> int:
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 5 and 0 < int(digits) <= 65535):
        raise CommandError(f"{option} {text}: {digits} is no port, which is a number from 1 to 65535.", Status.USAGE)
    return int(digits)


def nets_of(options: RunOptions) -> tuple[Net, ...]:
    """Return the network cards. In a replay, what came from their networks is in the recording."""
    nets = [net for text in options.net if (net := parse_net("--net", text)).end != NOWHERE]
    forwards = tuple(parse_forward("--forward", text) for text in options.forward)
    user = next((number for number, net in enumerate(nets) if net.end == USER), None)
    if user is not None:
        nets[user] = nets[user]._replace(forwards=forwards)
    elif forwards:
        message = f"--forward {options.forward[0]}: only the network of passt forwards ports: add --net user."
        raise CommandError(message, Status.USAGE)
    return tuple(nets) if options.replay is None else tuple(net.disconnected() for net in nets)


def _wrong(option: str, text: str, wanted: str) -> CommandError:
    return CommandError(f"{option} {text}: this is not {wanted}.", Status.USAGE)
