"""Settings: who wins, where a value came from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from irons.cli.help.topics import TOPICS
from irons.client.backends import choose
from irons.errors import ConfigError
from irons.host import PluginHost
from irons.settings.keys import ASK_KEYS, KEYS, LOCAL_KEYS, TABLES
from irons.settings.settings import HOSTED_URL, config_path, home_of, load
from irons.testing import Runner


@pytest.mark.parametrize(
    ("flags", "variables", "value", "source"),
    [
        ({"api_url": "local"}, {"IRONS_API_URL": "unix:///x"}, "local", "flag"),
        ({}, {"IRONS_API_URL": "unix:///x"}, "unix:///x", "IRONS_API_URL"),
        ({"api_url": ""}, {"IRONS_API_URL": ""}, "https://work.example.com", "profile work"),
        ({"profile": "other"}, {}, "https://top.example.com", "config"),
        ({}, {"IRONS_PROFILE": "other"}, "https://top.example.com", "config"),
        ({"profile": "work"}, {"IRONS_PROFILE": "other"}, "https://work.example.com", "profile work"),
    ],
)
def test_flag_then_environment_then_profile_then_file(
    config: Path,
    irons_env: dict[str, str],
    flags: dict[str, object],
    variables: dict[str, str],
    value: str,
    source: str,
) -> None:
    """The nearest place that says a setting wins, and is named; what is empty says nothing."""
    settings = load(flags, {**irons_env, **variables})
    assert settings.values["api_url"] == (value, source)


def test_defaults_are_named_so(irons_env: dict[str, str]) -> None:
    """Without a file every setting has its default, which is shown as its source."""
    settings = load({}, irons_env)
    assert {value.source for value in settings.values.values()} == {"default"}
    assert {name: settings[name] for name in KEYS} == {name: key.default for name, key in KEYS.items()}
    assert (settings.profile, settings.profile_source) == ("default", "default")


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.env])
def test_every_setting_has_its_variable(irons_env: dict[str, str], name: str) -> None:
    """Each setting is read from its environment variable."""
    key = KEYS[name]
    word = key.choices[-1] if key.choices else "3"
    assert load({}, {**irons_env, key.env: word})[name] == (3.0 if key.type is float else word)


@pytest.mark.parametrize(
    ("flags", "url"),
    [
        ({}, "local"),
        ({"api_key": "k"}, HOSTED_URL),
        ({"api_key": "k", "api_url": "local"}, "local"),
        ({"api_url": "unix:///run/x"}, "unix:///run/x"),
    ],
)
def test_which_backend(irons_env: dict[str, str], flags: dict[str, object], url: str) -> None:
    """Without a URL a key means the hosted service of old and no key means `local`; a named `local` always wins."""
    assert load(flags, irons_env).api_url == url


def test_local_wins_over_a_key_in_the_environment(irons_env: dict[str, str]) -> None:
    """A key that lies around does not lead away from a named `local`."""
    irons_env |= {"IRONS_API_KEY": "k", "IRONS_API_URL": "local"}
    assert load({}, irons_env).api_url == "local"


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ('api_ur = "x"', "has no setting api_ur", "did you mean api_url?"),
        ('[profiles.work]\napi_kye = "x"', "has no setting profiles.work.api_kye", "profiles.work.api_key"),
        ('[profile.work]\napi_key = "x"', "profile in", ""),
        ('profile = "gone"', "there is no profile 'gone'", "irons config set --profile gone"),
        ("[local]\nhost = 1", "has no setting local.host", "local.hosts"),
        ("[local]\nhosts = 1", "local.hosts in", ""),
        ("zzz = 1", "has no setting zzz", "irons config show lists them"),
        ('upstream_proxy = "http://p:1"', "has no setting upstream_proxy", "below [local] in the file"),
        ("[ask]\nask_hold = 9", "has no setting ask.ask_hold", "below [local] in the file"),
        ('read_timeout = "soon"', "read_timeout takes a number of seconds, not 'soon'", ""),
        ("read_timeout = -1", "above 0", ""),
        ("read_timeout = inf", "above 0", ""),
        ("api_url = 5", "api_url takes text, not 5", ""),
        ("[aliases]\nst = 1", "aliases.st in", ""),
        ("profiles = 1", "profiles in", ""),
        ("[profiles]\nwork = 1", "profiles.work in", ""),
        ("api_url = ", "is not TOML", "move it away"),
        ("\udcff", "is not TOML", "move it away"),
        (
            "[local]\n[local]\nkeep_days = 9",
            "is not TOML",
            "put the lines below it where that table begins first",
        ),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(
    irons_env: dict[str, str], text: str, said: str, hint: str
) -> None:
    """What is not a setting, or no value for one, is refused with its name and the nearest that is."""
    path = config_path(irons_env)
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        load({}, irons_env)
    assert said in caught.value.message
    assert hint in caught.value.hint
    assert str(path) in caught.value.message
    assert load({}, irons_env, strict=False) is not None


@pytest.mark.parametrize(("variable", "word"), [("IRONS_READ_TIMEOUT", "x"), ("IRONS_EDITING_MODE", "ed")])
def test_a_variable_that_makes_no_sense_is_refused(run_irons: Runner, variable: str, word: str) -> None:
    """A bad value in the environment is refused as one in the file is."""
    outcome = run_irons("list", env={variable: word})
    assert outcome.code == 2
    assert word in outcome.err


def test_a_file_that_cannot_be_read_is_told(irons_env: dict[str, str]) -> None:
    """A directory in the file's place is an error of one line."""
    config_path(irons_env).mkdir(parents=True)
    with pytest.raises(ConfigError, match="can't be read"):
        load({}, irons_env)


