"""The prompt field `{irons}`: profile, the sandbox in use and the egress mode that applies, from what is on hand; it never waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from irons_repl.xonsh_face.face import Face

if TYPE_CHECKING:
    from irons.settings.settings import Settings

OPEN = "warn"
"""The mode that lets pass what no rule allows."""

ROOM = 44
"""The columns that the mode may take where it has exceptions: more of them are counted, not named."""

STALE_AFTER = 30.0
"""Seconds after which a mode is shown with its age."""


def field_of(face: Face, asked: Callable[[], int] = lambda: 0) -> Callable[[], str]:
    """Return what xonsh calls for `{irons}` in `$PROMPT`; `asked` tells how many questions of mode `ask` are open."""

    def irons_field() -> str:
        from irons.client.names import NameCache
        from irons.client.refreshing import exceptions_on_hand, mode_on_hand, refresh_detached
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
        told_mode = _mode(mode, age, exceptions_on_hand(settings))
        count = asked()
        questions = [_coloured("BOLD_YELLOW", f"{count:,} asked")] if count else []
        return " ".join([*parts, *told_mode, *questions, *_of_plugins(face, settings, mode, age)])

    return irons_field


def _of_plugins(face: Face, settings: Settings, mode: str | None, age: float) -> list[str]:
    """What plugins show; one that fails shows nothing, and the host is made only where there may be a plugin."""
    from irons.plugin.finding import are_there

    if not are_there(settings.env):
        return []
    from irons.plugin.hook_data import PromptStatus

    status = PromptStatus(
        settings.api_url,
        settings.profile,
        settings["sandbox"],
        mode or None,
        stale=age > STALE_AFTER,
        face="xonsh",
    )
    answers = face.host.answers("irons_toolbar", settings, warn=lambda _: None, status=status)
    return [_plain(str(answer)) for _, answer in answers]


def _mode(mode: str | None, age: float, exceptions: Mapping[str, str]) -> list[str]:
    """The mode with its colour: red where it is open, none where it is old, and `mode ?` while it is not known.

    Args:
        mode: The mode that applies.
        age: Its age in seconds.
        exceptions: Sandboxes with another one, and that mode.
    """
    from irons.ending import lasting
    from irons.terminal.words import mode_word

    if mode is None:
        return ["mode ?"] if age < float("inf") else []
    if not mode:
        return ["{BOLD_RED}no such sandbox{RESET}"]
    stale = age > STALE_AFTER
    told = _plain(mode_word(mode)) + (f", {lasting(int(age))} ago" if stale else "")
    colour = "BOLD_RED" if mode == OPEN else "" if stale else "GREEN"
    return [_coloured(colour, told), *_exceptions(mode, exceptions, stale=stale)]


def _exceptions(mode: str, exceptions: Mapping[str, str], *, stale: bool) -> list[str]:
    """What differs from the mode of all sandboxes, as the line below the irons> prompt shows it."""
    if not exceptions:
        return []
    from irons_repl.status.mode_line import ModeFacts, Styles, mode_line

    styles = Styles(good="GREEN", bad="BOLD_RED", stale="")
    _, *rest = mode_line(ModeFacts(None, mode, exceptions, stale), ROOM, styles)
    return ["".join(_coloured(colour, _plain(text)) for colour, text in rest).strip()]


def _coloured(colour: str, text: str) -> str:
    return f"{{{colour}}}{text}{{RESET}}" if colour else text


def _plain(text: str) -> str:
    """Text that the prompt takes for text: in braces xonsh looks for colours and fields."""
    from irons.text import clean

    return clean(text, limit=60).replace("{", "(").replace("}", ")")
