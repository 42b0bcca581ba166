"""A member that is connected: what it is known to have, and what went wrong with it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from irons_local.fleet.link import MemberLink
from irons_local.fleet.messages import Beat, FleetSettings, MemberHello

_log = logging.getLogger(__name__)


@dataclass
class Connected:
    """See the module.

    Attributes:
        name: the member's.
        link: to it.
        hello: what it reported of itself.
        ahead: it has policies that this server does not know to have pushed.
        settings: those that it has confirmed.
        left: cells of which it may have something, and should not.
        beat: what it reported last.
        heard_at: when, microseconds since 1970.
    """

    name: str
    link: MemberLink
    hello: MemberHello
    ahead: bool
    settings: FleetSettings | None = None
    left: set[str] = field(default_factory=set)
    beat: Beat | None = None
    heard_at: int = 0
    _said: set[str] = field(default_factory=set)

    def failed(self, what: str, error: Exception) -> None:
        """Log what went wrong with it, once for as long as it does."""
        if what not in self._said:
            self._said.add(what)
            _log.warning("the member %s: %s: %.200r", self.name, what, str(error) or "it does not answer")

    def done(self, what: str) -> None:
        """Note that this went well."""
        self._said.discard(what)
