"""Questions of mode `ask` at the fake API, and a person who presses a key until it counts."""

from __future__ import annotations

import re
import time
from functools import partial
from typing import Any

from irons.asking.screen import SETTLED
from irons.testing import FakeApi
from tests.repl.terminal import Terminal

SOON = r"too\s+soon"


def put(fake: FakeApi, name: str, sandbox: str = "agent-1") -> None:
    """Put a question."""
    host = f"{name}.example"
    asked = {"id": f"q_{name}", "sandbox_name": sandbox, "host": host, "port": 443, "waiting": 1}
    with fake.lock:
        fake.questions.append({**asked, "pattern": f"{host}:443", "protocol": "tls"})
        fake.lock.notify_all()


def end(fake: FakeApi, name: str) -> None:
    """End a question as if it was answered elsewhere."""
    with fake.lock:
        fake.questions[:] = [each for each in fake.questions if each["id"] != f"q_{name}"]
        fake.lock.notify_all()


def answers(fake: FakeApi) -> list[tuple[str, Any]]:
    """The answers that were given."""
    return [
        (call.path, call.body) for call in fake.calls if call.method == "POST" and "/questions/" in call.path
    ]


def press(screen: Terminal, key: str, seen: str, *, between: str = "j") -> None:
    """Press a key in an open list until it counts: none does that may be from before its picture. `between` takes the note off."""
    while True:
        screen.send(key)
        screen.until(rf"{seen}|{SOON}")
        if not re.search(SOON, screen.text):
            return
        # With one question `j` chooses the same.
        screen.send(between)
        screen.until(lambda: not re.search(SOON, screen.text))


def put_rule(screen: Terminal, fake: FakeApi, *steps: tuple[str, str], done: str, between: str = "j") -> None:
    """Press the key of each step once what the one before shows was read, and the last key again, or `y` for all, until the rule is put.

    Nothing is answered before. Where a key came too soon, the rule is left and all begins again, with more time to read.
    """
    given = answers(fake)
    reading = SETTLED
    (key, shown), *more = steps
    while True:
        press(screen, key, shown, between=between)
        for then, seen in (*more, ("y" if key == "A" else key, done)):
            assert answers(fake) == given
            screen.until(partial(_is_over, time.monotonic() + reading))
            screen.send(then)
            screen.until(rf"{seen}|{SOON}")
            if re.search(SOON, screen.text):
                break
        else:
            return
        reading *= 2
        screen.send(between)
        screen.until(lambda: not re.search(SOON, screen.text))


def _is_over(at: float) -> bool:
    return time.monotonic() >= at
