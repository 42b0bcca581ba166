"""`create`: which key is sent, what is refused before any request, and what is remembered."""

from __future__ import annotations

import functools
import json
import signal
import threading
from pathlib import Path

import pytest

from irons import Backend, Context, hookimpl
from irons.client.api import connect
from irons.errors import UsageError
from irons.testing import EXTENSIONS, FakeApi, Runner, faults
from irons_plugins.ssh.connect.variables import variables_of
from irons_plugins.ssh.keys.public_key import DEFAULTS
from irons_policy.rules import RuleRequest

from .conftest import Irons, until

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB1c0LmSsZ2oc2KSYsHcE9m2bL2oOe1zL0T0rA3e7Q2o me@here\n"
PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n"


@pytest.fixture
def ssh(irons_env: dict[str, str]) -> Path:
    """An empty ~/.ssh."""
    path = Path(irons_env["HOME"]) / ".ssh"
    path.mkdir(mode=0o700)
    return path


def sent(api: FakeApi) -> str:
    """Return the public key that was sent."""
    text: str = api.calls[0].body["public_key"]
    return text


@pytest.mark.parametrize("there", [DEFAULTS[at:] for at in range(len(DEFAULTS))])
def test_the_first_default_key_is_sent(
    run_irons: Runner, fake_api: FakeApi, ssh: Path, there: tuple[str, ...]
) -> None:
    """id_rsa.pub is the default; where it is missing the next that is there is taken."""
    for name in there:
        (ssh / f"{name}.pub").write_text(KEY.replace("me@here", name))
    run_irons("create", "one").ok()
    assert sent(fake_api).endswith(f"{there[0]}\n")


def test_a_key_is_named_by_flag_setting_and_home(run_irons: Runner, fake_api: FakeApi, ssh: Path) -> None:
    """`--key` wins over the setting, and `~/` in it is the home directory."""
    (ssh / "work.pub").write_text(KEY)
    run_irons("create", "one", "--key", "~/.ssh/work.pub", env={"IRONS_PUBLIC_KEY": "/nowhere"}).ok()
    run_irons("create", "two", env={"IRONS_PUBLIC_KEY": str(ssh / "work.pub")}).ok()
    assert {call.body["public_key"] for call in fake_api.calls if call.line == "POST /sandboxes"} == {KEY}


def test_the_whole_text_is_sent(run_irons: Runner, fake_api: FakeApi, ssh: Path) -> None:
    """A file with several keys, options and comments goes as it is."""
    text = f'# mine\n{KEY}from="10.0.0.0/8" {KEY}'
    (ssh / "id_rsa.pub").write_text(text)
    run_irons("create", "one").ok()
    assert sent(fake_api) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PRIVATE, "is a private key"),
        ("-----BEGIN RSA PRIVATE KEY-----\n", "is a private key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\n", "is a private key"),
        ("", "holds no public key"),
        ("hello\n", "holds no public key"),
        ("---- BEGIN SSH2 PUBLIC KEY ----\n", "holds no public key"),
        ("ssh-ed25519 not-base64!\n", "holds no public key"),
        ("\x00" * 70_000, "too large"),
        ("\udcff\udcfe", "holds no public key"),
    ],
)
def test_what_is_no_public_key_is_refused(
    run_irons: Runner, fake_api: FakeApi, ssh: Path, text: str, said: str
) -> None:
    """A private key given by mistake, and anything else that is not a public key, is refused before any request."""
    (ssh / "x").write_bytes(text.encode(errors="surrogateescape"))
    done = run_irons("create", "one", "--key", str(ssh / "x"))
    assert done.code == 2
    assert said in done.err
    assert "BEGIN" not in done.err
    assert fake_api.calls == []


def test_the_public_half_is_named(run_irons: Runner, fake_api: FakeApi, ssh: Path) -> None:
    """Where the public half of a private key lies next to it, the error names it."""
    (ssh / "id").write_text(PRIVATE)
    (ssh / "id.pub").write_text(KEY)
    assert f"--key {ssh / 'id.pub'}" in run_irons("create", "one", "--key", str(ssh / "id")).err
    assert fake_api.calls == []


