"""One sandbox that the library creates, from the request for it to its removal."""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import TYPE_CHECKING

from irons.errors import IronsError, NotFound

if TYPE_CHECKING:
    from irons.client.api import Sandbox
    from irons.client.models.sandboxes import CreateOptions
    from irons.context import Context

_ANSWERED_WITHIN = 30.0
"""Seconds that the server has for answering a request whose caller was interrupted."""


class SandboxCreation:
    """A sandbox that is asked for in a thread of its own.

    Ctrl-C comes to the main thread alone. In there it would part the request from its answer, and no one would know whether there is
    a sandbox to remove.
    """

    def __init__(self, context: Context, name: str) -> None:
        """Take the context of the calls, and the sandbox's name."""
        self._context = context
        self._name = name
        self._lock = threading.Lock()
        self._begun = False
        self._given_up = False
        self._over = threading.Event()
        self._created: Sandbox | None = None
        self._error: BaseException | None = None

    def ask(self, wish: CreateOptions, public_key: str | None) -> None:
        """Create it, and return once the server has answered.

        Args:
            wish: What it is created with.
            public_key: The public key file that opens it; None for the setting.

        Raises:
            Conflict: A sandbox of this name is there.
            IronsError: The server refused.
        """
        from irons_plugins.lifecycle.creating import make

        rows = make(
            self._context, (self._name,), wish, timeout=None, key=public_key, created=self._has_been_created
        )

        def work() -> None:
            with self._lock:
                self._begun = not self._given_up
            if not self._begun:
                return
            try:
                next(rows)
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                self._error = error
            finally:
                self._over.set()

        about = copy_context()
        threading.Thread(target=about.run, args=(work,), name=f"create {self._name}", daemon=True).start()
        self._over.wait()
        if self._error is not None:
            raise self._error

    def remove(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> bool:
        """Destroy the very sandbox that was created; an `ExitStack` calls this.

        Raises:
            IronsError: It was not destroyed, and no other error is under way.
        """
        from irons_plugins.lifecycle.handlers import destroy_one

        with self._lock:
            self._given_up = True
        name = self._name
        if self._begun and not self._over.wait(_ANSWERED_WITHIN) and error is not None:
            error.add_note(f"irons: the server has not answered; {name} may have been created")
        row = self._created
        if row is None:
            return False
        try:
            if row.id and self._context.api.status(name).id != row.id:
                # It is gone, and another one has its name.
                return False
            destroy_one(self._context, name, force=True)
        except NotFound:
            return False
        except IronsError as failure:
            if error is None:
                raise
            # What ended the block counts more.
            error.add_note(f"irons: {name} was not destroyed: {failure.message}")
        return False

    def _has_been_created(self, row: Sandbox) -> None:
        self._created = row
