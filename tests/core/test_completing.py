"""Completion: what may come next, from the tree and from what is on hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons.cli.completing import FILES, RemotePath, Sources, complete, offer
from irons.cli.shell_completion import answer
from irons.client.models.egress import ListedRule, RuleChanged
from irons.client.models.sandboxes import AuthorizedKey
from irons.client.models.server import ApiKey
from irons.client.names import NameCache
from irons.client.scoped_names import keep_access, keep_api_keys, keep_changes, keep_rules
from irons.command import ALL_SANDBOXES, ONE_SANDBOX, Arg, Command, Flag, Opt
from irons.host import PluginHost
from irons.settings.settings import load
from irons.tree import Tree

TREE = Tree().with_commands(
    [
        Command(
            ("copy",),
            "Copy.",
            "x:y",
            (
                Arg("source", kind="sandbox"),
                Arg("target", kind="file"),
                Opt(("-m", "--mode"), "Mode.", choices=("fast", "slow")),
                Opt(("--tag",), "Tags.", many=True),
                Opt(("--like",), "Another.", kind="sandbox"),
                Flag(("-f", "--force"), "Force."),
            ),
            aliases=(("cp",),),
        ),
        Command(("run",), "Run.", "x:y", (Arg("name", kind="sandbox"), Arg("argv", takes="--"))),
        Command(("kill",), "Kill.", "x:y", (Arg("names", kind="sandbox", takes="+"),)),
        Command(("net", "allow"), "Allow.", "x:y", (Arg("domain", kind="domain"),)),
        Command(("net", "mode"), "Mode.", "x:y", (Arg("mode", choices=("warn", "deny"), takes="?"),)),
        Command(("secret",), "Hidden.", "x:y", hidden=True),
        Command(("topic",), "Topic.", "x:y", (Arg("words", kind="topic", takes="*"),)),
        Command(("image",), "Image.", "x:y", (Arg("image", kind="image"),)),
        Command(
            ("log",), "Log.", "x:y", (Arg("name", kind="sandbox", takes="?"), Flag(("--wide",))), leads=True
        ),
        Command(("log", "why"), "Why.", "x:y", (Arg("domain", kind="domain"),)),
        Command(
            ("pack",),
            "Pack.",
            "x:y",
            (Arg("argv", takes="--", kind="file"), Opt(("--env",), kind="variable")),
        ),
        Command(
            ("drop",),
            "Drop.",
            "x:y",
            (Arg("rules", kind="rule", takes="+"), ONE_SANDBOX, ALL_SANDBOXES),
            scope="sandbox",
        ),
        Command(
            ("send",),
            "Send.",
            "x:y",
            (
                Arg("source", kind="remote", paths="here:paths"),
                Arg("target", kind="remote", paths="here:paths"),
            ),
        ),
        Command(
            ("do",),
            "Do.",
            "x:y",
            (
                Arg("names", kind="sandbox", takes="+", instead=("everything",)),
                Flag(("--all",), name="everything"),
                Opt(("--workdir",)),
                Arg("words", "", "remote", "--", paths="here:paths"),
            ),
        ),
        Command(("back",), "Back.", "x:y", (Arg("snapshot", kind="snapshot"),)),
        Command(("keys",), "Keys.", "x:y", (Arg("id", kind="key"),)),
        Command(("door",), "Door.", "x:y", (Arg("name", kind="sandbox"), Arg("key", kind="public-key"))),
        Command(("set",), "Set.", "x:y", (Arg("key", kind="setting"),)),
        Command(("profile",), "Profile.", "x:y", (Arg("name", kind="profile"),)),
        Command(("mark",), "Mark.", "x:y", (Opt(("--label",), kind="label", many=True),)),
    ]
)
SOURCES = Sources(
    sandboxes=lambda: {"one": "ready", "two": "stopped"},
    domains=lambda: {"example.com": "allow"},
    images=lambda: {"base": "image"},
    snapshots=lambda: {"clean": "of one"},
    labels=lambda: {"team=web": "2 sandboxes", "ci=1": "1 sandbox"},
    topics=lambda: {"egress": "topic"},
    rules=lambda scope: {
        "": {"all.example": "denied"},
        "one": {"one.example": "allowed", "both.example": "allowed"},
        "used": {"in-use.example": "allowed"},
    }.get(scope, {}),
    keys=lambda scope: {"": {"laptop": "k1"}, "one": {"0123": "me@here"}}.get(scope, {}),
    used=lambda: "used",
    remote=lambda where: {f"{where.path}{where.sandbox}": where.finder, f"{where.path}/": "folder"},
    profiles=lambda: {"default": "", "work": "https://work.example"},
    settings=lambda: {"output": "How.", "sandbox": "Which."},
    variables=lambda: {"HOME": ""},
    aliases=lambda: {"xx": "copy --force", "gone": "nothing", "torn": "copy 'one", "nn": "net"},
)
GLOBALS = ["--output", "--profile", "--api-url", "--api-key", "--no-plugins", "--no-input", "--debug"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            "",
            [*TREE.below(), "xx", "gone", "torn", "nn"],
        ),
        ("c", ["copy", "cp"]),
        ("secr", []),
        ("net ", ["allow", "mode"]),
        ("net m", ["mode"]),
        ("nothing ", []),
        ("net mode ", ["warn", "deny"]),
        ("net allow ", ["example.com"]),
        ("image ", ["base"]),
        ("back ", ["clean"]),
        ("log ", ["one", "two", "why"]),
        ("log w", ["why"]),
        ("log why ", ["example.com"]),
        ("log one ", []),
        ("log --wi", ["--wide"]),
        ("mark --label ", ["team=web", "ci=1"]),
        ("mark --label=te", ["--label=team=web"]),
        ("mark --label ci=1 --label team=w", ["team=web"]),
        ("topic eg", ["egress"]),
        ("topic co", ["copy"]),
        ("topic net ", ["allow", "mode"]),
        ("topic copy ", []),
        ("drop ", ["in-use.example"]),
        ("drop --sandbox one ", ["one.example", "both.example"]),
        ("drop --sandbox=one o", ["one.example"]),
        ("drop --sandbox one both.example ", ["one.example"]),
        ("drop --sandbox one --all ", ["all.example"]),
        ("drop --all ", ["all.example"]),
        ("drop --sandbox two ", []),
        ("keys ", ["laptop"]),
        ("door ", ["one", "two"]),
        ("door one ", ["0123", FILES.word]),
        ("door two ", [FILES.word]),
        ("set ", ["output", "sandbox"]),
        ("profile ", ["default", "work"]),
        ("copy ", ["one", "two"]),
        ("cp t", ["two"]),
        ("copy one ", [FILES.word]),
        ("copy one x ", []),
        ("kill one ", ["two"]),
        ("copy --mode ", ["fast", "slow"]),
        ("copy --mode=s", ["--mode=slow"]),
        ("copy -m f", ["fast"]),
        ("copy --like=", ["--like=one", "--like=two"]),
        ("copy --force ", ["one", "two"]),
        ("copy --fo", ["--force"]),
        ("copy --force --fo", []),
        ("copy --tag x --ta", ["--tag"]),
        ("send ", ["one:", "two:", FILES.word]),
        ("send t", ["two:", FILES.word]),
        ("send one:/sr", ["one:/srone", "one:/sr/"]),
        ("send ./one:/sr", [FILES.word]),
        ("send x one:", ["one:one", "one:/"]),
        ("send :x", []),
        ("do one -- cat sr", ["srone", "sr/"]),
        ("do one -- ", ["one", "/"]),
        ("do -- sr", ["srused", "sr/"]),
        ("do one two -- sr", []),
        ("do --all -- sr", []),
        ("do one -- cat ~/sr", []),
        ("do one --workdir /a -- b", ["bone", "b/"]),
        ("do one --workdir=/a -- /b", ["/bone", "/b/"]),
        ("run one -- ", []),
        ("run one -- ls ", []),
        ("pack -- ", [FILES.word]),
        ("pack -- tar ", [FILES.word]),
        ("pack --env ", ["HOME"]),
        ("pack --env=", ["--env=HOME"]),
        ("x", ["xx"]),
        ("xx ", ["one", "two"]),
        ("xx --fo", []),
        ("gone ", []),
        ("torn ", []),
        ("nn ", ["allow", "mode"]),
        ("nn allow ", ["example.com"]),
        ("topic xx", ["xx"]),
        ("--", GLOBALS),
        ("-o ", ["table", "plain", "json", "jsonl"]),
        ("-o js", ["json", "jsonl"]),
        ("--output=js", []),
        ("-o json c", ["copy", "cp"]),
        ("--output=json copy t", ["two"]),
        ("--debug net ", ["allow", "mode"]),
        ("--profile x copy o", ["one"]),
        ("--profile w", ["work"]),
        ("copy --profile ", ["default", "work"]),
        ("--api-url ", []),
        ("copy --output j", ["json", "jsonl"]),
    ],
)
def test_what_may_come_next(line: str, found: list[str]) -> None:
    """Commands, their options, choices, values on hand, files; what is given already is not offered again."""
    words = line.split(" ")
    assert [candidate.word for candidate in complete(TREE, words, SOURCES)] == found


def test_a_name_says_its_state() -> None:
    """What describes a candidate comes with it."""
    assert [(c.word, c.about) for c in complete(TREE, ["copy", "o"], SOURCES)] == [("one", "ready")]
    assert [(c.word, c.about) for c in complete(TREE, ["net", "a"], SOURCES)] == [("allow", "Allow.")]


def test_a_sandbox_is_asked_only_when_it_is_wanted() -> None:
    """An offer says where a path goes on, and asks no one; below --workdir the path begins there."""
    asked: list[RemotePath] = []

    def remote(where: RemotePath) -> dict[str, str]:
        asked.append(where)
        return {"/a/by": ""}

    sources = SOURCES._replace(remote=remote)
    offered = offer(TREE, ["do", "one", "--workdir", "/a/", "--", "b"], sources)
    assert (offered.values, asked) == ({}, [])
    assert offered.with_remote(sources).values == {"by": ""}
    assert asked == [RemotePath("one", "/a/b", "here:paths")]


REAL = PluginHost({"IRONS_PLUGINS": ""}, lambda _: None).tree


@given(
    st.lists(
        st.one_of(st.text(max_size=8), st.sampled_from(["egress", "allow", "--", "-o", "status", "="])),
        max_size=6,
    )
)
def test_any_words_complete(words: list[str]) -> None:
    """No matter what was typed, completion answers with what begins like that."""
    for candidate in complete(REAL, words, SOURCES):
        assert candidate == FILES or candidate.word.startswith(words[-1] if words else "")


# `irons __complete`


@pytest.fixture
def home(irons_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """This process's environment, made the test's own; processes that would refresh are only noted."""
    for key in [key for key in os.environ if key.startswith(("IRONS_", "XDG_"))]:
        monkeypatch.delenv(key)
    for key, value in irons_env.items():
        monkeypatch.setenv(key, value)
    return irons_env


class Started:
    """Stands where processes are started, and notes them."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], dict[str, str]]] = []

    def __call__(self, argv: list[str], *, env: dict[str, str], **_: object) -> Started:
        self.calls.append((argv, env))
        return self

    def wait(self) -> int:
        return 0


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Processes that were started in the background."""
    noted = Started()
    monkeypatch.setattr("subprocess.Popen", noted)
    return noted


def told(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """What `irons __complete` prints."""
    assert answer(list(words)) == 0
    return capsys.readouterr().out.splitlines()


def test_the_answer_is_words_and_descriptions(
    home: dict[str, str], capsys: pytest.CaptureFixture[str], started: Started
) -> None:
    """A line a candidate, a tab, what it is; file names are announced; hostile names are left out."""
    names = NameCache.of(load({}, home))
    names.replace({"one": "ready", "bad\x1b[31m": "x", ":odd": "x", "tab\there": "x", "b": "\x1b[2J"})
    assert told(capsys, "status", "") == ["one\tready", "b\t\\x1b[2J"]
    assert told(capsys, "egress", "mo") == ["mode\tShow the egress mode, or set it."]
    assert told(capsys, "create", "--key", "") == [":files"]
    assert "exit-codes\tWhat each exit code means." in told(capsys, "help", "ex")
    assert told(capsys, "help", "egress", "all") == ["allow\tAllow domains."]
    assert told(capsys, "help", "egress", "pre") == ["preset\tlist, show, allow, diff"]
    assert told(capsys, "exec", "one", "--", "") == []
    assert ":files" in told(capsys, "run", "--", "")
    assert told(capsys, "nothing", "") == []
    assert started.calls == []


def test_rules_and_keys_belong_to_a_sandbox_or_to_all(
    home: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`remove` offers the rules of the scope that is meant and nothing else; keys likewise; what can't be typed is left out."""
    settings = load({}, home)
    keep_rules(settings, None, [ListedRule("deny", "all.example")])
    keep_rules(settings, "box", [ListedRule("allow", "box.example"), ListedRule("allow", "two words")])
    keep_changes(settings, "box", "deny", [RuleChanged("new.example")])
    keep_changes(settings, "box", "remove", [RuleChanged("box.example")])
    keep_access(settings, "box", [AuthorizedKey("0123", "ssh-ed25519", "SHA256:x", "me@here")])
    keep_api_keys(settings, [ApiKey("k1", "laptop"), ApiKey("k2", "ci"), ApiKey("k3", "ci")])
    NameCache.of(settings, what="domains").replace(
        {"new.example": "seen: denied", "other.example": "seen: allowed"}
    )
    assert told(capsys, "egress", "remove", "") == ["all.example\tdenied"]
    assert told(capsys, "egress", "remove", "--sandbox", "box", "") == ["new.example\tdenied"]
    assert told(capsys, "egress", "allow", "--sandbox", "box", "") == [
        "new.example\tdenied",
        "other.example\tseen: allowed",
    ]
    assert told(capsys, "access", "box", "remove", "") == ["0123\tme@here", ":files"]
    assert told(capsys, "local", "key", "revoke", "") == ["laptop\tk1", "k2\tci", "k3\tci"]
    monkeypatch.setenv("IRONS_SANDBOX", "box")
    assert told(capsys, "egress", "remove", "") == ["new.example\tdenied"]
    assert told(capsys, "egress", "remove", "--all", "") == ["all.example\tdenied"]
    assert started.calls == []


