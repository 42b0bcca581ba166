"""The terminal's title while questions are open: how many, and of which sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from irons.asking.ranking import by_sandbox
from irons.client.models.questions import QuestionPage
from irons.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from irons.settings.settings import Settings

SAVE: Final = "\x1b[22;2t"
RESTORE: Final = "\x1b[23;2t"
"""Have the terminal keep its title, and show the kept one again (XTWINOPS). Those that keep none ignore both."""
END: Final = "\x1b\\"
"""Ends a title; a bell would too, and would ring in a terminal that has no title."""
_WITHOUT: Final = ("", "dumb", "linux", "eterm-color")
"""Terminals that have no title."""


def title_of(page: QuestionPage) -> str:
    """Return the title; empty where nothing is asked."""
    asked = by_sandbox(page)
    if not asked:
        return ""
    more = f" +{len(asked) - 1}" if len(asked) > 1 else ""
    return f"({sum(each.places for each in asked)}?) {clean(asked[0].sandbox, limit=40)}{more}"


def has_title(settings: Settings) -> bool:
    """Tell whether the title is to be changed: the person has not switched that off, and the terminal has one."""
    return settings["terminal_title"] == "on" and settings.env.get("TERM", "") not in _WITHOUT


class QuestionTitle:
    """The title of one terminal."""

    def __init__(
        self, write: Callable[[str], None], *, on: bool, kept: Callable[[bool], None] = lambda _: None
    ) -> None:
        """Take what writes to the terminal at once; without `on` nothing is written.

        `kept` hears each time, before that is written, whether the terminal is to keep a title from then on.
        """
        self._write, self._on, self._kept = write, on, kept
        self._page = QuestionPage()
        self._shown = ""

    def show(self, page: QuestionPage) -> None:
        """Have the title be that of these questions; where there are none, what it was before."""
        if page is self._page:
            # Each picture shows the title, and news are rare.
            return
        self._page = page
        text = title_of(page) if self._on else ""
        if text == self._shown:
            return
        saved = "" if self._shown else SAVE
        self._kept(bool(text))
        self._shown = text
        # A terminal that keeps no title gets an empty one, for which most have one of their own.
        self._write(f"{saved}\x1b]2;{text}{END}" if text else f"\x1b]2;{END}{RESTORE}")

    def restore(self) -> None:
        """Have it be what it was before."""
        self.show(QuestionPage())
