"""A tap interface of the host as the end of a network card: what the guest sends arrives there, and the other way."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from dbt.host.net_option import NetworkError, lost_text

if TYPE_CHECKING:
    from dbt.host.network import Handover

_DEVICE: Final = "/dev/net/tun"
#: linux/if_tun.h
_TUNSETIFF: Final = 0x400454CA
_TUNGETIFF: Final = 0x800454D2
_TUNSETOFFLOAD: Final = 0x400454D0
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
#: struct ifreq: the name, which ends with a zero byte, and the flags.
_REQUEST: Final = struct.Struct("16sH22x")
_LONGEST_NAME: Final = 15
_LONGEST_FRAME: Final = 65_535
#: Frames that are taken at once.
_MOST_FRAMES: Final = 256
#: The errors after which the interface is no more.
_GONE: Final = (errno.EBADFD, errno.EBADF, errno.ENODEV)


class TapEnd:
    """A tap interface that exists. It is an end at which nobody is, once that has been removed."""

    def __init__(self, name: str, notice: Callable[[str], None], descriptor: int | None = None) -> None:
        """``notice`` is told if the interface is removed. Raise NetworkError unless there is one of this name that this
        user may have, or ``descriptor`` is of one, which another process has opened.
        """
        self._descriptor = _open(name) if descriptor is None else _checked(name, descriptor)
        self._name, self._notice = name, notice
        self._buffer = bytearray(_LONGEST_FRAME)

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            if self._descriptor >= 0:
                try:
                    os.write(self._descriptor, frame)
                except OSError as error:  # The frame is lost; so it is while the interface is down.
                    self._failed(error)

    def receive(self) -> list[bytes]:
        frames: list[bytes] = []
        while self._descriptor >= 0 and len(frames) < _MOST_FRAMES:
            try:
                size = os.readv(self._descriptor, [self._buffer])
            except OSError as error:
                self._failed(error)
                break
            frames.append(bytes(self._buffer[:size]))
        return frames

    def _failed(self, error: OSError) -> None:
        if error.errno in _GONE:
            self._notice(lost_text(f"tap:{self._name}", str(error.strerror)))
            self.close()

    def descriptors(self) -> Sequence[int]:
        return () if self._descriptor < 0 else (self._descriptor,)

    def hand_over(self) -> Handover | None:
        from dbt.host.network import Handover  # which knows this module

        return None if self._descriptor < 0 else Handover(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def _open(name: str) -> int:
    """Return a descriptor of the interface, at which nothing waits."""
    raw = os.fsencode(name)
    _check_exists(name, raw)
    try:
        descriptor = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NetworkError(f"--net tap:{name}: cannot open {_DEVICE}: {error.strerror}") from None
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, _REQUEST.pack(raw, _IFF_TAP | _IFF_NO_PI))
        fcntl.ioctl(descriptor, _TUNSETOFFLOAD, 0)  # which who had it before may have set
    except OSError as error:
        os.close(descriptor)
        raise NetworkError(f"--net tap:{name}: {_reason(name, error)}") from None
    return descriptor


def _checked(name: str, descriptor: int) -> int:
    """Return a descriptor that another process has opened. Raise NetworkError unless it is of a tap interface."""
    try:
        request = fcntl.ioctl(descriptor, _TUNGETIFF, _REQUEST.pack(b"", 0))
        is_tap = bool(_REQUEST.unpack(request)[1] & _IFF_TAP)
        os.set_blocking(descriptor, False)
    except PermissionError:  # in a jail, whose host has looked
        return descriptor
    except OSError:
        is_tap = False
    if not is_tap:
        os.close(descriptor)
        raise NetworkError(f"what was handed over as the network tap:{name} is no tap interface")
    return descriptor


def _check_exists(name: str, raw: bytes) -> None:
    """Raise NetworkError unless there is such an interface. To root, the kernel would make one."""
    try:
        if not 0 < len(raw) <= _LONGEST_NAME:
            raise OSError
        socket.if_nametoindex(name)
    except (OSError, ValueError):
        raise NetworkError(
            f"--net tap:{name}: there is no network interface of this name. To make one, as root: "
            f"ip tuntap add dev NAME mode tap user USER; ip link set NAME up"
        ) from None


def _reason(name: str, error: OSError) -> str:
    match error.errno:
        case errno.EPERM:
            return f"this user may not use it. As root: ip tuntap add dev {name} mode tap user USER, for a new one"
        case errno.EINVAL:
            return "this is no tap interface, or one with several queues (ip tuntap add dev NAME mode tap makes one)"
        case errno.EBUSY:
            return "another program uses it"
        case _:
            return str(error.strerror)
