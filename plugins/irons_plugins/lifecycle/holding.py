"""Holding a sandbox for as long as this process lives: one request after another, in a thread of its own."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

from irons.errors import IronsError, NotFound

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons.context import Context

_NOT_YET = 0.2
"""Seconds after which a sandbox that is not there yet is asked for again."""

_AGAIN = 1.0
"""Seconds after which a server that does not answer is asked again; it waits for a minute."""


class Holder:
    """Holds a sandbox that is about to be created, until it is left. The server destroys what no one holds."""

    def __init__(self, ctx: Context, name: str) -> None:
        """Take the sandbox's name; `with` begins to hold it."""
        self._ctx = ctx
        self._name = name
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._hold, name=f"hold {name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The thread ends with its request: the server answers it when the sandbox is released or gone.
        self._over.set()

    def _hold(self) -> None:
        from irons.client.api import open_api

        # A backend that someone took down is not brought up again by this: its time begins when it is back.
        settings = self._ctx.settings.changed(env={**self._ctx.settings.env, "IRONS_NO_START": "1"})
        while not self._over.is_set():
            try:
                with open_api(settings, self._ctx.host) as api:
                    if self._until_let_go(api):
                        return
            except IronsError:
                self._over.wait(_AGAIN)

    def _until_let_go(self, api: Api) -> bool:
        """Hold it by one request after another; True where it is not held any more."""
        while not self._over.is_set():
            try:
                if not api.hold(self._name):
                    return True
            except NotFound:
                self._over.wait(_NOT_YET)
        return True