@pytest.mark.parametrize("path", ["/nowhere/id.pub", "/", "\0"])
def test_a_missing_key_file(run_irons: Runner, fake_api: FakeApi, path: str) -> None:
    """A file that is not there, or is none, is a usage error before any request."""
    assert run_irons("create", "one", "--key", path).code == 2
    assert fake_api.calls == []


@pytest.mark.process
def test_no_key_at_all(run_irons: Runner, fake_api: FakeApi, ssh: Path) -> None:
    """Without any key in ~/.ssh irons makes one of its own; one that was named and is not there is an error."""
    assert f"there is no key in ~/.ssh, so irons made one for the sandboxes of {fake_api.url}" in (
        run_irons("create", "one").ok().err
    )
    assert sent(fake_api).startswith("ssh-ed25519 ")
    done = run_irons("create", "two", "--key", str(ssh / "nowhere.pub"))
    assert done.code == 2
    assert "there is no public key file" in done.err


def test_create_is_never_sent_twice(run_irons: Runner, fake_api: FakeApi, ssh: Path) -> None:
    """A create whose answer is lost is not sent again: no one knows whether it took place."""
    (ssh / "id_rsa.pub").write_text(KEY)
    for fault in (faults.dropped(), faults.error(503), faults.too_many()):
        fake_api.calls.clear()
        fake_api.fail(fault, on="POST /sandboxes")
        assert run_irons("create", "one").code in (1, 6)
        assert fake_api.lines() == ["POST /sandboxes"]


def test_a_taken_name(run_irons: Runner, fake_api: FakeApi, ssh: Path) -> None:
    """A name that is taken is a conflict, in the server's words."""
    (ssh / "id_rsa.pub").write_text(KEY)
    fake_api.add("one")
    done = run_irons("create", "one")
    assert (done.code, done.err.splitlines()) == (
        5,
        [
            "irons: sandbox one exists already",
            "  irons status one shows it; --if-missing uses the one that is there",
        ],
    )
    fake_api.sandboxes["one"].status = "creating"
    fake_api.polls = 100
    assert run_irons("create", "one").err.splitlines()[-1] == (
        "  it is still creating: irons wait one waits for it; irons destroy one --force ends it"
    )


def test_async_returns_at_once(run_irons: Runner, fake_api: FakeApi, ssh: Path) -> None:
    """`--async` returns the server's answer, without a poll."""
    (ssh / "id_rsa.pub").write_text(KEY)
    done = run_irons("create", "one", "--async", "-o", "json").ok().json()
    assert (done["name"], done["status"], done["id"]) == ("one", "creating", "sb_0000000000000001")
    assert not [line for line in fake_api.lines() if line.startswith("GET /sandboxes")]


def test_the_key_is_remembered_and_forgotten(run_irons: Runner, fake_api: FakeApi, ssh: Path) -> None:
    """The private key's path is kept per profile and sandbox until the sandbox is destroyed; its text never is."""
    (ssh / "id_rsa.pub").write_text(KEY)
    (ssh / "id_rsa").write_text(PRIVATE)
    kept = Path(run_irons.env["XDG_STATE_HOME"]) / "irons/ssh/identities.json"
    run_irons("create", "one").ok()
    assert json.loads(kept.read_text()) == {"default": {"one": str(ssh / "id_rsa")}}
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    run_irons("destroy", "one", "--force").ok()
    assert json.loads(kept.read_text()) == {"default": {}}


