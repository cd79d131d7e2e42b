"""The nodes of XenStore: values and permissions by path (xen/docs/misc/xenstore.txt).

Paths are checked here, and begin with a slash. The domain of the back ends, 0, may do everything; a guest may do what
the permissions of a node say, and has a quota of nodes.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from dbt.devices.fields import LARGEST_COUNT
from dbt.devices.state import Stateful, Wiring

_PATH: Final = re.compile(r"(?:/[A-Za-z0-9\-_@]+)+|/")
_HOME: Final = re.compile(r"/local/domain/[0-9]{1,5}/")
_PERMISSION: Final = re.compile(rb"([rwbn])([0-9]{1,5})")
#: The bytes of a path at most (XENSTORE_REL_PATH_MAX), not counting the home of a domain that it begins with.
LONGEST_PATH: Final = 2048
#: What a guest may have: nodes, and bytes in a value and in the permissions of a node.
MOST_NODES, LARGEST_VALUE, _MOST_PERMISSIONS = 1000, 2048, 16
_READ, _WRITE = b"rb", b"wb"


class StoreError(Exception):
    """A request is refused. ``name`` is the error's name, as the answer has it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def check_path(path: str) -> str:
    """Return a path. Raise StoreError unless it is one of a node."""
    if not _is_path(path):
        raise StoreError("EINVAL")
    return path


def _is_path(path: str) -> bool:
    home = _HOME.match(path)
    return len(path) <= LONGEST_PATH + (home.end() if home else 0) and bool(_PATH.fullmatch(path))


def parent_of(path: str) -> str:
    return path.rpartition("/")[0] or "/"


