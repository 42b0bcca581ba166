"""What the tests of `irons mcp` do with the package's own client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp.client.client import Client


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Run a test's own task."""
    asyncio.run(asyncio.wait_for(main(), 100))


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that succeeds, and return its structured answer."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result
    found: dict[str, Any] = result.structured_content
    return found


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """Call a tool that fails, and return what it says."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result
    return str(result.structured_content["message"])
