"""Every command, given invalid words: exit 2 (125 where other codes are a program's), one clear line, and no request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irons.cli.parsing import parse
from irons.command import Arg, Command, Opt
from irons.errors import UsageError
from irons.host import PluginHost
from irons.testing import FakeApi, Outcome, Runner

HOST = PluginHost({"IRONS_PLUGINS": ""}, lambda _: None)
COMMANDS = [command for command in HOST.tree if not command.hidden]
"""Every command of the built-in plugins."""

BAD_NAMES = {
    "empty": "",
    "slash": "a/b",
    "dots": "..",
    "dot": ".",
    "spaces": "a b",
    "escape": "a\x1b[31mb",
    "newline": "a\nb",
    "nul": "a\x00b",
    "bidi": "a\u202eb",
    "long": "a" * 300,
    "surrogate": "a\udcffb",
}

SAMPLES = {
    "sandbox": "one",
    "new-sandbox": "one",
    "domain": "example.com",
    "file": "/dev/null",
    "image": "base",
}


@pytest.fixture(scope="module")
def untouched() -> Iterator[FakeApi]:
    """One server for hundreds of calls that must not reach it."""
    with FakeApi() as api:
        yield api


@pytest.fixture
def fake_api(untouched: FakeApi) -> FakeApi:
    """The server, which no call has reached yet."""
    untouched.calls.clear()
    return untouched


@pytest.fixture
def run_irons(fake_api: FakeApi, irons_env: dict[str, str]) -> Runner:
    """Calls of `irons` with the commands as they are: no call changes them."""
    return Runner({**irons_env, "IRONS_API_URL": fake_api.url}, host=HOST)


def sample(argument: Arg) -> str:
    """A word that an argument takes."""
    return argument.choices[0] if argument.choices else SAMPLES.get(argument.kind, "word")


def refused(outcome: Outcome, api: FakeApi | None = None, command: Command | None = None) -> str:
    """Check that an outcome is a usage error of one to two clean lines, and return its message."""
    assert outcome.code == ((command and command.failure) or 2), outcome
    assert outcome.out == ""
    lines = outcome.err.splitlines()
    assert 1 <= len(lines) <= 2, outcome.err
    assert lines[0].startswith("irons: ")
    assert outcome.err.replace("\n", "").isprintable()
    assert "Traceback" not in outcome.err
    if api is not None:
        assert api.calls == []
    return outcome.err


def each(commands: list[Command]) -> pytest.MarkDecorator:
    """Run a test for each of these commands."""
    return pytest.mark.parametrize("command", commands, ids=lambda command: command.name)


@each(COMMANDS)
def test_an_unknown_option_is_refused(run_irons: Runner, fake_api: FakeApi, command: Command) -> None:
    """An option that no command has is named, with where to look."""
    message = refused(run_irons(*command.path, "--no-such-option"), fake_api, command)
    assert "--no-such-option" in message
    assert f"irons {command.name}" in message


@each([c for c in COMMANDS if any(flag.startswith("--") for option in c.options for flag in option.flags)])
def test_a_misspelt_option_is_suggested(run_irons: Runner, fake_api: FakeApi, command: Command) -> None:
    """An option with a letter too much suggests the one that was meant."""
    flag = max((max(option.flags, key=len) for option in command.options), key=len)
    assert f"did you mean {flag}" in refused(run_irons(*command.path, f"{flag}z"), fake_api, command)


@each([c for c in COMMANDS if any(a.takes in ("1", "+") for a in c.arguments)])
def test_a_missing_argument_is_named(run_irons: Runner, fake_api: FakeApi, command: Command) -> None:
    """Without its arguments a command says which it needs."""
    needed = next(argument for argument in command.arguments if argument.takes in ("1", "+"))
    assert needed.shown in refused(run_irons(*command.path), fake_api, command)


@each([c for c in COMMANDS if not any(a.takes in ("*", "+", "--") for a in c.arguments)])
def test_an_extra_argument_is_refused(run_irons: Runner, fake_api: FakeApi, command: Command) -> None:
    """A word too many is named."""
    filled = [*command.path, *(sample(argument) for argument in command.arguments)]
    assert "'surplus'" in refused(run_irons(*filled, "surplus"), fake_api, command)


@each([c for c in COMMANDS if any(a.takes == "--" for a in c.arguments)])
def test_a_command_line_without_its_dashes_says_where_it_belongs(
    run_irons: Runner, fake_api: FakeApi, command: Command
) -> None:
    """Words of another program's command line that stand before `--` get the hint that they belong after it."""
    filled = [*command.path, *(sample(a) for a in command.arguments if a.takes != "--")]
    message = refused(run_irons(*filled, "uname -a"), fake_api, command)
    assert "'uname -a'" in message
    assert f"irons {command.name} … -- CMD" in message


