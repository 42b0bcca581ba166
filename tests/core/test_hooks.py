"""The hooks beyond commands and backends, each with a plugin of tests/third_party as its user."""

from __future__ import annotations

import csv
import io
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.local.people import eventually

from irons import Command, PluginSetting, hookimpl
from irons.cli.completing import Sources, complete
from irons.cli.plugin_values import values_of
from irons.hookspecs import ARGUMENTS, VERSIONS
from irons.host import PluginHost
from irons.settings.settings import load
from irons.terminal.streams import Streams
from irons.testing import FakeApi, Runner
from irons_repl.run.session import ShellSession
from irons_repl.status.refresher import Refresher
from irons_repl.status.toolbar import toolbar

SOURCE = Path(__file__).resolve().parents[1] / "third_party" / "src"


def third_party(name: str) -> ModuleType:
    """A module of tests/third_party; it is not imported under a test's own name, as an installed one is not."""
    sys.path.insert(0, str(SOURCE))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(SOURCE))


@pytest.fixture
def desk(run_irons: Runner) -> Runner:
    """The runner with the plugin `desk`."""
    run_irons.plugins().register(third_party("irons_desk"), "desk", distribution="irons-greet", version="0.3")
    assert run_irons.warnings == []
    return run_irons


def config(runner: Runner) -> Path:
    """The configuration file of the runner."""
    return Path(runner.env["XDG_CONFIG_HOME"]) / "irons" / "config.toml"


def rows(runner: Runner) -> dict[str, tuple[str, str]]:
    """What `config show` says of plugins: value and source."""
    shown = runner("config", "show", "-o", "json").ok().json()
    return {row["key"]: (row["value"], row["source"]) for row in shown if row["key"].startswith("plugins.")}


# Settings


def test_settings_of_a_plugin_are_shown_with_their_sources(desk: Runner) -> None:
    """Each declared setting has its default, and a secret one is hidden."""
    assert rows(desk) == {
        "plugins.desk.team": ("nobody", "default"),
        "plugins.desk.seats": ("3", "default"),
        "plugins.desk.colours": ("red, green", "default"),
        "plugins.desk.mood": ("calm", "default"),
        "plugins.desk.token": ("", "default"),
    }
    desk.env["DESK_TOKEN"] = "hidden-token"
    assert rows(desk)["plugins.desk.token"] == ("********", "DESK_TOKEN")


def test_settings_of_a_plugin_are_set_in_their_types(desk: Runner) -> None:
    """`config set plugins.NAME.KEY` writes what the plugin declares, the handler reads it, and an empty value takes it out."""
    desk("config", "set", "plugins.desk.seats", "5").ok()
    desk("config", "set", "plugins.desk.colours", "blue, pink").ok()
    desk("config", "set", "plugins.desk.team", "red team").ok()
    text = config(desk).read_text()
    assert "[plugins.desk]" in text
    assert "seats = 5" in text
    assert 'colours = ["blue", "pink"]' in text
    assert desk("desk", "blue", "-o", "json").ok().json() == {
        "team": "red team",
        "colour": "blue",
        "seats": 5,
    }
    desk("config", "set", "plugins.desk.seats", "").ok()
    assert rows(desk)["plugins.desk.seats"] == ("3", "default")


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("seats", "many", "plugins.desk.seats is a whole number, not 'many'"),
        ("mood", "wild", "plugins.desk.mood is one of calm, loud, not 'wild'"),
    ],
)
def test_a_value_of_another_type_is_refused(desk: Runner, key: str, value: str, why: str) -> None:
    """A value that the plugin can't take is not written."""
    found = desk("config", "set", f"plugins.desk.{key}", value)
    assert (found.code, found.err) == (2, f"irons: {why}\n")
    assert not config(desk).exists()


def test_a_wrong_value_in_the_file_stops_that_plugin_alone(desk: Runner, fake_api: FakeApi) -> None:
    """The command that reads the setting says what is wrong; all other commands run."""
    config(desk).parent.mkdir(parents=True)
    config(desk).write_text("[plugins.desk]\nseats = 'x'\ncolours = [1]\n")
    found = desk("desk", "blue")
    assert (found.code, found.err) == (2, "irons: plugins.desk.seats is a whole number, not 'x'\n")
    fake_api.add("one")
    assert "one" in desk("list").ok().out


