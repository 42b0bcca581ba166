"""Completion of `irons …` in xonsh, from what is on hand alone: xonsh waits for its completers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from irons_repl.xonsh_face.alias import PROCESS
from irons_repl.xonsh_face.face import Face
from irons_repl.xonsh_face.places import Places

if TYPE_CHECKING:
    from irons.cli.completing import Sources


def completer_of(face: Face, places: Places) -> Callable[..., Any]:
    """Return the completer of the command `irons`, and of programs in a sandbox (`@NAME …`)."""
    from xonsh.completers.tools import contextual_command_completer

    def complete_irons(command: Any) -> Any:
        """Complete irons commands, options, sandboxes, domains and files."""
        before = [argument.value for argument in command.args[: command.arg_index]]
        there = places.sandbox_of(before)
        words = words_before(before) if there is None else ["exec", there[0], "--", *before[there[1] :]]
        return None if words is None else _completions(face, words, command)

    decorated: Callable[..., Any] = contextual_command_completer(complete_irons)
    return decorated


def words_before(words: Sequence[str]) -> list[str] | None:
    """Return the words after `irons`, before the one being typed; None where another command is completed.

    xonsh shows its completers the alias's meaning in the place of its name.
    """
    for beginning in (("irons",), PROCESS):
        if tuple(words[: len(beginning)]) == beginning:
            return list(words[len(beginning) :])
    return None


def _completions(face: Face, words: list[str], command: Any) -> Any:
    from xonsh.completers.path import contextual_complete_path
    from xonsh.completers.tools import RichCompletion

    from irons.cli.completing import offer
    from irons_repl.line.fuzzy import fitting

    known = on_hand(face)
    found = offer(face.host.tree, [*words, command.prefix], known)
    if not face.xsh.env.get("UPDATE_COMPLETIONS_ON_KEYPRESS", False):
        # Else this is asked at each key, and a sandbox only at Tab.
        found = found.with_remote(known)
    offered = {
        RichCompletion(
            word,
            prefix_len=len(command.prefix) + len(command.opening_quote),
            display=c.word,
            description=c.about,
            append_space=not word.endswith(("/", ":")),
        )
        for c in fitting(found.values, found.typed)
        # Within quotes xonsh closes them itself.
        if (word := found.fixed + c.word if command.opening_quote else quoted(found.fixed + c.word))
    }
    if not found.files:
        return offered
    files, length = contextual_complete_path(command)
    return offered | set(files), length


_PLAIN = re.compile(r"[\w%+=:,./-][\w@%+=:,./-]*")


def quoted(word: str) -> str:
    """Return a word written so that xonsh reads exactly it; empty where there is no such way.

    In other strings than raw ones xonsh expands variables.
    """
    if _PLAIN.fullmatch(word):
        return word
    quote = "'" if "'" not in word else '"'
    return "" if quote in word or word.endswith("\\") else f"r{quote}{word}{quote}"


def on_hand(face: Face) -> Sources:
    """Return what the caches hold, and have it asked for again by a process of its own where it is old."""
    from irons.cli.completing import Sources
    from irons.cli.on_hand import sources_of
    from irons.client.names import NameCache
    from irons.client.refreshing import refresh_detached
    from irons.errors import IronsError

    try:
        settings = face.settings()
    except IronsError:
        return Sources()
    refresh_detached(settings)

    return sources_of(
        lambda: settings,
        lambda what: NameCache.of(settings, what=what).read(),
        lambda: settings.env,
        face.host,
    )