def test_settings_profiles_and_variables(
    home: dict[str, str], capsys: pytest.CaptureFixture[str], started: Started
) -> None:
    """They come from the settings that there are, the configuration file and the environment, a profile that is half typed too."""
    config = Path(home["XDG_CONFIG_HOME"]) / "irons" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[profiles.work]\napi_url = "https://work.example"\n')
    assert told(capsys, "config", "set", "edi") == ["editing_mode\tKeys of the prompt."]
    for words in (("config", "use", "w"), ("--profile", "w"), ("status", "--profile", "w")):
        assert told(capsys, *words) == ["work\thttps://work.example"]
    assert "HOME\t" in told(capsys, "exec", "one", "--env", "HO")
    assert "HOME\t" in told(capsys, "create", "--env", "HO")
    variables = told(capsys, "create", "--env", "")
    assert variables == sorted(variables)
    config.write_text("nonsense")
    assert told(capsys, "config", "use", "") == ["default\t"]


def test_stale_names_are_refreshed_by_a_process_nobody_waits_for(
    home: dict[str, str], capsys: pytest.CaptureFixture[str], started: Started
) -> None:
    """An old cache answers at once and starts one process, with the connection in its environment, not in its words."""
    flags = {"api_url": "http://127.0.0.1:1", "api_key": "k3y"}
    names = NameCache.of(load(flags, home))
    names.replace({"one": "ready"})
    os.utime(names.path, (1, 1))
    for _ in range(3):
        words = ("--api-url", "http://127.0.0.1:1", "--api-key=k3y", "status", "")
        assert told(capsys, *words) == ["one\tready"]
    [(argv, env)] = started.calls
    assert argv[1:] == ["-P", "-m", "irons.client.refreshing"]
    assert env["IRONS_NO_START"] == "1", "a local backend that is down stays down"
    assert env["IRONS_API_URL"] == "http://127.0.0.1:1"
    assert env["IRONS_API_KEY"] == "k3y"


