"""Instances of sandboxes at Incus, by the sandbox's id: found, ended and removed; never one that is not of irons."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Mapping
from typing import Any

from irons_local.engines.incus import instance
from irons_local.engines.incus.client import Incus, IncusError
from irons_local.errors import EngineError

_ASK_AGAIN = 0.1
_IDLE_WITHIN = 120.0
"""Seconds that an operation of Incus's own may keep an instance from being removed: a create unpacks an image."""
_ABSENT = 404
_RUNS = frozenset({"Running", "Frozen", "Freezing", "Thawed"})

Found = Mapping[str, Any]


def runs(found: Found | None) -> bool:
    """Whether an instance runs."""
    return found is not None and found.get("status") in _RUNS


def location(found: Found | None) -> str:
    """The member of the cluster that an instance is on; "" where Incus is not a cluster."""
    where = str((found or {}).get("location") or "")
    return "" if where == "none" else where


class Instances:
    """The instances of one Incus; each method raises `EngineError` where Incus does not answer, or the name is of another's.

    Args:
        incus: the Incus.
    """

    def __init__(self, incus: Incus) -> None:
        self._incus = incus

    async def find(self, sandbox: str) -> Found | None:
        """A sandbox's instance; None where there is none.

        Raises:
            EngineError: Incus does not answer, or what has its name is not of irons.
        """
        found: Found | None = await self._incus.find(f"instances/{instance.name_of(sandbox)}")
        if found is not None:
            instance.check_ours(found, sandbox)
        return found

    async def get(self, sandbox: str) -> Found:
        """A sandbox's instance.

        Raises:
            EngineError: there is none, too.
        """
        found = await self.find(sandbox)
        if found is None:
            raise EngineError("state", f"the instance of {sandbox} is gone from Incus", "destroy it")
        return found

    async def end(self, sandbox: str, grace: float) -> None:
        """Stop it if it runs: ask it, and end it after `grace` seconds."""
        if not runs(await self.find(sandbox)):
            return
        where = f"instances/{instance.name_of(sandbox)}/state"
        if grace > 0:
            with contextlib.suppress(IncusError):
                asked = {"action": "stop", "timeout": math.ceil(grace), "force": False}
                await self._incus.change("PUT", where, asked)
                return
        try:
            await self._incus.change("PUT", where, {"action": "stop", "timeout": -1, "force": True})
        except IncusError:
            # It may have ended by itself before it was asked.
            if runs(await self.find(sandbox)):
                raise

    async def delete(self, sandbox: str) -> None:
        """Remove the instance of a sandbox, if there is one, once what Incus still does with it is done."""
        deadline = asyncio.get_running_loop().time() + _IDLE_WITHIN
        while True:
            try:
                return await self._delete_now(sandbox)
            except IncusError as error:
                if not error.busy or asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(_ASK_AGAIN)

    async def _delete_now(self, sandbox: str) -> None:
        await self.end(sandbox, 0.0)
        try:
            if await self.find(sandbox) is not None:
                await self._incus.change("DELETE", f"instances/{instance.name_of(sandbox)}")
        except IncusError as error:
            if error.status != _ABSENT and await self.find(sandbox) is not None:
                raise
