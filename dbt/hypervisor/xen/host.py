"""Domains of one host: what crosses from one guest to another, and when.

While one domain executes, the others stand still, each at a time that depends on the guests alone. What a hypercall
does to another domain is done at once: ports are bound and closed, grants mapped, pages copied. After each domain's
turn, :meth:`XenHost.agree_on_pages` brings what it has written to mapped pages to the other side. So domains see each
other's writes in one order, as their barriers demand. Whoever changes a domain's memory from outside says so by
:meth:`XenHost.has_changed`. Of the domains that have changed, only pages are looked at that an epoch says were written
(:mod:`dbt.memory.epochs`). Where all of them stand together, at the end of a quantum, :meth:`XenHost.stand_together`
delivers events, and what XenStore has to say: never before the data that they are about.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from dbt.abi.addresses import Gpa
from dbt.abi.layout import PAGE_SHIFT, PAGE_SIZE
from dbt.devices.state import StateError
from dbt.hypervisor.xen.foreign_pages import ForeignMap, merged
from dbt.hypervisor.xen.interface import BACKEND_DOMAIN
from dbt.hypervisor.xen.shared_pages import Mapping, SharedPages, Written
from dbt.hypervisor.xen.store.tree import Tree
from dbt.hypervisor.xen.toolstack import Toolstack

if TYPE_CHECKING:
    from dbt.hypervisor.xen.domain import XenDomain
    from dbt.memory.epochs import Epoch

_LONGEST_LOG: Final = 10_000


class MapRecord(NamedTuple):
    """A line of the log of grants: at ``tick`` of its time, a domain has mapped or unmapped a page, or lost it."""

    tick: int
    what: str
    domain: int
    page: ForeignMap

    def __str__(self) -> str:
        one = self.page
        how = "to write" if one.writes else "to read"
        return (
            f"{self.tick}: domain {self.domain} {self.what} at {one.page:#x}, {how}, the page {one.granted:#x} of "
            f"domain {one.domain}, which grant {one.reference} gives"
        )


class XenHost:
    """The domains of guests on one host, by their numbers. ``tree`` has the nodes of their XenStore.

    ``toolstack`` connects devices that one of them has and another one serves.
    ``log`` has the last mappings of grants, in the order in which they were made and ended.
    """

    def __init__(self) -> None:
        self.domains: dict[int, XenDomain] = {}
        self.tree = Tree()
        self.shared = SharedPages()
        self.toolstack = Toolstack(lambda: self.tree, self.store_changed)
        self.log: deque[MapRecord] = deque(maxlen=_LONGEST_LOG)
        self._sent: dict[tuple[int, int, int], None] = {}  # sender, receiver, port, in the order of sending
        # Since all agreed on pages: domains whose memory may have changed, those whose frames and tables of grants may
        # be elsewhere, and what has been written in those that share pages.
        self._changed: set[int] = set()
        self._reshaped: set[int] = set()
        self._epochs: dict[int, Epoch] = {}

    # -- domains -------------------------------------------------------------------------------

    def enter(self, domain: XenDomain, number: int) -> None:
        """Let a domain be here with a number. If it takes another one's place, that is gone. Raise StateError for one
        that cannot be.
        """
        domain.enter(self, number)
        if number in self.domains:
            self.leave(number)
        self.domains[number] = domain
        self._find_shared(number)
        self._forget_pages(number)
        self.has_changed(number)
        if domain.is_on:  # its state is from elsewhere, and all of them have the same tree
            self.tree = domain.store.server.tree
        domain.store.server.tree = self.tree

    def powered_on(self, number: int) -> None:
        """A domain has made its first hypercall."""
        self.toolstack.connect(number, [other for other, domain in self.domains.items() if domain.is_on])

    def leave(self, number: int) -> None:
        """Take a domain away: its ports are closed, and nobody has pages of it any more. Its own memory stays as it is,
        because the next domain of the machine may be there already.
        """
        domain = self.domains[number]
        domain.channels.let_go()
        domain.foreign.let_go()
        del self.domains[number]
        self._forget_pages(number)
        for other_number, other in self.domains.items():
            for handle, one in other.foreign.items():
                if one.domain == number and not one.is_revoked:
                    other.foreign.revoke(handle)
                    self.has_changed(other_number)
        domain.store.server.forget()
        home = domain.store.server.home
        self.tree.removed.clear()
        if home in self.tree.values:
            self.tree.remove(BACKEND_DOMAIN, home)
            self.store_changed(home)
        for path in self.tree.forget(number):
            self.store_changed(path)
        self.toolstack.disconnect(number)

    def go_to(self, domains: dict[int, XenDomain]) -> None:
        """Stand where these domains stand together, whose state is from elsewhere. Raise StateError unless what they
        say of each other belongs together.
        """
        self.domains = dict(domains)
        for number in {*domains, *self._epochs}:
            self._forget_pages(number)
        self._changed = set(domains)
        trees = [domain.store.server.tree for domain in domains.values() if domain.is_on]
        if any(tree.save() != trees[0].save() for tree in trees):
            raise StateError("the domains have different nodes of XenStore")
        self.tree = trees[0] if trees else self.tree
        for domain in domains.values():
            domain.store.server.tree = self.tree
        self._sent.clear()
        self.shared.clear()
        for number in domains:
            self._find_shared(number)
        self._check()

    def _find_shared(self, number: int) -> None:
        """Know what a domain has mapped, whose state is from elsewhere."""
        foreign = self.domains[number].foreign
        foreign.find_bases()
        for handle, one in foreign.items():
            if not one.is_revoked:
                self.shared.add(Mapping(number, handle), one)

    def _check(self) -> None:
        for number, domain in self.domains.items():
            channels = domain.channels
            if not all(map(channels.agrees, range(len(channels.kinds)))):
                raise StateError(f"ports of domain {number} are bound to such that know nothing of it")
            for _, one in domain.foreign.items():
                other = self.domains.get(one.domain)
                is_there = other is not None and other.dma.layout.covers(Gpa(one.granted), PAGE_SIZE)
                if not one.is_revoked and not is_there:
                    raise StateError(f"domain {number} has a page of domain {one.domain}, which is not there")

    # -- what one domain does to another -------------------------------------------------------

    def send(self, sender: int, receiver: int, port: int) -> None:
        """Let an event come to a port of another domain."""
        self._sent[sender, receiver, port] = None

    def has_changed(self, number: int) -> None:
        """The memory of a domain may be another one: it has executed, or somebody has written there."""
        self._changed.add(number)

    def frames_changed(self, number: int) -> None:
        """The frames of a domain, or the pages of its table of grants, may be elsewhere."""
        self._reshaped.add(number)

    def _forget_pages(self, number: int) -> None:
        """Know nothing of the memory of a domain: it is another one."""
        self._reshaped.add(number)
        if number in self._epochs:
            self._epochs.pop(number).close()

    def is_mapped(self, number: int, reference: int) -> bool:
        """Return True if another domain has a page mapped that a domain has granted."""
        return self.shared.is_used(number, reference)

    def note(self, what: str, number: int, handle: int, one: ForeignMap) -> None:
        """Write down what has become of a mapping: it is "mapped", "revoked" or "unmapped"."""
        if what == "mapped":
            self.shared.add(Mapping(number, handle), one)
        else:
            self.shared.remove(Mapping(number, handle))
        self.log.append(MapRecord(self.domains[number].time.now, what, number, one))

    def store_changed(self, path: str, by: int = BACKEND_DOMAIN) -> None:
        """Let the domains hear, but for that which has done it, that a node has changed."""
        for number, domain in self.domains.items():
            if number != by:
                domain.store.hear(path)

    # -- standing together ---------------------------------------------------------------------

    def stand_together(self) -> None:
        """Let what the domains have done come to each other. None of them executes."""
        self.agree_on_pages()
        sent, self._sent = self._sent, {}
        for sender, receiver, port in sent:
            domain = self.domains.get(receiver)
            if domain is not None and domain.channels.hears(port, sender):
                domain.channels.notify(port)
                self.has_changed(receiver)
        for number, domain in self.domains.items():
            if domain.store.deliver():
                self.has_changed(number)

    def agree_on_pages(self) -> None:
        """Let both sides of each mapping have the same, and end mappings whose grants have ended."""
        written = Written({number: self._pages_written(number) for number in self._changed & self.domains.keys()})
        ended = {key for key in self._may_have_ended(written) if not self._is_granted(key)}
        for key in sorted(ended):
            self.domains[key.domain].foreign.revoke(key.handle)
        for key in sorted(set(written.mappings(self.shared))):
            one = self.shared[key]
            if one.writes and written.has(key.domain, one.page) and self._take(key, one):
                written.add(one.domain, one.granted)
        for key in sorted(set(written.mappings(self.shared))):
            self._give(key, self.shared[key])
        self._begin_epochs(written)
        self._changed.clear()
        self._reshaped.clear()

    def _pages_written(self, number: int) -> set[int] | None:
        """Return the pages of a domain that may be others since all agreed, or None if all may be."""
        epoch = self._epochs.get(number)
        return None if epoch is None else set(epoch.dirty_pages())

    def _may_have_ended(self, written: Written) -> set[Mapping]:
        """Return the mappings but for those whose grants are as they were: their entries, the table and the frames of
        their domain.
        """
        found = set[Mapping]()
        for number in self._reshaped:
            found.update(self.shared.of_domain(number))
        for number, pages in written.pages.items():
            if pages is None:
                found.update(self.shared.of_domain(number))
                continue
            for frame, page in enumerate(self.domains[number].grants.frames):
                if page >> PAGE_SHIFT in pages:
                    found.update(self.shared.of_frame(number, frame))
        return found

    def _is_granted(self, key: Mapping) -> bool:
        return self.domains[key.domain].foreign.is_granted(self.shared[key])

    def _begin_epochs(self, written: Written) -> None:
        """Have epochs, of the domains that share pages alone, which begin now."""
        involved = self.shared.domains()
        for number in self._epochs.keys() - involved:
            self._epochs.pop(number).close()
        for number in involved & self.domains.keys():
            if number not in self._epochs:
                self._epochs[number] = self.domains[number].dma.begin_epoch()
            elif number in written.pages:
                self._epochs[number].renew()

    def _take(self, key: Mapping, one: ForeignMap) -> bool:
        """Bring what a domain has written to a page to where the page is. Return True if it has written anything."""
        domain = self.domains[key.domain]
        base, mine = domain.foreign.bases[key.handle], domain.dma.read(one.page, PAGE_SIZE)
        if mine == base:
            return False
        owner = self.domains[one.domain].dma
        theirs = owner.read(one.granted, PAGE_SIZE)
        if mine != theirs:
            owner.write(one.granted, merged(base, mine, theirs))
        return True

    def _give(self, key: Mapping, one: ForeignMap) -> None:
        """Bring a page to a domain that has it mapped."""
        domain, theirs = self.domains[key.domain], self.domains[one.domain].dma.read(one.granted, PAGE_SIZE)
        if domain.dma.read(one.page, PAGE_SIZE) != theirs:
            domain.dma.write(one.page, theirs)
        domain.foreign.bases[key.handle] = theirs
