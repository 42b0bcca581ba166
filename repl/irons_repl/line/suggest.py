"""The grey suggestion after the cursor: the command that would allow what was just refused, else a line from the history."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prompt_toolkit.auto_suggest import AutoSuggest, AutoSuggestFromHistory, Suggestion
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document


class PromptSuggest(AutoSuggest):
    """Suggests how a line goes on."""

    def __init__(self, remedies: Callable[[], Sequence[str]]) -> None:
        """Take what returns the commands that would allow what was refused, the latest first."""
        self._remedies = remedies
        self._history = AutoSuggestFromHistory()

    def get_suggestion(self, buffer: Buffer, document: Document) -> Suggestion | None:
        """Return the rest of a command that begins as the line does; on an empty line the whole of the latest remedy."""
        text = document.text
        for command in self._remedies():
            if command.startswith(text) and command != text:
                return Suggestion(command[len(text) :])
        return self._history.get_suggestion(buffer, document) if text else None
