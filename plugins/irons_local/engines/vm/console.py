"""What a guest printed on its console: asked of its QEMU, and the end of it kept in a file."""

from __future__ import annotations

import base64
import binascii
import contextlib
from pathlib import Path

from irons_local.engines.vm import launch, qemu, qmp

_LOG = "console.log"
_SHOWN = 64 << 10


async def keep(home: Path) -> None:
    """Add what was printed since last time to the file, of which the last part is kept; nothing where QEMU does not answer."""
    try:
        async with qmp.connected(home / launch.COMMANDS) as monitor:
            said = await monitor.execute(
                "ringbuf-read", device=qemu.CONSOLE, size=qemu.CONSOLE_KEPT, format="base64"
            )
        fresh = base64.b64decode(said if isinstance(said, str) else "", validate=True)
    except (qmp.QmpError, binascii.Error):
        return
    path = home / _LOG
    with contextlib.suppress(OSError):
        before = path.read_bytes() if path.exists() else b""
        path.touch(mode=0o600)
        path.write_bytes((before + fresh)[-qemu.CONSOLE_KEPT :])


def shown(home: Path) -> bytes:
    """The end of what was kept."""
    try:
        return (home / _LOG).read_bytes()[-_SHOWN:]
    except FileNotFoundError:
        return b""
