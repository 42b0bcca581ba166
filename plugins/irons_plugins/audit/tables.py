"""The columns of the audit log: the short table, the wide one, and the lines of a pipe and of what is followed."""

from __future__ import annotations

from irons.command import Column, View

_VIEWS = "irons_plugins.audit.views"
_CHANGE_VIEWS = "irons_plugins.audit.change_views"
_EMPTY = "There are no events."

SHORT = View(
    (
        Column("time"),
        Column("", "verdict", f"{_VIEWS}:became", style=f"{_VIEWS}:colour"),
        Column("sandbox", hide="same", cut="start"),
        Column("", "host", f"{_VIEWS}:place", cut="start"),
        Column("", "reason", f"{_VIEWS}:why", cut="end"),
    ),
    line=f"{_VIEWS}:fields",
    live=f"{_VIEWS}:live",
    empty=_EMPTY,
)
"""What fits 80 columns: the sandbox is left out where all events are of one."""

ALL = SHORT._replace(live=f"{_VIEWS}:live_of_all")
"""The same of all sandboxes."""

WIDE = SHORT._replace(
    columns=(
        Column("time", table=f"{_VIEWS}:exact"),
        Column("", "verdict", f"{_VIEWS}:verdict", style=f"{_VIEWS}:colour"),
        Column("host"),
        Column("port"),
        Column("protocol"),
        Column("sandbox"),
        Column("mode", "", "irons.terminal.words:mode_word"),
        Column("count"),
        Column("", "outcome", f"{_VIEWS}:outcome"),
        Column("cause"),
        Column("rule"),
        Column("", "reason", f"{_VIEWS}:reason"),
    ),
)
"""All that is known of an event but its numbers."""


def view_of(sandbox: str | None, *, wide: bool, contract: bool) -> View:
    """Return how a log is shown.

    Args:
        sandbox: The sandbox; None for all.
        wide: All columns, uncut.
        contract: A pipe gets the line of the v0 contract.
    """
    view = WIDE if wide else SHORT
    if sandbox is None:
        view = view._replace(live=ALL.live)
    return view._replace(line=f"{_VIEWS}:line") if contract else view


CHANGES = View(
    (
        Column("time"),
        Column("", "who", f"{_CHANGE_VIEWS}:who"),
        Column("", "claims", f"{_CHANGE_VIEWS}:claim", hide="empty", cut="end"),
        Column("", "sandbox", f"{_CHANGE_VIEWS}:place", hide="same", cut="end"),
        Column("", "change", f"{_CHANGE_VIEWS}:told", style=f"{_CHANGE_VIEWS}:colour", cut="end"),
    ),
    line=f"{_CHANGE_VIEWS}:fields",
    live=f"{_CHANGE_VIEWS}:live",
    empty="There are no changes.",
)
"""What fits 80 columns; `claims` is the face that the client claimed."""

CHANGES_WIDE = CHANGES._replace(
    columns=(
        Column("time", table=f"{_CHANGE_VIEWS}:exact"),
        Column("", "who", f"{_CHANGE_VIEWS}:who"),
        Column("", "claims", f"{_CHANGE_VIEWS}:claim"),
        Column("request"),
        Column("", "sandbox", f"{_CHANGE_VIEWS}:scope"),
        Column("what", style=f"{_CHANGE_VIEWS}:colour"),
        Column("subject"),
        Column("", "before", f"{_CHANGE_VIEWS}:state_before"),
        Column("", "after", f"{_CHANGE_VIEWS}:state_after"),
        Column("reason"),
    ),
)
"""All that is known of a change but its ids."""


def view_of_changes(*, wide: bool, here: bool) -> View:
    """Return how changes are shown.

    Args:
        wide: All columns, uncut.
        here: The server runs on this machine: its users have names here.
    """
    view = CHANGES_WIDE if wide else CHANGES
    if not here:
        return view
    named = f"{_CHANGE_VIEWS}:who_here"
    columns = tuple(
        column._replace(text=named) if column.title == "who" else column for column in view.columns
    )
    return view._replace(columns=columns, live=f"{_CHANGE_VIEWS}:live_here")
