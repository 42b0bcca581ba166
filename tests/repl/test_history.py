"""The history file."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons.host import PluginHost
from irons_repl.line.history import MOST, FileHistory, worth_keeping
from irons_repl.line.secrets import holds_secret
from irons_repl.line.unforced import unforced

KEY = "k-secret-0123456789"


def lines(history: FileHistory) -> list[str]:
    """Entries, the newest first."""
    return list(history.load_history_strings())


def test_lines_are_kept_for_their_owner_alone(tmp_path: Path) -> None:
    """What was typed comes back in the next prompt, from a file of mode 0600 in a directory of mode 0700."""
    path = tmp_path / "irons" / "history"
    history = FileHistory(path)
    history.append_string("list")
    history.append_string("one\ntwo")
    assert lines(FileHistory(path)) == ["one\ntwo", "list"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    """A mode that lets others read is repaired."""
    path = tmp_path / "history"
    path.write_text('"list"\n')
    path.chmod(0o644)
    FileHistory(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "line",
    [
        " list",
        "",
        "   ",
        "list --api-key abc",
        "list --api-key=abc",
        "config set api_key abc",
        "config set 'api_key' abc",
        "!export IRONS_API_KEY=abc",
        "!export DB_PASSWORD=abc",
        "exec box --env TOKEN=abc -- x",
        f"status {KEY}",
        "x" * 20_000,
    ],
)
def test_keys_and_private_lines_are_not_kept(tmp_path: Path, line: str) -> None:
    """Lines with a key, or with a space before them, never reach the file, nor the suggestions."""
    history = FileHistory(tmp_path / "history", KEY)
    history.append_string(line)
    assert lines(history) == []
    assert history.get_strings() == []
    assert not (tmp_path / "history").exists()


VALUES = st.text("abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", min_size=3, max_size=40)
SHAPES = [
    "exec a -- curl -H 'Authorization: Bearer {}' https://x.example",
    "exec a -- curl -H 'X-Api-Key: {}' https://x.example",
    "exec a -- curl -H 'Cookie: session={}' x.example",
    "exec a -- mysql --password {}",
    "exec a -- mysql -u root -p{}",
    "exec a -- claude --token {}",
    "exec a -- aws --secret-access-key={}",
    "exec a -- tool --client-secret '{}'",
    "exec a -- gpg --passphrase {}",
    "exec a -- openssl enc -passin pass:{}",
    "exec a -- curl -u me:{} x.example",
    "exec a -- curl -sume:{} x.example",
    "exec a -- curl --user=me:{} x.example",
    "exec a -- git clone https://me:{}@git.example/x",
    "exec a -- psql postgres://me:{}@db/x",
    "exec a -- sshpass -p {} ssh x",
    "exec a -- docker login -u me -p {}",
    "exec a -- env AWS_SECRET_ACCESS_KEY={} x",
    "exec a -- env SSH_PRIVATE_KEY={} x",
    "!OPENAI_API_KEY='{}' ./run",
    "!GITHUB_TOKEN={} ./run",
    "export ANYTHING={}",
    "export HOME OTHER={}",
    "list || export ANYTHING={}",
    "a: 'export ANYTHING={}; make'",
    'exec a -- echo \'{{"password": "{}"}}\'',
    "exec a -- curl 'https://x.example/?access_token={}'",
    "exec a -- curl 'https://x.example/?key={}'",
    "exec a -- git clone https://ghp_{}@git.example/x",
    "exec a -- echo github_pat_{}",
    "exec a -- echo sk-{}",
    "exec a -- echo xoxb-{}",
    "exec a -- echo AKIA{}",
    "exec a -- echo glpat-{}",
    "status --api-key {}",
    "config set api_key {}",
    "config set plugins.desk.token {}",
    "config set plugins.desk.webhook {}",
    "config set --profile work 'plugins.desk.webhook' {}",
    "exec a -- aws configure set aws_secret_access_key {}",
    "exec a -- git config --global gitlab.token {}",
    "exec a -- npm config set //registry.example/:_authToken {}",
]


@given(st.sampled_from(SHAPES), VALUES, st.sampled_from(["", "list; ", "use a && ", "!true; "]))
def test_no_shape_of_a_secret_is_kept(shape: str, value: str, before: str) -> None:
    """Whatever the secret is and wherever it stands in the line, the line is left out."""
    assert not worth_keeping(before + shape.format(value), None)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=2000))
def test_any_line_can_be_looked_at(line: str) -> None:
    """No text breaks the search for secrets."""
    holds_secret(line)


@pytest.mark.parametrize(
    "line",
    [
        "egress allow token.example '*.secrets.example' --sandbox alpha",
        "egress deny password.example --note 'not this'",
        "config set public_key ~/.ssh/id_ed25519.pub",
        "config get plugins.desk.token",
        "export ANYTHING",
        "egress export > policy.toml",
        "exec alpha -- gh secret set TOKEN",
        "create alpha --public-key ~/.ssh/id_ed25519.pub --mode deny",
        "exec alpha -- pytest -q tests/test_tokens.py",
        "exec alpha --env TOKEN -- ./run",
        "scp alpha:/srv/report.json .",
        "audit why alpha files.example:443",
        "egress allow [2001:db8::1]:443",
        "local key revoke key_1",
        "forward alpha 8080:80",
        "exec alpha -- git clone git@git.example:python/cpython.git",
        "exec alpha -- pip install tokenizers==0.19.1",
        "status sb_0123456789abcdef",
        "create a --label team=blue --label ci=42",
        "exec alpha -- git show 3f786850e387550fdab836ed7e6dc881de23001b",
        "exec alpha -- ls /home/agent/Projects2/Thing/src/main/java/org/Example/Thing2.java",
    ],
)
def test_ordinary_lines_are_kept(line: str) -> None:
    """Names of things that are secret are no secrets, nor are hosts, ports, hashes and paths."""
    assert worth_keeping(line, None)


def test_a_file_of_an_earlier_version_is_gone_through_once(tmp_path: Path) -> None:
    """Secrets that an earlier version kept are removed from the file."""
    path = tmp_path / "history"
    path.write_text('"list"\n"exec a -- mysql --password hunter2"\n"destroy a --force"\n')
    assert lines(FileHistory(path, recalled=lambda line: unforced(line, TREE))) == ["destroy a", "list"]
    assert path.read_text() == '"list"\n"destroy a"\n'


TREE = PluginHost(env={"IRONS_PLUGINS": ""}).tree


@pytest.mark.parametrize(
    ("line", "recalled"),
    [
        ("destroy gamma --force", "destroy gamma"),
        ("destroy --force gamma; list", "destroy gamma; list"),
        ("irons rm gamma '--force' && list", "irons rm gamma && list"),
        ("--debug destroy gamma --force", "--debug destroy gamma"),
        ("egress lock gamma -y | cat", "egress lock gamma | cat"),
        ("destroy a --force > out", "destroy a > out"),
        ("exec gamma -- rm -y --force x", "exec gamma -- rm -y --force x"),
        ("!rm --force x", "!rm --force x"),
        ("gamma: rm --force x", "gamma: rm --force x"),
        ("!irons destroy gamma --force", ""),
        ("list -q | xargs irons destroy --force", ""),
        ("destroy gamma", "destroy gamma"),
    ],
)
def test_a_recalled_line_asks_before_it_destroys(tmp_path: Path, line: str, recalled: str) -> None:
    """What keeps a command from asking is not recalled; what other programs are given is left as it is."""
    history = FileHistory(tmp_path / "history", recalled=lambda typed: unforced(typed, TREE))
    history.append_string(line)
    assert "".join(history.lines) == recalled
    assert "".join(lines(FileHistory(tmp_path / "history"))) == recalled


def test_the_same_line_again_is_one_entry(tmp_path: Path) -> None:
    """A line that is run twice is recalled once."""
    history = FileHistory(tmp_path / "history")
    for line in ("list", "list", "plugins", "list"):
        history.append_string(line)
    assert history.lines == ["list", "plugins", "list"]


def test_a_corrupt_file_is_kept_aside_and_its_whole_lines_go_on(tmp_path: Path) -> None:
    """Garbage is moved away under a name that shows it, with one line, and good lines survive."""
    path = tmp_path / "history"
    path.write_bytes(b'"list"\n\x00\xff\xfe garbage\n"stat')
    history = FileHistory(path)
    assert "corrupt" in history.said
    assert lines(history) == ["list"]
    (aside,) = tmp_path.glob("history.corrupt-*")
    assert b"garbage" in aside.read_bytes()
    assert FileHistory(path).said == ""


def test_a_file_that_cannot_be_read_is_done_without(tmp_path: Path) -> None:
    """A directory in its place is reported, and the prompt goes on without."""
    (tmp_path / "history").mkdir()
    history = FileHistory(tmp_path / "history")
    assert "can't be read" in history.said
    history.append_string("list")
    assert history.get_strings() == ["list"]


def test_the_newest_entries_are_kept(tmp_path: Path) -> None:
    """A file that has grown beyond its bound is cut to the newest entries."""
    path = tmp_path / "history"
    path.write_text("".join(json.dumps(f"line {n}") + "\n" for n in range(MOST * 2)))
    history = FileHistory(path)
    assert lines(history)[0] == f"line {MOST * 2 - 1}"
    assert len(lines(history)) == len(path.read_text().splitlines()) == MOST


@pytest.mark.slow
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50))
def test_any_line_worth_keeping_comes_back(tmp_path_factory: pytest.TempPathFactory, line: str) -> None:
    """No matter what a line holds, it is one entry."""
    path = tmp_path_factory.mktemp("history") / "history"
    FileHistory(path).append_string(line)
    assert lines(FileHistory(path)) == ([line] if worth_keeping(line, None) else [])
