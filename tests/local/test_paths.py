"""Where the local backend keeps its things."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from irons.settings.settings import load
from irons_local.paths import Paths, PathsError


def test_xdg_variables_name_the_places(tmp_path: Path) -> None:
    """State and runtime follow the XDG variables."""
    paths = Paths.of({"XDG_STATE_HOME": f"{tmp_path}/s", "XDG_RUNTIME_DIR": str(tmp_path)}, os.geteuid())
    assert paths.local == tmp_path / "s/irons/local"
    assert paths.keeper_socket == tmp_path / "irons/keeper.sock"


def test_defaults_without_xdg(tmp_path: Path) -> None:
    """Without XDG variables an ordinary user's runtime directory is in their state, root's is in /run."""
    ordinary = Paths.of({"HOME": "/home/ann"}, 1000)
    assert ordinary.state == Path("/home/ann/.local/state/irons")
    assert ordinary.runtime == ordinary.state / "run"
    assert Paths.of({"HOME": "/root"}, 0).runtime == Path("/run/irons")


def test_runtime_directory_of_another_user_is_not_used(tmp_path: Path) -> None:
    """XDG_RUNTIME_DIR carried over by sudo belongs to another and is ignored."""
    paths = Paths.of({"HOME": "/home/ann", "XDG_RUNTIME_DIR": str(tmp_path)}, os.geteuid() + 1)
    assert paths.runtime == Path("/home/ann/.local/state/irons/run")


def test_no_home_is_a_clear_error() -> None:
    """Without HOME and XDG_STATE_HOME there is no place, and the error says what to set."""
    with pytest.raises(PathsError, match="set HOME"):
        Paths.of({"HOME": "relative"}, 1000)


@pytest.mark.parametrize(
    "env", [{"HOME": "/home/ann"}, {"HOME": "/home/ann", "XDG_STATE_HOME": "/s"}, {"XDG_STATE_HOME": "/s"}]
)
def test_commands_and_daemon_keep_their_state_in_one_place(env: dict[str, str]) -> None:
    """What a command remembers of a sandbox is below the same directory as the sandbox."""
    assert load(env=env).state_dir == Paths.of(env, 1000).state


def _paths(tmp_path: Path) -> Paths:
    return Paths.of({"XDG_STATE_HOME": f"{tmp_path}/s", "XDG_RUNTIME_DIR": str(tmp_path)}, os.geteuid())


def test_create_makes_owner_only_directories(tmp_path: Path) -> None:
    """Every directory is made 0700, and one that is wider is narrowed."""
    paths = _paths(tmp_path)
    paths.runtime.mkdir(mode=0o755)
    paths.create().create()
    for path in (paths.state, paths.local, paths.runtime, paths.gateway, paths.logs, paths.sandboxes):
        assert path.stat().st_mode & 0o7777 == 0o700


def test_create_refuses_a_link(tmp_path: Path) -> None:
    """A link in the place of a directory is refused, not followed."""
    paths = _paths(tmp_path)
    paths.runtime.symlink_to(tmp_path)
    with pytest.raises(PathsError, match="not a directory"):
        paths.create()


@pytest.mark.needs("root")
def test_create_refuses_a_foreign_directory(tmp_path: Path) -> None:
    """A directory of another user is refused with that reason."""
    paths = _paths(tmp_path)
    paths.runtime.mkdir()
    os.chown(paths.runtime, 12345, 12345)
    with pytest.raises(PathsError, match="belongs to user 12345"):
        paths.create()
