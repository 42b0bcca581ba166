"""What a test needs, as a mark that it is given by its fixtures and its folder: pure, process, netns or sandbox.

A test that says nothing is `pure`: it starts no process, and is stopped if it tries to. One that starts processes, by
itself or by a fixture of its module, says so: `@pytest.mark.process`. What namespaces and sandboxes it needs shows in
what it asks for.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

KINDS = {
    "pure": "starts no process",
    "process": "starts processes of whoever runs it",
    "netns": "needs root, users or namespaces of its own",
    "sandbox": "drives real sandboxes",
}
_SANDBOX = {"place", "place_for_all", "archive", "image_tar"}
_NETNS = {"lab", "net", "stand", "shared", "kept", "lasting", "person", "ordinary_user"}
_PROCESS = {"irons_process", "into", "sshd", "terminal", "prompt", "xonsh"}
_STARTS = ("execv", "execve", "fork", "forkpty", "posix_spawn", "posix_spawnp", "system")
"""What starts a process, of `os`."""


def kind(item: pytest.Item) -> str:
    """Name what a test needs."""
    asked = set(getattr(item, "fixturenames", ()))
    needs = {need for mark in item.iter_markers("needs") for need in mark.args}
    if item.nodeid.startswith("tests/e2e/") or item.get_closest_marker("e2e") or asked & _SANDBOX:
        return "sandbox"
    if asked & _NETNS or needs & {"root", "users", "user-namespaces", "networks", "sandboxes"}:
        return "netns"
    if item.get_closest_marker("process") or asked & _PROCESS:
        return "process"
    return "pure"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marks known."""
    for name, text in KINDS.items():
        config.addinivalue_line("markers", f"{name}: {text}")
    config.addinivalue_line("markers", "slow: takes longer than a second, however quiet the machine")
    config.addinivalue_line("markers", "hypothesis: draws cases")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its kind, before tests are chosen by marks; and what draws cases, also without hypothesis' plugin."""
    from hypothesis import is_hypothesis_test

    for item in items:
        if is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker("hypothesis")
        name = kind(item)
        if item.get_closest_marker(name) is None:
            item.add_marker(name)


class _Guard:
    """Stops who starts a process while it may not.

    It stands before each function that does. An audit hook (PEP 578) would be called for each new thread under coverage
    too, and where two threads begin at once CPython then ends one of them with "Cannot install a trace function".
    """

    def __init__(self) -> None:
        self._forbidden = False
        self._stands = False

    @contextmanager
    def during_pure(self) -> Iterator[None]:
        """Forbid it for a while, and take back what a test does to the mask of new files."""
        if not self._stands:
            self._stands = True
            self._stand_before(subprocess.Popen, "__init__")
            for name in _STARTS:
                self._stand_before(os, name)
        self._forbidden = True
        mask = os.umask(0o077)
        os.umask(mask)
        try:
            yield
        finally:
            self._forbidden = False
            # What a helper process sets at its start is set here for good: directories of the next test would be anyone's.
            os.umask(mask)

    def _stand_before(self, where: object, name: str) -> None:
        start = getattr(where, name)

        @functools.wraps(start)
        def guarded(*args: Any, **more: Any) -> Any:
            if self._forbidden:
                raise AssertionError("a test that starts a process is not pure: mark it @pytest.mark.process")
            return start(*args, **more)

        setattr(where, name, guarded)


_GUARD = _Guard()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Keep a pure test from starting a process."""
    if item.get_closest_marker("pure") is None:
        yield
        return
    with _GUARD.during_pure():
        yield
