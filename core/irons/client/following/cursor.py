"""Where one reader of the audit log is: after which event, and after which change of an earlier one."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from irons_policy.event import LARGEST

if TYPE_CHECKING:
    from typing import Unpack

    from irons.client.api import Api
    from irons.client.models.audit import AuditFilters, AuditPage
    from irons_policy.event import Event

FROM_NOW = LARGEST
"""The cursor of changes of a reader that knows none yet."""

REMEMBERED = 10_000
"""Events of which a reader remembers what it counted: the last ones."""


class Cursor:
    """Reads a log page by page: events that are new, and events that changed since they were read.

    An event is new once. Its connection ends later, and a refusal that is repeated within a second is the same event
    with a higher count: both are changes, which a reader that counts must read too.

    Attributes:
        token: the page token; 0 before the first event.
    """

    def __init__(self, api: Api, sandbox: str | None) -> None:
        """Begin at the start of the log of a sandbox, or of all sandboxes."""
        self._api = api
        self._sandbox = sandbox
        self._change = FROM_NOW
        self.token = 0

    def read(self, **filters: Unpack[AuditFilters]) -> AuditPage:
        """Read the next page and move after it.

        Raises:
            IronsError: The server did not answer, or refused. The cursor stays where it is.
        """
        if self.tells_changes:
            filters["changes"] = self._change
        page = self._api.audit(self._sandbox, self.token, **filters)
        self.token = page.token or self.token
        self._change = page.change_token or self._change
        return page

    @property
    def place(self) -> tuple[int, int]:
        """The page token and the cursor of changes: another one after each page that brought something."""
        return self.token, self._change

    @property
    def tells_changes(self) -> bool:
        """Whether the server tells what changed."""
        return "audit-changes" in self._api.extensions


class Counted:
    """How often each of the last events was counted, so that a change adds only what is new."""

    def __init__(self) -> None:
        """Begin with none."""
        self._counts: OrderedDict[int, int] = OrderedDict()

    def add(self, event: Event, count: int) -> int:
        """Return by how much the total grows with a new event, which counts `count` times."""
        if event.id is not None:
            self._counts[event.id] = count
            if len(self._counts) > REMEMBERED:
                self._counts.popitem(last=False)
        return count

    def change(self, event: Event, count: int) -> int:
        """Return by how much the total grows with an event that changed; 0 where the event was not counted."""
        before = self._counts.get(event.id) if event.id is not None else None
        if event.id is None or before is None:
            return 0
        self._counts[event.id] = count
        return count - before
