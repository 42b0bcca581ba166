"""A home of its own for each prompt, and the environment in which it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from irons.testing import EXTENSIONS, FakeApi
from tests.ports import reserved_port
from tests.repl.terminal import Terminal

KEY = "test-key-1234567890"
BACKEND = """
from irons import Backend, hookimpl

@hookimpl
def irons_backend(url):
    return Backend("{url}", local=True) if url == "local" else None
"""


@pytest.fixture
def fake() -> Iterator[FakeApi]:
    """A v0 API with two sandboxes and two rules."""
    with reserved_port() as port, FakeApi(key=KEY, extensions=EXTENSIONS, port=port) as api:
        api.add("agent-1")
        api.add("agent-2", "stopped")
        api.rules += [
            {"pattern": "pypi.org", "list": "allow"},
            {"pattern": "evil.example", "list": "deny"},
        ]
        yield api


@pytest.fixture
def home_env(tmp_path: Path) -> dict[str, str]:
    """The environment of a person with an empty home."""
    env = {key: os.environ[key] for key in os.environ if key.startswith(("COVERAGE", "LANG", "LC_"))}
    # Sockets of kept connections are the test's own, not those of all that runs as root.
    (tmp_path / "run").mkdir(mode=0o700)
    return env | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "PAGER": "cat",
        "PYTHONUNBUFFERED": "1",
        "TZ": "UTC",
    }


@pytest.fixture
def env(home_env: dict[str, str], fake: FakeApi) -> dict[str, str]:
    """The environment of a person who uses the fake API."""
    return home_env | {"IRONS_API_URL": fake.url, "IRONS_API_KEY": KEY}


@pytest.fixture
def new(fake: FakeApi, env: dict[str, str], tmp_path: Path) -> FakeApi:
    """A backend of this machine on which nothing was done yet, by a plugin that answers for `local`; it is the one that is chosen."""
    site, key = tmp_path / "site", tmp_path / ".ssh/id_ed25519.pub"
    for directory in (site / "new_backend-1.dist-info", key.parent):
        directory.mkdir(parents=True)
    (site / "new_backend.py").write_text(BACKEND.format(url=fake.url))
    (site / "new_backend-1.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: new-backend\nVersion: 1\n"
    )
    (site / "new_backend-1.dist-info/entry_points.txt").write_text("[irons]\nnew = new_backend\n")
    key.write_text(
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB1c0LmSsZ2oc2KSYsHcE9m2bL2oOe1zL0T0rA3e7Q2o me@here\n"
    )
    env.update(PYTHONPATH=str(site), IRONS_API_URL="local", IRONS_API_KEY=KEY)
    fake.sandboxes.clear()
    fake.undecided = True
    return fake


@pytest.fixture
def terminal(env: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Open terminals with `irons` in them; all are closed at the end."""
    with ExitStack() as stack:

        def opened(*words: str, **options: object) -> Terminal:
            argv = options.pop("argv", None) or [sys.executable, "-m", "irons", *words]
            more = options.pop("env", {})
            options.setdefault("cwd", str(tmp_path))
            return stack.enter_context(Terminal(argv, {**env, **more}, **options))  # type: ignore[arg-type,dict-item]

        yield opened


@pytest.fixture
def prompt(terminal: Callable[..., Terminal]) -> Terminal:
    """An open prompt."""
    screen = terminal()
    screen.until("irons>")
    return screen