def test_a_wrong_value_in_the_file_is_shown_as_wrong(desk: Runner) -> None:
    """`config show` says what each invalid value is not and goes on, a secret one stays hidden, and `config get` refuses it alone."""
    config(desk).parent.mkdir(parents=True)
    config(desk).write_text("[plugins.desk]\nteam = 'red'\nseats = 'abc'\nmood = 'wild'\ntoken = 7\n")
    assert rows(desk) == {
        "plugins.desk.team": ("red", "config"),
        "plugins.desk.seats": ("abc", "config, not a whole number"),
        "plugins.desk.colours": ("red, green", "default"),
        "plugins.desk.mood": ("wild", "config, not one of calm, loud"),
        "plugins.desk.token": ("********", "config, not text"),
    }
    found = desk("config", "get", "plugins.desk.seats")
    assert (found.code, found.err) == (2, "irons: plugins.desk.seats is a whole number, not 'abc'\n")
    assert desk("config", "get", "plugins.desk.team").ok().out == "red\n"


def test_unknown_settings_of_plugins_are_never_fatal(desk: Runner, fake_api: FakeApi) -> None:
    """A table of a plugin that is not there, an unknown key, and something that is not a table: shown, not refused."""
    config(desk).parent.mkdir(parents=True)
    config(desk).write_text("[plugins]\nodd = 3\n[plugins.shout]\nvolume = 11\n[plugins.desk]\nlegs = 4\n")
    assert desk("list").ok().code == 0
    found = rows(desk)
    assert found["plugins.shout.volume"] == ("********", "config, of no plugin that is loaded")
    assert found["plugins.desk.legs"] == ("********", "config, of no plugin that is loaded")
    assert found["plugins.odd"] == ("3", "config, of no plugin that is loaded")
    told = desk("config", "set", "plugins.shout.volume", "9").ok().err
    assert "no plugin that is loaded declares plugins.shout.volume" in told
    assert desk("config", "set", "plugins.shout", "9").code == 2


@pytest.mark.parametrize(
    "told",
    [
        ["x"],
        [PluginSetting("a b")],
        [PluginSetting("a"), PluginSetting("a")],
        [PluginSetting("a", type=dict)],
        3,
    ],
)
def test_settings_that_are_declared_wrongly_are_a_warning(run_irons: Runner, told: Any) -> None:
    """A plugin whose declaration is wrong has no settings; the rest goes on, and it is said once."""

    class Odd:
        @hookimpl
        def irons_settings(self) -> object:
            return told

    run_irons.plugins().register(Odd(), "odd")
    run_irons("config", "show").ok()
    run_irons("config", "show").ok()
    assert len(run_irons.warnings) == 1
    assert run_irons.warnings[0].startswith("irons: plugin odd, irons_settings: ")


# Completion


def words_after(runner: Runner, *words: str) -> dict[str, str]:
    """What completion offers for the last of these words."""
    host = runner.plugins()
    sources = Sources(
        sandboxes=lambda: {"one": "ready", "two": "stopped"},
        more=values_of(host, lambda: load({}, runner.env)),
    )
    return {found.word: found.about for found in complete(host.tree, list(words), sources)}


def test_a_plugins_kind_is_completed(desk: Runner) -> None:
    """A kind of `irons_completions` completes from what is on hand and the plugin's settings."""
    assert words_after(desk, "desk", "") == {"red": "a label for 2", "green": "a label for 2"}
    desk("config", "set", "plugins.desk.colours", "blue").ok()
    assert words_after(desk, "desk", "b") == {"blue": "a label for 2"}


def test_a_completion_that_fails_completes_nothing(run_irons: Runner) -> None:
    """At a key there is no place for an error of a stranger."""

    class Breaks:
        @hookimpl
        def irons_completions(self) -> dict[str, object]:
            return {"bug": lambda _: 1 / 0}

        @hookimpl
        def irons_commands(self) -> list[Command]:
            from irons import Arg

            return [Command(("bug",), "Help.", "m:f", (Arg("bug", kind="bug"),))]

    run_irons.plugins().register(Breaks(), "breaks")
    assert run_irons.plugins().plugins[-1].status == "ok"
    assert words_after(run_irons, "bug", "") == {}
    assert run_irons.warnings == []


# Output formats


@pytest.fixture
def with_csv(run_irons: Runner) -> Runner:
    """The runner with the plugin `csv`."""
    run_irons.plugins().register(third_party("irons_csv"), "csv")
    assert run_irons.warnings == []
    return run_irons


def test_a_plugins_format_writes_rows(with_csv: Runner, fake_api: FakeApi) -> None:
    """`-o csv` is taken before and after the command and by IRONS_OUTPUT, with the columns of the table."""
    fake_api.add("one")
    fake_api.add("two", "stopped")
    lines = list(csv.DictReader(io.StringIO(with_csv("list", "-o", "csv").ok().out)))
    assert [(line["name"], line["status"]) for line in lines] == [("one", "ready"), ("two", "stopped")]
    assert with_csv("-o", "csv", "list").ok().out == with_csv("list", env={"IRONS_OUTPUT": "csv"}).ok().out
    assert with_csv("config", "path", "-o", "csv").ok().out.startswith("text\r\n/")


