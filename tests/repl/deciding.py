"""A rule that is decided in the live view, as a person does it who reads what it says."""

from __future__ import annotations

import re

from tests.repl.terminal import Terminal

TOO_EARLY = "has just changed|still on its way|nothing to undo"
"""What the view says to a key that came too early."""


def decide(screen: Terminal, key: str, question: str) -> None:
    """Press a key until its question is in the foot line, and wait until it can be answered.

    Where the view answers that it is too early, a key that does nothing clears its words first: the next answer is to the next key.
    """
    screen.send(key)
    while not re.search(question, screen.until(f"{question}|{TOO_EARLY}")):
        screen.send("x")
        screen.until(lambda: re.search(TOO_EARLY, screen.text) is None)
        screen.send(key)
    screen.until("y/n")
