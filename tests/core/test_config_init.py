"""`irons config init`: the file it writes sets nothing, names every setting, and never replaces another."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from irons.cli.config_template import annotated
from irons.settings.keys import KEYS, LOCAL_KEYS, TABLES
from irons.settings.settings import config_path, load
from irons.testing import Runner
from irons_local.config.server import ServerConfig, read_config
from irons_local.config.synthetic_pool import POOL
from irons_local.gateway.shared.cell import Caps


def _active(*, examples: bool) -> str:
    """The file with each setting active that has a default, or with all of them."""
    defaults = {name: key.default for name, key in KEYS.items()}
    defaults |= {name: key.default for name, key in LOCAL_KEYS.items()}
    known = {name for name, default in defaults.items() if default is not None}
    lines = []
    for line in annotated().splitlines():
        found = re.match(r"#(?:(\S+) = |\[)", line)
        wanted = found is not None and (examples or found[1] in known)
        lines.append(line[1:] if wanted else line)
    return "\n".join(lines)


def test_the_file_that_init_writes_sets_nothing(run_irons: Runner, irons_env: dict[str, str]) -> None:
    """It loads, its owner alone can read it, and every setting has its default from no file."""
    path = config_path(irons_env)
    before = load({}, irons_env)
    assert run_irons("config", "init").ok().out.strip() == str(path)
    after = load({}, irons_env)
    assert after.values == before.values
    assert (after.profile, after.profile_source) == (before.profile, "default")
    assert not after.aliases
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_config(path.with_name("none.json"), path) == ServerConfig()


def test_the_defaults_that_the_file_shows_are_the_defaults(irons_env: dict[str, str], tmp_path: Path) -> None:
    """With each setting active that has a default, every value is what it is without a file."""
    path = config_path(irons_env)
    default = load({}, irons_env)
    path.parent.mkdir(parents=True)
    path.write_text(_active(examples=False))
    found = load({}, irons_env)
    assert {name: value.value for name, value in found.values.items()} == {
        name: value.value for name, value in default.values.items()
    }
    local = read_config(tmp_path / "none.json", path)
    assert local == ServerConfig(connections=Caps().connections, synthetic_pool=str(POOL))


def test_every_example_of_the_file_is_valid(irons_env: dict[str, str], tmp_path: Path) -> None:
    """With every line active the client and the local backend take the file."""
    path = config_path(irons_env)
    path.parent.mkdir(parents=True)
    path.write_text(_active(examples=True))
    found = load({}, irons_env)
    assert {value.source for value in found.values.values()} == {"config"}
    assert load({"profile": "work"}, irons_env).api_url == "https://sandboxes.example.com"
    assert found.aliases == {"st": "status -o json"}
    assert set(found.local) == set(LOCAL_KEYS)
    assert read_config(tmp_path / "none.json", path).keep_days == 90


def test_the_file_explains_every_setting() -> None:
    """Each setting follows its sentence and its variable, and each table is there; no line is wider than 120."""
    text = annotated()
    for name, key in KEYS.items():
        sentence = " ".join(line.removeprefix("# ") for line in text.partition(f"#{name} = ")[0].splitlines())
        assert key.help in sentence
        assert f"Variable: {key.env}." in sentence
    for name in LOCAL_KEYS:
        assert re.search(rf"^#{name} = |^\[local\.{name}\]$", text, re.MULTILINE)
    for name in TABLES:
        assert f"[{name}" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("target", ["file", "link", "nowhere"])
def test_init_changes_nothing_that_is_there(
    run_irons: Runner, irons_env: dict[str, str], tmp_path: Path, target: str
) -> None:
    """A file, a link to one, and a link to nothing are refused with 5 and stay as they are."""
    path = config_path(irons_env)
    path.parent.mkdir(parents=True)
    if target == "file":
        path.write_text("# mine\n")
    else:
        path.symlink_to(tmp_path / target)
    if target == "link":
        (tmp_path / target).write_text("# mine\n")
    outcome = run_irons("config", "init")
    assert outcome.code == 5
    assert f"{path} exists already and was not changed" in outcome.err
    assert f"mv {path} {path}.old" in outcome.err
    assert path.is_symlink() is (target != "file")
    assert not (tmp_path / "nowhere").exists()
    if target != "nowhere":
        assert path.read_text() == "# mine\n"


def test_init_where_nothing_can_be_written(run_irons: Runner, tmp_path: Path) -> None:
    """A path below a file is a configuration error that names it."""
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "config.toml"
    run_irons.env["IRONS_CONFIG"] = str(path)
    outcome = run_irons("config", "init")
    assert outcome.code == 2
    assert f"{path} can't be written: " in outcome.err


def test_config_set_and_use_change_the_file_that_init_wrote(
    run_irons: Runner, irons_env: dict[str, str]
) -> None:
    """What is set goes into a table of the profile at the end, the profile in use to the top; every comment stays."""
    run_irons("config", "init").ok()
    run_irons("config", "set", "--profile", "mine", "api_url", "local").ok()
    run_irons("config", "use", "mine").ok()
    text = config_path(irons_env).read_text()
    assert text.endswith('\n[profiles.mine]\napi_url = "local"\n')
    assert re.search(r'^profile = "mine"\n+\[aliases\]$', text, re.MULTILINE)
    assert load({}, irons_env).values["api_url"].source == "profile mine"
    assert set(annotated().splitlines()) <= set(text.splitlines())