def test_a_key_is_not_forgotten_that_opens_another_of_the_name(
    run_irons: Runner, own_api: FakeApi, ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another command makes a sandbox of the name before `destroy` has ended, the key that opens it stays remembered."""
    (ssh / "id_rsa.pub").write_text(KEY)
    (ssh / "id_rsa").write_text(PRIVATE)
    kept = Path(run_irons.env["XDG_STATE_HOME"]) / "irons/ssh/identities.json"
    run_irons("create", "one").ok()
    monkeypatch.setattr("irons_plugins.ssh.config.handlers.end_kept", lambda *_: own_api.add("one"))
    run_irons("destroy", "one", "--force").ok()
    assert json.loads(kept.read_text()) == {"default": {"one": str(ssh / "id_rsa")}}


def test_an_unwritable_state_directory_costs_a_line(run_irons: Runner, fake_api: FakeApi, ssh: Path) -> None:
    """A sandbox that is made is a success, though the path of its key can't be remembered."""
    (ssh / "id_rsa.pub").write_text(KEY)
    done = run_irons("create", "one", env={"XDG_STATE_HOME": "/dev/null"}).ok()
    assert "the key's path is not remembered" in done.err


def test_more_than_the_wire_contract(run_irons: Runner, own_api: FakeApi, ssh: Path, tmp_path: Path) -> None:
    """Mode, rules, image and limits travel with the create, so that they hold from the first packet on."""
    (ssh / "id_rsa.pub").write_text(KEY)
    policy = tmp_path / "policy.toml"
    policy.write_text(
        'mode = "warn"\n[allow]\n"db.example.com:5432" = {private = ["10.0.0.5"], note = "tests"}\n'
    )
    words = [
        "--mode",
        "deny",
        "--allow",
        "Example.com",
        "--allow",
        "*.example.org:22",
        "--policy",
        str(policy),
    ]
    limits = ["--image", "py", "--cpus", "1.5", "--memory", "2G", "--disk", "10g", "--engine", "namespace"]
    done = run_irons("create", "one", *words, *limits).ok()
    assert done.err == ""
    body = next(call.body for call in own_api.calls if call.line == "POST /sandboxes")
    assert body == {
        "name": "one",
        "public_key": KEY,
        "mode": "deny",
        "rules": [
            {"pattern": "db.example.com:5432", "list": "allow", "private": ["10.0.0.5"], "note": "tests"},
            {"pattern": "example.com", "list": "allow"},
            {"pattern": "*.example.org:22", "list": "allow"},
        ],
        "image": "py",
        "cpus": 1.5,
        "memory": 2 << 30,
        "disk": 10 << 30,
        "engine": "namespace",
    }


def test_an_option_adds_to_a_policy_file_and_takes_nothing_from_it(
    run_irons: Runner, own_api: FakeApi, ssh: Path, tmp_path: Path
) -> None:
    """`--allow` of what the file allows leaves the file's pin and note; of what it denies it is refused before any request."""
    (ssh / "id_rsa.pub").write_text(KEY)
    policy = tmp_path / "p.toml"
    policy.write_text(
        '[allow]\n"db.example.net:5432" = { note = "tests", private = ["10.0.0.5"] }\n'
        '[deny]\n"evil.example" = "reviewed"\n"*.other.example" = ""\n'
    )
    file = ("--policy", str(policy), "--async")
    for spelling in ("evil.example", "EVIL.example."):
        refused = run_irons("create", "one", *file, "--allow", "ok.example", "--allow", spelling)
        assert refused.code == 2
        assert refused.err == (
            f"irons: --allow evil.example: the policy file {str(policy)!r} denies that\n"
            "  remove the rule from the file, or leave --allow out\n"
        )
    assert own_api.calls == []
    run_irons("create", "one", *file, "--allow", "DB.example.net:5432", "--allow", "ok.example").ok()
    (body,) = (call.body for call in own_api.calls if call.line == "POST /sandboxes")
    assert body["mode"] == "deny"
    assert body["rules"] == [
        {"pattern": "db.example.net:5432", "list": "allow", "private": ["10.0.0.5"], "note": "tests"},
        {"pattern": "evil.example", "list": "deny", "note": "reviewed"},
        {"pattern": "*.other.example", "list": "deny"},
        {"pattern": "ok.example", "list": "allow"},
    ]


def test_a_plain_server_makes_no_open_sandbox(run_irons: Runner, fake_api: FakeApi, ssh: Path) -> None:
    """A server that would silently leave the policy out is not asked to create anything."""
    (ssh / "id_rsa.pub").write_text(KEY)
    done = run_irons("create", "one", "--mode", "deny")
    assert done.code == 1
    assert "POST /sandboxes" not in fake_api.lines()


@pytest.mark.parametrize(
    "words", [["--allow", "a b"], ["--cpus", "0"], ["--cpus", "nan"], ["--policy", "/nowhere"]]
)
def test_a_bad_wish_makes_no_sandbox(
    run_irons: Runner, own_api: FakeApi, ssh: Path, words: list[str]
) -> None:
    """A bad pattern, number or policy file is refused before any request."""
    (ssh / "id_rsa.pub").write_text(KEY)
    assert run_irons("create", "one", *words).code == 2
    assert own_api.calls == []


def test_warn_is_said(run_irons: Runner, own_api: FakeApi, ssh: Path) -> None:
    """A sandbox that can reach anything is announced as such in one line, with how to lock it; once in a minute."""
    (ssh / "id_rsa.pub").write_text(KEY)
    done = run_irons("create", "one").ok()
    assert done.err.count("\n") == 1
    assert "mode is warn" in done.err
    assert "irons egress lock one" in done.err
    assert run_irons("create", "three").ok().err == ""
    own_api.mode = "deny"
    assert run_irons("create", "two").ok().err == ""


def test_an_image_that_is_built_is_said(run_irons: Runner, own_api: FakeApi, ssh: Path) -> None:
    """What takes its time during a create is printed once on a stderr that is not a terminal."""
    (ssh / "id_rsa.pub").write_text(KEY)
    own_api.mode = "deny"
    own_api.polls = 3
    own_api.progress = ["making an image, once", "unpacking (10%)", "unpacking (80%)"]
    assert run_irons("create", "one").ok().err == "one: making an image, once\none: unpacking\n"


@pytest.mark.parametrize("stages", [["no KVM"], ["no KVM", "making an image, once"], []])
def test_that_a_machine_is_emulated_is_said_once(
    run_irons: Runner, own_api: FakeApi, ssh: Path, monkeypatch: pytest.MonkeyPatch, stages: list[str]
) -> None:
    """It is printed once, also where the server said it before the machine started."""
    (ssh / "id_rsa.pub").write_text(KEY)
    own_api.mode = "deny"
    own_api.polls = 3
    own_api.progress = list(stages)
    metadata = {"accelerator_note": "no KVM"}
    monkeypatch.setattr(own_api, "add", functools.partial(own_api.add, metadata=metadata))
    said = run_irons("create", "one", "two").ok().err.splitlines()
    assert sorted(said) == sorted(f"one: {line}" for line in {*stages, "no KVM"})


def test_variables_go_by_name_and_in_the_body(run_irons: Runner, fake_api: FakeApi, ssh: Path) -> None:
    """`--env KEY` sends the value that KEY has here; the server must be one that knows of more than the wire contract."""
    (ssh / "id_rsa.pub").write_text(KEY)
    env = {"API_KEY": "marker", "EMPTY": ""}
    done = run_irons("create", "one", "--env", "API_KEY", "--env", "EMPTY", env=env)
    assert done.code != 0
    assert not fake_api.calls or all(call.line != "POST /sandboxes" for call in fake_api.calls)
    fake_api.extensions = EXTENSIONS
    run_irons("create", "one", "--env", "API_KEY", "--env", "EMPTY", env=env).ok()
    (body,) = (call.body for call in fake_api.calls if call.line == "POST /sandboxes")
    assert body["environment"] == {"API_KEY": "marker", "EMPTY": ""}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--env", "API_KEY=marker"), "not its value: others could read that in the argument list"),
        (("--env", "UNSET"), "it is not set here"),
        (("--env", "A B"), "the name of a variable"),
    ],
)
def test_a_value_in_the_arguments_is_refused(
    run_irons: Runner, fake_api: FakeApi, ssh: Path, words: tuple[str, ...], said: str
) -> None:
    """`KEY=VALUE` is refused with the reason and without the value, before any request."""
    (ssh / "id_rsa.pub").write_text(KEY)
    done = run_irons("create", "one", *words)
    assert done.code == 2
    assert said in done.err
    assert "marker" not in done.err
    assert not fake_api.calls


