"""`irons mcp` with a real sandbox."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests.e2e.lab import Person, eventually


@pytest.mark.parametrize("person", ["root"], indirect=True)
def test_an_agent_at_work(person: Person) -> None:
    """It makes a sandbox, runs a program that is refused one host, reads why, and cannot open it, nor by a copy; then all of it is gone."""
    words = [
        *person.lab.enter(user=person.user),
        sys.executable,
        "-m",
        "irons",
        "mcp",
        "--allow",
        "allowed.test",
    ]
    server = StdioServerParameters(command=words[0], args=words[1:], env=person.env)

    async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await client.call_tool(tool, arguments)
        assert not result.is_error, result
        found: dict[str, Any] = result.structured_content
        return found

    async def main(quiet: Any) -> None:
        async with Client(stdio_client(server, errlog=quiet)) as client:
            await call(client, "create", name="agent")
            # The refusal is read: it is recorded by then.
            ask = "exec 3<>/dev/tcp/denied.test/80; printf 'GET / HTTP/1.0\\r\\nHost: denied.test\\r\\n\\r\\n' >&3; cat <&3"
            script = f"({ask}) >/dev/null 2>&1; cat /etc/hostname; exit 4"
            ran = await call(client, "exec", name="agent", words=["bash", "-c", script], timeout="1m")
            assert (ran["exit"], ran["untrusted"]["stdout"]) == (4, "agent\n")
            assert [each["host"] for each in ran["untrusted"]["refused"]] == ["denied.test"]
            why = await call(client, "audit_why", name="agent")
            assert "irons egress allow denied.test" in why["untrusted"]["refusal"]["fix"]
            denied = await call(client, "denied_since", name="agent", since="1h")
            assert [each["host"] for each in denied["untrusted"]["denied"]] == ["denied.test"]
            for host, allowed in (("allowed.test", True), ("denied.test", False)):
                assert (await call(client, "egress_check", name="agent", host=host))["allowed"] is allowed
            opened = await client.call_tool("egress_allow", {"name": "agent", "domains": ["denied.test"]})
            assert opened.is_error
            await call(client, "write", name="agent", path="/tmp/x", text="hello")
            await call(client, "fork", name="agent", new="copy")
            for name in ("agent", "copy"):
                kept = await call(client, "read", name=name, path="/tmp/x")
                assert kept["untrusted"]["content"] == "hello"
            assert not (await call(client, "egress_check", name="copy", host="denied.test"))["allowed"]

    with Path(os.devnull).open("w") as quiet:
        asyncio.run(asyncio.wait_for(main(quiet), 240))
    eventually(
        lambda: all(person.run("status", name).returncode == 3 for name in ("agent", "copy")),
        what="the agent's sandboxes to go",
    )
