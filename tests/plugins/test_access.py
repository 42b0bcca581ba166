"""Keys: one that irons makes where there is none, and `irons access`."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest

from irons.settings.settings import load
from irons.testing import FakeApi, Runner
from irons_plugins.ssh import forwarding
from irons_plugins.ssh.keys.own_keys import locked_out

pytestmark = pytest.mark.process


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """The public key file of another."""
    words = [
        "ssh-keygen",
        "-q",
        "-t",
        "ed25519",
        "-N",
        "",
        "-C",
        "other@there",
        "-f",
        str(tmp_path / "other"),
    ]
    subprocess.run(words, check=True)
    return tmp_path / "other.pub"


def test_a_key_is_made_where_there_is_none(run_irons: Runner, own_api: FakeApi) -> None:
    """It is for its owner alone, printed once, the same for each sandbox of a server, and every way in uses it."""
    first = run_irons("create", "one").ok()
    keys = list((Path(run_irons.env["XDG_STATE_HOME"]) / "irons/ssh/keys").iterdir())
    assert len(keys) == 1
    private = keys[0] / "id_ed25519"
    assert (
        f"there is no key in ~/.ssh, so irons made one for the sandboxes of {own_api.url}: {private}"
        in first.err
    )
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys[0].stat().st_mode) == 0o700
    assert "irons made one" not in run_irons("create", "two").ok().err
    sent = {call.body["public_key"] for call in own_api.calls if call.line == "POST /sandboxes"}
    assert sent == {(keys[0] / "id_ed25519.pub").read_text()}
    for words in (("ssh", "one"), ("scp", "one:a", "b")):
        done = run_irons(*words)
        assert done.program is not None
        assert f"IdentityFile={private}" in done.program.argv
    assert f"IdentityFile={private}" in run_irons("ssh", "one", "--command").ok().out
    assert f"IdentityFile {private}" in run_irons("ssh-config", "one").ok().out


def test_forward_uses_the_key_that_irons_made(
    run_irons: Runner, own_api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ports are forwarded by the same key as every other way in."""
    run_irons("create", "one").ok()
    (directory,) = (Path(run_irons.env["XDG_STATE_HOME"]) / "irons/ssh/keys").iterdir()
    started: list[list[str]] = []

    def piped(argv: list[str], *_: object, **__: object) -> int:
        started.append(argv)
        return 255

    monkeypatch.setattr(forwarding, "run_piped", piped)
    assert run_irons("forward", "one", "8080").code == 125
    (argv,) = started
    assert f"IdentityFile={directory / 'id_ed25519'}" in argv
    assert "127.0.0.1:8080:localhost:8080" in argv


def test_a_key_is_offered_only_where_it_was_used(run_irons: Runner, own_api: FakeApi, tmp_path: Path) -> None:
    """Another server gets another key, and a sandbox that it was not made for is not offered it."""
    run_irons("create", "one").ok()
    own_api.add("elsewhere")
    assert "ssh/keys" not in run_irons("ssh", "elsewhere", "--command").ok().out
    with FakeApi() as another:
        run_irons("create", "three", env={"IRONS_API_URL": another.url}).ok()
        mine, theirs = (api.calls[0].body["public_key"] for api in (own_api, another))
    assert mine != theirs
    ssh = Path(run_irons.env["HOME"]) / ".ssh"
    ssh.mkdir()
    (ssh / "id_ed25519.pub").write_text(theirs)
    run_irons("create", "four").ok()
    assert own_api.sandboxes["four"].public_key == theirs


def test_remote_sandboxes_that_a_purge_locks_out_are_named(run_irons: Runner, own_api: FakeApi) -> None:
    """Those of other servers, while they exist, and not this machine's."""
    run_irons("create", "one").ok()
    settings = load(env=run_irons.env)
    assert locked_out(settings) == (("one", own_api.url),)
    identities = settings.state_dir / "ssh/identities.json"
    path = json.loads(identities.read_text())["default"]["one"]
    (Path(path).parent / "server").write_text("local\n")
    assert locked_out(settings) == ()
    identities.write_text("[]")
    assert locked_out(settings) == ()


def test_access(run_irons: Runner, own_api: FakeApi, others: Path) -> None:
    """Keys are listed, added once, and removed by file, id or fingerprint."""
    run_irons("create", "one").ok()
    only = run_irons("access", "one", "-o", "json").ok().json()
    assert [key["comment"] for key in only] == ["irons"]
    added = run_irons("access", "one", "add", str(others), "-o", "json").ok()
    assert [key["comment"] for key in added.json()] == ["irons", "other@there"]
    assert f"{added.json()[1]['fingerprint']} opens one" in added.err
    assert "opens one already" in run_irons("access", "one", "add", str(others)).ok().err
    for named in (str(others), added.json()[1]["id"], added.json()[1]["fingerprint"]):
        run_irons("access", "one", "add", str(others)).ok()
        assert "no longer opens one" in run_irons("access", "one", "remove", named).ok().err
        assert len(run_irons("access", "one", "list", "-o", "json").ok().json()) == 1
        assert run_irons("access", "one", "remove", named).code == 3
    assert own_api.sandboxes["one"].public_key.count("\n") == 1


def test_an_added_key_is_offered_until_it_is_removed(
    run_irons: Runner, own_api: FakeApi, others: Path
) -> None:
    """Its private key lies next to it: that is what opens the sandbox of another person from here."""
    own_api.add("theirs")
    added = run_irons("access", "theirs", "add", str(others), "-o", "json").ok().json()
    offered = f"IdentityFile={others.with_suffix('')}"
    assert offered in run_irons("ssh", "theirs", "--command").ok().out
    run_irons("access", "theirs", "remove", added[-1]["id"]).ok()
    assert "IdentityFile" not in run_irons("ssh", "theirs", "--command").ok().out


def test_a_key_without_its_private_one_is_not_offered(
    run_irons: Runner, own_api: FakeApi, others: Path
) -> None:
    """A guest's key changes nothing for the person who adds it."""
    others.with_suffix("").unlink()
    own_api.add("theirs")
    run_irons("access", "theirs", "add", str(others)).ok()
    assert "IdentityFile" not in run_irons("ssh", "theirs", "--command").ok().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add",), "needs a public key file"),
        (("remove",), "needs a public key file"),
        (("list", "x.pub"), "takes no file"),
        (("add", "nowhere.pub"), "there is no public key file"),
        (
            ("remove", "second"),
            "there is no public key file second\n  an id or a fingerprint names a key, too",
        ),
        (("give", "x.pub"), "give"),
    ],
)
def test_access_that_is_asked_for_wrongly(
    run_irons: Runner, own_api: FakeApi, words: tuple[str, ...], said: str
) -> None:
    """It is a usage error, before anything is changed."""
    own_api.add("one")
    done = run_irons("access", "one", *words)
    assert (done.code, said in done.err) == (2, True)
    assert not [call for call in own_api.calls if call.method in ("POST", "DELETE")]


def test_a_private_key_is_not_sent(run_irons: Runner, own_api: FakeApi, others: Path) -> None:
    """A private key that is given by mistake stays here."""
    own_api.add("one")
    done = run_irons("access", "one", "add", str(others.with_suffix("")))
    assert (done.code, "is a private key" in done.err) == (2, True)
    assert not [call for call in own_api.calls if call.method == "POST"]


def test_a_v0_server_has_no_access(run_irons: Runner, own_api: FakeApi) -> None:
    """A plain v0 server cannot, which is reported."""
    own_api.extensions = ()
    own_api.add("one")
    assert "needs a server that can change the keys" in run_irons("access", "one").err
