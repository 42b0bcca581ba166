"""The words of OpenSSH's command lines: what is pinned, what a server or a configuration can't put there."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons.client.api import SshAddress
from irons.errors import ApiError
from irons.testing import FakeApi, Runner, faults
from irons_plugins.ssh.connect.target import target_of
from irons_plugins.ssh.openssh.command_line import local_path, quoted, remote_line

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB1c0LmSsZ2oc2KSYsHcE9m2bL2oOe1zL0T0rA3e7Q2o"


def words_of(run: Runner, *words: str, **more: Any) -> tuple[str, ...]:
    """Return the words of the program that a command becomes."""
    program = run(*words, **more).ok().program
    assert program is not None
    return program.argv


def forwarded(run: Runner, monkeypatch: pytest.MonkeyPatch, *ports: str) -> tuple[str, ...]:
    """Return the words of the ssh that `forward` starts, by default of port 8080; it ends at once here."""
    started: list[tuple[str, ...]] = []

    def start(argv: tuple[str, ...], *_: object, **__: object) -> int:
        started.append(argv)
        return 255

    monkeypatch.setattr("irons_plugins.ssh.forwarding.run_piped", start)
    done = run("forward", "one", *(ports or ("8080",)))
    assert (done.code, done.err) == (125, "irons: the connection to one was lost\n")
    # Its log is a pipe that is gone by now.
    log = started[0].index("-E")
    return (*started[0][:log], *started[0][log + 2 :])


def asked(argv: tuple[str, ...], env: dict[str, str]) -> dict[str, list[str]]:
    """Return what OpenSSH itself makes of a command line: each option's values."""
    done = subprocess.run([argv[0], "-G", *argv[1:]], env=env, capture_output=True, text=True, check=True)
    told: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        told.setdefault(key, []).append(value)
    return told


@pytest.fixture
def one(fake_api: FakeApi) -> FakeApi:
    """A server with one sandbox."""
    fake_api.add("one")
    return fake_api


# What the server says


