"""Labels, `--all`, and work on several sandboxes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from irons.client.made import SETTLED, MadeSandboxes
from irons.testing import FakeApi, Runner, faults


@pytest.fixture
def three(run_irons: Runner, own_api: FakeApi, irons_env: dict[str, str]) -> FakeApi:
    """A server with `one` and `two`, which this profile made, and `hers`, which it did not."""
    key = Path(irons_env["HOME"]) / ".ssh" / "id_ed25519.pub"
    key.parent.mkdir(parents=True)
    key.write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGFnZW50cyBhcmUgcGVvcGxlIHRvbywgcHJldHR5IG11Y2g me\n")
    run_irons("create", "one", "--label", "team=web", "--label", "ci=1").ok()
    run_irons("create", "two", "--label", "team=data").ok()
    own_api.add("hers", labels={"team": "web"})
    return own_api


def test_create_sends_labels(three: FakeApi) -> None:
    """`create --label` may be given again, and each goes to the server."""
    assert three.sandboxes["one"].labels == {"team": "web", "ci": "1"}


def test_labels_are_shown(run_irons: Runner, three: FakeApi) -> None:
    """`list`, `status` and `-o json` show labels."""
    assert "ci=1 team=web" in run_irons("list").ok().out
    assert "ci=1 team=web" in run_irons("status", "one", "-o", "table").ok().out
    assert run_irons("status", "two", "-o", "json").ok().json()["labels"] == {"team": "data"}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--label", "team=web"], ["one", "hers"]),
        (["--label", "team"], ["one", "two", "hers"]),
        (["--label", "team", "--label", "ci"], ["one"]),
        (["--label", "team=nobody"], []),
    ],
)
def test_list_by_label(run_irons: Runner, three: FakeApi, words: list[str], names: list[str]) -> None:
    """`list --label` narrows by each label; a key alone is met by any value."""
    assert run_irons("list", "-q", *words).ok().lines == names


@pytest.mark.parametrize("word", ["", "=x", "a,b", "team"])
def test_a_label_to_create_with_needs_key_and_value(run_irons: Runner, own: FakeApi, word: str) -> None:
    """What is not KEY=VALUE is refused before anything is sent."""
    assert run_irons("create", "new", "--label", word).code == 2
    assert "POST /sandboxes" not in own.lines()


def test_a_plain_server_knows_no_labels(run_irons: Runner, one: FakeApi) -> None:
    """At a server without labels, `--label` says so and does nothing."""
    done = run_irons("list", "--label", "team")
    assert (done.code, "labels" in done.err) == (1, True)


@pytest.mark.parametrize(
    ("words", "stopped", "left"),
    [
        (["--all"], {"one", "two"}, "hers"),
        (["--label", "team=web"], {"one"}, "hers"),
        (["one", "two"], {"one", "two"}, ""),
        (["hers"], {"hers"}, ""),
    ],
)
def test_stop_of_several(
    run_irons: Runner, three: FakeApi, words: list[str], stopped: set[str], left: str
) -> None:
    """`--all` and `--label` mean what this profile made, and say what they leave out; a name means any."""
    done = run_irons("stop", *words).ok()
    assert {each.name for each in three.sandboxes.values() if each.status == "stopped"} == stopped
    assert left in done.err


def test_several_are_begun_before_one_is_waited_for(run_irons: Runner, three: FakeApi) -> None:
    """All are asked to stop before the first is waited for."""
    run_irons("stop", "one", "two").ok()
    lines = three.lines()
    first_poll = lines.index("GET /sandboxes/one", lines.index("POST /sandboxes/one/stop"))
    assert lines.index("POST /sandboxes/two/stop") < first_poll


def test_one_failure_does_not_stop_the_others(run_irons: Runner, three: FakeApi) -> None:
    """The others are stopped, the error names the one, and the worst exit code is the command's."""
    done = run_irons("stop", "nobody", "two")
    assert (done.code, three.sandboxes["two"].status) == (3, "stopped")
    assert "irons: nobody:" in done.err
    assert "1 of 2 sandboxes were not stopped" in done.err