def test_nothing_is_started_where_nothing_was_known(
    home: dict[str, str], capsys: pytest.CaptureFixture[str], started: Started
) -> None:
    """Tab on a new machine starts neither a request nor a daemon."""
    assert told(capsys, "status", "") == []
    assert started.calls == []


def test_a_broken_configuration_completes_without_names(
    home: dict[str, str], capsys: pytest.CaptureFixture[str], started: Started
) -> None:
    """Completion never complains."""
    config = Path(home["XDG_CONFIG_HOME"]) / "irons" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("nonsense")
    assert told(capsys, "status", "") == []
    assert "list\tList the sandboxes." in told(capsys, "li")
    assert started.calls == []


# Names


def test_names_are_kept_and_forgotten(tmp_path: Path) -> None:
    """What was learned is there for the next process; a broken file is nothing."""
    names = NameCache(tmp_path / "cache" / "names.json")
    assert names.read() == {}
    assert names.age() == float("inf")
    names.put("one", "ready")
    names.put("two", "stopped")
    names.forget("one")
    names.forget("one")
    assert NameCache(names.path).read() == {"two": "stopped"}
    assert names.age() < 60
    for broken in ("", "[1]", "{", "\x00"):
        names.path.write_text(broken)
        assert names.read() == {}
    names.path.write_text(json.dumps({"one": 1}))
    assert names.read() == {"one": "1"}


def test_names_that_cannot_be_written_are_done_without(tmp_path: Path) -> None:
    """A broken cache is not a reason to fail."""
    (tmp_path / "file").write_text("")
    names = NameCache(tmp_path / "file" / "names.json")
    names.put("one", "ready")
    assert names.read() == {}
    assert not names.claim(10)


def test_a_claim_holds_for_a_while(tmp_path: Path) -> None:
    """Of many processes that would refresh, one does."""
    names = NameCache(tmp_path / "cache" / "names.json")
    assert names.claim(3600)
    assert not NameCache(names.path).claim(3600)
    os.utime(names.path.with_suffix(".asked"), (1, 1))
    assert names.claim(3600)


def test_a_group_of_other_words_names_them() -> None:
    """A group that has only aliases by another last word is described by these."""
    tree = Tree().with_commands([Command(("say",), "Say.", "x:y", aliases=(("voice", "speak"),))])
    assert tree.below(())["voice"] == "speak"
