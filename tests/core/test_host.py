"""The plugin host: the same door for all, and what becomes of a plugin that is at fault."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy
import pytest

from irons import Arg, Backend, Command, Flag, hookimpl
from irons.cli.completing import Sources, complete
from irons.hookspecs import hookspec
from irons.host import BUILT_IN, PluginHost
from irons.plugin.entry_points import any_in_group
from irons.settings.settings import load
from irons.testing import Runner


def plugin(*commands: Command) -> object:
    """A plugin object that brings these commands."""

    class Plugin:
        @hookimpl
        def irons_commands(self) -> list[Command]:
            return list(commands)

    return Plugin()


def command(*path: str, **more: object) -> Command:
    """A command that is never run."""
    return Command(path, "Help.", "nowhere:nothing", **more)  # type: ignore[arg-type]


@pytest.fixture
def warnings() -> list[str]:
    """What the host warned of."""
    return []


@pytest.fixture
def host(irons_env: dict[str, str], warnings: list[str]) -> PluginHost:
    """A host with the built-ins alone."""
    return PluginHost(irons_env, warnings.append)


def test_built_ins_come_by_the_same_door(host: PluginHost, warnings: list[str]) -> None:
    """Every built-in is registered, says its hooks, and none of them fails."""
    assert [info.name for info in host.plugins] == [name for name, _ in BUILT_IN]
    assert {info.status for info in host.plugins} == {"ok"}
    assert all("irons_commands" in info.hooks for info in host.plugins)
    assert warnings == []


def test_a_registered_plugin_brings_its_commands(host: PluginHost) -> None:
    """A plugin's commands are in the tree and in its row."""
    host.register(plugin(command("greet")), "greet", distribution="irons-greet", version="1.2")
    assert host.tree.get(("greet",)) is not None
    row = host.plugins[-1]
    assert (row.name, row.distribution, row.version, row.hooks, row.commands, row.status) == (
        "greet",
        "irons-greet",
        "1.2",
        ("irons_commands",),
        ("greet",),
        "ok",
    )


class _Exits:
    @hookimpl
    def irons_commands(self) -> list[Command]:
        raise SystemExit(3)


class _Misspelt:
    @hookimpl
    def irons_comands(self) -> list[Command]:
        return []


class _NoCommands:
    @hookimpl
    def irons_commands(self) -> list[object]:
        return ["greet"]


class _WrongArguments:
    @hookimpl
    def irons_backend(self, uri: str) -> None:
        return None


@pytest.mark.parametrize(
    ("faulty", "why"),
    [
        (_Exits(), "SystemExit: 3"),
        (_Misspelt(), "irons_comands"),
        (_NoCommands(), "returned str, not Command"),
        (_WrongArguments(), "uri"),
        (plugin(command("status")), "'status' is there already"),
        (plugin(command("greet"), command("greet")), "'greet' is there already"),
        (plugin(command("status", "all")), "'status all' lies below one"),
        (plugin(command("egress")), "'egress' is the name of a group"),
        (plugin(command("--greet")), "cannot name a command"),
        (plugin(command("a b")), "cannot name a command"),
        (plugin(command()), "cannot name a command"),
        (plugin(command("greet", aliases=(("ls",),))), "'ls' is there already"),
    ],
)
def test_a_faulty_plugin_costs_one_line(
    host: PluginHost, warnings: list[str], faulty: object, why: str
) -> None:
    """A plugin that fails is left out whole, with one line that says why, and the rest works on."""
    before = len(host.tree)
    host.register(faulty, "faulty")
    assert len(warnings) == 1
    assert warnings[0].startswith("irons: plugin faulty is left out: ")
    assert why in warnings[0]
    assert "\n" not in warnings[0]
    assert len(host.tree) == before
    assert host.plugins[-1].status == "failed"
    assert why in host.plugins[-1].error
    host.register(plugin(command("other")), "faulty")
    assert host.tree.get(("other",)) is not None


def test_a_warning_is_fit_for_a_terminal(host: PluginHost, warnings: list[str]) -> None:
    """What a stranger's exception says reaches the terminal cleaned."""

    class Hostile:
        @hookimpl
        def irons_commands(self) -> list[Command]:
            raise ValueError("\x1b[2Jgone\u202e")

    host.register(Hostile(), "hostile\x07")
    assert warnings == ["irons: plugin hostile\\x07 is left out: ValueError: \\x1b[2Jgone\\u202e"]


def test_ctrl_c_is_no_fault_of_a_plugin(host: PluginHost) -> None:
    """Ctrl-C while a plugin is loaded ends the run."""

    class Slow:
        @hookimpl
        def irons_commands(self) -> list[Command]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        host.register(Slow(), "slow")


