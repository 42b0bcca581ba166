"""The change of egress rules that a line is going to make. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from irons.cli.parsing import meant_choice
from irons.command import Opt
from irons.record import NamedTuple
from irons_repl.line.completer import place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from irons.command import Command
    from irons.tree import Tree

    Verb = Literal["allow", "deny", "remove", "mode"]

_VERBS: Final = ("allow", "deny", "remove", "mode")


class TypedChange(NamedTuple):
    """A change of rules or of the mode.

    Attributes:
        verb: The command.
        words: The patterns, or the mode; none are typed yet where it is empty.
        sandbox: Whose; None for all sandboxes.
    """

    verb: Verb
    words: tuple[str, ...]
    sandbox: str | None


def typed_change(text: str, tree: Tree, in_use: str | None) -> TypedChange | None:
    """Return the change that the command at the end of a line would make; None where it is another command.

    Args:
        text: The line up to the cursor.
        tree: The commands.
        in_use: The sandbox in use.
    """
    at = place(text)
    if at is None or at.file:
        return None
    words = at.words[1:] if at.words[0] == "irons" else at.words
    match = tree.find(words)
    # `egress preset allow` takes no pattern.
    if match is None or match.command.path[:-1] != ("egress",) or match.command.path[-1] not in _VERBS:
        return None
    positional, sandbox, everything = _read(match.command, match.rest)
    if match.command.path[-1] == "mode":
        positional = [meant_choice(match.command.arguments[0], word) for word in positional]
    scope = None if everything else sandbox or in_use
    return TypedChange(cast("Verb", match.command.path[-1]), tuple(positional), scope)


def _read(command: Command, rest: Sequence[str]) -> tuple[list[str], str | None, bool]:
    """Return the words that are no options, the sandbox that is named, and whether all are meant."""
    takes_value = {flag for option in command.options if isinstance(option, Opt) for flag in option.flags}
    positional: list[str] = []
    sandbox: str | None = None
    everything = False
    words = iter(rest)
    for word in words:
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            positional += [word] if word else []
            continue
        if name in takes_value and not equals:
            value = next(words, "")
        if name == "--sandbox":
            sandbox = value or None
        everything = everything or name == "--all"
    return positional, sandbox, everything
