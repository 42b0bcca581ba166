"""`irons local uninstall` means this machine, and never loses track of a sandbox that still runs."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from irons.context import Context
from irons.errors import LocalError, UsageError
from irons.host import PluginHost
from irons.settings.settings import load
from irons.terminal.streams import Streams
from irons.testing import FakeApi
from irons_local.engines.namespace.engine import NamespaceEngine
from irons_local.errors import EngineError
from irons_local.linux.idmap import IdMapError
from irons_local.paths import Paths
from irons_plugins.local import uninstall as removal
from irons_plugins.local.backend import on_this_machine
from irons_plugins.local.handlers import uninstall


@pytest.fixture
def ctx(irons_env: dict[str, str], fake_api: FakeApi) -> Context:
    """A call whose settings name another server."""
    env = {**irons_env, "IRONS_API_URL": fake_api.url, "IRONS_API_KEY": "secret"}
    streams = Streams(io.StringIO(), io.StringIO(), io.StringIO(), env)
    return Context(load(env=env), PluginHost(env=env), streams)


def test_the_state_stays_while_a_sandbox_does(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a sandbox can't be destroyed, its state is not purged from under it, and the error names it."""

    async def stuck(_engine: NamespaceEngine, sandbox: str) -> None:
        raise EngineError("failed", f"a process is still in {sandbox}")

    monkeypatch.setattr(NamespaceEngine, "destroy", stuck)
    paths = Paths.of({"XDG_STATE_HOME": str(tmp_path), "XDG_RUNTIME_DIR": ""}, os.geteuid())
    home = paths.sandbox("sb_0000000000000001")
    home.mkdir(parents=True)
    (home / "machine.json").write_text(
        '{"id": "", "name": "one", "image": "", "image_name": "", "host_key": "", "limits": {}}'
    )
    with pytest.raises(LocalError, match="sandbox one: a process is still in sb_0000000000000001"):
        removal.remove(ctx, paths, (), purge=True)
    ctx.close()
    assert home.is_dir()


@pytest.mark.parametrize("name", ["sb_0000000000000001", ".new-sb_0000000000000001-00ff"])
def test_a_purge_needs_no_incus_that_is_gone(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Where nothing listens at Incus's socket a sandbox, whole or half made, goes, and the instance that may be left is named."""
    config = tmp_path / "config.toml"
    config.write_text(f'[local]\nincus_socket = "{tmp_path}/nothing.socket"\n')
    monkeypatch.setenv("IRONS_CONFIG", str(config))
    # No veth was made, and to look for one takes root.
    monkeypatch.setattr("irons_local.engines.incus.engine.remove_lost", lambda _name: None)
    paths = Paths.of({"XDG_STATE_HOME": str(tmp_path), "XDG_RUNTIME_DIR": ""}, os.geteuid())
    home = paths.sandboxes / name
    home.mkdir(parents=True)
    (home / "instance").touch()
    removal.remove(ctx, paths, (), purge=True)
    ctx.close()
    assert not paths.state.exists()
    printed = ctx.streams.stderr
    assert isinstance(printed, io.StringIO)
    assert "incus --project irons delete --force irons-0000000000000001" in printed.getvalue()


def test_files_of_ids_that_are_gone_are_left_to_root(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the user has no subordinate ids any more a purge ends, and names the command that root can run."""

    async def stuck(_engine: NamespaceEngine, sandbox: str) -> None:
        raise EngineError("machine", f"no ids for {sandbox}")

    def gone() -> None:
        raise IdMapError("/etc/subuid gives me no range")

    monkeypatch.setattr(NamespaceEngine, "destroy", stuck)
    monkeypatch.setattr(removal, "outer_map", gone)
    paths = Paths.of({"XDG_STATE_HOME": str(tmp_path), "XDG_RUNTIME_DIR": ""}, os.geteuid())
    (paths.sandbox("sb_0000000000000001")).mkdir(parents=True)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(LocalError) as caught:
        removal.remove(ctx, paths, (), purge=True)
    ctx.close()
    assert caught.value.hint == f"only root can remove what is left: sudo rm -rf {paths.state}"


def test_what_would_go_is_listed_a_line_each(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it asks, each thing has a line of its own; the hint is the same command."""
    found = (removal.Item("sandbox", "one"), removal.Item("state", "/home/me/state"))
    monkeypatch.setattr(removal, "find", lambda *_, **__: found)
    with pytest.raises(UsageError) as caught:
        uninstall(ctx, purge=True, dry_run=False, yes=False)
    said = ctx.streams.stderr
    assert isinstance(said, io.StringIO)
    assert said.getvalue() == "sandbox: one\nstate: /home/me/state\n"
    assert caught.value.hint.startswith("irons local uninstall --purge --yes, or")


def test_below_local_it_is_always_this_machine(ctx: Context) -> None:
    """Whichever server the settings name, it is not asked, and its key is not shown to this machine's backend."""
    with on_this_machine(ctx) as here:
        assert (here.settings.api_url, here.settings.api_key) == ("local", None)
    assert ctx.settings.api_key == "secret"
