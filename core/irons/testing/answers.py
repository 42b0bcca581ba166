"""What the fake v0 API answers and refuses with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from irons.record import NamedTuple

if TYPE_CHECKING:
    from irons.testing.fake_state import FakeSandbox, FakeState


class FakeAnswer(NamedTuple):
    """An HTTP answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}


class FakeRefusal(Exception):
    """An error answer: its status and text; without a text there is no such route."""

    def __init__(self, status: int, text: str = "") -> None:
        """Take both."""
        super().__init__(text)
        self.status = status
        self.text = text


def sandbox_of(api: FakeState, name: str) -> FakeSandbox:
    """Return the sandbox of a name, or refuse."""
    found = api.sandboxes.get(name)
    if found is None:
        raise FakeRefusal(404, f"there is no sandbox {name}")
    return found
