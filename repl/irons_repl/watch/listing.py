"""The list of hosts and the log, as far as they are shown: which, in which order, and the part that fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from irons_repl.watch.model import HostRow, LogEntry, Model, verdict_of
from irons_repl.watch.standing import KnownRules

Sort = Literal["decision", "count", "latest", "name"]

SORTS: tuple[Sort, ...] = ("decision", "count", "latest", "name")
"""In the order in which a key goes through them."""

SORT_TITLES = {
    "decision": "undecided first",
    "count": "busiest first",
    "latest": "latest first",
    "name": "by name",
}

WORDS = {"allowed": "allowed", "denied": "denied", "warned": "would-deny"}
"""How verdicts are called, on the screen and in filters."""

T = TypeVar("T")


def ordered(model: Model, standing: KnownRules, sort: Sort, wanted: str) -> tuple[str, ...]:
    """Return the hosts that a filter lets through, by their targets, in order.

    Args:
        model: What was read.
        standing: The rules.
        sort: The order. Of undecided hosts the new ones come first, of all others the busy ones.
        wanted: The filter; empty lets all through.
    """
    hosts = [host for host in model.hosts.values() if _fits(host, wanted)]
    keys: dict[Sort, Callable[[HostRow], tuple[int | str, ...]]] = {
        "decision": lambda host: (
            (0, -host.number, 0) if standing.undecided(host) else (1, -host.total, host.number)
        ),
        "count": lambda host: (-host.total, host.number),
        "latest": lambda host: (-(host.last.id or 0), -host.number),
        "name": lambda host: (host.target,),
    }
    return tuple(host.target for host in sorted(hosts, key=keys[sort]))


def entries(model: Model, wanted: str) -> Sequence[LogEntry]:
    """Return the latest events that a filter lets through, oldest first."""
    if not wanted:
        return tuple(model.latest)
    text = wanted.lower()
    return [
        entry
        for entry in model.latest
        if text in entry.event.host.lower()
        or text in entry.event.sandbox.lower()
        or WORDS[verdict_of(entry.event)].startswith(text)
    ]


def part(items: Sequence[T], top: int, chosen: int, room: int) -> tuple[int, Sequence[T]]:
    """Return the part of a list that is shown, and the place of its first item: the chosen one is in it, and it moves little."""
    if chosen < top:
        top = chosen
    elif chosen >= top + room:
        top = chosen - room + 1
    top = max(0, min(top, len(items) - room))
    return top, items[top : top + room]


def _fits(host: HostRow, wanted: str) -> bool:
    text = wanted.lower()
    return (
        not text
        or text in host.target.lower()
        or text in host.last.sandbox.lower()
        or any(WORDS[each].startswith(text) and getattr(host, each) for each in WORDS)
    )
