"""xonsh on a real terminal, with the real xontrib loaded by its entry point."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.repl.conftest import env, fake, home_env
from tests.repl.terminal import Terminal

__all__ = ["env", "fake", "home_env", "xonsh"]


RC = """
$PROMPT = 'here> '
$XONSH_HISTORY_BACKEND = 'dummy'
$XONSH_SHOW_TRACEBACK = True
"""


@pytest.fixture
def xonsh(env: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Open xonsh in a terminal; its prompt is `here>`."""
    with ExitStack() as stack:

        def opened(**more: str) -> Terminal:
            (tmp_path / ".xonshrc").write_text(RC)
            argv = [str(Path(sys.executable).parent / "xonsh")]
            screen = stack.enter_context(Terminal(argv, {**env, **more}, cwd=str(tmp_path)))
            screen.until(r"here>")
            return screen

        yield opened
