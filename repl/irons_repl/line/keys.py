"""The prompt's keys, beyond those of prompt_toolkit (Ctrl-R, arrows)."""

from __future__ import annotations

from collections.abc import Callable

from prompt_toolkit.application import get_app, run_in_terminal
from prompt_toolkit.enums import DEFAULT_BUFFER, EditingMode
from prompt_toolkit.filters import (
    Condition,
    emacs_mode,
    has_focus,
    has_selection,
    is_searching,
    vi_navigation_mode,
)
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys

from irons_repl.chord import AskChords
from irons_repl.line.lexer import left_open

LONGEST = 16_384
"""Characters that one line takes. What is longer belongs into a file: every key would be slow."""


def bindings(
    refused: Callable[[int], None],
    questions: Callable[[], None],
    chords: AskChords,
    suspend: Callable[[], None],
    edit: Callable[[], None],
) -> KeyBindings:
    """Return the bindings.

    Args:
        refused: Hears how many characters would not fit.
        questions: Opens the questions.
        chords: The keys that do.
        suspend: Leaves the terminal to the shell that started this, and returns once that gives it back.
        edit: Opens the line in an editor.
    """
    keys = KeyBindings()
    in_line = has_focus(DEFAULT_BUFFER) & ~is_searching

    @keys.add("enter", filter=in_line)
    def _enter(event: KeyPressEvent) -> None:
        """Take the chosen completion; else go on where a quote is open; else run the line."""
        buffer = event.current_buffer
        state = buffer.complete_state
        if state is not None and state.current_completion is not None:
            buffer.complete_state = None
        elif left_open(buffer.document.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("up", filter=in_line & Condition(_unchosen))
    @keys.add("c-p", filter=in_line & emacs_mode & Condition(_unchosen))
    def _up(event: KeyPressEvent) -> None:
        """Recall an earlier line that begins as this one does; the menu, where nothing in it is chosen yet, does not take the key."""
        buffer = event.current_buffer
        menu, buffer.complete_state = buffer.complete_state, None
        before = buffer.working_index
        buffer.auto_up(count=event.arg)
        if menu is not None and buffer.working_index == before:
            buffer.complete_state = menu
            buffer.complete_previous(count=event.arg)

    @keys.add("c-z")
    def _suspend(_: KeyPressEvent) -> None:
        """Suspend the prompt."""
        run_in_terminal(suspend)

    @keys.add("c-x", "c-e", filter=in_line & emacs_mode & ~has_selection)
    @keys.add("v", filter=in_line & vi_navigation_mode)
    def _edit(_: KeyPressEvent) -> None:
        """Open the line in an editor."""
        edit()

    @keys.add("f4")
    def _f4(event: KeyPressEvent) -> None:
        """Change between emacs and vi keys."""
        vi = event.app.editing_mode == EditingMode.VI
        event.app.editing_mode = EditingMode.EMACS if vi else EditingMode.VI
        if vi:
            event.app.output.reset_cursor_shape()

    def _questions(_: KeyPressEvent) -> None:
        """Show the open questions as a list in which one letter answers, or close it."""
        questions()

    for chord in chords.all:
        keys.add(*chord.keys, filter=in_line & chord.filter)(_questions)

    @keys.add(Keys.BracketedPaste, filter=in_line)
    def _paste(event: KeyPressEvent) -> None:
        """Paste, unless it is too much for a line."""
        text = event.data.replace("\r\n", "\n").replace("\r", "\n")
        buffer = event.current_buffer
        if len(buffer.text) + len(text) > LONGEST:
            refused(len(buffer.text) + len(text))
        else:
            buffer.insert_text(text)

    @keys.add(Keys.Any, filter=in_line & Condition(_full))
    def _too_much(event: KeyPressEvent) -> None:
        """Take no more."""

    return keys


def _unchosen() -> bool:
    """Tell whether a menu is open on a line of its own, and nothing in it is chosen."""
    buffer = get_app().current_buffer
    state = buffer.complete_state
    return state is not None and state.current_completion is None and buffer.document.cursor_position_row == 0


def _full() -> bool:
    return len(get_app().current_buffer.text) >= LONGEST
