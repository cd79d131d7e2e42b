"""Whether ``passt`` can be had here, and what it is asked in tests."""

from __future__ import annotations

import os
import shutil
import socket
import struct
from pathlib import Path

import pytest

from dbt.host.net_option import NetworkError
from dbt.host.passt import start_passt

MAC = b"\x52\x54\0\x12\x34\x56"


def need_passt() -> None:
    """Skip the test unless ``passt`` is installed and finds a network of the host's to copy."""
    if shutil.which("passt") is None:
        pytest.skip("passt is not installed: apt install passt")
    try:
        start_passt(()).close()
    except NetworkError as error:
        if "No external routable interface" in str(error):
            pytest.skip("passt wants a default route, and this host has none")
        raise


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of the loopback interface that nobody has at the moment."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def passts(port: int) -> list[int]:
    """The processes of ``passt`` that forward a port of 127.0.0.1. One that has ended is none of them."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if os.path.basename(words[0]).startswith(b"passt") and any(b"127.0.0.1/%d:" % port in w for w in words):
                found.append(int(process.name))
    return found


def dhcp_discover() -> bytes:
    """A frame that asks for an address (RFC 2131)."""
    options = b"\x63\x82\x53\x63" + b"\x35\1\1" + b"\xff"
    bootp = struct.pack("!BBBBIHH16x16s192x", 1, 1, 6, 0, 0x1234, 0, 0, MAC) + options
    return _ethernet(b"\xff" * 6, 0x0800, _ipv4(17, bytes(4), b"\xff" * 4, _udp(68, 67, bootp)))


def udp_frame(port: int, data: bytes) -> bytes:
    """A frame of the guest's with a datagram to a port of the gateway."""
    source, gateway = bytes((10, 0, 2, 15)), bytes((10, 0, 2, 2))
    return _ethernet(bytes.fromhex("52550a000202"), 0x0800, _ipv4(17, source, gateway, _udp(4000, port, data)))


def _ethernet(target: bytes, kind: int, data: bytes) -> bytes:
    return target + MAC + kind.to_bytes(2, "big") + data


def _ipv4(protocol: int, source: bytes, target: bytes, data: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 0, 0, 64, protocol, 0, source, target)
    total: int = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + (~total & 0xFFFF).to_bytes(2, "big") + head[12:] + data


def _udp(source: int, target: int, data: bytes) -> bytes:
    head: bytes = struct.pack("!HHHH", source, target, 8 + len(data), 0)
    return head + data
