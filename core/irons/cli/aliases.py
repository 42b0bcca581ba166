"""Aliases of the configuration (`[aliases]`): a word in a command's place, and the words that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from irons.errors import UsageError

if TYPE_CHECKING:
    from irons.tree import Tree


def expand_alias(tree: Tree, words: Sequence[str], aliases: Callable[[], Mapping[str, str]]) -> list[str]:
    """Return the words with an alias at their beginning made what it stands for; built-in words are never aliases.

    Args:
        tree: The commands.
        words: The words of a command, without the word `irons`.
        aliases: Gives the aliases, and is asked only where no command and no group begins with the first word.

    Raises:
        UsageError: A quote is open in what the alias stands for.
    """
    if not words or tree.find(words[:1]) or tree.is_group((words[0],)):
        return list(words)
    whole = aliases().get(words[0])
    if whole is None:
        return list(words)
    import shlex

    try:
        return [*shlex.split(whole), *words[1:]]
    except ValueError as error:
        raise UsageError(f"aliases.{words[0]} is invalid: {error}") from None