def test_how_a_variable_is_set_depends_on_the_face() -> None:
    """The hint is one that can be followed where it appears: the prompt has no export, and xonsh another spelling."""
    for face, hint in (
        ("cli", "export UNSET=… sets it"),
        ("xonsh", "$UNSET = '…' sets it"),
        (
            "prompt",
            "export UNSET=… sets it",
        ),
    ):
        with pytest.raises(UsageError) as caught:
            variables_of(("UNSET",), {}, face)
        assert caught.value.hint == hint


def test_several_are_made_at_the_same_time(run_irons: Runner, own_api: FakeApi, ssh: Path) -> None:
    """All are asked for before one is waited for; the answer has a row each, and one notice serves all."""
    (ssh / "id_rsa.pub").write_text(KEY)
    done = run_irons("create", "one", "two", "three", "-o", "json").ok()
    assert [row["name"] for row in done.json()] == ["one", "two", "three"]
    posts = [at for at, line in enumerate(own_api.lines()) if line == "POST /sandboxes"]
    assert len(posts) == 3
    assert own_api.lines().index("GET /sandboxes/one") > posts[-1]
    assert done.err.count("mode is warn") == 1
    assert "these 3 sandboxes" in done.err


def test_one_of_several_fails(run_irons: Runner, own_api: FakeApi, ssh: Path) -> None:
    """The others are made, the error names the one, and the worst exit code is the command's."""
    (ssh / "id_rsa.pub").write_text(KEY)
    own_api.add("two")
    done = run_irons("create", "one", "two", "three")
    assert done.code == 5
    assert set(own_api.sandboxes) == {"one", "two", "three"}
    assert "irons: two: sandbox two exists already" in done.err
    assert "1 of 3 sandboxes were not created" in done.err