@dataclass(eq=False)
class Tree(Stateful):
    """The nodes. ``permissions`` are as in the protocol, each ended by NUL: the owner and what others may do, then what
    single domains may do. ``generation`` counts changes, and ``versions`` has its value after the last change of
    each node: of its value, its permissions, or which nodes are directly below it.
    """

    values: dict[str, bytes] = field(default_factory=lambda: {"/": b""})
    permissions: dict[str, bytes] = field(default_factory=lambda: {"/": b"n0\0"})
    generation: int = 0
    versions: dict[str, int] = field(default_factory=lambda: {"/": 0})
    #: The permissions of nodes that the present request has removed: who could read them may hear of it.
    removed: Wiring[dict[str, bytes]] = field(default_factory=dict, init=False)
    #: How many nodes each domain owns, as counted of a certain dictionary of permissions.
    counted: Wiring[tuple[dict[str, bytes], Counter[int]]] = field(init=False, repr=False)
    #: The nodes directly below each that has such, as found for a certain dictionary of values.
    indexed: Wiring[tuple[dict[str, bytes], dict[str, dict[str, None]]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._count()

    def _children(self) -> dict[str, dict[str, None]]:
        """Return the nodes directly below each that has such: to look for them among all takes long."""
        if not hasattr(self, "indexed") or self.indexed[0] is not self.values:
            found: dict[str, dict[str, None]] = {}
            for path in self.values:
                if path != "/":
                    found.setdefault(parent_of(path), {})[path] = None
            self.indexed = self.values, found
        return self.indexed[1]

    def _count(self) -> Counter[int]:
        """Return how many nodes each domain owns. Permissions that have been put in from elsewhere are counted anew."""
        if not hasattr(self, "counted") or self.counted[0] is not self.permissions:
            self.counted = self.permissions, Counter(map(_owner, self.permissions.values()))
        return self.counted[1]

    def is_possible(self) -> bool:
        return (
            self.values.keys() == self.permissions.keys() == self.versions.keys()
            and "/" in self.values
            and all(_is_path(path) and parent_of(path) in self.values for path in self.values)
            and all(_are_permissions(each) for each in self.permissions.values())
            and all(0 <= version <= self.generation < LARGEST_COUNT for version in self.versions.values())
        )

    def copy(self) -> Tree:
        """Return another tree with the same nodes."""
        return Tree(dict(self.values), dict(self.permissions), self.generation, dict(self.versions))

    def version(self, path: str) -> int:
        """Return what tells whether a node has changed: 0 if it is not there."""
        return self.versions.get(path, 0)

    def _touch(self, path: str) -> None:
        self.generation += 1
        self.versions[path] = self.generation

    def read(self, domain: int, path: str) -> bytes:
        """Return the value of a node."""
        self._check(domain, path, _READ)
        return self.values[path]

    def children(self, domain: int, path: str) -> list[str]:
        """Return the names of the nodes below a node, sorted."""
        self._check(domain, path, _READ)
        return sorted(each[len(path.rstrip("/")) + 1 :] for each in self._children().get(path, ()))

    def get_permissions(self, domain: int, path: str) -> bytes:
        self._check(domain, path, _READ)
        return self.permissions[path]

    def write(self, domain: int, path: str, value: bytes) -> None:
        """Set the value of a node, and make it and those above it if they are not there."""
        if domain and len(value) > LARGEST_VALUE:
            raise StoreError("ENOSPC")
        if path in self.values:
            self._check(domain, path, _WRITE)
        else:
            self._make(domain, path)
        self.values[path] = value
        self._touch(path)

    def make(self, domain: int, path: str) -> None:
        """Make a node without a value, unless it is there."""
        if path in self.values:
            self._check(domain, path, _WRITE)
        else:
            self._make(domain, path)

    def remove(self, domain: int, path: str) -> None:
        """Remove a node and all below it. It is no error if there is none, but there must be one above it."""
        if path == "/":
            raise StoreError("EINVAL")
        if path not in self.values:
            self._check(domain, parent_of(path), _WRITE)
            return
        self._check(domain, path, _WRITE)
        children = self._children()
        children[parent_of(path)].pop(path)
        for each in [path, *self._below(path)]:
            children.pop(each, None)
            self.removed[each] = self.permissions[each]
            self._count()[_owner(self.permissions[each])] -= 1
            del self.values[each], self.permissions[each], self.versions[each]
        self._touch(parent_of(path))

    def set_permissions(self, domain: int, path: str, permissions: bytes) -> None:
        """Set the permissions of a node. Its owner may, but not give it away."""
        if path not in self.values:
            raise self._missing(domain, path, _WRITE)
        if not _are_permissions(permissions):
            raise StoreError("EINVAL")
        if domain and (_owner(self.permissions[path]), _owner(permissions)) != (domain, domain):
            raise StoreError("EPERM" if _owner(self.permissions[path]) == domain else "EACCES")
        self._count()[_owner(self.permissions[path])] -= 1
        self._count()[_owner(permissions)] += 1
        self.permissions[path] = permissions
        self._touch(path)

    def may_read(self, domain: int, path: str) -> bool:
        return path in self.values and _allow(self.permissions[path], domain, _READ)

    def might_read(self, domain: int, path: str) -> bool:
        """Return True if a domain might read a node that the present request has removed."""
        return path in self.removed and _allow(self.removed[path], domain, _READ)

    def forget(self, domain: int) -> list[str]:
        """Remove all nodes of a domain that is gone, and what others allow it: its number may be another one's next.
        The root stays, as nobody's. Return the paths of the nodes that were removed, without those below these.
        """
        gone = []
        if _owner(self.permissions["/"]) == domain:
            self.set_permissions(0, "/", b"n0\0")
        for path in sorted(self.values):
            if path in self.values and _owner(self.permissions[path]) == domain:
                self.remove(0, path)
                gone.append(path)
        for path, permissions in self.permissions.items():
            first, *rest = permissions.split(b"\0")[:-1]
            kept = [entry for entry in rest if int(entry[1:]) != domain]
            if len(kept) < len(rest):
                self.permissions[path] = b"\0".join([first, *kept, b""])
                self._touch(path)
        return gone

    def _make(self, domain: int, path: str) -> None:
        """Make a node and those above it that are missing, or none of them. They inherit permissions."""
        missing = []
        while path not in self.values:
            missing.append(path)
            path = parent_of(path)
        self._check(domain, path, _WRITE)
        permissions = self.permissions[path]
        if domain:
            if self._count()[domain] + len(missing) > MOST_NODES:
                raise StoreError("ENOSPC")
            first, _, rest = permissions.partition(b"\0")
            permissions = first[:1] + str(domain).encode() + b"\0" + rest
        children = self._children()
        for each in reversed(missing):
            children.setdefault(parent_of(each), {})[each] = None
            self._count()[_owner(permissions)] += 1
            self.values[each], self.permissions[each] = b"", permissions
            self._touch(each)
        self._touch(path)

    def _below(self, path: str) -> list[str]:
        """Return the nodes below a node. They may be as deep as a path is long, so this does not call itself."""
        children, found = self._children(), [path]
        for each in found:
            found += children.get(each, ())
        return found[1:]

    def _check(self, domain: int, path: str, wanted: bytes) -> None:
        if path not in self.values:
            raise self._missing(domain, path, wanted)
        if not _allow(self.permissions[path], domain, wanted):
            raise StoreError("EACCES")

    def _missing(self, domain: int, path: str, wanted: bytes) -> StoreError:
        """Return the error for a node that is not there. A domain that may not access what is above it does not learn
        whether it is, as from xenstored.
        """
        while path not in self.values:
            path = parent_of(path)
        return StoreError("ENOENT" if _allow(self.permissions[path], domain, wanted) else "EACCES")


def _allow(permissions: bytes, domain: int, wanted: bytes) -> bool:
    entries = permissions.split(b"\0")[:-1]
    if domain in (0, int(entries[0][1:])):
        return True
    mine = [entry for entry in entries[1:] if int(entry[1:]) == domain]
    return (mine or entries)[0][:1] in wanted


def _owner(permissions: bytes) -> int:
    return int(permissions.partition(b"\0")[0][1:])


def _are_permissions(permissions: bytes) -> bool:
    entries = permissions.split(b"\0")
    return 1 < len(entries) <= _MOST_PERMISSIONS and not entries.pop() and all(map(_PERMISSION.fullmatch, entries))
