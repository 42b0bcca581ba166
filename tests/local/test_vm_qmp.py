"""QEMU's monitor, QMP: what a line of it is, and how its commands are answered."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from irons_local.engines.vm import qmp


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"QMP": {"version": {}, "capabilities": []}}', None),
        (b'{"return": {"running": true}}', qmp.QmpAnswer({"running": True})),
        (
            b'{"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}',
            qmp.QmpEvent("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"}),
        ),
        (b'{"event": "STOP"}', qmp.QmpEvent("STOP", {})),
        (b'{"event": "STOP", "data": [1]}', qmp.QmpEvent("STOP", {})),
    ],
)
def test_a_line_of_qmp_is_a_greeting_an_answer_or_an_event(line: bytes, said: object) -> None:
    """Each of the protocol's messages becomes what it is."""
    assert qmp.parse(line) == said


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"not json",
        b"[1]",
        b"{}",
        b'{"event": 1}',
        b"[" * 100_000,
        b'{"error": "no object"}',
        b'{"error": {"class": "GenericError", "desc": "\\u001b[31mno"}}',
    ],
)
def test_what_is_not_qmp_is_an_error_of_one_line(line: bytes) -> None:
    """QEMU's word is the sandbox's: nothing of it raises anything else, or reaches a terminal raw."""
    with pytest.raises(qmp.QmpError) as raised:
        qmp.parse(line)
    assert str(raised.value).isprintable()


def test_a_command_is_one_line() -> None:
    """Arguments have QEMU's spelling."""
    line = qmp.command("ringbuf-read", device="console", size=1, some_name=2)
    assert line.endswith(b"\n")
    assert json.loads(line) == {
        "execute": "ringbuf-read",
        "arguments": {"device": "console", "size": 1, "some-name": 2},
    }


def test_a_qemu_that_sends_events_without_end_is_given_up(tmp_path: Path) -> None:
    """An answer is waited for among a bounded number of events."""

    async def main() -> None:
        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'{"QMP": {}}\n' + b'{"event": "STOP"}\n' * 200)
            await reader.read()
            writer.close()

        listening = qmp.listening(tmp_path / "qmp")
        async with await asyncio.start_unix_server(flood, sock=listening):
            with pytest.raises(qmp.QmpError, match="events"):
                async with qmp.connected(tmp_path / "qmp"):
                    pass

    asyncio.run(main())


def test_commands_are_answered_over_a_path_of_any_length(tmp_path: Path) -> None:
    """The path may be longer than a socket's name can be."""

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'{"QMP": {}}\n')
            while line := await reader.readline():
                asked = json.loads(line)["execute"]
                writer.write(json.dumps({"return": asked}).encode() + b"\n")
            writer.close()

        deep = tmp_path.joinpath(*["directory-with-a-long-name"] * 5)
        deep.mkdir(parents=True)
        serving = await asyncio.start_unix_server(serve, sock=qmp.listening(deep / "qmp"))
        async with serving, qmp.connected(deep / "qmp") as monitor:
            assert await monitor.execute("query-status") == "query-status"

    asyncio.run(main())


def test_a_qemu_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """A socket that no one listens on any more says so in one line."""

    async def main() -> None:
        listening = qmp.listening(tmp_path / "qmp")
        assert listening.family == socket.AF_UNIX
        listening.close()
        with pytest.raises(qmp.QmpError, match="cannot be asked"):
            async with qmp.connected(tmp_path / "qmp"):
                pass

    asyncio.run(main())