@pytest.mark.parametrize(
    "said",
    [
        {"host": "-oProxyCommand=touch /tmp/x"},
        {"host": "a b"},
        {"host": "a;b"},
        {"host": "$(id)"},
        {"host": "a\nb"},
        {"host": ""},
        {"host": "a@b"},
        {"host": "[::1]"},
        {"host": "fe80::1%eth0"},
        {"host": "a" * 300},
        {"host": None},
        {"host": "a\u202eb"},
        {"port": 0},
        {"port": 65536},
        {"port": "22"},
        {"port": True},
        {"port": -22},
        {"username": "-l"},
        {"username": "a b"},
        {"username": "root;id"},
        {"username": "`id`"},
        {"username": ""},
        {"username": "a\x1b[31m"},
        {"username": "a@b"},
        {"host_keys": ["not a key"]},
        {"host_keys": [HOST_KEY] * 65},
        {"host_keys": ["ssh-ed25519 AAAA\nevil ssh-ed25519 AAAA"]},
        {"host_keys": [f"@cert-authority * {HOST_KEY}"]},
        {"cell": "sb_x; touch /tmp/x", "host_keys": [HOST_KEY]},
        {"cell": "../../x"},
        {"command": "tmux\nattach"},
        {"command": "a\x1b[31m"},
        {"command": "a\u202eb"},
        {"command": "a" * 5000},
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "words",
    [["ssh", "one"], ["ssh", "one", "--command"], ["scp", "x", "one:"], ["exec", "one", "--", "true"]],
)
def test_nothing_from_a_server_becomes_an_option(
    run_irons: Runner, one: FakeApi, said: dict[str, Any], words: list[str]
) -> None:
    """A host, port, user, host key or cell that is invalid is refused, shown harmlessly, and nothing is run."""
    one.ssh = {**one.ssh, **said}
    done = run_irons(*words)
    assert done.code == (125 if words in (["ssh", "one"], ["exec", "one", "--", "true"]) else 1)
    assert "invalid SSH" in done.err
    assert done.program is None
    assert done.out == ""
    assert not set("\x1b\u202e") & set(done.err)


def test_the_servers_command_runs_in_place_of_a_shell(
    run_irons: Runner, one: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The `command` of a v0 server is one word after the destination, never an option, and only where a shell would be."""
    one.ssh = {**one.ssh, "command": "-oProxyCommand=evil; tmux attach"}
    assert words_of(run_irons, "ssh", "one")[-3:] == ("agent@127.0.0.1", "--", one.ssh["command"])
    printed = shlex.split(run_irons("ssh", "one", "--command").ok().out)
    assert printed[-4:] == ["-t", "agent@127.0.0.1", "--", one.ssh["command"]]
    assert words_of(run_irons, "ssh", "one", "--", "id")[-2:] == ("--", "id")
    assert shlex.split(run_irons("ssh", "one", "--command", "--", "id").ok().out)[-2:] == ["--", "id"]
    assert "tmux" not in " ".join(words_of(run_irons, "scp", "x", "one:"))
    assert "tmux" not in " ".join(forwarded(run_irons, monkeypatch))


@pytest.mark.slow
@given(
    host=st.text(max_size=40),
    port=st.integers(-5, 70000),
    user=st.text(max_size=20),
    cell=st.text(max_size=20),
)
def test_a_target_is_plain_or_refused(host: str, port: int, user: str, cell: str) -> None:
    """No matter what a server says, what is taken of it needs no quoting and begins with no dash."""
    try:
        target = target_of(SshAddress(host, port, user, (), cell))
    except ApiError:
        return
    for word in (target.user, target.cell):
        assert shlex.quote(word) in (word, "''")
    assert not target.host.startswith("-")
    assert not target.user.startswith("-")
    assert set(target.host) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:")


def test_ipv6(run_irons: Runner, one: FakeApi) -> None:
    """An IPv6 address is a host; scp wants it in brackets."""
    one.ssh = {**one.ssh, "host": "2001:DB8::1"}
    assert words_of(run_irons, "ssh", "one")[-1] == "agent@2001:db8::1"
    assert words_of(run_irons, "scp", "one:/x", ".")[-2:] == ("agent@[2001:db8::1]:/x", ".")


# Host keys


@pytest.mark.process
def test_a_told_host_key_is_checked_strictly(run_irons: Runner, one: FakeApi) -> None:
    """Where the server tells host keys, they alone are believed, from a file of the sandbox's own."""
    one.ssh = {**one.ssh, "host_keys": [HOST_KEY + " root@x"], "cell": "sb_0123456789abcdef"}
    argv = words_of(run_irons, "ssh", "one")
    told = asked(argv, run_irons.env)
    assert told["stricthostkeychecking"] == ["true"]
    assert told["hostkeyalias"] == ["sb_0123456789abcdef"]
    assert told["globalknownhostsfile"] == ["/dev/null"]
    known = Path(told["userknownhostsfile"][0])
    assert known.read_text() == f"sb_0123456789abcdef {HOST_KEY}\n"
    assert known.stat().st_mode & 0o777 == 0o600
    assert "proxycommand" not in told


@pytest.mark.process
def test_untold_host_keys(run_irons: Runner, one: FakeApi) -> None:
    """Where it tells none they are unchecked, as ever, and nothing is written; --strict-hostkeys checks them."""
    told = asked(words_of(run_irons, "ssh", "one"), run_irons.env)
    assert (told["stricthostkeychecking"], told["userknownhostsfile"]) == (["false"], ["/dev/null"])
    told = asked(words_of(run_irons, "ssh", "one", "--strict-hostkeys"), run_irons.env)
    assert told["stricthostkeychecking"] == ["true"]
    assert told["userknownhostsfile"][0].endswith("/.ssh/known_hosts /root/.ssh/known_hosts2") or (
        "known_hosts" in told["userknownhostsfile"][0]
    )


# The person's own configuration


HOSTILE = """
Host *
  ForwardAgent yes
  ForwardX11 yes
  ForwardX11Trusted yes
  RemoteForward 9999 localhost:22
  LocalForward 9998 localhost:22
  DynamicForward 9997
  PermitLocalCommand yes
  LocalCommand touch {home}/ran
  Tunnel yes
  SendEnv SECRET
  SetEnv A=b
  ControlMaster auto
  ControlPath {home}/control
  ControlPersist 1h
  User somebody
  Port 99
  RemoteCommand evil
  ProxyCommand touch {home}/ran
  GSSAPIDelegateCredentials yes
  KnownHostsCommand /bin/false
  StrictHostKeyChecking yes
  IdentityAgent {home}/agent.sock
  IdentityFile "{home}/my key"
  ServerAliveInterval 7
"""


@pytest.mark.process
@pytest.mark.parametrize("words", [["ssh", "one"], ["forward", "one", "8080"], ["scp", "x", "one:"]])
def test_the_persons_configuration_forwards_nothing(
    run_irons: Runner, one: FakeApi, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """Nothing of the person's configuration is forwarded or run; how they authenticate is kept."""
    home = Path(run_irons.env["HOME"])
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").write_text(HOSTILE.format(home=home))
    argv = forwarded(run_irons, monkeypatch) if words[0] == "forward" else words_of(run_irons, *words)
    if argv[0] == "scp":
        argv = ("ssh", *argv[1 : argv.index("-P")], "agent@127.0.0.1")
    told = asked(argv, {**run_irons.env, "HOME": str(home)})
    for key in ("forwardagent", "forwardx11", "permitlocalcommand", "tunnel", "gssapidelegatecredentials"):
        assert told.get(key, ["no"])[0] in ("no", "false"), key
    for key in (
        "remoteforward",
        "dynamicforward",
        "sendenv",
        "setenv",
        "localcommand",
        "remotecommand",
        "proxycommand",
    ):
        assert key not in told, key
    assert told.get("controlmaster") == ["false"]
    assert told["user"] == ["agent"]
    assert told["identityagent"] == [f"{home}/agent.sock"]
    assert told["identityfile"] == [f"{home}/my key"]
    assert told["serveraliveinterval"] == ["7"]
    if words[0] == "forward":
        assert told["localforward"] == ["[127.0.0.1]:8080 [localhost]:8080"]
    assert not (home / "ran").exists()


@pytest.mark.process
def test_a_jump_host_is_used(run_irons: Runner, one: FakeApi) -> None:
    """A jump host of the person's configuration leads there too, by an ssh that knows its name; to this machine it does not."""
    home = Path(run_irons.env["HOME"])
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").write_text("Host *\n  ProxyJump first,me@last:2222\n")
    one.ssh = {**one.ssh, "host": "sandboxes.example.com"}
    assert "ProxyCommand=ssh -J first -W '[%h]:%p' ssh://me@last:2222" in words_of(run_irons, "ssh", "one")
    one.ssh = {**one.ssh, "host": "127.0.0.1"}
    assert "ProxyCommand" not in " ".join(words_of(run_irons, "ssh", "one"))


@pytest.mark.process
def test_the_agent_is_forwarded_when_asked(run_irons: Runner, one: FakeApi) -> None:
    """`--forward-agent` forwards the agent."""
    assert asked(words_of(run_irons, "ssh", "one", "--forward-agent"), run_irons.env)["forwardagent"] == [
        "yes"
    ]


@pytest.mark.process
def test_a_remembered_key_is_the_only_one(run_irons: Runner, one: FakeApi, tmp_path: Path) -> None:
    """The key that a sandbox was created with is offered, and no other, no matter what characters its path has."""
    key = tmp_path / 'a "key" 100%\\d' / "id"
    key.parent.mkdir()
    key.write_text("")
    state = Path(run_irons.env["XDG_STATE_HOME"]) / "irons/ssh"
    state.mkdir(parents=True)
    (state / "identities.json").write_text(json.dumps({"default": {"one": str(key)}, "other": {"two": "x"}}))
    told = asked(words_of(run_irons, "ssh", "one"), run_irons.env)
    assert told["identitiesonly"] == ["yes"]
    assert told["identityfile"] == [str(key).replace("%", "%%")]


# Commands for the other side


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["ls -l | wc"], "ls -l | wc"),
        (["echo", "a b", "$HOME", "it's"], "echo 'a b' '$HOME' 'it'\"'\"'s'"),
        (["-x"], "-x"),
        ([], None),
    ],
)
def test_remote_lines(words: list[str], line: str | None) -> None:
    """One word is a line for the shell as it is; several are a program and its arguments, quoted."""
    assert remote_line(words) == line


