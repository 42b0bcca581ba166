"""Tells the control plane that the audit log has grown: the first time at once, then at most every 20 ms."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from irons_plugins.local.asynclink import AsyncLink
from irons_plugins.local.link import LinkError

PAUSE = 0.02


class News:
    """Sends `audit` notices to whoever listens.

    Args:
        loop: the running loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._links: set[AsyncLink] = set()
        self._runs: set[str] = set()
        self._pausing = False
        self._sending: set[asyncio.Task[None]] = set()

    def tell(self, link: AsyncLink) -> None:
        """Send notices to this link too."""
        self._links.add(link)

    def forget(self, link: AsyncLink) -> None:
        """Send it no more."""
        self._links.discard(link)

    def wrote(self, run: str) -> None:
        """A record was written to a run."""
        self._runs.add(run)
        if not self._pausing:
            self._pausing = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        runs, self._runs = self._runs, set()
        if not runs:
            self._pausing = False
            return
        for link in self._links:
            task = self._loop.create_task(self._notify(link, sorted(runs)))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        self._loop.call_later(PAUSE, self._send)

    @staticmethod
    async def _notify(link: AsyncLink, runs: list[str]) -> None:
        # A control plane that is gone reads the files when it is back.
        with suppress(LinkError):
            for run in runs:
                await link.send({"op": "audit", "run": run})
