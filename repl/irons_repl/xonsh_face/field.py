"""The prompt field `{irons}`: profile, the sandbox in use and the egress mode that applies, from what is on hand; it never waits."""

from __future__ import annotations

from collections.abc import Callable

from irons_repl.xonsh_face.face import Face

OPEN = "warn"
"""The mode that lets pass what no rule allows."""

STALE_AFTER = 30.0
"""Seconds after which a mode is shown with its age."""


def field_of(face: Face) -> Callable[[], str]:
    """Return what xonsh calls for `{irons}` in `$PROMPT`."""

    def irons_field() -> str:
        from irons.client.names import NameCache
        from irons.client.refreshing import mode_on_hand, refresh_detached
        from irons.ending import ENDS, told
        from irons.errors import IronsError

        try:
            settings = face.settings()
        except IronsError:
            return "irons: configuration broken"
        mode, age = mode_on_hand(settings)
        refresh_detached(settings, urgent=mode is None)
        sandbox = settings["sandbox"] or ""
        ends = told(NameCache.of(settings, what=ENDS).read(), sandbox)
        sandbox = f"{sandbox[:30]} ({ends})" if ends else sandbox
        parts = [_plain(part) for part in (settings.profile, sandbox) if part]
        return " ".join([*parts, *_mode(mode, age)])

    return irons_field


def _mode(mode: str | None, age: float) -> list[str]:
    """The mode with its colour: red where it is open, none where it is old, and `mode ?` while it is not known."""
    from irons.ending import lasting
    from irons.terminal.words import mode_word

    if mode is None:
        return ["mode ?"] if age < float("inf") else []
    if not mode:
        return ["{BOLD_RED}no such sandbox{RESET}"]
    stale = age > STALE_AFTER
    told = _plain(mode_word(mode)) + (f", {lasting(int(age))} ago" if stale else "")
    colour = "BOLD_RED" if mode == OPEN else "" if stale else "GREEN"
    return [f"{{{colour}}}{told}{{RESET}}" if colour else told]


def _plain(text: str) -> str:
    """Text that the prompt takes for text: in braces xonsh looks for colours and fields."""
    from irons.text import clean

    return clean(text, limit=60).replace("{", "(").replace("}", ")")