def _named() -> list[tuple[Command, int]]:
    return [
        (command, at)
        for command in COMMANDS
        for at, argument in enumerate(a for a in command.arguments if a.takes != "--")
        if argument.kind in ("sandbox", "new-sandbox")
    ]


@pytest.mark.parametrize("bad", BAD_NAMES.values(), ids=BAD_NAMES)
@pytest.mark.parametrize(("command", "at"), _named(), ids=lambda value: getattr(value, "name", str(value)))
def test_a_bad_sandbox_name_is_refused(
    run_irons: Runner, fake_api: FakeApi, command: Command, at: int, bad: str
) -> None:
    """A name that can't be a path segment and a word is refused before any request."""
    words = [sample(a) for a in command.arguments if a.takes != "--"]
    words[at] = bad
    tail = ["--", "true"] if any(a.takes == "--" for a in command.arguments) else []
    assert "name" in refused(run_irons(*command.path, *words, *tail), fake_api, command)


@pytest.mark.parametrize("bad", BAD_NAMES.values(), ids=BAD_NAMES)
@each([c for c in COMMANDS if any(isinstance(o, Opt) and o.kind == "sandbox" for o in c.options)])
def test_a_bad_name_in_an_option_is_refused(
    run_irons: Runner, fake_api: FakeApi, command: Command, bad: str
) -> None:
    """A sandbox named by an option is held to the same."""
    option = next(o for o in command.options if isinstance(o, Opt) and o.kind == "sandbox")
    filled = [*command.path, *(sample(a) for a in command.arguments if a.takes in ("1", "+"))]
    refused(run_irons(*filled, option.flags[-1], bad), fake_api, command)


@each(COMMANDS)
def test_options_without_their_value_say_so(run_irons: Runner, fake_api: FakeApi, command: Command) -> None:
    """An option at the end of the line that lacks its value is named."""
    for words in ([*command.path, "--api-url"], [*command.path, "--api-url", "--debug"]):
        assert "--api-url needs a value (URL)" in refused(run_irons(*words), fake_api, command)


def test_an_option_alone_without_its_value_says_so(run_irons: Runner, fake_api: FakeApi) -> None:
    """So is one that stands before any command."""
    assert "--api-url needs a value (URL)" in refused(run_irons("--api-url"), fake_api)


