"""Plugins of a single file: loaded from the person's own directory, and only where no other user can have written them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.test_imports import expected

from irons.cli.completing import Sources, complete
from irons.errors import PluginError
from irons.host import PluginHost
from irons.plugin.finding import are_there, fingerprint
from irons.plugin.plugin_file import LARGEST, PREFIX, read
from irons.testing import FakeApi, Runner
from irons_local.control import server

HELLO = """
from irons import Arg, Command, hookimpl


@hookimpl
def irons_commands():
    return [Command(("hello",), "Say hello.", f"{__name__}:hello", (Arg("name", kind="sandbox"),))]


def hello(ctx, *, name):
    return f"hello {name}, {ctx.api.status(name).status}"
"""


@pytest.fixture
def plugins(irons_env: dict[str, str]) -> Iterator[Path]:
    """The directory of the person's plugins, and an environment in which they are loaded."""
    del irons_env["IRONS_PLUGINS"]
    place = Path(irons_env["XDG_CONFIG_HOME"]) / "irons" / "plugins"
    place.mkdir(parents=True)
    before = set(sys.modules)
    yield place
    for name in set(sys.modules) - before:
        if name.startswith(PREFIX):
            del sys.modules[name]


def write(place: Path, name: str = "hello.py", text: str = HELLO) -> Path:
    """Write a plugin."""
    file = place / name
    file.write_text(text)
    file.chmod(0o600)
    return file


def loaded(env: dict[str, str], warnings: list[str] | None = None) -> dict[str, str]:
    """The plugins that a host loads, with their status."""
    host = PluginHost(env, (warnings if warnings is not None else []).append, built_in=())
    return {info.name: info.status for info in host.plugins}


def test_a_file_is_a_plugin(plugins: Path, run_irons: Runner, fake_api: FakeApi) -> None:
    """Its command runs, completes and has help, and `irons plugins` says where the file is."""
    fake_api.add("one")
    file = write(plugins)
    assert run_irons("hello", "one").ok().out == "hello one, ready\n"
    assert "Say hello." in run_irons("hello", "--help").ok().out
    sources = Sources(sandboxes=lambda: {"one": "ready"})
    assert [found.word for found in complete(run_irons.plugins().tree, ["hello", ""], sources)] == ["one"]
    rows = {row["name"]: row for row in run_irons("plugins", "-o", "json").ok().json()}
    assert (rows["hello"]["distribution"], rows["hello"]["status"]) == (str(file), "ok")
    assert run_irons.warnings == []


def test_a_crash_of_a_file_names_it(plugins: Path, run_irons: Runner) -> None:
    """The plugin is at fault, and the hint has the path."""
    file = write(plugins, "bad.py", HELLO.replace("hello", "bad").replace("return f", "return 1 / 0; f"))
    found = run_irons("bad", "one")
    assert found.code == 1
    assert found.err.startswith(
        f"irons: plugin bad, command bad: ZeroDivisionError: division by zero\n  the fault is in {file}"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import gone_for_good\n", "ModuleNotFoundError: No module named 'gone_for_good'"),
        ("def\n", "SyntaxError: "),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
    ],
)
def test_a_file_that_fails_costs_one_line(
    plugins: Path, irons_env: dict[str, str], text: str, why: str
) -> None:
    """It is left out with the reason, and the others are loaded."""
    write(plugins)
    write(plugins, "broken.py", text)
    warnings: list[str] = []
    assert loaded(irons_env, warnings) == {"broken": "failed", "hello": "ok"}
    assert len(warnings) == 1
    assert why in warnings[0]
    assert f"{PREFIX}broken" not in sys.modules


def test_only_visible_python_files_are_plugins(plugins: Path, irons_env: dict[str, str]) -> None:
    """Other files, hidden ones and those that begin with an underscore are no plugins; a name hides no module."""
    for name in ("json.py", "_helper.py", ".hidden.py", "notes.txt", "old.pyc"):
        write(plugins, name)
    assert loaded(irons_env) == {"json": "ok"}
    assert sys.modules["json"].__name__ == "json"


