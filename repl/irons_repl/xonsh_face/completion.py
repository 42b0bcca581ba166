"""Completion of `irons …` in xonsh, from what is on hand alone: xonsh waits for its completers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from irons_repl.xonsh_face.face import Face


def completer(face: Face) -> Callable[..., Any]:
    """Return the completer of the command `irons`."""
    from xonsh.completers.tools import RichCompletion, contextual_command_completer_for

    @contextual_command_completer_for("irons")  # type: ignore[untyped-decorator]
    def complete_irons(command: Any) -> Any:
        """Complete irons commands, options, sandboxes and domains."""
        from irons.completing import FILES, Sources, offer
        from irons.names import Names
        from irons.settings import load
        from irons_repl.lexer import quoted
        from irons_repl.matching import fitting

        names = Names.of(load({}, face.env()))
        words = [argument.value for argument in command.args[1 : command.arg_index]]
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

    return complete_irons