def test_a_terminal_is_asked_for_a_person(run_irons: Runner, one: FakeApi) -> None:
    """A PTY is asked for where a person sits at both ends, and for no one else."""
    assert "-t" in words_of(run_irons, "ssh", "one", "--", "top", tty=True)
    assert "-T" in words_of(run_irons, "ssh", "one", "--", "top")
    assert "-T" in words_of(run_irons, "ssh", "one", stdin_tty=True)


def test_the_command_is_fit_for_a_shell(run_irons: Runner, one: FakeApi) -> None:
    """What `--command` prints is one line whose words need no quoting, and nothing else is on stdout."""
    out = run_irons("ssh", "one", "--command").ok().out
    assert out.split() == shlex.split(out)
    assert out.count("\n") == 1


# scp and forward


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (["notes.txt", "one:"], ["notes.txt", "agent@127.0.0.1:"]),
        (["one:/srv/a b", "."], ["agent@127.0.0.1:/srv/a b", "."]),
        (["./a:b", "one:x"], ["./a:b", "agent@127.0.0.1:x"]),
        (["/tmp/a:b", "one:x"], ["/tmp/a:b", "agent@127.0.0.1:x"]),
        (["-x", "one:x"], None),
    ],
)
def test_scp_paths(run_irons: Runner, one: FakeApi, words: list[str], paths: list[str] | None) -> None:
    """NAME:path is in the sandbox; a slash before the colon makes it a path here."""
    if paths is None:
        assert run_irons("scp", *words).code == 2
        return
    argv = words_of(run_irons, "scp", "-r", *words)
    assert argv[-3:] == ("--", *paths)
    assert "-r" in argv