def test_status_of_several(run_irons: Runner, three: FakeApi) -> None:
    """Several are an array in JSON and lines as `list` has them else; one by name stays an object."""
    assert [row["name"] for row in run_irons("status", "one", "two", "-o", "json").ok().json()] == [
        "one",
        "two",
    ]
    assert [row["name"] for row in run_irons("status", "--label", "ci", "-o", "json").ok().json()] == ["one"]
    assert [line.split("\t")[0] for line in run_irons("status", "--all").ok().lines] == ["one", "two"]
    assert run_irons("status", "one", "-o", "json").ok().json()["name"] == "one"


def test_a_sandbox_in_use_is_not_meant_beside_all(run_irons: Runner, three: FakeApi) -> None:
    """`IRONS_SANDBOX` is meant where no name is given, and not next to `--all` or `--label`."""
    env = {"IRONS_SANDBOX": "hers"}
    run_irons("stop", "--label", "ci=1", env=env).ok()
    assert three.sandboxes["hers"].status == "ready"
    run_irons("stop", env=env).ok()
    assert three.sandboxes["hers"].status == "stopped"


def test_names_beside_all(run_irons: Runner, three: FakeApi) -> None:
    """Names and `--all` together are a usage error."""
    assert run_irons("stop", "one", "--all").code == 2
    assert three.sandboxes["one"].status == "creating" or three.sandboxes["one"].status == "ready"


def test_neither_names_nor_all(run_irons: Runner, three: FakeApi) -> None:
    """Without both the command says what it needs."""
    assert "needs NAME" in run_irons("destroy").err


def test_destroy_all_needs_force_where_it_cannot_ask(run_irons: Runner, three: FakeApi) -> None:
    """Without a terminal `destroy --all` does nothing without `--force`."""
    assert run_irons("destroy", "--all").code == 2
    assert set(three.sandboxes) == {"one", "two", "hers"}
    assert run_irons("destroy", "--all", "--force").ok().lines == ["one is destroyed", "two is destroyed"]
    assert set(three.sandboxes) == {"hers"}


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1)])
def test_destroy_all_lists_and_asks(run_irons: Runner, three: FakeApi, answer: str, code: int) -> None:
    """In a terminal `destroy --all` lists the sandboxes and asks."""
    done = run_irons("destroy", "--all", stdin=answer, tty=True)
    assert "Destroy these 2 sandboxes: one, two for good?" in done.err
    assert (done.code, set(three.sandboxes)) == (code, {"hers"} if code == 0 else {"one", "two", "hers"})


@pytest.mark.parametrize("words", [["gone"], ["--label", "ci=9"]])
def test_destroy_if_exists(run_irons: Runner, three: FakeApi, words: list[str]) -> None:
    """What is not there is exit code 3, and a success with `--if-exists`."""
    assert run_irons("destroy", *words, "--force").code == 3
    assert run_irons("destroy", *words, "--force", "--if-exists").ok().out == ""


def test_destroy_if_exists_hides_no_other_error(run_irons: Runner, three: FakeApi) -> None:
    """`--if-exists` is about what is missing alone."""
    three.fail(faults.error(403, "not yours"), on="DELETE")
    assert run_irons("destroy", "one", "--if-exists").code != 0


def test_another_profile_made_nothing(run_irons: Runner, three: FakeApi, irons_env: dict[str, str]) -> None:
    """What one profile made is not what another means by `--all`."""
    path = Path(irons_env["XDG_CONFIG_HOME"]) / "irons" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'[profiles.other]\napi_url = "{three.url}"\n')
    done = run_irons("destroy", "--all", "--force", "--profile", "other").ok()
    assert "no sandbox to destroy" in done.err
    assert len(three.sandboxes) == 3


def test_what_is_gone_for_long_is_forgotten(tmp_path: Path) -> None:
    """A list forgets what it lacks, unless that was made a moment ago."""
    made = MadeSandboxes(tmp_path / "made")
    for identity in ("sb_old", "sb_new", "sb_there", "../odd\0id"):
        made.add(identity)
    before = time.time() - SETTLED - 60
    for path in made.directory.iterdir():
        os.utime(path, (before, before))
    made.add("sb_new")
    made.keep(["sb_there"])
    assert made.among(["sb_old", "sb_new", "sb_there", "../odd\0id"]) == {"sb_new", "sb_there"}
