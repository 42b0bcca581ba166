"""Which mode vi keys are in, as the toolbar shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prompt_toolkit.key_binding.vi_state import InputMode
from prompt_toolkit.selection import SelectionType

if TYPE_CHECKING:
    from prompt_toolkit.application import Application

_NAMES = {
    InputMode.INSERT: "insert",
    InputMode.INSERT_MULTIPLE: "insert",
    InputMode.NAVIGATION: "normal",
    InputMode.REPLACE: "replace",
    InputMode.REPLACE_SINGLE: "replace",
}


def vi_mode(app: Application[Any]) -> str:
    """Return `vi` and the mode of an application with vi keys, as vi names it."""
    selection = app.current_buffer.selection_state
    if selection is not None:
        return "vi visual line" if selection.type == SelectionType.LINES else "vi visual"
    return f"vi {_NAMES[app.vi_state.input_mode]}"
