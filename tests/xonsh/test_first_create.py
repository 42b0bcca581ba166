"""The first `create` on a new backend, in a real xonsh."""

from __future__ import annotations

from collections.abc import Callable

from irons.testing import FakeApi
from tests.repl.terminal import Terminal


def test_xonsh_asks_and_goes_on(new: FakeApi, xonsh: Callable[..., Terminal]) -> None:
    """The question takes the line that is typed for it, and no other; Ctrl-C leaves the shell as it was."""
    screen = xonsh()
    screen.send("irons create one\r")
    screen.until(r"log only\]:$")
    screen.send("\x03")
    screen.until(r"nothing was created, and no mode was set(?s:.*)\nhere>")
    screen.send("irons create one\r")
    screen.until(r"(?s)no mode was set.*log only\]:$")
    screen.send("3\r")
    screen.until(r"The mode of all sandboxes is deny\.\n(?s:.*)one is ready\n(?s:.*)here>")
    screen.send("1000 + 7\r")
    screen.until(r"\n1007\n")
    screen.send("irons create two\r")
    screen.until(r"two is ready\n(?s:.*)here>")
    assert [call.body["mode"] for call in new.calls if call.line == "PUT /egress/mode"] == ["deny"]
    assert (new.mode, list(new.sandboxes)) == ("deny", ["one", "two"])
