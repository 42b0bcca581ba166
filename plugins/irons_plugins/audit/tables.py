"""The columns of the audit log: the short table, the wide one, and the lines of a pipe and of what is followed."""

from __future__ import annotations

from irons.command import Column, View

_VIEWS = "irons_plugins.audit.views"
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