def test_which_plugins_are_loaded_can_be_chosen(
    plugins: Path, irons_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """IRONS_PLUGINS names files as it names installed plugins; empty it loads none, and so does `--no-plugins`."""
    write(plugins)
    write(plugins, "other.py", HELLO.replace("hello", "other"))
    assert loaded({**irons_env, "IRONS_PLUGINS": "other"}) == {"other": "ok"}
    assert loaded({**irons_env, "IRONS_PLUGINS": "none"}) == {"none": "failed"}
    assert loaded({**irons_env, "IRONS_PLUGINS": ""}) == {}
    assert are_there(irons_env)
    assert not are_there({**irons_env, "IRONS_PLUGINS": " , "})
    from irons.cli.main import main

    for name, value in irons_env.items():
        monkeypatch.setenv(name, value)
    # Set first, so that what `main` does to it is undone.
    monkeypatch.setenv("IRONS_PLUGINS", "hello")
    monkeypatch.delenv("IRONS_PLUGINS")
    assert main(["hello", "--help"]) == 0
    assert main(["--no-plugins", "hello", "--help"]) == 2
    assert os.environ["IRONS_PLUGINS"] == ""


def test_plugins_are_chosen_before_a_prompt_not_in_it(run_irons: Runner) -> None:
    """Where plugins are loaded already, `--no-plugins` says so."""
    import io

    from irons.cli.main import run_words
    from irons.terminal.streams import Streams

    err = io.StringIO()
    streams = Streams(io.StringIO(), io.StringIO(), err, run_irons.env)
    assert run_words(["--no-plugins", "plugins"], run_irons.plugins(), streams, face="prompt") == 2
    assert "plugins are loaded already" in err.getvalue()


@pytest.mark.parametrize(
    ("which", "mode"), [("file", 0o620), ("file", 0o602), ("plugins", 0o770), ("irons", 0o777)]
)
def test_what_others_can_write_is_not_loaded(
    plugins: Path, irons_env: dict[str, str], which: str, mode: int
) -> None:
    """A file or a directory on the way that others may write leaves the plugin out, with the command that repairs it."""
    file = write(plugins)
    path = {"file": file, "plugins": plugins, "irons": plugins.parent}[which]
    path.chmod(mode)
    warnings: list[str] = []
    assert loaded(irons_env, warnings) == {"hello": "failed"}
    assert f"run: chmod go-w {path}" in warnings[0]
    path.chmod(mode & ~0o022)
    assert loaded(irons_env) == {"hello": "ok"}


def test_a_link_is_checked_on_both_sides(plugins: Path, irons_env: dict[str, str], tmp_path: Path) -> None:
    """A link into a place that others can write is not loaded; one into a place of the person's own is."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    file = write(elsewhere)
    (plugins / "hello.py").symlink_to(file)
    assert loaded(irons_env) == {"hello": "ok"}
    elsewhere.chmod(0o777)
    warnings: list[str] = []
    assert loaded(irons_env, warnings) == {"hello": "failed"}
    assert str(elsewhere) in warnings[0]


def test_what_belongs_to_another_is_not_loaded(plugins: Path) -> None:
    """The file and its directory belong to the user that irons runs as; root is no exception, and no other is either."""
    file = write(plugins)
    other = os.geteuid() + 1
    with pytest.raises(PluginError, match=f"belongs to uid {os.geteuid()}, not to uid {other}"):
        read(str(file), other)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("which", ["home", ".config", "plugins", "file"])
def test_root_loads_nothing_from_the_home_of_another(
    plugins: Path, irons_env: dict[str, str], which: str
) -> None:
    """With the HOME of another user root loads no plugin, not even a file of its own that lies there."""
    file = write(plugins)
    home = Path(irons_env["HOME"])
    path = {"home": home, ".config": home / ".config", "plugins": plugins, "file": file}[which]
    os.chown(path, 12345, 12345)
    warnings: list[str] = []
    assert loaded(irons_env, warnings) == {"hello": "failed"}
    assert "belongs to uid 12345, not to uid 0" in warnings[0]


def test_what_is_no_file_is_not_waited_for(plugins: Path, irons_env: dict[str, str]) -> None:
    """A pipe, a directory and an endless file are refused at once."""
    os.mkfifo(plugins / "pipe.py", 0o600)
    (plugins / "directory.py").mkdir()
    write(plugins, "large.py", "#" * (LARGEST + 1))
    assert loaded(irons_env) == {"directory": "failed", "large": "failed", "pipe": "failed"}


def test_a_file_with_the_name_of_an_installed_plugin_is_left_out(
    plugins: Path, irons_env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are unique: the installed one is loaded."""
    site = tmp_path / "site"
    info = site / "irons_x-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: irons-x\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[irons]\nhello = irons_x_of_tests\n")
    (site / "irons_x_of_tests.py").write_text("")
    monkeypatch.syspath_prepend(str(site))
    write(plugins)
    host = PluginHost(irons_env, lambda _: None, built_in=())
    assert [(info.name, info.distribution, info.status) for info in host.plugins] == [
        ("hello", "irons-x", "ok"),
        ("hello", str(plugins / "hello.py"), "failed"),
    ]


def test_no_process_of_the_backend_loads_files(
    plugins: Path, irons_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control plane asks installed plugins for engines alone; keeper and gateway have no plugin host."""
    ran = plugins / "ran"
    write(plugins, text=f"open({str(ran)!r}, 'w').close()\n")
    for name, value in irons_env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("IRONS_PLUGINS", raising=False)
    assert server._brought() == {}
    assert not ran.exists()
    for name, found in expected().items():
        assert "irons.plugin.plugin_file" not in found["irons"], name
        assert name == "server" or "irons.host" not in found["irons"], name


def test_a_change_of_plugins_is_seen(plugins: Path, irons_env: dict[str, str]) -> None:
    """What the process of plugins is restarted by: a new file, another text, another configuration."""
    seen = [fingerprint(irons_env)]
    file = write(plugins)
    seen.append(fingerprint(irons_env))
    file.write_text(HELLO * 2)
    seen.append(fingerprint(irons_env))
    (plugins.parent / "config.toml").write_text("")
    seen.append(fingerprint(irons_env))
    assert len(set(seen)) == 4
    assert fingerprint(irons_env) == seen[-1]
