"""Completion in the prompt: the command tree and the values on hand, narrowed by fuzzy matching; nothing here waits on the network."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from typing import NamedTuple

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, ThreadedCompleter
from prompt_toolkit.document import Document

from irons.cli.completing import Offer, Sources, offer
from irons.text import clean
from irons.tree import Tree
from irons_repl.line.files import files_like
from irons_repl.line.fuzzy import fitting
from irons_repl.line.lexer import Token, lex, quoted

SEPARATORS = (";", "&&", "||", "\n")


class CursorPlace(NamedTuple):
    """Where the cursor stands: the words of the command so far, the last one being typed, and the offset where that begins."""

    words: list[str]
    start: int
    file: bool = False


def place(text: str) -> CursorPlace | None:
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
        return CursorPlace([typing.text if typing else ""], start, file=True)
    words = [token.text for token in tokens if token.kind == "word"]
    return CursorPlace([*words, typing.text if typing else ""], start)


class PromptCompleter(Completer):
    """Completes the commands of a tree and the prompt's own words.

    Attributes:
        asked: The text that was last completed: what the person typed, not what came from the history.
    """

    def __init__(self, tree: Tree, sources: Sources, own: Mapping[str, str]) -> None:
        """Take the commands, the values on hand, and the prompt's own words with what they do, which stand first in a line."""
        self._tree = tree
        self._sources = sources
        self._own = own
        self.asked = ""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield what may stand at the cursor, best first, at most `fuzzy.LIMIT` words and as many files."""
        del complete_event
        at = place(document.text_before_cursor)
        if at is not None:
            found = self._offer(at)
            back = at.start - len(document.text_before_cursor)
            yield from _words(found, back)
            yield from _files(found, back)

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """Yield the same. A disk may be slow, so files are looked for in a thread; all else is quicker than starting one."""
        self.asked = document.text
        at = place(document.text_before_cursor)
        if at is None:
            return
        found = self._offer(at)
        if found.files:
            async for completion in ThreadedCompleter(self).get_completions_async(document, complete_event):
                yield completion
        else:
            for completion in _words(found, at.start - len(document.text_before_cursor)):
                yield completion

    def _offer(self, at: CursorPlace) -> Offer:
        if at.file:
            return Offer(at.words[-1], files=True)
        words = at.words[1:] if at.words[0] == "irons" and len(at.words) > 1 else at.words
        found = offer(self._tree, words, self._sources)
        return found._replace(values={**found.values, **self._own}) if len(words) == 1 else found


def _words(found: Offer, back: int) -> Iterator[Completion]:
    for candidate in fitting(found.values, found.typed):
        word = quoted(found.fixed + candidate.word)
        yield Completion(word, back, display=clean(candidate.word), display_meta=clean(candidate.about))


def _files(found: Offer, back: int) -> Iterator[Completion]:
    for file in files_like(found.typed) if found.files else ():
        word = quoted(found.fixed + file.word)
        yield Completion(word, back, display=clean(file.shown), display_meta=file.about)