@pytest.mark.parametrize(
    "url",
    [
        "http://sandboxes.example.com",
        "http://192.0.2.1:8080",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "HTTP://example.com",
    ],
)
def test_a_key_never_travels_in_clear(irons_env: dict[str, str], url: str) -> None:
    """A key and a plain http:// URL of another machine are refused together; either alone is fine."""
    host = PluginHost(irons_env, built_in=())
    with pytest.raises(ConfigError, match="in clear") as caught:
        choose(load({"api_url": url, "api_key": "k3y"}, irons_env), host)
    assert "k3y" not in str(caught.value) + caught.value.hint
    assert choose(load({"api_url": url}, irons_env), host).base_url == url
    assert choose(load({"api_url": "https://example.com/", "api_key": "k"}, irons_env), host).base_url


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://localhost", "http://[::1]:8000", "http://127.9.9.9"]
)
def test_a_key_may_travel_to_this_machine(irons_env: dict[str, str], url: str) -> None:
    """Loopback is not another machine."""
    choose(load({"api_url": url, "api_key": "k"}, irons_env), PluginHost(irons_env, built_in=()))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://", "is invalid"),
        ("http://a b", "is invalid"),
        ("http://[::1", "is invalid"),
        ("http://x:99999", "is invalid"),
        ("http://\x1b[31m", "is invalid"),
        ("https://me:pw@example.com", "carries no user"),
        ("https://example.com/?key=pw", "carries no user"),
        ("https://example.com/#pw", "carries no user"),
        ("unix:relative", "unsupported API URL"),
        ("unix://relative", "is not an absolute path"),
        ("ftp://example.com", "unsupported API URL"),
        ("example.com", "unsupported API URL"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused(irons_env: dict[str, str], url: str, said: str) -> None:
    """A URL of no known kind is refused with the kinds there are, cleaned."""
    with pytest.raises(ConfigError, match=said) as caught:
        choose(load({"api_url": url}, irons_env), PluginHost(irons_env, built_in=()))
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "api_key = 13371337",
        "api_key = ['13371337']",
        "api_key = 13371337x",
        "[profiles]\napi_key = '13371337'",
        "[profile.work]\napi_key = '13371337'",
        "[local]\napi_key = '13371337'",
        "[[profiles.work]]\napi_key = '13371337'",
        "apikey = '13371337'",
        "api_url = 'https://13371337@example.com'",
        "api_url = 'https://me:13371337@example.com'",
        "api_url = 'https://example.com/?key=13371337'",
    ],
)
def test_a_key_in_the_wrong_place_is_not_shown(run_irons: Runner, config: Path, text: str) -> None:
    """A file that is invalid is refused without what may be a key in it."""
    config.write_text(text)
    for words in (("list",), ("config", "show"), ("config", "set", "output", "json", "--debug")):
        outcome = run_irons(*words)
        assert outcome.code == 2, outcome
        assert "13371337" not in outcome.out + outcome.err


