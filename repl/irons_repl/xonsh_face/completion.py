"""Completion of `irons …` in xonsh, from what is on hand alone: xonsh waits for its completers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from irons_repl.xonsh_face.alias import OWN_PROCESS
from irons_repl.xonsh_face.face import Face


def completer_of(face: Face) -> Callable[..., Any]:
    """Return the completer of the command `irons`."""
    from xonsh.completers.tools import RichCompletion, contextual_command_completer

    def complete_irons(command: Any) -> Any:
        """Complete irons commands, options, sandboxes and domains."""
        words = words_before([argument.value for argument in command.args[: command.arg_index]])
        if words is None:
            return None
        from irons.completing import FILES, Sources, offer
        from irons.names import Names
        from irons.settings import load
        from irons_repl.lexer import quoted
        from irons_repl.matching import fitting

        names = Names.of(load({}, face.env()))
        found = offer(face.host.tree, [*words, command.prefix], Sources(sandboxes=names.read))
        if FILES in found.candidates:
            return None
        chosen = fitting(found.candidates, found.typed)
        return {
            RichCompletion(
                quoted(found.fixed + c.word), display=c.word, description=c.about, append_space=True
            )
            for c in chosen
        }

    decorated: Callable[..., Any] = contextual_command_completer(complete_irons)
    return decorated


def words_before(words: Sequence[str]) -> list[str] | None:
    """Return the words behind `irons`, before the one being typed; None where another command is completed.

    xonsh shows its completers the alias's meaning in the place of its name.
    """
    for beginning in (("irons",), OWN_PROCESS):
        if tuple(words[: len(beginning)]) == beginning:
            return list(words[len(beginning) :])
    return None
