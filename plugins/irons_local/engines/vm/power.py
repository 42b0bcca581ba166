"""How a guest ends: its power button, and the end of its QEMU."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from irons_local.engines.vm import console, launch, qmp
from irons_local.linux.processes import Process, end_tree, ends

_PRESS_AGAIN = 3.0
_log = logging.getLogger(__name__)


async def off(home: Path, process: Process, grace: float) -> None:
    """Ask the guest to shut down, then QEMU to end.

    Args:
        home: the sandbox's directory.
        process: QEMU.
        grace: seconds that the guest has; 0 does not ask it.
    """
    if grace > 0:
        try:
            async with asyncio.timeout(grace):
                # A guest that still boots does not see the first ones.
                while not await _pressed(home, process):
                    pass
        except TimeoutError:
            _log.info("%s did not shut down in its time", home.name)
        except qmp.QmpError as error:
            _log.warning("%s does not shut down: %s", home.name, error)
        await console.keep(home)
    await end_tree(process, 1.0)


async def _pressed(home: Path, process: Process) -> bool:
    """Press the guest's power button; gives whether it ended within a moment."""
    async with qmp.connected(home / launch.COMMANDS) as monitor:
        await monitor.execute("system_powerdown")
    return await ends(process, _PRESS_AGAIN)
