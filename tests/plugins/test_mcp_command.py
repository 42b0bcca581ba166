"""The command `irons mcp`: what is refused at its start, its two ways to speak, and its end; and `irons schema`.

Importing the package takes longer than most modules of tests: each test that needs it does.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from irons.testing import FakeApi, Runner

from .agents import call, run
from .conftest import Irons, until

KEY = "0123456789abcdef-key"


def test_a_schema_is_printed(run_irons: Runner) -> None:
    """`irons schema` prints what a command takes, and refuses words that name none."""
    found = json.loads(run_irons("schema", "egress", "check").ok().out)
    assert found["required"] == ["host"]
    assert found["properties"]["live"] == {
        "description": "Also resolve and connect, as the gateway would.",
        "type": "boolean",
        "default": False,
    }
    assert json.loads(run_irons("schema", "exec").ok().out)["required"] == []
    assert run_irons("schema", "egress").code == 3
    assert run_irons("schema", "nonsense", "words").code == 3


def test_without_the_extra_one_sentence_names_it(run_irons: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is not installed, the error says so and how to get it."""
    monkeypatch.setattr("irons_plugins.mcp.handlers.find_spec", lambda _: None)
    done = run_irons("mcp")
    assert done.code == 1
    assert done.err == (
        "irons: irons mcp needs the package mcp, which is not installed\n"
        f"  {sys.executable} -m pip install 'irons[mcp]'\n"
    )


@pytest.mark.parametrize(
    ("words", "key", "said"),
    [
        (("--http", "8765"), None, "HTTP clients need a key"),
        (("--http", "8765"), "short", "that of IRONS_MCP_KEY is not one"),
        (("--http", "8765"), "with a space in the key", "that of IRONS_MCP_KEY is not one"),
        (("--http", "a:b:1"), KEY, "PORT or HOST:PORT"),
        (("--http", "70000"), KEY, "PORT or HOST:PORT"),
        (("--key-file", "x"), KEY, "--key-file is for --http"),
        (("--http", "8765", "--key-file", "/nowhere"), None, "can't be read"),
        (("--allow", "a b"), None, "can't be a rule"),
    ],
)
def test_what_is_refused_at_the_start(
    run_irons: Runner, own_api: FakeApi, words: tuple[str, ...], key: str | None, said: str
) -> None:
    """An address, a key or a pattern that is not one is a usage error."""
    done = run_irons("mcp", *words, env={} if key is None else {"IRONS_MCP_KEY": key})
    assert done.code == 2
    assert said in done.err


def test_a_key_file_is_its_owners_alone(run_irons: Runner, own_api: FakeApi, tmp_path: Path) -> None:
    """One that others can read is refused; a sandbox that is not there ends the start."""
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o644)
    done = run_irons("mcp", "--http", "0", "--key-file", str(tmp_path / "key"))
    assert (done.code, "can be read by others" in done.err) == (2, True)
    assert run_irons("mcp", "--sandbox", "nowhere").code == 3


def test_over_stdio_and_gone_with_its_client(
    agent_env: dict[str, str], into: Irons, fake_api: FakeApi
) -> None:
    """The command serves its client, and destroys what the agent made when the client closes stdin, or by SIGTERM."""
    from mcp.client.client import Client
    from mcp.client.stdio import StdioServerParameters, stdio_client

    words = into.argv("mcp", "--sandbox", "one")

    async def main() -> None:
        server = StdioServerParameters(command=words[0], args=words[1:], env=agent_env)
        async with Client(stdio_client(server, errlog=quiet)) as client:
            assert client.instructions is not None
            await call(client, "create", name="x")
            ran = await call(client, "exec", name="one", words=["echo", "hi"])
            assert ran["untrusted"]["stdout"] == "hi\n"
            assert "x" in fake_api.sandboxes

    with Path(os.devnull).open("w") as quiet:
        run(main)
    until(lambda: "x" not in fake_api.sandboxes)
    process = subprocess.Popen(
        words, env=agent_env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    into.started.append(process)
    assert process.stdin is not None
    assert process.stdout is not None
    for message in (
        {
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            },
        },
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": "create", "arguments": {"name": "y"}}},
    ):
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        process.stdin.flush()
        if "id" in message:
            assert json.loads(process.stdout.readline())["id"] == message["id"]
    assert "y" in fake_api.sandboxes
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == -15
    assert "y" not in fake_api.sandboxes


def test_over_http_with_the_key_alone(
    agent_env: dict[str, str], into: Irons, fake_api: FakeApi, tmp_path: Path
) -> None:
    """Clients with the key are served, those without are not, pages of other hosts neither; SIGTERM ends it, and what was made."""
    import httpx2
    from mcp.client.client import Client
    from mcp.client.streamable_http import streamable_http_client

    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / "key").chmod(0o600)
    into.env = {**into.env, "COLUMNS": "200"}
    process = into.start("mcp", "--http", "0", "--key-file", str(tmp_path / "key"))
    assert process.stderr is not None
    said = process.stderr.readline().decode()
    found = re.search(r"http://127\.0\.0\.1:[0-9]+/mcp", said)
    assert found is not None, said
    url = found[0]
    assert KEY.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()

    async def main() -> None:
        good = {"Authorization": f"Bearer {KEY}"}
        async with (
            httpx2.AsyncClient(headers=good) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            await call(client, "create", name="x")
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        async with httpx2.AsyncClient() as http:
            for headers in ({}, {"Authorization": KEY}, {"Authorization": f"Bearer {KEY}x"}):
                answer = await http.post(url, json=body, headers=headers)
                assert (answer.status_code, answer.content) == (401, b"")
            for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
                assert (await http.post(url, json=body, headers={**good, **headers})).status_code in (
                    403,
                    421,
                )

    run(main)
    assert "x" in fake_api.sandboxes
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert "x" not in fake_api.sandboxes


def test_a_second_key_is_no_key() -> None:
    """A request with two such fields is refused, no matter which is right."""
    from irons_plugins.mcp.serving import with_key

    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    right = (b"authorization", f"Bearer {KEY}".encode())
    asyncio.run(with_key(app, KEY)({"type": "http", "headers": [right, right]}, receive, send))
    assert sent[0]["status"] == 401