def test_what_a_format_yields_is_fit_for_a_terminal(with_csv: Runner) -> None:
    """Escapes in what a writer yields are shown, and its line ends stay."""

    class Hostile:
        @hookimpl
        def irons_formats(self) -> dict[str, str]:
            return {"hostile": f"{__name__}:hostile"}

    with_csv.plugins().register(Hostile(), "hostile")
    assert with_csv("config", "path", "-o", "hostile").ok().out == "a\tb\\x1b[2J\r\nc\n"


def hostile(rows: Iterator[object], columns: object) -> Iterator[str]:
    """A writer that yields an escape sequence."""
    del rows, columns
    yield "a\tb\x1b[2J\r\nc\n"


def test_an_unknown_format_is_refused_before_anything_is_changed(with_csv: Runner, fake_api: FakeApi) -> None:
    """A format of nobody names those that there are, with the nearest; a sandbox is not destroyed for it."""
    fake_api.add("one")
    found = with_csv("destroy", "one", "--force", "-o", "cvs")
    assert found.code == 2
    assert found.err == (
        "irons: --output takes table, plain, json, jsonl or csv, not 'cvs'\n  did you mean csv?\n"
    )
    assert [call.method for call in fake_api.calls if call.method == "DELETE"] == []
    told = with_csv("list", env={"IRONS_OUTPUT": "xml"})
    assert (told.code, told.err) == (
        2,
        "irons: output is one of table, plain, json, jsonl, csv, not 'xml' (from IRONS_OUTPUT)\n",
    )
    assert with_csv("config", "set", "output", "xml").code == 2
    config(with_csv).parent.mkdir(parents=True, exist_ok=True)
    config(with_csv).write_text('output = "xml"\n')
    assert "not 'xml' (from config)" in with_csv("list").err
    config(with_csv).unlink()
    with_csv("config", "set", "output", "csv").ok()
    assert with_csv("config", "path").ok().out.startswith("text\r\n")


def test_formats_are_completed(with_csv: Runner) -> None:
    """After `-o` and `--output=` the plugin's formats come with irons' own."""
    assert set(words_after(with_csv, "-o", "")) == {"table", "plain", "json", "jsonl", "csv"}
    assert set(words_after(with_csv, "list", "--output=c")) == {"--output=csv"}


def test_a_format_that_breaks_names_its_plugin(run_irons: Runner) -> None:
    """A writer that is not there is the plugin's fault."""

    class Gone:
        @hookimpl
        def irons_formats(self) -> dict[str, str]:
            return {"gone": "irons_of_nobody:write"}

    run_irons.plugins().register(Gone(), "gone")
    found = run_irons("config", "path", "-o", "gone")
    assert found.code == 1
    assert "format gone: 'irons_of_nobody:write' names nothing" in found.err


# Checks and suggestions


@pytest.fixture
def no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the checks of the machine itself."""
    monkeypatch.setattr("irons_local.doctor.checks.examine", lambda _: [])


@pytest.mark.usefixtures("no_machine")
def test_checks_of_a_plugin_are_in_doctor(desk: Runner) -> None:
    """`irons doctor` has the plugin's checks after its own, named after the plugin, and fails where one does."""
    found = desk("doctor", "-o", "json")
    (row,) = [row for row in found.json() if row["name"].startswith("desk: ")]
    assert row == {
        "name": "desk: token",
        "ok": False,
        "what": "no token is set",
        "fix": "irons config set plugins.desk.token TOKEN",
    }
    assert found.code == 1
    desk("config", "set", "plugins.desk.token", "x").ok()
    (row,) = [row for row in desk("doctor", "-o", "json").json() if row["name"].startswith("desk: ")]
    assert row["ok"] is True


@pytest.mark.usefixtures("no_machine")
@pytest.mark.parametrize("answer", [3, ["x"], [("a", True)]])
def test_a_wrong_check_is_a_warning(run_irons: Runner, answer: Any) -> None:
    """What is not a check is left out, and doctor goes on."""

    class Odd:
        @hookimpl
        def irons_checks(self) -> object:
            return answer

    run_irons.plugins().register(Odd(), "odd")
    assert run_irons("doctor", "-o", "json").json() == []
    assert run_irons.warnings[0].startswith("irons: plugin odd, irons_checks: ")


def test_a_plugin_notes_what_it_knows_of_a_suggestion(desk: Runner, own_api: FakeApi) -> None:
    """`egress suggest` has a column with what plugins say, left out of a table where they say nothing."""
    own_api.add("one")
    own_api.record("mirror.example")
    own_api.record("other.example")
    found = desk("egress", "suggest", "one", "-o", "json").ok().json()
    assert {row["pattern"]: row["note"] for row in found} == {
        "mirror.example": "package mirror",
        "other.example": "",
    }
    assert "NOTE" in desk("egress", "suggest", "one", tty=True).ok().out


