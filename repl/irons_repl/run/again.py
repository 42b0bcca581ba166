"""The command that egress refused last: offered to run again once what it wanted is allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from irons.record import NamedTuple

WORD = "r"
"""The line that runs it again, while it is offered."""


class _RefusedLine(NamedTuple):
    """A line that was run, the sandbox in use then, the sandbox that it ran in, and the hosts and ports that were refused to it."""

    line: str
    used: str | None
    sandbox: str
    places: tuple[tuple[str, int | None], ...]


class Again:
    """What there is to run again."""

    def __init__(self, used: Callable[[], str | None]) -> None:
        """Take what returns the sandbox in use."""
        self._used = used
        self._running = ""
        self._refused: _RefusedLine | None = None
        self._offered: _RefusedLine | None = None
        self._news = False

    def meant(self, line: str) -> str:
        """Return the line that is meant: the one that is offered for `r`, else the line itself. An offer lasts until the next line."""
        offered, self._offered = self._offered, None
        if line.strip() == WORD and offered is not None and self._used() == offered.used:
            return offered.line
        return line

    def begin(self, line: str) -> None:
        """Note the line that runs now; empty where its commands can't be distinguished."""
        self._running = line

    def refused(self, sandbox: str, places: Sequence[tuple[str, int | None]]) -> None:
        """Note what egress refused while the line ran in a sandbox."""
        if self._running and places:
            self._refused = _RefusedLine(self._running, self._used(), sandbox, tuple(places))

    @property
    def refused_in(self) -> str | None:
        """The sandbox of the line that egress refused something last."""
        return None if self._refused is None else self._refused.sandbox

    def allowed(self, sandbox: str | None, patterns: Sequence[str]) -> None:
        """Offer the line again where a new rule, of its sandbox or of all, covers something that was refused to it."""
        refused = self._refused
        if refused is None or sandbox not in (None, refused.sandbox):
            return
        if any(_covers(pattern, host, port) for pattern in patterns for host, port in refused.places):
            self._offered, self._news = refused, True

    def news(self) -> str:
        """Return the line that has come to be offered since this was asked last; empty where there is none."""
        news, self._news = self._news, False
        return self._offered.line if news and self._offered is not None else ""


def _covers(pattern: str, host: str, port: int | None) -> bool:
    # Only where something was refused: the prompt opens without it.
    from irons_policy.hostnames import HostError, canonical_host
    from irons_policy.patterns import PatternError, read_pattern

    try:
        read, named = read_pattern(pattern), canonical_host(host)
    except (PatternError, HostError):
        return False
    return read.covers_host(named) and (port is None or read.covers_port(port))
