"""What the toolbar shows, as of the last look at the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Outlook:
    """One look.

    Attributes:
        backend: What the API URL says, without what could hold a secret.
        profile: The configuration profile in use.
        mode: The account's egress mode; empty while unknown.
        differs: How many sandboxes have a mode of their own.
        states: How many sandboxes are in which state; None while unknown.
        denied: Connections refused since the prompt was opened; None where the server can't tell.
        ending: Which sandbox is about to be stopped or destroyed by time, and when; empty where none is.
        trouble: Why the last look failed, in a word or two; empty where it did not.
    """

    backend: str = ""
    profile: str = ""
    mode: str = ""
    differs: int = 0
    states: Mapping[str, int] | None = None
    denied: int | None = None
    trouble: str = ""
    ending: str = ""


def counted(states: Mapping[str, str]) -> dict[str, int]:
    """Return how many sandboxes are in which state, the busiest state first, of name → state."""
    return dict(Counter(state or "unknown" for state in states.values()).most_common())


def backend_of(url: str) -> str:
    """Return what to call a backend: its URL without user, path and query; `local` and sockets as they are."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "unix":
        return url
    return rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
