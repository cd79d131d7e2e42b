"""COPY and ADD: which files they mean, what identifies these, and where they go."""

from __future__ import annotations

import hashlib
import posixpath
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from dbt.containers.build.failures import BuildFailed
from dbt.containers.build.layer_writer import LayerWriter
from dbt.containers.build.trees import Node, Tree, pattern
from dbt.containers.images.errors import PathError
from dbt.containers.images.view import FilesView

_WILD: Final = frozenset("*?[")
_MOST_USERS: Final = 1 << 20
_LAST_ID: Final = (1 << 31) - 1


class Source(NamedTuple):
    """Something that is copied: where it is, by what name it was asked for, and what identifies it."""

    tree: Tree
    path: str
    node: Node
    name: str
    digest: str


@dataclass(frozen=True)
class Copy:
    """An instruction that copies: ``verb`` is COPY or ADD; ``owner`` is None if files keep their owners.

    ``unpacks``: archives are unpacked. ``target`` is absolute, with a slash at its end if it must be a directory.
    """

    verb: str
    sources: tuple[Source, ...]
    target: str
    owner: tuple[int, int] | None
    unpacks: bool

    @property
    def digest(self) -> str:
        """What stands for the sources in the history."""
        if len(self.sources) == 1:
            return self.sources[0].digest
        joined = ",".join(source.digest for source in self.sources)
        return "multi:" + hashlib.sha256(joined.encode()).hexdigest()


def find_sources(verb: str, tree: Tree, names: Sequence[str], has_owners: bool) -> list[Source]:
    """Return what the names mean, of which some may have wildcards. Raise BuildFailed, with the builder's texts.

    ``has_owners``: the owners of the files are part of what identifies them.
    """
    found: list[Source] = []
    for name in names:
        path = posixpath.normpath(name.lstrip("/") or ".")
        if path == ".." or path.startswith("../"):
            raise BuildFailed(f"{verb} failed: forbidden path outside the build context: {name} ()")
        path = "" if path == "." else path
        if _WILD & set(name):
            match = pattern(path)
            for one, _ in tree.walk(""):
                if one and match.fullmatch(one):
                    found.append(_source(tree, one, has_owners))
        else:
            try:
                found.append(_source(tree, path, has_owners))
            except PathError:
                where = "" if has_owners else "file not found in build context or excluded by .dockerignore: "
                raise BuildFailed(f"{verb} failed: {where}stat {path}: file does not exist") from None
    if not found:
        raise BuildFailed(f"{verb} failed: no source files were specified")
    return found


def _source(tree: Tree, name: str, has_owners: bool) -> Source:
    path, node = tree.find(name)
    kind = "dir" if node.is_folder else "file"
    return Source(tree, path, node, posixpath.basename(name), f"{kind}:{_digest(tree, path, has_owners)}")


def _digest(tree: Tree, path: str, has_owners: bool) -> str:
    """Return a hash of what is at and below a path: everything but times."""
    whole = hashlib.sha256()
    for one, node in tree.walk(path):
        inner = hashlib.sha256()
        if node.is_file:
            for piece in tree.content(one, node):
                inner.update(piece)
        owner = (node.uid, node.gid) if has_owners else (0, 0)
        below = one[len(path) :].strip("/").encode("utf-8", "surrogateescape")
        link = node.link.encode("utf-8", "surrogateescape")
        whole.update(repr((below, node.mode, owner, node.size, link, node.device)).encode() + inner.digest())
    return whole.hexdigest()


def copy(wanted: Copy, writer: LayerWriter, folder: str) -> None:
    """Put what is copied into a layer. Archives are in ``folder`` meanwhile. Raise BuildFailed."""
    if len(wanted.sources) > 1 and not wanted.target.endswith("/"):
        text = "more than one source file, the destination must be a directory and end with a /"
        raise BuildFailed(f"When using {wanted.verb} with {text}")
    target = writer.settled(wanted.target)
    made_for = wanted.owner or (0, 0)
    for source in wanted.sources:
        if source.node.is_folder:
            _copy_folder(source, target, wanted, writer)
            continue
        if wanted.unpacks and source.node.is_file and _unpack(source, target, made_for, writer, folder):
            continue
        place = target
        if wanted.target.endswith("/") or writer.is_folder(target):
            place = posixpath.join(target, source.name)
            if writer.is_folder(place):
                raise BuildFailed(f"{wanted.verb} failed: cannot copy to directory: /{place}")
        writer.add(place, _owned(source.node, wanted.owner), source.tree.content(source.path, source.node), made_for)


def _copy_folder(source: Source, target: str, wanted: Copy, writer: LayerWriter) -> None:
    made_for = wanted.owner or (0, 0)
    writer.make_folder(target, made_for)
    for path, node in source.tree.walk(source.path):
        below = path[len(source.path) :].strip("/")
        if below:
            place = posixpath.join(target, below)
            content = source.tree.content(path, node) if node.is_file else iter(())
            writer.add(place, _owned(node, wanted.owner), content, made_for)


def _unpack(source: Source, target: str, owner: tuple[int, int], writer: LayerWriter, folder: str) -> bool:
    with tempfile.TemporaryFile(dir=folder) as file:
        for piece in source.tree.content(source.path, source.node):
            file.write(piece)
        return writer.unpack(file, target, owner)


def _owned(node: Node, owner: tuple[int, int] | None) -> Node:
    if owner is None:
        return node
    mode = node.mode
    if node.is_file:  # as chown(2) does it
        mode &= ~(stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0))
    return node._replace(uid=owner[0], gid=owner[1], mode=mode)


# -- owners ----------------------------------------------------------------------------------------


def owner_of(text: str, files: FilesView | None) -> tuple[int, int]:
    """Return user and group of ``--chown``, looked up in the files of an image. Raise BuildFailed."""
    user, colon, group = text.partition(":")
    uid = _number(user, "/etc/passwd", "uid", "user", files)
    return uid, _number(group if colon else user, "/etc/group", "gid", "group", files)


def _number(name: str, path: str, short: str, kind: str, files: FilesView | None) -> int:
    if name.isdigit() and int(name) <= _LAST_ID:
        return int(name)
    wrong = "unable to convert uid/gid chown string to host mapping: "
    try:
        table = files.read(path, _MOST_USERS) if files is not None else b""
    except PathError:
        table = b""
    for line in table.decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[0] == name and fields[2].isdigit():
            return int(fields[2])
    raise BuildFailed(f"{wrong}can't find {short} for {kind} {name}: no such {kind}: {name}")