def test_the_last_registered_backend_is_asked_first(host: PluginHost, irons_env: dict[str, str]) -> None:
    """`irons_backend` gives the first answer, strangers before built-ins, and None where no one knows the URL."""
    settings = load({}, irons_env)

    def knows(scheme: str, base: str) -> object:
        class Knows:
            @hookimpl
            def irons_backend(self, url: str) -> Backend | None:
                return Backend(base) if url.startswith(scheme) else None

        return Knows()

    host.register(knows("x://", "http://first"), "first")
    host.register(knows("x://", "http://second"), "second")
    assert host.backend("x://here", settings) == Backend("http://second")
    assert host.backend("y://here", settings) is None


def test_hook_calls_are_traced_on_request(irons_env: dict[str, str], warnings: list[str]) -> None:
    """IRONS_TRACE_PLUGINS prints each call with its arguments, who is asked, and the answer; settings are left out."""
    host = PluginHost({**irons_env, "IRONS_TRACE_PLUGINS": "1"}, warnings.append, built_in=())

    class Knows:
        @hookimpl
        def irons_backend(self, url: str) -> Backend:
            return Backend(f"http://{url}")

    host.register(Knows(), "knows")
    warnings.clear()
    host.backend("x", load({"api_key": "hidden-key"}, irons_env))
    assert warnings[0] == "irons: irons_backend(url='x') -> knows"
    assert warnings[1].startswith("irons: irons_backend = Backend(base_url='http://x'")
    assert "hidden-key" not in "".join(warnings)


def _distribution(place: Path, name: str, body: str) -> None:
    """Put a distribution with one plugin module on disk, as pip would leave it."""
    module = f"irons_{name}"
    (place / f"{module}.py").write_text(textwrap.dedent(body))
    info = place / f"{module}-0.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: irons-{name}\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text(f"[irons]\n{name} = {module}\n")


_GOOD = """
from irons import Command, hookimpl

@hookimpl
def irons_commands():
    return [Command(("NAME",), "Help.", "nowhere:nothing")]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for distributions on the import path, with three of them: two good ones and one that can't be imported."""
    place = tmp_path / "site"
    place.mkdir()
    for name in ("alpha", "beta"):
        _distribution(place, name, _GOOD.replace("NAME", name))
    _distribution(place, "broken", "import gone_for_good\n")
    monkeypatch.syspath_prepend(str(place))
    return place


def third_parties(host: PluginHost) -> dict[str, str]:
    """The third-party plugins of a host, with their status."""
    return {info.name: info.status for info in host.plugins}


def test_third_parties_are_found_by_entry_point(
    site: Path, irons_env: dict[str, str], warnings: list[str]
) -> None:
    """All installed plugins are loaded, with distribution and version; one that can't be imported is a warning."""
    del irons_env["IRONS_PLUGINS"]
    host = PluginHost(irons_env, warnings.append, built_in=())
    assert third_parties(host) == {"alpha": "ok", "beta": "ok", "broken": "failed"}
    assert [(info.distribution, info.version) for info in host.plugins] == [
        ("irons-alpha", "0.3"),
        ("irons-beta", "0.3"),
        ("irons-broken", "0.3"),
    ]
    assert warnings == [
        "irons: plugin broken is left out: ModuleNotFoundError: No module named 'gone_for_good'"
    ]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("", {}),
        ("beta", {"beta": "ok"}),
        (" beta , alpha ,", {"alpha": "ok", "beta": "ok"}),
        ("alpha,nobody", {"nobody": "failed", "alpha": "ok"}),
    ],
)
def test_irons_plugins_is_the_exact_set(
    site: Path, irons_env: dict[str, str], wanted: str, found: dict[str, str], warnings: list[str]
) -> None:
    """IRONS_PLUGINS loads what it names and nothing else; a name that is not installed is a warning."""
    irons_env["IRONS_PLUGINS"] = wanted
    host = PluginHost(irons_env, warnings.append, built_in=())
    assert third_parties(host) == found
    assert len(warnings) == list(found.values()).count("failed")


