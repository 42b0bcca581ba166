"""Completion in the prompt: the command tree and the values on hand, narrowed by fuzzy matching; nothing here waits on the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from itertools import islice

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, ThreadedCompleter
from prompt_toolkit.document import Document

from irons.cli.completing import Offer, Sources, offer
from irons.record import NamedTuple
from irons.text import clean
from irons.tree import Tree
from irons_repl.line.files import files_like
from irons_repl.line.fuzzy import Fitter
from irons_repl.line.lexer import Token, lex, quoted
from irons_repl.line.sandbox_line import quoted_there, sandbox_of

SEPARATORS = (";", "&&", "||", "\n")

PLACES = 20
"""Sandboxes offered where a command begins."""


class CursorPlace(NamedTuple):
    """Where the cursor stands: the words of the command so far, the last one being typed, and the offset where that begins.

    `file` says that a file of this machine comes there, `there` that the words are read by a sandbox's shell.
    """

    words: list[str]
    start: int
    file: bool = False
    there: bool = False


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
    sandbox = sandbox_of(tokens[0]) if tokens else ""
    if sandbox:
        words[:1] = ["exec", sandbox, "--"]
    return CursorPlace([*words, typing.text if typing else ""], start, there=bool(sandbox))


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
        self._fitter = Fitter()

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield what may stand at the cursor, best first, at most `fuzzy.LIMIT` words and as many files."""
        at = place(document.text_before_cursor)
        if at is not None:
            found = self._offer(at)
            if complete_event.completion_requested:
                found = found.with_remote(self._sources)
            back = at.start - len(document.text_before_cursor)
            yield from self._words(found, back, quoted_there if at.there else quoted)
            yield from _files(found, back, folders=at.words[0] == "cd")

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """Yield the same once the key is drawn.

        A disk may be slow, and a sandbox, which only Tab asks: files are looked for in a thread; all else is quicker.
        """
        self.asked = document.text
        # Drawing waits for its turn in the event loop, and no other key is read before this goes on.
        await asyncio.sleep(0)
        at = place(document.text_before_cursor)
        if at is None:
            return
        found = self._offer(at)
        if found.files or (found.remote is not None and complete_event.completion_requested):
            async for completion in ThreadedCompleter(self).get_completions_async(document, complete_event):
                yield completion
        else:
            for completion in self._words(found, at.start - len(document.text_before_cursor), quoted):
                yield completion

    def _offer(self, at: CursorPlace) -> Offer:
        if at.file:
            return Offer(at.words[-1], files=True)
        if at.words[0] == "cd" and len(at.words) > 1:
            return Offer(at.words[-1], files=len(at.words) == 2)
        if at.there and at.words[-1].startswith("~/"):
            # What is relative there is below the same home.
            below = at._replace(words=[*at.words[:-1], at.words[-1][2:]])
            return self._offer(below)._replace(fixed="~/")
        words = at.words[1:] if at.words[0] == "irons" and len(at.words) > 1 else at.words
        found = offer(self._tree, words, self._sources)
        if len(words) > 1:
            return found
        return found._replace(values={**found.values, **self._own, **self._places(words[0])})

    def _places(self, typed: str) -> dict[str, str]:
        """Sandboxes that begin with what is typed, as the first word of a line that runs in them; none before anything is."""
        if not typed:
            return {}
        known = self._sources.sandboxes()
        fitting_names = islice((name for name in known if name.startswith(typed)), PLACES)
        return {f"{name}:": f"run in {name} ({known[name]})" for name in fitting_names}

    def _words(self, found: Offer, back: int, quote: Callable[[str], str]) -> Iterator[Completion]:
        for candidate in self._fitter.fitting(found.values, found.typed):
            word = quote(found.fixed + candidate.word)
            yield Completion(word, back, display=clean(candidate.word), display_meta=clean(candidate.about))


def _files(found: Offer, back: int, *, folders: bool) -> Iterator[Completion]:
    for file in files_like(found.typed, folders=folders) if found.files else ():
        word = quoted(found.fixed + file.word)
        yield Completion(word, back, display=clean(file.shown), display_meta=file.about)