def test_a_failed_create_leaves_no_name_taken(run_irons: Runner, own_api: FakeApi, ssh: Path) -> None:
    """What goes into `error` while it is made is removed, with the server's reason."""
    (ssh / "id_rsa.pub").write_text(KEY)
    own_api.progress = []
    add = own_api.add

    def broken(name: str, status: str = "ready", **more: object) -> object:
        made = add(name, status, **more)
        made.becomes, made.metadata = "error", {"reason": "no crun; to fix it: apt-get install crun"}
        return made

    own_api.add = broken  # type: ignore[method-assign,assignment]
    done = run_irons("create", "one")
    assert done.code == 1
    assert done.err.splitlines() == ["irons: one is in the state error: no crun", "  apt-get install crun"]
    assert own_api.sandboxes == {}


@pytest.mark.parametrize(
    ("state", "after"), [("ready", "ready"), ("stopped", "stopped"), ("creating", "ready")]
)
def test_if_missing(run_irons: Runner, own_api: FakeApi, state: str, after: str) -> None:
    """What is there is left as it is, needs no key, and is waited for where it is on its way."""
    own_api.add("one", state, becomes="ready" if state == "creating" else "")
    assert run_irons("create", "one", "--if-missing").ok().out.endswith(f"one is {after}\n")
    assert "POST /sandboxes" not in own_api.lines()


def test_if_missing_makes_what_is_missing(run_irons: Runner, own_api: FakeApi, ssh: Path) -> None:
    """Of several, those that are missing are made."""
    (ssh / "id_rsa.pub").write_text(KEY)
    own_api.add("one")
    run_irons("create", "one", "two", "--if-missing").ok()
    assert own_api.lines().count("POST /sandboxes") == 1
    assert set(own_api.sandboxes) == {"one", "two"}


def test_terms_travel(run_irons: Runner, own_api: FakeApi, ssh: Path) -> None:
    """`--ttl`, `--rm` and `--idle-stop` go to the server in seconds, and `status` shows them."""
    (ssh / "id_rsa.pub").write_text(KEY)
    run_irons("create", "one", "--ttl", "8h", "--rm", "--idle-stop", "30m").ok()
    body = next(call.body for call in own_api.calls if call.line == "POST /sandboxes")
    assert (body["ttl"], body["rm"], body["idle_stop"]) == (28_800, True, 1800)
    shown = run_irons("status", "one").ok().lines
    assert "ends in\t8 h" in shown
    assert "then\tit is destroyed" in shown
    assert "stops when idle for\t30 min" in shown


@pytest.mark.process
def test_a_note_is_sent_and_shown(run_irons: Runner, own_api: FakeApi, ssh: Path) -> None:
    """`--note` travels in the request; `status` and `list -o json` show it, and one that is too long makes nothing."""
    run_irons("create", "one", "--note", "for \x1bme").ok()
    body = next(call.body for call in own_api.calls if call.line == "POST /sandboxes")
    assert body["note"] == "for \x1bme"
    assert json.loads(run_irons("list", "-o", "json").ok().out)[0]["note"] == "for \x1bme"
    shown = run_irons("status", "one", "-o", "table").ok().out
    assert "note" in shown
    assert "\x1b" not in shown
    failed = run_irons("create", "two", "--note", "x" * 201)
    assert (failed.code, "200 characters" in failed.err) == (2, True)
    assert "two" not in own_api.sandboxes