def test_local_paths_stay_local() -> None:
    """A colon or a leading dash in a path of this machine means nothing to scp."""
    assert [local_path(p) for p in ("a:b", "-x", "a/b:c", "x")] == ["./a:b", "./-x", "a/b:c", "x"]


@pytest.mark.parametrize(
    "words", [["a", "b"], ["one:a", "two:b"], ["", "one:"], ["../x:y", "b"], [":x", "b"]]
)
def test_scp_that_makes_no_sense(run_irons: Runner, one: FakeApi, words: list[str]) -> None:
    """Exactly one of both ends is in a sandbox."""
    assert run_irons("scp", *words).code == 2
    assert one.calls == []


@pytest.mark.parametrize("word", ["0", "65536", "x", "80:", ":80", "80:x", "1:2:3", "-1", "8080:0", "٣"])
def test_forward_of_no_port(run_irons: Runner, one: FakeApi, word: str) -> None:
    """A port that is invalid is refused before any request."""
    assert run_irons("forward", "one", word).code == 125
    assert one.calls == []


@pytest.mark.process
def test_forward(run_irons: Runner, one: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports of the loopback address lead to ports there; none is announced before it listens."""
    argv = forwarded(run_irons, monkeypatch, "8080:80", "5432")
    assert asked(argv, run_irons.env)["localforward"] == [
        "[127.0.0.1]:8080 [localhost]:80",
        "[127.0.0.1]:5432 [localhost]:5432",
    ]


# Failures


@pytest.mark.parametrize(
    ("words", "code"), [(["ssh", "one"], 125), (["ssh", "one", "-c"], 3), (["scp", "x", "one:"], 3)]
)
def test_a_sandbox_that_is_not_there(
    run_irons: Runner, fake_api: FakeApi, words: list[str], code: int
) -> None:
    """`ssh` exits with 125 where irons itself failed, for every other code may be the remote command's."""
    assert run_irons(*words).code == code


def test_a_sandbox_that_is_stopped(run_irons: Runner, fake_api: FakeApi) -> None:
    """A stopped sandbox says how to start it."""
    fake_api.add("one", "stopped")
    assert "irons start one" in run_irons("ssh", "one").err


@pytest.mark.parametrize("words", [["ssh", "one"], ["exec", "one", "--", "true"]])
def test_a_sandbox_that_is_starting(run_irons: Runner, fake_api: FakeApi, words: list[str]) -> None:
    """A sandbox on its way says how to wait for it."""
    fake_api.add("one", "starting")
    done = run_irons(*words)
    assert (done.code, "irons wait one" in done.err, "irons start" in done.err) == (125, True, False), (
        done.err
    )


@pytest.mark.slow
def test_an_unreachable_server(run_irons: Runner, fake_api: FakeApi) -> None:
    """A server that does not answer is 125 to `ssh` and `exec`."""
    fake_api.fail(faults.dropped(), times=9)
    assert run_irons("ssh", "one").code == 125
    fake_api.fail(faults.dropped(), times=9)
    assert run_irons("exec", "one", "--", "true").code == 125


@pytest.mark.parametrize(
    "words",
    [
        ["--", ""][:1],
        ["--env", "A=b", "--", "x"],
        ["--env", "1A", "--", "x"],
        ["--env", "NOT_SET", "--", "x"],
        ["--timeout", "0", "--", "x"],
        ["--timeout", "soon", "--", "x"],
    ],
)
def test_exec_that_makes_no_sense(run_irons: Runner, one: FakeApi, words: list[str]) -> None:
    """A missing program, a value in an argument, a variable that is not set: 125 before any request."""
    assert run_irons("exec", "one", *words).code == 125
    assert one.calls == []


@given(st.text(min_size=1).filter(lambda text: "\0" not in text and "\n" not in text))
def test_a_quoted_path_has_no_bare_space(text: str) -> None:
    """A path in an option's value is in quotes wherever OpenSSH would split or unescape it."""
    value = quoted(Path(text))
    assert value.startswith('"') or not any(c.isspace() or c in "\"'\\" for c in value)
