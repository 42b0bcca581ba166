"""Completion of `irons …` in xonsh, from what is on hand alone: xonsh waits for its completers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from irons_repl.xonsh_face.alias import PROCESS
from irons_repl.xonsh_face.face import Face

if TYPE_CHECKING:
    from irons.cli.completing import Sources


def completer_of(face: Face) -> Callable[..., Any]:
    """Return the completer of the command `irons`."""
    from xonsh.completers.tools import contextual_command_completer

    def complete_irons(command: Any) -> Any:
        """Complete irons commands, options, sandboxes, domains and files."""
        words = words_before([argument.value for argument in command.args[: command.arg_index]])
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
    from irons_repl.line.lexer import quoted

    found = offer(face.host.tree, [*words, command.prefix], on_hand(face))
    offered = {
        RichCompletion(
            # Within quotes xonsh closes them itself.
            found.fixed + c.word if command.opening_quote else quoted(found.fixed + c.word),
            prefix_len=len(command.prefix) + len(command.opening_quote),
            display=c.word,
            description=c.about,
            append_space=True,
        )
        for c in fitting(found.values, found.typed)
    }
    if not found.files:
        return offered
    files, length = contextual_complete_path(command)
    return offered | set(files), length


def on_hand(face: Face) -> Sources:
    """Return what the caches hold, and have it asked for again by a process of its own where it is old."""
    from irons.cli.completing import Sources
    from irons.cli.topics import TOPICS
    from irons.client.names import NameCache
    from irons.client.refreshing import refresh_detached
    from irons.errors import IronsError

    try:
        settings = face.settings()
    except IronsError:
        return Sources()
    refresh_detached(settings)

    def of(what: str) -> Callable[[], Mapping[str, str]]:
        return NameCache.of(settings, what=what).read

    return Sources(
        of("names"),
        of("domains"),
        of("images"),
        of("labels"),
        topics=lambda: dict.fromkeys(TOPICS, "topic"),
        aliases=lambda: settings.aliases,
    )
