"""One gateway worker, as the control plane sees it: requests go there, and word of new audit records comes back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from typing import Any

from irons_local.control.schema.errors import HttpError
from irons_local.ipc.aio import AsyncLink
from irons_local.ipc.framing import LinkClosedError, LinkError, RequestError

_log = logging.getLogger(__name__)


class GatewayClient:
    """One link to one worker; a worker that was started again has another.

    Args:
        sock: this end of it; made while the event loop runs.
        on_audit: called with the run whose log has grown.
        on_unrecorded: called with the number of refusals of each cell that the worker could not record so far.
        on_end: called when the link has ended, but not by `close`.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_audit: Callable[[str], None],
        on_unrecorded: Callable[[Mapping[str, int]], None],
        on_end: Callable[[], None],
    ) -> None:
        self._link = AsyncLink(sock)
        self._on_audit, self._on_unrecorded, self._on_end = on_audit, on_unrecorded, on_end
        self._listening = asyncio.ensure_future(self._listen())

    @property
    def connected(self) -> bool:
        """True while a worker is at the other end."""
        return not self._link.closed

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask the worker.

        Raises:
            LinkClosedError: it is gone; whether it did what it was asked is not known.
            HttpError: the request does not fit into a message, or the worker refuses.
        """
        try:
            message = await self._link.request(op, **fields)
        except LinkClosedError:
            raise
        except LinkError as error:
            raise HttpError(400, f"the policy does not fit: {error}") from error
        except RequestError as error:
            raise HttpError(500, f"the gateway refused: {error.message}") from error
        message.close()
        return message.body

    def tell(self, op: str, **fields: Any) -> None:
        """Send a notice, which the worker receives before any later request; lost if it is gone."""
        with contextlib.suppress(LinkClosedError):
            self._link.post({"op": op, **fields})

    async def close(self) -> None:
        """End the link."""
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        self._link.close()

    async def _listen(self) -> None:
        try:
            while True:
                message = await self._link.recv()
                if message.body.get("op") == "audit":
                    self._on_audit(str(message.body.get("run", "")))
                elif message.body.get("op") == "unrecorded":
                    self._on_unrecorded(_counts(message.body.get("cells")))
                message.close()
        except LinkError as fault:
            self._link.close()
            _log.info("a gateway worker is gone: %s", fault)
        self._on_end()


def _counts(said: object) -> Mapping[str, int]:
    """What a worker says of its cells, as far as it is numbers above 0."""
    found = said if isinstance(said, dict) else {}
    return {str(cell): count for cell, count in found.items() if type(count) is int and count > 0}
