"""A port of this machine's loopback address that leads into a sandbox, for as long as a program wants it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from irons.errors import IronsError, UsageError
from irons_plugins.box.cancelling import CANCELLED, is_cancelled
from irons_plugins.ssh.connect.connect_info import entrance
from irons_plugins.ssh.forwarding import run_forward

if TYPE_CHECKING:
    from irons_plugins.box.calls import Library

TRIES = 5
"""Free ports that are tried: between choosing one and listening there, another process may take it."""

_LOOK_EVERY = 0.1


class _Forwarding:
    """One OpenSSH that forwards a port, in a thread of its own."""

    def __init__(self, library: Library, name: str, here: int, there: int) -> None:
        """Begin; `wait` tells when it listens."""
        self._library, self._name = library, name
        self._pair = {here: there}
        self._stop = threading.Event()
        self._known = threading.Event()
        self._listens = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"irons forward {name}", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until it listens. Raises `IronsError` where it never will."""
        pause = None if CANCELLED.get() is None else _LOOK_EVERY
        try:
            while not self._known.wait(pause):
                if is_cancelled():
                    self._stop.set()
        except BaseException:
            self.close()
            raise
        if not self._listens:
            self.close()
            raise self._error or IronsError(f"forwarding to {self._name} was ended")

    def close(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            context = self._library.context()
            way = entrance(context, self._name)
            self._error = run_forward(context, way, self._pair, self._heard, self._check)
        except KeyboardInterrupt:
            pass
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._error = error
        finally:
            self._known.set()

    def _heard(self) -> None:
        self._listens = True
        self._known.set()

    def _check(self) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt


@contextmanager
def forwarded(library: Library, name: str, port: int, local_port: int) -> Iterator[int]:
    """Forward a port while the body runs, and give the port here; the errors are those of `Box.forward`."""
    if not (1 <= port <= 65535 and 0 <= local_port <= 65535):
        raise UsageError(f"{port} or {local_port} is not a port")
    forwarding = _begun(library, name, port, local_port)
    try:
        yield forwarding[1]
    finally:
        forwarding[0].close()


def _begun(library: Library, name: str, port: int, local_port: int) -> tuple[_Forwarding, int]:
    tries = 1 if local_port else TRIES
    while True:
        tries -= 1
        here = local_port or _free_port()
        forwarding = _Forwarding(library, name, here, port)
        try:
            forwarding.wait()
        except IronsError as error:
            if not tries or "can't be listened on" not in error.message:
                raise
        else:
            return forwarding, here


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
