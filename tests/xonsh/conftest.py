"""xonsh on a real terminal, with the real xontrib loaded by its entry point."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from irons.settings.settings import load
from irons.testing import FakeApi
from irons_plugins.ssh.connect.kept import end_all
from tests.plugins.conftest import Sshd, sshd
from tests.repl.conftest import env, fake, home_env, new
from tests.repl.terminal import Terminal

__all__ = ["entered", "env", "fake", "home_env", "new", "sshd", "xonsh"]


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


@pytest.fixture
def entered(env: dict[str, str], fake: FakeApi, sshd: Sshd) -> Iterator[None]:
    """Have every sandbox be this machine, reached by a real SSH server."""
    fake.ssh = sshd.address(host_keys=[sshd.host_key])
    state = Path(env["XDG_STATE_HOME"]) / "irons" / "ssh"
    state.mkdir(parents=True, mode=0o700)
    keys = {"default": dict.fromkeys(fake.sandboxes, str(sshd.identity))}
    (state / "identities.json").write_text(json.dumps(keys))
    yield
    end_all(load({}, env))
