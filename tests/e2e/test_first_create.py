"""The first `create` on a real backend, in a real terminal: its answer is how sandboxes start, and it is asked for once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.lab import Person
from tests.repl.terminal import Terminal

HOST = "other.example.test"


@pytest.fixture
def newcomer(
    make_person: Callable[..., Person], public_program: tuple[str, ...], ordinary_user: str
) -> Iterator[Person]:
    """An ordinary user who has created nothing yet."""
    person = make_person(program=public_program, user=ordinary_user)
    yield person
    person.run("destroy", "one", "two", "--force")
    person.ok("local", "uninstall", "--purge", "--yes")


def test_the_first_create_asks_once(newcomer: Person) -> None:
    """The answer `deny` is the mode of the sandbox that is made then, which reaches nothing, and of the next, which asks nothing."""
    words = [*newcomer.lab.enter(user=newcomer.user), *newcomer.program, "create"]
    env = {**newcomer.env, "TERM": "xterm-256color"}
    with Terminal([*words, "one"], env, columns=220, cwd=str(newcomer.home)) as screen:
        screen.until(r"How do new sandboxes start\?(?s:.*)log only\]:$")
        assert json.loads(newcomer.ok("list", "-o", "json")) == []
        screen.send("deny\r")
        screen.until(r"one is ready")
        assert screen.ended() == 0
        assert "\nThe mode of all sandboxes is deny.\n" in screen.text
    with Terminal([*words, "two"], env, columns=220, cwd=str(newcomer.home)) as screen:
        assert screen.ended() == 0
        assert "two is ready" in screen.text
        assert "How do new sandboxes start" not in screen.text
    for name in ("one", "two"):
        assert "\negress\tdeny (as all sandboxes)\n" in newcomer.ok("status", name)
    assert f"egress denied: {HOST}:80" in newcomer.inside("one", f"curl -s -m 60 http://{HOST}/hello").stdout
