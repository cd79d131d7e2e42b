"""A hot list: what was hot in a run and was not compiled, with all that the compiler must know to compile it later.

It is made of the messages to the compiler (:mod:`dbt.engine.messages`): the run's code pages with their flags, its
branch targets, and the requests, hottest first. So a later process can have the regions compiled although it has
executed nothing. What memory holds then is compared when a region is installed, as always.

A list comes from a file. Its text is checked as a message is; what it says can cost time, and never a wrong result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dbt.abi.addresses import Hva
from dbt.engine.messages import (
    CompileRequest,
    MachineNotice,
    PageNotice,
    TargetNotice,
    WrongMessage,
    pack_machine,
    pack_page,
    pack_request,
    pack_targets,
    take_messages,
    unpack_notice,
)

if TYPE_CHECKING:
    from dbt.engine.worker import CodeSource

#: The first bytes of a list. They change with the format of the messages.
MAGIC = b"DBTHOT01"
#: The largest number of requests in a list.
MOST_REQUESTS = 512
#: The number of the machine in the messages of a list.
_MACHINE = 0


class HotList:
    """A hot list. It implements :class:`dbt.engine.worker.CodeSource`, so that the compiler can be told of its code.

    ``code_pages`` is the HVA that the code pages had, by which the branch targets name ops. ``requests`` are in the
    order in which they should be compiled.
    """

    def __init__(
        self,
        code_pages: Hva,
        notices: Iterable[PageNotice | TargetNotice],
        requests: Iterable[CompileRequest],
    ) -> None:
        self.code_pages_address = code_pages
        self.requests = list(requests)
        self._notices = tuple(notices)
        self._told = False

    @classmethod
    def of(cls, source: CodeSource, requests: Sequence[CompileRequest]) -> HotList:
        """Return the list of these requests, with what they need of the code that ``source`` has not told yet."""
        notices: Iterable[PageNotice | TargetNotice] = source.changes()
        if not any(request.pages is None for request in requests):
            mapped = {page.physical for request in requests for page in request.pages or ()}
            notices = (notice for notice in notices if isinstance(notice, TargetNotice) or notice.page in mapped)
        return cls(source.code_pages_address, notices, requests)

    def with_requests(self, requests: Iterable[CompileRequest]) -> HotList:
        """Return a list of these requests for the same code, of which no compiler has been told."""
        return HotList(self.code_pages_address, self._notices, requests)

    def changes(self) -> Iterator[PageNotice | TargetNotice]:
        """Return everything at the first call, and nothing at the others."""
        told, self._told = self._told, True
        return iter(() if told else self._notices)

    def forget_told(self) -> None:
        """Count everything as not told, because the compiler is a new process."""
        self._told = False

    def pack(self) -> bytes:
        """Return the bytes from which :meth:`unpack` makes an equal list. A page map is written once for those requests
        that follow each other with the same one: the others have an empty one in its place.
        """
        parts = [MAGIC, pack_machine(_MACHINE, MachineNotice(self.code_pages_address, True, {}))]
        for notice in self._notices:
            parts.append(
                pack_page(_MACHINE, notice) if isinstance(notice, PageNotice) else pack_targets(_MACHINE, notice)
            )
        before = None
        for request in self.requests[:MOST_REQUESTS]:
            same = request.pages is not None and request.pages == before
            parts.append(pack_request(_MACHINE, 0, replace(request, pages=()) if same else request))
            before = request.pages
        return b"".join(parts)

    @classmethod
    def unpack(cls, data: bytes) -> HotList:
        """Return the list that :meth:`pack` made ``data`` of. Raises WrongMessage for anything else."""
        if not data.startswith(MAGIC):
            raise WrongMessage("it is not a hot list of this version")
        received = bytearray(data[len(MAGIC) :])
        messages = (unpack_notice(body) for body in take_messages(received))
        code_pages: Hva | None = None
        notices: list[PageNotice | TargetNotice] = []
        requests: list[CompileRequest] = []
        for machine, notice in messages:
            match notice:
                case MachineNotice() if code_pages is None and machine == _MACHINE:
                    code_pages = notice.code_pages
                case PageNotice() | TargetNotice():
                    notices.append(notice)
                case (_, request) if len(requests) < MOST_REQUESTS:
                    if request.pages == ():
                        request = replace(request, pages=requests[-1].pages if requests else None)
                    requests.append(request)
                case _:
                    raise WrongMessage("a message that does not belong into a hot list")
        if received or code_pages is None:
            raise WrongMessage("it ends in the middle of a message, or has none")
        return cls(code_pages, notices, requests)