def test_no_group_no_search(
    irons_env: dict[str, str], warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no distribution has the group at all, what IRONS_PLUGINS names is missing."""
    monkeypatch.setattr("sys.path", [])
    irons_env["IRONS_PLUGINS"] = "alpha"
    host = PluginHost(irons_env, warnings.append, built_in=())
    assert third_parties(host) == {"alpha": "failed"}


def test_the_entry_point_scan_reads_every_kind_of_place(tmp_path: Path) -> None:
    """A directory is searched, one that is missing has nothing, a zip or an unreadable place may have anything."""
    _distribution(tmp_path, "alpha", "")
    archive = tmp_path / "some.zip"
    archive.write_bytes(b"PK")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "bare-1.dist-info").mkdir()
    assert any_in_group("irons", [str(tmp_path)])
    assert not any_in_group("iron", [str(tmp_path)])
    assert not any_in_group("irons", [str(tmp_path / "empty"), str(tmp_path / "missing")])
    assert any_in_group("irons", [str(archive)])


def test_irons_plugins_lists_what_failed_and_why(run_irons: Runner) -> None:
    """The list has name, distribution, version, hooks, status and the reason, on a terminal and for programs."""
    run_irons.plugins().register(_Misspelt(), "misspelt", distribution="irons-misspelt", version="0.1")
    rows = {row["name"]: row for row in run_irons("plugins", "-o", "json").ok().json()}
    assert rows["lifecycle"]["distribution"] == "irons"
    assert rows["lifecycle"]["status"] == "ok"
    assert "irons_backend" in rows["local"]["hooks"]
    assert rows["misspelt"]["status"] == "failed"
    assert "irons_comands" in rows["misspelt"]["error"]
    table = run_irons("plugins", tty=True).ok().out
    assert "irons-misspelt" in table
    assert "failed" in table


def test_a_plugins_own_command_runs_completes_and_shows(
    run_irons: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that a plugin brings is like any other: listed, helped, completed and run."""
    handlers = ModuleType("greet_handlers")
    handlers.greet = lambda _, *, name, loud: f"hello {name}{'!' * loud}"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "greet_handlers", handlers)
    host = run_irons.plugins()
    host.register(
        plugin(
            Command(
                ("greet",),
                "Greet a sandbox.",
                "greet_handlers:greet",
                (Arg("name", "Whom.", kind="sandbox"), Flag(("--loud",), "Shout.")),
            )
        ),
        "greet",
    )
    assert "greet" in run_irons("--help").ok().out
    assert "usage: irons greet [--loud] NAME" in run_irons("greet", "--help").ok().out
    assert run_irons("greet", "one", "--loud").ok().out == "hello one!\n"
    assert run_irons("greet", "one", "-o", "json").ok().json() == {"text": "hello one"}
    sources = Sources(sandboxes=lambda: {"one": "ready"})
    assert [c.word for c in complete(host.tree, ["gr"], sources)] == ["greet"]
    assert [c.word for c in complete(host.tree, ["greet", ""], sources)] == ["one"]


def test_a_hook_object_without_commands_is_fine(host: PluginHost) -> None:
    """A plugin may bring a backend alone, or nothing at all."""
    host.register(object(), "nothing")
    assert host.plugins[-1].status == "ok"
    assert host.plugins[-1].commands == ()


def test_hooks_are_marked_as_pluggy_marks_them() -> None:
    """A plugin that is marked without pluggy is the same to pluggy as one that it marked itself."""
    every: tuple[dict[str, Any], ...] = (
        {},
        {"tryfirst": True},
        {"wrapper": True},
        {"specname": "irons_commands"},
    )
    for options in every:

        def ours() -> None:
            pass

        def theirs() -> None:
            pass

        hookimpl(**options)(ours)
        pluggy.HookimplMarker("irons")(**options)(theirs)
        assert vars(ours) == vars(theirs)
    assert vars(hookimpl(lambda: None)) == vars(pluggy.HookimplMarker("irons")(lambda: None))
    spec = hookspec(firstresult=True)(lambda: None)
    assert vars(spec) == vars(pluggy.HookspecMarker("irons")(firstresult=True)(lambda: None))


def test_plain_plugins_are_called_without_pluggy_and_the_same_with_it() -> None:
    """What the built-in plugins bring does not depend on whether another plugin made pluggy's manager."""
    plain, full = PluginHost(env={"IRONS_PLUGINS": ""}), PluginHost(env={"IRONS_PLUGINS": ""})

    class Ordered:
        @hookimpl(tryfirst=True)
        def irons_commands(self) -> list[Command]:
            return []

    full.register(Ordered(), "ordered")
    assert full.plugins[:-1] == plain.plugins
    assert full.plugins[-1].status == "ok"
    assert full.tree.below() == plain.tree.below()
    settings = load({"api_url": "local"}, {"HOME": "/none", "IRONS_NO_START": "1"})
    for host in (plain, full):
        assert host.backend("other", settings) is None
