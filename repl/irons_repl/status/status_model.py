"""What the toolbar shows, as of the last look at the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from irons.record import NamedTuple
from irons_repl.status.mode_line import ModeFacts

_NONE: Mapping[str, str] = MappingProxyType({})
_NO_COUNTS: Mapping[str, int] = MappingProxyType({})


class Outlook(NamedTuple):
    """One look.

    Attributes:
        backend: What the API URL says, without what could hold a secret.
        profile: The configuration profile in use.
        sandbox: The sandbox in use when it looked; None where none was.
        mode: The egress mode that applies to it, or to all without one; None while unknown, empty where there is no
            such sandbox.
        differs: Without a sandbox in use: the sandboxes with another mode of their own, and that mode.
        states: How many sandboxes are in which state; None while unknown.
        denied: Connections refused since the prompt was opened, of all sandboxes; None where the server can't tell.
        denied_by: Those of each sandbox, by its name and its id.
        questions: How many places a person is asked about, of all sandboxes.
        ending: Which sandbox is about to be stopped or destroyed by time, and when; empty where none is.
        timed: How many rules of the sandbox in use end by themselves, and when the first does; empty where none does.
        trouble: Why the last look failed, in a word or two; empty where it did not.
        extras: What plugins show, each a few words.
        as_of: The time of day of the last look that did not fail, while the last one did: of that time are the facts.
    """

    backend: str = ""
    profile: str = ""
    mode: str | None = None
    differs: Mapping[str, str] = _NONE
    states: Mapping[str, int] | None = None
    denied: int | None = None
    trouble: str = ""
    ending: str = ""
    sandbox: str | None = None
    as_of: str = ""
    extras: tuple[str, ...] = ()
    denied_by: Mapping[str, int] = _NO_COUNTS
    questions: int = 0
    timed: str = ""

    @property
    def denied_here(self) -> int | None:
        """Connections refused since the prompt was opened: of the sandbox in use, or of all without one."""
        if self.denied is None or not self.sandbox:
            return self.denied
        return self.denied_by.get(self.sandbox, 0)

    @property
    def mode_facts(self) -> ModeFacts:
        """What the line shows of the mode; what a failed look left is stale."""
        return ModeFacts(self.sandbox, self.mode, self.differs, bool(self.trouble))

    def for_sandbox(self, sandbox: str | None) -> Outlook:
        """Return the same without the mode where that is another sandbox's than `sandbox`: it is not known yet."""
        return (
            self
            if sandbox == self.sandbox
            else self._replace(sandbox=sandbox, mode=None, differs={}, timed="")
        )


def counted(states: Mapping[str, str]) -> dict[str, int]:
    """Return how many sandboxes are in which state, the busiest state first, of name → state."""
    return dict(Counter(state or "unknown" for state in states.values()).most_common())


def backend_of(url: str) -> str:
    """Return what to call a backend: its URL without user, path and query; `local` and sockets as they are."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "unix":
        return url
    return rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