# The toolbar


def test_a_plugin_shows_a_part_of_the_toolbar(desk: Runner, fake_api: FakeApi) -> None:
    """The thread that looks at the server asks the plugin, and the line below the prompt has its words."""

    class Breaks:
        @hookimpl
        def irons_toolbar(self) -> str:
            raise ValueError("no sun")

    desk.plugins().register(Breaks(), "breaks")
    fake_api.add("one")
    streams = Streams(io.StringIO(), io.StringIO(), io.StringIO(), desk.env)
    session, said = ShellSession(desk.plugins(), streams), list[str]()
    refresher = Refresher(session, lambda: None, said.append, interval=0.01)
    refresher.start()
    try:
        eventually(lambda: len([call for call in fake_api.calls if call.path == "/sandboxes"]) > 3)
        assert refresher.outlook.extras == ("desk nobody: 2 free",)
        assert "desk nobody: 2 free" in "".join(text for _, text in toolbar(refresher.outlook, 120))
        assert said == ["irons: plugin breaks, irons_toolbar: ValueError: no sun"]
    finally:
        refresher.stop()
        for thread in threading.enumerate():
            if thread.name == "irons-refresher":
                thread.join(60)
        session.close()


def test_a_plugin_shows_a_part_of_the_xonsh_field(desk: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """`{irons}` has the plugin's words, in which xonsh finds neither fields nor colours; without plugins no host is made."""
    from types import SimpleNamespace

    from irons_repl.xonsh_face.field import field_of

    monkeypatch.setattr("irons.client.refreshing.refresh_detached", lambda *_, **__: None)
    face: Any = SimpleNamespace(settings=lambda: load({}, desk.env), host=desk.plugins())
    desk("config", "set", "plugins.desk.team", "{RED}a").ok()
    assert "desk" not in field_of(face)()
    monkeypatch.setattr("irons.plugin.finding.are_there", lambda _: True)
    assert field_of(face)().endswith("desk (RED)a")


# Versions


def test_a_plugin_may_need_a_version_of_a_hook(run_irons: Runner) -> None:
    """`irons_needs` refuses a plugin that this irons is too old for, with the hook and both versions."""
    host = run_irons.plugins()
    for needs, why in (
        ({"irons_toolbar": 9}, "it needs version 9 of irons_toolbar; this irons has version 1"),
        ({"irons_weather": 1}, "it needs the hook irons_weather, which this irons does not have"),
    ):
        module = ModuleType("irons_needy")
        vars(module)["irons_needs"] = needs
        host.register(module, "needy")
        assert (host.plugins[-1].status, host.plugins[-1].error) == ("failed", why)


def test_every_hook_has_a_version_and_the_arguments_of_its_specification() -> None:
    """The table of hooks and the functions that pluggy reads say the same."""
    from irons import hookspecs

    functions = {name: value for name, value in vars(hookspecs).items() if hasattr(value, "irons_spec")}
    assert set(functions) == set(ARGUMENTS) == set(VERSIONS)
    for name, function in functions.items():
        code = function.__code__
        assert code.co_varnames[: code.co_argcount] == ARGUMENTS[name], name
    assert min(VERSIONS.values()) >= 1


def test_hooks_are_the_same_with_and_without_pluggy(irons_env: dict[str, str]) -> None:
    """Whether another plugin made pluggy's manager changes no answer."""

    class Ordered:
        @hookimpl(tryfirst=True)
        def irons_commands(self) -> list[Command]:
            return []

    told: list[str] = []
    plain, full = (PluginHost(irons_env, told.append, built_in=()) for _ in range(2))
    full.register(Ordered(), "ordered")
    settings = load({}, irons_env)
    for host in (plain, full):
        host.register(third_party("irons_csv"), "csv")
        assert host.formats() == {"csv": "irons_csv:written"}
        host.register(third_party("irons_desk"), "desk")
        assert [
            answer for _, answer in host.answers("irons_rule", settings, pattern="mirror.example", events=1)
        ] == ["package mirror"]
        assert host.plugin_settings("desk", settings)["seats"] == 3
    assert told == []


def test_the_test_of_a_notifier_in_the_handbook_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/plugins.md shows how a hook that acts is tried without a sandbox, and that test passes."""
    notify = third_party("irons_notify")
    monkeypatch.setattr(notify, "_last", {})
    text = (SOURCE.parents[2] / "docs" / "plugins.md").read_text()
    shown = (
        text.partition("A hook that acts is a function")[2].partition("```python\n")[2].partition("```")[0]
    )
    names: dict[str, Any] = {}
    exec(shown, names)
    names["test_tells_of_a_denial"](monkeypatch)