def test_the_member_is_asked_for(run_irons: Runner, own_api: FakeApi, ssh: Path) -> None:
    """`--on` goes to a server that knows of it, and is refused where it would be left out."""
    (ssh / "id_rsa.pub").write_text(KEY)
    run_irons("create", "one", "--engine", "incus", "--on", "n2").ok()
    assert next(call.body for call in own_api.calls if call.line == "POST /sandboxes")["member"] == "n2"
    own_api.extensions = tuple(name for name in own_api.extensions if name != "create-on")
    done = run_irons("create", "two", "--on", "n2")
    assert (done.code, "a server of a fleet" in done.err) == (1, True), done.err


def test_the_entrypoint_is_asked_for(run_irons: Runner, own_api: FakeApi, ssh: Path) -> None:
    """`--entrypoint` goes to a server that knows of it, and is refused where it would be left out."""
    (ssh / "id_rsa.pub").write_text(KEY)
    run_irons("create", "one", "--image", "redis:7", "--entrypoint").ok()
    body = next(call.body for call in own_api.calls if call.line == "POST /sandboxes")
    assert (body["image"], body["entrypoint"]) == ("redis:7", True)
    own_api.extensions = tuple(name for name in own_api.extensions if name != "entrypoint")
    done = run_irons("create", "two", "--entrypoint")
    assert (done.code, "runs the entrypoints" in done.err) == (1, True), done.err
    assert set(own_api.sandboxes) == {"one"}


@pytest.mark.parametrize("words", [["--rm"], ["--ttl", "0"], ["--ttl", "x"], ["--idle-stop", "0.1s"]])
def test_bad_terms(run_irons: Runner, own_api: FakeApi, ssh: Path, words: list[str]) -> None:
    """A time that is not one, and `--rm` without a time, are refused before any request."""
    (ssh / "id_rsa.pub").write_text(KEY)
    assert run_irons("create", "one", *words).code == 2
    assert own_api.calls == []


def test_extend(run_irons: Runner, own_api: FakeApi, ssh: Path) -> None:
    """`extend` moves the end on, `never` removes it, and a sandbox without one gets one, counted from now."""
    (ssh / "id_rsa.pub").write_text(KEY)
    run_irons("create", "one", "--ttl", "1h").ok()
    assert run_irons("extend", "one", "2h").ok().out == "one stops in 3 h\n"
    assert run_irons("extend", "two", "2h").code == 3
    assert run_irons("extend", "one", "soon").code == 2
    own_api.add("two")
    assert run_irons("extend", "two", "1h30m").ok().out == "two stops in 1 h 30 min\n"
    assert own_api.sandboxes["two"].terms["ttl"] == 5400
    assert run_irons("extend", "two", "never").ok().code == 0
    assert run_irons("extend", "one", "two", "2h").ok().out == "one stops in 5 h\ntwo stops in 2 h\n"


@pytest.mark.parametrize("label", ["a b=c", "-a=b", "a" * 64 + "=b", "ü=b"])
def test_a_label_with_an_invalid_key(run_irons: Runner, own_api: FakeApi, ssh: Path, label: str) -> None:
    """It is a wrong word, refused before any request, where it is given and where it selects."""
    (ssh / "id_rsa.pub").write_text(KEY)
    for words in (["create", "one"], ["list"], ["stop"]):
        done = run_irons(*words, f"--label={label}")
        assert (done.code, "--label takes a key of letters" in done.err) == (2, True), done.err
    assert own_api.calls == []


def test_a_list_says_what_is_about_to_end(run_irons: Runner, own_api: FakeApi) -> None:
    """From five minutes before the end on, `list` reports it."""
    own_api.add("one", terms={"ttl": 3600, "ends_in": 301, "ends_with": "stop"})
    own_api.add("two", terms={"ttl": 3600, "ends_in": 300, "ends_with": "destroy"})
    one, two = run_irons("list").ok().lines
    assert (one.split("\t")[1], two.split("\t")[1]) == ("ready", "ready"), "a field for programs"
    shown = run_irons("list", tty=True).ok().out
    assert "🟢 ready (is destroyed in 5 min)" in shown
    assert shown.count("5 min") == 1


