"""A prompt of prompt_toolkit alone, with the menus that irons shows: what `bench.prompt` measures keys against.

    python -m bench.bare_prompt LINE...

For each beginning of the lines the menu that irons would show is made before the prompt opens, so that a key costs a look into a
dictionary, and what prompt_toolkit takes for it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from irons.host import PluginHost
from irons.terminal.streams import Streams
from irons_repl.line.completer import PromptCompleter
from irons_repl.run.own_words import OWN_WORDS
from irons_repl.run.session import ShellSession
from irons_repl.status.sources import sources

Menus = Mapping[str, Sequence[Completion]]


class ReadyMenus(Completer):
    """Completes from menus that are there already."""

    def __init__(self, menus: Menus) -> None:
        """Take the menu of each text."""
        self._menus = menus

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield those of the text before the cursor."""
        del complete_event
        return self._menus.get(document.text_before_cursor, ())


def menus_of(lines: Iterable[str]) -> Menus:
    """Return what irons shows for each beginning of these lines."""
    session = ShellSession(PluginHost(), Streams())
    completer = PromptCompleter(session.host.tree, sources(session), OWN_WORDS)
    event = CompleteEvent(text_inserted=True)
    beginnings = {line[:end] for line in lines for end in range(1, len(line) + 1)}
    return {text: tuple(completer.get_completions(Document(text), event)) for text in beginnings}


def main() -> None:
    """Read lines until there are no more."""
    lines: PromptSession[str] = PromptSession(
        "irons> ",
        completer=ReadyMenus(menus_of(sys.argv[1:])),
        complete_while_typing=True,
        reserve_space_for_menu=6,
    )
    while True:
        try:
            lines.prompt()
        except EOFError:
            return


if __name__ == "__main__":
    main()
