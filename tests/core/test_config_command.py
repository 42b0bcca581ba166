"""The command `config`: what it prints, what it writes, and the aliases that the file has."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from tests.core.sample_config import FILE

from irons.errors import ConfigError, NotFound
from irons.settings.settings import config_path, load
from irons.testing import FakeApi, Runner


def test_config_get_prints_one_value(run_irons: Runner, config: Path) -> None:
    """It prints the value that `config show` lists, the key masked; what is not a setting is an error with the nearest one."""
    assert run_irons("config", "get", "read_timeout").ok().out == "7.0\n"
    assert run_irons("config", "get", "aliases.st", tty=True).ok().out == "status -o json\n"
    assert run_irons("config", "get", "public_key").ok().out == "\n"
    assert run_irons("config", "get", "config", "-o", "json").ok().json() == {
        "key": "config",
        "value": str(config),
        "source": "file",
    }
    assert (
        run_irons("config", "get", "api_key", env={"IRONS_API_KEY": "very-secret"}).ok().out == "********\n"
    )
    done = run_irons("config", "get", "read_timeot")
    assert (done.code, done.err.splitlines()[-1]) == (2, "  did you mean read_timeout?")


def test_config_show_tells_value_and_source_and_hides_the_key(run_irons: Runner, config: Path) -> None:
    """Each setting has its value and where it came from; the key is masked in every form."""
    outcome = run_irons("config", "show", "--api-key", "very-secret-key-0123456789")
    rows = {key: (value, source) for key, value, source in (line.split("\t") for line in outcome.ok().lines)}
    assert rows["profile"] == ("work", "config")
    assert rows["api_url"] == (run_irons.env["IRONS_API_URL"], "IRONS_API_URL")
    assert rows["api_key"] == ("********", "flag")
    assert rows["read_timeout"] == ("7.0", "config")
    assert rows["connect_timeout"] == ("5.0", "default")
    assert rows["aliases.st"] == ("status -o json", "config")
    assert rows["config"] == (str(config), "file")
    for form in ("table", "json", "jsonl"):
        shown = run_irons("config", "show", "-o", form, env={"IRONS_API_KEY": "very-secret-key-0123456789"})
        assert "very" not in shown.out + shown.err


def test_config_set_makes_and_changes_the_file(run_irons: Runner, irons_env: dict[str, str]) -> None:
    """A value is set in a profile that may be new, typed; an empty one is taken out; the file is the owner's alone."""
    path = config_path(irons_env)
    run_irons("config", "set", "--profile", "new", "api_url", "local").ok()
    run_irons("config", "set", "--profile", "new", "read_timeout", "12").ok()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    settings = load({"profile": "new"}, irons_env)
    assert settings.values["api_url"] == ("local", "profile new")
    assert settings.values["read_timeout"] == (12.0, "profile new")
    run_irons("config", "set", "--profile", "new", "read_timeout", "").ok()
    assert load({"profile": "new"}, irons_env).values["read_timeout"].source == "default"
    assert [entry.name for entry in path.parent.iterdir()] == ["config.toml"]


def test_a_key_alone_does_not_change_the_server(run_irons: Runner, irons_env: dict[str, str]) -> None:
    """A key that is set where no server is named leaves the local backend chosen, and says so; a server that is named stays."""
    said = run_irons("config", "set", "api_key", "k3y-one").ok()
    assert "it is local now" in said.err
    assert "k3y-one" not in said.err
    assert load(env=irons_env).api_url == "local"
    run_irons("config", "set", "--profile", "new", "api_url", "https://example.com").ok()
    assert "local" not in run_irons("config", "set", "--profile", "new", "api_key", "k").ok().err
    assert load({"profile": "new"}, irons_env).api_url == "https://example.com"


def test_a_server_of_all_profiles_stays(run_irons: Runner, config: Path, irons_env: dict[str, str]) -> None:
    """A key does not replace the server that the top of the file names, and an unset key names none."""
    config.write_text('api_url = "https://example.com"\n')
    run_irons("config", "set", "api_key", "k").ok()
    assert load(env=irons_env).api_url == "https://example.com"
    config.write_text("")
    run_irons("config", "set", "api_key", "").ok()
    assert "api_url" not in config.read_text()


def test_config_set_keeps_comments_and_a_link(run_irons: Runner, config: Path, tmp_path: Path) -> None:
    """Comments stay where they are, and a link to the real file stays a link."""
    real = tmp_path / "dotfiles.toml"
    config.rename(real)
    config.symlink_to(real)
    run_irons("config", "set", "api_url", "local").ok()
    assert config.is_symlink()
    assert "# kept" in real.read_text()
    assert 'api_url = "local"' in real.read_text()


def test_config_use_chooses(run_irons: Runner, config: Path, irons_env: dict[str, str]) -> None:
    """`config use` changes which profile is used; one that is not there is exit 3 and names those that are."""
    run_irons("config", "use", "other").ok()
    assert load({}, irons_env).profile == "other"
    outcome = run_irons("config", "use", "nobody")
    assert outcome.code == NotFound.exit_code == 3
    assert "work, other" in outcome.err
    run_irons("config", "use", "default").ok()
    assert load({}, irons_env).profile == "default"