@pytest.mark.parametrize(
    "words",
    [
        ("list", "--api-keyy=13371337"),
        ("--api-keyy=13371337", "list"),
        ("list", "--no-input=13371337"),
        ("config", "set", "api_url", "https://me:13371337@example.com"),
        ("list", "--api-key", "13371337", "--api-url", "http://example.com"),
        ("list", "--api-url", "https://13371337@example.com"),
        ("list", "--api-key", "13371337\n"),
    ],
)
def test_a_key_in_words_that_make_no_sense_is_not_shown(run_irons: Runner, words: tuple[str, ...]) -> None:
    """What may be a key in a misspelt option or a URL is not repeated."""
    outcome = run_irons(*words)
    assert outcome.code == 2, outcome
    assert "13371337" not in outcome.out + outcome.err


def test_a_unix_socket_is_a_backend(irons_env: dict[str, str]) -> None:
    """`unix:///path` is reached by its path."""
    backend = choose(load({"api_url": "unix:///run/x.sock"}, irons_env), PluginHost(irons_env, built_in=()))
    assert backend.base_url == "http://irons"
    assert backend.socket == "/run/x.sock"


@pytest.mark.parametrize(
    ("env", "path"),
    [
        ({"HOME": "/h", "XDG_CONFIG_HOME": "/c"}, "/c/irons/config.toml"),
        ({"HOME": "/h", "XDG_CONFIG_HOME": "relative"}, "/h/.config/irons/config.toml"),
        ({"HOME": "/h"}, "/h/.config/irons/config.toml"),
        ({"HOME": "/h", "IRONS_CONFIG": "/elsewhere.toml"}, "/elsewhere.toml"),
    ],
)
def test_where_the_file_is(env: dict[str, str], path: str) -> None:
    """`$IRONS_CONFIG`, else the XDG directory where it is absolute, else below the home."""
    assert config_path(env) == Path(path)


def test_without_a_home_the_users_own_is_used() -> None:
    """No HOME in the environment falls back to the password database."""
    assert home_of("XDG_STATE_HOME", ".local/state", {}) == Path.home() / ".local/state"


# The commands


# Aliases


# The documents


def test_every_key_is_documented() -> None:
    """docs/configuration.md has every setting with its variable, and every table."""
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    for name, key in KEYS.items():
        assert f"`{name}`" in text
        assert not key.env or f"`{key.env}`" in text
    for name in (*TABLES, *(f"local.{name}" for name, key in LOCAL_KEYS.items() if key.type is dict)):
        assert f"[{name}" in text
    for name, local in LOCAL_KEYS.items():
        assert local.type is dict or f"`{name}`" in text
    for name in ASK_KEYS:
        assert f"`ask.{name}`" in text


@pytest.mark.parametrize("line", ["never = 5", 'never = "a.example"', "nevr = []"])
def test_the_ask_table_is_read_strictly(tmp_path: Path, line: str) -> None:
    """A misspelled `never`, or one that is not a list, would be asked about."""
    path = tmp_path / "config.toml"
    path.write_text(f"[ask]\n{line}\n")
    with pytest.raises(ConfigError, match=line.partition(" ")[0]):
        load({}, {"IRONS_CONFIG": str(path)})


@pytest.mark.parametrize("line", ["engine = 5", 'keep_events = "many"', "keep_days = true", "keep_weeks = 1"])
def test_the_local_table_is_read_strictly(tmp_path: Path, line: str) -> None:
    """A key of `[local]` that is not one, or of another type, is refused, naming it."""
    path = tmp_path / "config.toml"
    path.write_text(f"[local]\n{line}\n")
    with pytest.raises(ConfigError, match=line.partition(" ")[0]):
        load({}, {"IRONS_CONFIG": str(path)})


def test_every_variable_of_the_help_is_documented() -> None:
    """docs/configuration.md has each variable that `irons help environment` lists."""
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    for line in TOPICS["environment"]().splitlines():
        for name in line.split("  ")[0].split(", "):
            assert f"`{name}`" in text
