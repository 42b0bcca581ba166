"""Completion in the prompt: the command tree and the values on hand, narrowed by fuzzy matching; nothing here waits on the network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from irons.completing import FILES, Candidate, Offer, Sources, offer
from irons.text import clean
from irons.tree import Tree
from irons_repl.files import files_like
from irons_repl.lexer import Token, lex, quoted
from irons_repl.matching import fitting

SEPARATORS = (";", "&&", "||", "\n")


class Place(NamedTuple):
    """Where the cursor stands: the words of the command so far, the last one being typed, and the offset where that begins."""

    words: list[str]
    start: int
    file: bool = False


def place(text: str) -> Place | None:
    """Return where the end of `text` stands; None inside the system shell's text or a comment, where nothing is completed."""
    tokens = lex(text)
    begin = max(
        (at + 1 for at, token in enumerate(tokens) if token.text in SEPARATORS and token.kind == "operator"),
        default=0,
    )
    tokens = tokens[begin:]
    if any(token.kind in ("shell", "comment") for token in tokens):
        return None
    typing: Token | None = None
    if tokens and tokens[-1].kind == "word" and (tokens[-1].open or tokens[-1].end == len(text)):
        typing = tokens.pop()
    start = typing.start if typing else len(text)
    if tokens and tokens[-1].kind == "operator":
        return Place([typing.text if typing else ""], start, file=True)
    words = [token.text for token in tokens if token.kind == "word"]
    return Place([*words, typing.text if typing else ""], start)


class PromptCompleter(Completer):
    """Completes the commands of a tree and the prompt's own words."""

    def __init__(
        self,
        tree: Tree,
        sources: Sources,
        own: Sequence[Candidate] = (),
    ) -> None:
        """Take the commands, the values on hand, and the prompt's own words, which stand first in a line."""
        self._tree = tree
        self._sources = sources
        self._own = tuple(own)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield what may stand at the cursor, best first, at most `matching.LIMIT` of them."""
        del complete_event
        text = document.text_before_cursor
        at = place(text)
        if at is None:
            return
        found = Offer([FILES], at.words[-1]) if at.file else offer(self._tree, at.words, self._sources)
        candidates = [c for c in found.candidates if c != FILES]
        if len(at.words) == 1 and not at.file:
            candidates += self._own
        back = at.start - len(text)
        for candidate in fitting(candidates, found.typed):
            word = quoted(found.fixed + candidate.word)
            yield Completion(word, back, display=clean(candidate.word), display_meta=clean(candidate.about))
        if FILES in found.candidates:
            for file in files_like(found.typed):
                yield Completion(
                    quoted(found.fixed + file.word), back, display=clean(file.shown), display_meta=file.about
                )