@each([c for c in COMMANDS if any(isinstance(o, Opt) and o.choices for o in c.options)])
def test_a_choice_that_is_none_names_the_choices(
    run_irons: Runner, fake_api: FakeApi, command: Command
) -> None:
    """An option with choices names them, and the nearest."""
    option = next(o for o in command.options if isinstance(o, Opt) and o.choices)
    filled = [*command.path, *(sample(a) for a in command.arguments if a.takes in ("1", "+"))]
    message = refused(run_irons(*filled, option.flags[-1], f"{option.choices[0]}x"), fake_api, command)
    assert f"did you mean {option.choices[0]}?" in message


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lst",), "did you mean irons list?"),
        (("egress", "alow", "x"), "did you mean irons egress allow?"),
        (("stat", "x"), "did you mean irons status?"),
        (("egress", "sug"), "did you mean irons egress suggest?"),
        (("help", "stat"), "did you mean status?"),
        (("help", "env"), "did you mean help environment?"),
        (("egres", "allow"), "did you mean irons egress?"),
        (("egress", "block", "x"), "did you mean irons egress deny?"),
        (("egress", "add", "x"), "did you mean irons egress allow?"),
        (("egress", "rm", "x"), "did you mean irons egress remove?"),
        (("egress", "delete", "x"), "did you mean irons egress remove?"),
        (("fleet", "rm", "n2"), "did you mean irons fleet remove?"),
        (("fleet", "ad", "n2"), "did you mean irons fleet add?"),
        (("fleet", "show"), "did you mean irons fleet status?"),
        (("fleet", "members"), "did you mean irons fleet status?"),
        (("fleet", "list"), "did you mean irons fleet status?"),
        (("join", "n1"), "did you mean irons fleet join or irons member join?"),
        (("egress", "status"), "did you mean irons status, irons local status or irons fleet status?"),
        (("allow", "x"), "did you mean irons egress allow?"),
        (("alow", "x"), "did you mean irons egress allow?"),
        (("block", "x"), "did you mean irons egress deny?"),
        (("ps",), "did you mean irons list?"),
        (("logs",), "did you mean irons audit egress or irons local logs?"),
        (("delete", "x"), "did you mean irons destroy or irons egress remove?"),
        (("create", "x", "--detach"), "did you mean --no-wait?"),
        (("create", "x", "--nowait"), "did you mean --no-wait?"),
        (("egress", "mode", "--global"), "did you mean --all?"),
        (("list", "--json"), "did you mean -o json?"),
        (("egress", "suggest", "--sandbox", "x"), "a word of its own here: irons egress suggest NAME"),
        (("list", "--sandbox", "x"), "see irons list --help"),
        (("egress",), "irons egress needs one of: "),
        (("egress", "--debug"), "irons egress needs one of: "),
        (("zzzzzz",), "irons --help lists them"),
        (("snapshot", "s", "clean"), "irons snapshot has create, "),
        (("", "list"), "there is no command ''"),
        (("\x1b[31m",), "there is no command '\\x1b[31m'"),
        (("--bogus",), "irons has no option '--bogus'"),
        (("--outptu", "json"), "did you mean --output?"),
        (("-o", "xml", "list"), "takes table, plain, json or jsonl, not 'xml'"),
        (("-oxml", "list"), "takes table, plain, json or jsonl, not 'xml'"),
        (("list", "-o", "jsn"), "did you mean json?"),
        (("--no-input=yes", "list"), "--no-input takes no value"),
        (("help", "nonsense"), "there is no command or topic 'nonsense'"),
        (("config", "unset", "api_key"), "did you mean irons config set?"),
        (("help", "topics"), "the topics are egress, prompt, agents, output"),
        (("help", "exit-code"), "did you mean help exit-codes?"),
        (("help", "egress", "alow"), "did you mean egress allow?"),
        (("completion", "csh"), "bash, zsh or fish"),
    ],
)
def test_words_that_name_nothing_are_helped(
    run_irons: Runner, fake_api: FakeApi, words: tuple[str, ...], said: str
) -> None:
    """Unknown commands and options suggest what is near, or say where all are listed."""
    outcome = run_irons(*words)
    if "-o" in words and "jsn" in words:
        assert outcome.code == 2
        assert said in outcome.err
        return
    assert said in refused(outcome, fake_api)


def test_a_usage_error_is_an_object_for_programs(run_irons: Runner) -> None:
    """With `-o json`, wherever it stands, an error of the words themselves is one object on stderr too."""
    for words in (("-o", "json", "status"), ("status", "--output=json"), ("-ojson", "nonsense")):
        error = run_irons(*words).error()
        assert error["exit"] == 2
        assert error["code"] == "usage"
        assert set(error) == {"code", "message", "hint", "exit"}


@each(COMMANDS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(words=st.lists(st.text(max_size=12), max_size=5))
def test_any_words_parse_or_are_refused(command: Command, words: list[str]) -> None:
    """No matter what the words, parsing ends with values for every parameter, or a `UsageError`."""
    try:
        parsed = parse(command, words)
    except UsageError:
        return
    if not (parsed.help or parsed.version):
        assert set(parsed.arguments) == command.keywords