def test_config_set_and_use_heed_a_local_table(
    run_irons: Runner, config: Path, irons_env: dict[str, str]
) -> None:
    """A value of each type in `[local]` is as right for a command that changes the file as for one that reads it."""
    kinds = ('engine = "namespace"', "connections = 20", 'no_proxy = ["a.test"]', "upstream_resolves = true")
    table = "\n".join(("[local]", *kinds, "[local.hosts]", '"a.test" = "192.0.2.1"'))
    config.write_text(f"[profiles.other]\n\n{table}\n")
    run_irons("config", "use", "other").ok()
    run_irons("config", "set", "wait_timeout", "7").ok()
    assert load({}, irons_env).profile == "other"
    assert table in config.read_text()
    config.write_text("[local]\nconnections = 'many'\n")
    outcome = run_irons("config", "set", "wait_timeout", "7")
    assert outcome.code == ConfigError.exit_code
    assert "local.connections" in outcome.err


def test_config_use_writes_a_new_file(run_irons: Runner, irons_env: dict[str, str]) -> None:
    """The profile can be chosen where there is no file yet."""
    run_irons("config", "use", "default").ok()
    assert load({}, irons_env).profile_source == "config"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("api_ur", "x"), "did you mean api_url?"),
        (("zzz", "x"), "there is no setting 'zzz'"),
        (
            ("upstream_proxy", "http://p:1"),
            "it belongs below [local] in the file that irons config path prints",
        ),
        (("local.keep_days", "9"), "it belongs below [local] in the file"),
        (("ask.hold", "true"), "it belongs below [ask] in the file"),
        (("output", "xml"), "output is one of"),
        (("read_timeout", "soon"), "takes a number"),
    ],
)
def test_config_set_refuses_what_makes_no_sense(
    run_irons: Runner, config: Path, words: tuple[str, ...], said: str
) -> None:
    """Unknown settings and bad values leave the file as it was."""
    outcome = run_irons("config", "set", *words)
    assert outcome.code == 2
    assert said in outcome.err
    assert config.read_text() == FILE


def test_a_broken_file_is_never_written_over(run_irons: Runner, config: Path) -> None:
    """What is not TOML stays for the person to repair; help and the path work all the same."""
    config.write_text("api_url = ")
    for line in ("config set api_url local", "config use work", "list"):
        outcome = run_irons(*line.split())
        assert outcome.code == 2
        assert "is not TOML" in outcome.err
    assert config.read_text() == "api_url = "
    for line in ("config path", "help", "plugins", "completion bash", "--help"):
        run_irons(*line.split()).ok()
    assert run_irons("config", "path").out == f"{config}\n"


def test_a_file_in_the_directorys_place(run_irons: Runner, irons_env: dict[str, str]) -> None:
    """A file where the directory should be is reported in one line."""
    place = config_path(irons_env).parent
    place.parent.mkdir(parents=True)
    place.write_text("")
    outcome = run_irons("config", "set", "api_url", "local")
    assert outcome.code == 2
    assert "can't be written" in outcome.err


def test_an_alias_is_a_command(run_irons: Runner, config: Path, fake_api: FakeApi) -> None:
    """A name in `[aliases]` stands for its words; more may follow; a built-in word is never an alias."""
    fake_api.add("one")
    assert run_irons("st", "one").ok().json()["name"] == "one"
    config.write_text(FILE.replace("st =", "list =").replace('"status -o json"', '"plugins"'))
    assert "lifecycle" not in run_irons("list").ok().out


def test_an_alias_may_stand_for_a_group(run_irons: Runner, config: Path) -> None:
    """The group's commands follow it, and alone it says what may follow."""
    config.write_text(FILE.replace("status -o json", "config"))
    assert run_irons("st", "path").ok().out == run_irons("config", "path").ok().out
    assert "config needs one of" in run_irons("st").err


def test_help_of_an_alias_is_that_of_its_command(run_irons: Runner, config: Path) -> None:
    """`help st` and `st --help` tell of `status`; the first says that it is an alias, and of what."""
    page = run_irons("help", "status", "-o", "plain").ok().out
    assert run_irons("help", "st", "-o", "plain").ok().out == f"st is an alias: status -o json\n\n{page}"
    assert run_irons("st", "--help").ok().out == page


def test_an_alias_that_makes_no_sense(run_irons: Runner, config: Path) -> None:
    """An alias for no command, or with an open quote, is a usage error."""
    config.write_text(FILE.replace("status -o json", "nonsense"))
    assert "there is no command 'st'" in run_irons("st").err
    config.write_text(FILE.replace("status -o json", "status 'one"))
    outcome = run_irons("st")
    assert outcome.code == 2
    assert "aliases.st" in outcome.err


def test_config_show_has_what_is_never_asked_about(run_irons: Runner, config: Path) -> None:
    """Whoever looks for why no question comes finds the patterns, and that nothing set them where that is so."""
    assert "ask.never\t\tdefault" in run_irons("config", "show").ok().lines
    config.write_text('[ask]\nnever = ["*.paste.example", "a.example:22"]\n')
    assert "ask.never\t*.paste.example, a.example:22\tconfig" in run_irons("config", "show").ok().lines
