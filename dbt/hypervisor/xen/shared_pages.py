"""Which pages domains of one host share, found by either side: so the work of a turn follows from what it has written,
and not from how much is mapped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from dbt.abi.layout import PAGE_SHIFT
from dbt.hypervisor.xen.foreign_pages import ForeignMap
from dbt.hypervisor.xen.grant_table import FRAME_ENTRIES

#: A page by the number of its domain and its own.
_Page = tuple[int, int]


class Mapping(NamedTuple):
    """A mapping by the number of the domain that has it, and its handle. Mappings are looked at in this order."""

    domain: int
    handle: int


class SharedPages:
    """The mappings of all domains whose grants have not ended."""

    def __init__(self) -> None:
        self._maps: dict[Mapping, ForeignMap] = {}
        self._of_page: dict[_Page, set[Mapping]] = {}
        self._of_frame: dict[tuple[int, int], set[Mapping]] = {}  # by a domain, and the number of its table's page
        self._of_domain: dict[int, set[Mapping]] = {}
        self._uses: Counter[tuple[int, int]] = Counter()  # how often a grant is mapped, by its domain and number

    def clear(self) -> None:
        for one in (self._maps, self._of_page, self._of_frame, self._of_domain, self._uses):
            one.clear()

    def add(self, key: Mapping, one: ForeignMap) -> None:
        self.remove(key)
        self._maps[key] = one
        for found in self._places(key, one):
            found.add(key)
        self._uses[one.domain, one.reference] += 1

    def remove(self, key: Mapping) -> None:
        """Forget a mapping, if it is known."""
        one = self._maps.pop(key, None)
        if one is not None:
            for found in self._places(key, one):
                found.discard(key)
            self._uses[one.domain, one.reference] -= 1

    def _places(self, key: Mapping, one: ForeignMap) -> list[set[Mapping]]:
        pages = ((key.domain, one.page >> PAGE_SHIFT), (one.domain, one.granted >> PAGE_SHIFT))
        return [
            *(self._of_page.setdefault(page, set()) for page in pages),
            self._of_frame.setdefault((one.domain, one.reference // FRAME_ENTRIES), set()),
            *(self._of_domain.setdefault(domain, set()) for domain in (key.domain, one.domain)),
        ]

    def __getitem__(self, key: Mapping) -> ForeignMap:
        return self._maps[key]

    def is_used(self, domain: int, reference: int) -> bool:
        """Return True if a page that a domain has granted is mapped."""
        return self._uses[domain, reference] > 0

    def domains(self) -> set[int]:
        """Return the domains that share pages."""
        return {domain for domain, keys in self._of_domain.items() if keys}

    def of_domain(self, domain: int) -> Iterable[Mapping]:
        """Return the mappings in which a domain has a side."""
        return self._of_domain.get(domain, ())

    def of_page(self, domain: int, page: int) -> Iterable[Mapping]:
        """Return the mappings that have a page of that number, on either side."""
        return self._of_page.get((domain, page), ())

    def of_frame(self, domain: int, frame: int) -> Iterable[Mapping]:
        """Return the mappings whose grants are in a page of a domain's table."""
        return self._of_frame.get((domain, frame), ())


class Written:
    """Which pages of domains may be others than they were: their numbers by those of the domains, or None for all."""

    def __init__(self, pages: dict[int, set[int] | None]) -> None:
        self.pages: Final = pages

    def has(self, domain: int, address: int) -> bool:
        if domain not in self.pages:
            return False
        pages = self.pages[domain]
        return pages is None or address >> PAGE_SHIFT in pages

    def add(self, domain: int, address: int) -> None:
        pages = self.pages.setdefault(domain, set())
        if pages is not None:
            pages.add(address >> PAGE_SHIFT)

    def mappings(self, shared: SharedPages) -> Iterator[Mapping]:
        """Return the mappings that are concerned, some of them several times."""
        for domain, pages in self.pages.items():
            if pages is None:
                yield from shared.of_domain(domain)
            else:
                for page in pages:
                    yield from shared.of_page(domain, page)
