"""Colours of the line being typed, from the same tokens that completion and running read."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.lexers import Lexer

from irons.tree import Tree
from irons_repl.line.lexer import Token, lex
from irons_repl.line.sandbox_line import sandbox_of

LONGEST = 20_000
"""Characters beyond which a line goes uncoloured: no one reads it, and every key would wait for it."""


class LineLexer(Lexer):
    """Colours commands that there are, options, quoted words, operators, the system shell's text, and what runs in a sandbox."""

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
        line = _LineSoFar()
        for token in lex(text):
            if token.start > at:
                # Within what runs in a sandbox the blanks look the same: without colour it is underlined.
                there = token.kind == "word" and line.there and bool(line.words)
                fragments.append(("class:there" if there else "", text[at : token.start]))
            fragments.append((self._style(token, line), text[token.start : token.end]))
            at = token.end
        fragments.append(("", text[at:]))
        return fragments

    def _style(self, token: Token, line: _LineSoFar) -> str:
        """The style of a token; what stands before it is kept up to date here."""
        if token.kind == "operator":
            return line.after(token.text)
        if token.kind != "word":
            return f"class:{token.kind}"
        words = line.words
        if token.text == "irons" and not words:
            return "class:command"
        if line.begins and sandbox_of(token):
            line.begin_there(token.text)
            return "class:place"
        path = (*words, token.text)
        words.append(token.text)
        if line.there:
            return "class:there"
        if self._names(path):
            return "class:command"
        if token.text.startswith("-"):
            return "class:option"
        return "class:word" if token.bare else "class:quoted"

    def _names(self, path: tuple[str, ...]) -> bool:
        if self._tree.get(path) is not None or self._tree.is_group(path):
            return True
        return len(path) == 1 and (path[0] in self._own or path[0] in self._aliases())


class _LineSoFar:
    """What stands before a token: the words of its command, whether they run in a sandbox, and whether the line began so."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.there = False
        self._file = False
        self._for_sandbox = False

    @property
    def begins(self) -> bool:
        """Whether a command may begin."""
        return not self.words and not self._file

    def begin_there(self, word: str) -> None:
        """Begin a command that runs in a sandbox."""
        self.words.append(word)
        self.there = self._for_sandbox = True

    def after(self, operator: str) -> str:
        """Take an operator in and return its style: what may not follow a command in a sandbox is marked."""
        wrong = self._for_sandbox and operator not in ("|", ">", ">>", "\n")
        self.words.clear()
        self.there = False
        self._file = operator in (">", ">>")
        if operator == "\n":
            self._for_sandbox = False
        return "class:wrong" if wrong else "class:operator"


def _by_line(fragments: StyleAndTextTuples) -> list[StyleAndTextTuples]:
    lines: list[StyleAndTextTuples] = [[]]
    for fragment in fragments:
        style, text = fragment[0], fragment[1]
        first, *rest = text.split("\n")
        lines[-1].append((style, first))
        lines.extend([(style, part)] for part in rest)
    return lines
