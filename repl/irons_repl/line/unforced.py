"""Lines as they are recalled: without the options that answer a question beforehand. Pure.

A recalled line runs at the press of one key. `destroy alpha --force` comes back as `destroy alpha`, which asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from irons.tree import Tree
from irons_repl.line.lexer import Token, lex
from irons_repl.line.sandbox_line import sandbox_of

FORCES: Final = frozenset({"--force", "--yes", "-y"})
"""Options that keep a command from asking, where it has them."""

_IN_SHELL: Final = re.compile(r"\birons\b.*\s(?:--force|--yes|-y)\b", re.DOTALL)


def unforced(line: str, tree: Tree) -> str:
    """Return a line without the options that keep its irons commands from asking.

    Args:
        line: What was typed.
        tree: The commands, which know their options.

    Returns:
        The line to recall; empty where the system's shell would run a forced command, so that the line is not recalled at all.
    """
    if not any(force in line for force in FORCES):
        return line
    tokens = lex(line)
    if any(token.kind == "shell" and _IN_SHELL.search(token.text) for token in tokens):
        return ""
    kept, at = "", 0
    for token in _forces(tokens, tree):
        kept += line[at : token.start].rstrip(" \t")
        at = token.end
    return kept + line[at:]


def _forces(tokens: Sequence[Token], tree: Tree) -> Iterator[Token]:
    """Yield the words to leave out, in their order."""
    words: list[Token] = []
    for token in tokens:
        if token.kind == "word":
            words.append(token)
        elif token.kind == "operator" and token.text not in (">", ">>"):
            yield from _of_command(words, tree)
            words = []
    yield from _of_command(words, tree)


def _of_command(words: Sequence[Token], tree: Tree) -> Iterator[Token]:
    if words and sandbox_of(words[0]):
        return
    texts = [word.text for word in words]
    end = texts.index("--") if "--" in texts else len(texts)
    # Global options, and the word irons, may come before the command.
    matches = (tree.find(texts[at:end]) for at in range(end))
    match = next((match for match in matches if match is not None), None)
    if match is None:
        return
    known = {flag for option in match.command.options for flag in option.flags} & FORCES
    yield from (word for word in words[:end] if word.text in known)
