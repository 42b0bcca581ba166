"""What is below `irons local` while the settings lead to another server."""

from __future__ import annotations

import io

import pytest

from irons.context import Context
from irons.errors import NotFound
from irons.host import PluginHost
from irons.settings.settings import load
from irons.terminal.streams import Streams
from irons_plugins.local.backend import on_this_machine


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("local", "irons list shows what there is"),
        (
            "https://irons.example.test",
            "irons local works on this machine alone, and irons list shows those of https://irons.example.test",
        ),
    ],
)
def test_a_sandbox_of_another_server_is_not_found_here(
    irons_env: dict[str, str], url: str, hint: str
) -> None:
    """The error does not send to a list that shows the sandbox."""
    streams = Streams(io.StringIO(), io.StringIO(), io.StringIO(), irons_env)
    ctx = Context(load({"api_url": url}, irons_env), PluginHost(irons_env, built_in=()), streams)
    with pytest.raises(NotFound) as caught, on_this_machine(ctx):
        raise NotFound("no sandbox is named 'box'", hint="irons list shows what there is")
    assert caught.value.hint == hint
