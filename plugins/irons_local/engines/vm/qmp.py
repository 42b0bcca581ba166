"""QMP, the protocol that QEMU is asked by (docs/interop/qmp-spec.txt): without I/O, and a client bounded in bytes and time.

What QEMU says is the sandbox's word: whoever broke out of the guest speaks here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ANSWERED_WITHIN = 10.0
"""Seconds after which a QEMU that answers nothing is given up, unless more are given."""

_LINE_AT_MOST = 2 << 20
_PENDING_AT_MOST = 64


class QmpError(Exception):
    """QEMU refused a command, or what it says is not QMP; the message is one line."""


class QmpEvent(NamedTuple):
    """Something that happened: its name, such as `SHUTDOWN`, and what is known of it."""

    name: str
    data: Mapping[str, Any]


class QmpAnswer(NamedTuple):
    """What a command returned."""

    value: Any


def command(name: str, **arguments: object) -> bytes:
    """The line that asks for a command."""
    body: dict[str, object] = {"execute": name}
    if arguments:
        body["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
    return json.dumps(body).encode() + b"\n"


def parse(line: bytes) -> QmpEvent | QmpAnswer | None:
    """What a line says; None of the greeting.

    Raises:
        QmpError: a command was refused, or the line is not QMP.
    """
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise QmpError("QEMU sent something that is not JSON") from error
    if not isinstance(body, dict):
        raise QmpError("QEMU sent something that is not an object")
    if "QMP" in body:
        return None
    if "return" in body:
        return QmpAnswer(body["return"])
    if isinstance(body.get("event"), str):
        data = body.get("data")
        return QmpEvent(body["event"][:64], data if isinstance(data, dict) else {})
    refusal = body.get("error")
    if isinstance(refusal, dict):
        raise QmpError(_printable(refusal.get("desc")))
    raise QmpError("QEMU sent something that is not QMP")


def _printable(text: object) -> str:
    shown = "".join(each if each.isprintable() else "?" for each in str(text))
    return shown[:200]


class Monitor:
    """A connection to QEMU, ready for commands."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, within: float) -> None:
        self._reader = reader
        self._writer = writer
        self._within = within

    async def execute(self, name: str, *, handed: int | None = None, **arguments: object) -> Any:
        """Run a command; gives what it returns.

        Args:
            name: the command.
            handed: a descriptor that QEMU gets with it.
            arguments: the command's, with `_` for `-`.

        Raises:
            QmpError: QEMU refused, ended, or does not answer.
        """
        try:
            async with asyncio.timeout(self._within):
                self._send(command(name, **arguments), handed)
                await self._writer.drain()
                # Events that no one asked for may come first, and not without end.
                for _ in range(_PENDING_AT_MOST):
                    said = parse(await self._line())
                    if isinstance(said, QmpAnswer):
                        return said.value
        except TimeoutError as error:
            raise QmpError(f"QEMU did not answer within {self._within:.0f} s") from error
        except OSError as error:
            raise QmpError(f"QEMU cannot be asked: {error.strerror}") from error
        raise QmpError("QEMU sent events instead of an answer")

    def _send(self, line: bytes, handed: int | None) -> None:
        if handed is None:
            self._writer.write(line)
            return
        # One short message, after all that was written before it is gone.
        with self._writer.get_extra_info("socket").dup() as own:
            if socket.send_fds(own, [line], [handed]) < len(line):
                raise QmpError("QEMU reads no commands")

    async def event(self) -> QmpEvent | None:
        """The next event, however long it takes; None when QEMU has ended or says something that is not QMP."""
        while True:
            try:
                said = parse(await self._line())
            except (QmpError, OSError):
                return None
            if isinstance(said, QmpEvent):
                return said

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readuntil(b"\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise QmpError("QEMU ended the conversation") from error
        return line


@contextlib.asynccontextmanager
async def connected(path: Path, within: float | None = None) -> AsyncIterator[Monitor]:
    """A connection to the socket that a QEMU listens on.

    Args:
        path: the socket's.
        within: seconds in which each command must be answered; None for `ANSWERED_WITHIN`.

    Raises:
        QmpError: no QEMU answers there.
    """
    patience = ANSWERED_WITHIN if within is None else within
    # By the directory's descriptor: the path of a unix socket has 107 bytes at most.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_unix_connection(
                f"/proc/self/fd/{directory}/{path.name}", limit=_LINE_AT_MOST
            )
    except TimeoutError as error:
        raise QmpError(f"QEMU did not answer within {patience:.0f} s") from error
    except OSError as error:
        raise QmpError(f"QEMU cannot be asked: {error.strerror}") from error
    finally:
        os.close(directory)
    try:
        monitor = Monitor(reader, writer, patience)
        await monitor.execute("qmp_capabilities")
        yield monitor
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def listening(path: Path) -> socket.socket:
    """A socket that a QEMU is given to listen on; what was there is replaced.

    Raises:
        OSError: it cannot be made.
    """
    path.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(f"/proc/self/fd/{directory}/{path.name}")
        path.chmod(0o600)
        made.listen(4)
    except OSError:
        made.close()
        raise
    finally:
        os.close(directory)
    return made
