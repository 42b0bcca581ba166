"""Colours of the line being typed, from the same tokens that completion and running read."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.lexers import Lexer

from irons.tree import Tree
from irons_repl.line.lexer import Token, lex

LONGEST = 20_000
"""Characters beyond which a line goes uncoloured: no one reads it, and every key would wait for it."""


class LineLexer(Lexer):
    """Colours commands that there are, options, quoted words, operators, and the system shell's text."""

    def __init__(
        self, tree: Tree, own: Container[str], aliases: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        """Take the commands, the prompt's own words, and how to learn of the configuration's aliases."""
        self._tree = tree
        self._own = own
        self._aliases = aliases

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """Return what gives each line's styled fragments."""
        text = document.text
        if len(text) > LONGEST:
            lines = document.lines
            return lambda number: [("", lines[number])] if number < len(lines) else []
        styled = _by_line(self._styled(text))
        return lambda number: styled[number] if number < len(styled) else []

    def _styled(self, text: str) -> StyleAndTextTuples:
        fragments: StyleAndTextTuples = []
        at = 0
        words: list[str] = []
        for token in lex(text):
            if token.start > at:
                fragments.append(("", text[at : token.start]))
            fragments.append((self._style(token, words), text[token.start : token.end]))
            at = token.end
        fragments.append(("", text[at:]))
        return fragments

    def _style(self, token: Token, words: list[str]) -> str:
        """The style of a token; `words` are those of its command so far, kept up to date here."""
        if token.kind == "operator":
            words.clear()
            return "class:operator"
        if token.kind != "word":
            return f"class:{token.kind}"
        if token.text == "irons" and not words:
            return "class:command"
        path = (*words, token.text)
        words.append(token.text)
        if self._names(path):
            return "class:command"
        if token.text.startswith("-"):
            return "class:option"
        return "class:word" if token.bare else "class:quoted"

    def _names(self, path: tuple[str, ...]) -> bool:
        if self._tree.get(path) is not None or self._tree.is_group(path):
            return True
        return len(path) == 1 and (path[0] in self._own or path[0] in self._aliases())


def _by_line(fragments: StyleAndTextTuples) -> list[StyleAndTextTuples]:
    lines: list[StyleAndTextTuples] = [[]]
    for fragment in fragments:
        style, text = fragment[0], fragment[1]
        first, *rest = text.split("\n")
        lines[-1].append((style, first))
        lines.extend([(style, part)] for part in rest)
    return lines
