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
from irons_local.ipc.fields import BadMessageError
from irons_local.ipc.framing import LinkClosedError, LinkError, RequestError
from irons_local.ipc.messages import (
    WORKER_TO_CONTROL,
    FromControl,
    FromWorker,
    Grown,
    LostRecords,
    OpenQuestions,
    body_of,
    call_of,
    read,
)

_log = logging.getLogger(__name__)


class GatewayClient:
    """One link to one worker; a worker that was started again has another.

    Args:
        sock: this end of it; made while the event loop runs.
        on_audit: called with the run whose log has grown.
        on_unrecorded: called with the number of refusals of each cell that the worker could not record so far.
        on_questions: called with what is asked of a cell.
        on_end: called when the link has ended, but not by `close`.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_audit: Callable[[str], None],
        on_unrecorded: Callable[[Mapping[str, int]], None],
        on_questions: Callable[[OpenQuestions], None],
        on_end: Callable[[], None],
    ) -> None:
        self._link = AsyncLink(sock)
        self._on_audit, self._on_unrecorded, self._on_end = on_audit, on_unrecorded, on_end
        self._on_questions = on_questions
        self._listening = asyncio.ensure_future(self._listen())

    @property
    def connected(self) -> bool:
        """True while a worker is at the other end."""
        return not self._link.closed

    async def ask(self, asked: FromControl) -> dict[str, Any]:
        """Ask the worker.

        Raises:
            LinkClosedError: it is gone; whether it did what it was asked is not known.
            HttpError: the request does not fit into a message, or the worker refuses.
        """
        try:
            op, fields = call_of(asked)
            message = await self._link.request(op, **fields)
        except LinkClosedError:
            raise
        except LinkError as error:
            raise HttpError(400, f"the policy does not fit: {error}") from error
        except RequestError as error:
            raise HttpError(500, f"the gateway refused: {error.message}") from error
        message.close()
        return message.body

    def tell(self, notice: FromControl) -> None:
        """Send a notice, which the worker receives before any later request; lost if it is gone."""
        with contextlib.suppress(LinkClosedError):
            self._link.post(body_of(notice))

    async def close(self) -> None:
        """End the link."""
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        self._link.close()

    async def _listen(self) -> None:
        try:
            while True:
                message = await self._link.recv()
                message.close()
                # A worker is not trusted, and may be of a later version.
                with contextlib.suppress(BadMessageError):
                    self._told(read(WORKER_TO_CONTROL, message.body))
        except LinkError as fault:
            self._link.close()
            _log.info("a gateway worker is gone: %s", fault)
        self._on_end()

    def _told(self, notice: FromWorker) -> None:
        match notice:
            case Grown(run):
                self._on_audit(run)
            case LostRecords(cells):
                self._on_unrecorded(cells)
            case OpenQuestions():
                self._on_questions(notice)