def test_ctrl_c_says_what_goes_on(irons_process: Irons, fake_api: FakeApi, ssh: Path) -> None:
    """Ctrl-C in a create names what is still being made, and how to wait for it or end it."""
    (ssh / "id_rsa.pub").write_text(KEY)
    fake_api.polls = 100_000
    process = irons_process.start("create", "one", "two")
    until(lambda: "GET /sandboxes/one" in fake_api.lines())
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.decode().splitlines()[-2:] == [
        "irons: interrupted; one, two are still being created",
        "  irons wait one two waits for them; irons destroy one two --force ends them",
    ]


@pytest.mark.parametrize("before", [(), ("one",), ("one", "two")])
def test_ctrl_c_in_a_request_names_those_that_exist(
    irons_process: Irons, fake_api: FakeApi, ssh: Path, before: tuple[str, ...]
) -> None:
    """Ctrl-C while the server has not answered for one names those that it made before, and what ends them."""
    (ssh / "id_rsa.pub").write_text(KEY)
    answers = threading.Event()
    answers.set()
    if before:
        fake_api.fail(faults.held(answers), on="POST /sandboxes", times=len(before))
    never = threading.Event()
    fake_api.fail(faults.held(never), on="POST /sandboxes")
    process = irons_process.start("create", *before, "last", "after")
    until(lambda: fake_api.lines().count("POST /sandboxes") > len(before))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    never.set()
    assert process.returncode == 130
    these, goes, what = (
        " ".join(before),
        "is" if len(before) == 1 else "are",
        "it" if len(before) == 1 else "them",
    )
    made = f"{', '.join(before)} {goes} still being created; " if before else ""
    ends = (
        f"; irons wait {these} waits for {what}; irons destroy {these} --force ends {what}" if before else ""
    )
    assert said.decode().splitlines()[-2:] == [
        f"irons: interrupted; {made}last may have been created",
        f"  irons list shows whether it is there{ends}",
    ]


def test_hosts_without_a_mode_mean_deny(run_irons: Runner, own: FakeApi, ssh: Path, tmp_path: Path) -> None:
    """Who names hosts and no mode gets `deny`, from the command and from the library; a policy file decides for itself."""
    (ssh / "id_rsa.pub").write_text(KEY)
    run_irons("create", "hosts", "--allow", "example.com", "--async").ok()
    assert own.sandboxes["hosts"].mode == "deny"
    run_irons("create", "said", "--allow", "example.com", "--mode", "warn", "--async").ok()
    assert own.sandboxes["said"].mode == "warn"
    policy = tmp_path / "policy.toml"
    policy.write_text('[allow]\n"example.com" = ""\n')
    run_irons("create", "filed", "--policy", str(policy), "--async").ok()
    assert own.sandboxes["filed"].mode is None
    with connect(own.url, env=run_irons.env) as api:
        rule: RuleRequest = {"pattern": "example.com", "list": "allow"}
        api.create("rules", "ssh-ed25519 x", rules=[rule])
        api.create("denied", "ssh-ed25519 x", rules=[{**rule, "list": "deny"}])
        api.create("follows", "ssh-ed25519 x", rules=[rule], mode=None)
    assert [own.sandboxes[name].mode for name in ("rules", "denied", "follows")] == ["deny", None, None]


def test_a_backend_takes_part_in_a_create(run_irons: Runner, own_api: FakeApi, ssh: Path) -> None:
    """What it brings is called with the image before the request, and once after the first sandbox is ready."""
    (ssh / "id_rsa.pub").write_text(KEY)

    class Near:
        """A backend that fetches images and prints a note."""

        @hookimpl
        def irons_backend(self, url: str) -> Backend | None:
            """Answer for `near`."""
            if url != "near":
                return None

            def fetch(ctx: Context, image: str) -> None:
                made = [call for call in own_api.calls if call.line == "POST /sandboxes"]
                ctx.progress(f"fetching {image} after {len(made)}")

            return Backend(
                own_api.url, before_create=fetch, after_create=lambda ctx: ctx.progress("made near here")
            )

    run_irons.plugins().register(Near(), "near")
    done = run_irons("create", "one", "two", "--image", "tools", env={"IRONS_API_URL": "near"}).ok()
    assert "fetching tools after 0" in done.err
    assert done.err.count("made near here") == 1
    assert "fetching" not in run_irons("create", "three", env={"IRONS_API_URL": "near"}).ok().err
