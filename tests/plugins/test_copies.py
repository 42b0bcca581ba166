"""snapshot, restore, fork, and create --from, at a server in memory."""

from __future__ import annotations

from pathlib import Path

from irons.client.models.sandboxes import Sandbox
from irons.testing import FakeApi, Runner
from irons_plugins.lifecycle.views import keys_inside


def test_a_snapshot_is_made_listed_and_removed(run_irons: Runner, own_api: FakeApi) -> None:
    """The line has the pause of a sandbox that runs; a list of one sandbox has its own."""
    own_api.add("one", "ready")
    own_api.add("two", "stopped")
    done = run_irons("snapshot", "create", "one", "--as", "clean", "--note", "before").ok()
    assert done.out == "clean is a snapshot of one; it was paused for 250 ms\n"
    assert own_api.calls[-1].body == {"name": "clean", "note": "before"}
    assert run_irons("snapshot", "create", "two").ok().out == "two-2 is a snapshot of two\n"
    rows = run_irons("snapshot", "list", "-o", "json").ok().json()
    assert [(row["name"], row["sandbox"], row["pause"]) for row in rows] == [
        ("clean", "one", 0.25),
        ("two-2", "two", None),
    ]
    assert [row["name"] for row in run_irons("snapshot", "list", "two", "-o", "json").ok().json()] == [
        "two-2"
    ]
    assert run_irons("snapshot", "remove", "clean").ok().out == ""
    done = run_irons("snapshot", "remove", "clean")
    assert (done.code, done.err.splitlines()[0]) == (3, "irons: there is no snapshot clean")
    assert run_irons("snapshot", "create", "one", "--note", "x" * 201).code == 2
    for name in ("BAD", "-x", "x" * 64, "a b"):
        assert run_irons("snapshot", "create", "one", f"--as={name}").code == 2


def test_a_fork_waits_for_its_copies(run_irons: Runner, own_api: FakeApi) -> None:
    """One request for all, the pause on stderr, and a row for each that is ready; what the options say replaces the policy."""
    own_api.add("one", "ready")
    done = run_irons("fork", "one", "two", "three").ok()
    assert done.out.splitlines() == ["🟢 two is ready", "🟢 three is ready"]
    assert "one was paused for 250 ms" in done.err
    forks = [call for call in own_api.calls if call.path.endswith("/fork")]
    assert [call.body for call in forks] == [{"names": ["two", "three"]}]
    run_irons("fork", "one", "four", "--allow", "new.example", "--no-wait").ok()
    assert own_api.sandboxes["four"].mode == "deny"
    assert [rule["pattern"] for rule in own_api.sandboxes["four"].rules] == ["new.example"]
    done = run_irons("fork", "one", "five", "two")
    assert (done.code, "none was made" in done.err, "five" in own_api.sandboxes) == (5, True, False)
    assert run_irons("fork", "one", "six", "six").code == 2


def test_a_restore_stops_first(run_irons: Runner, own_api: FakeApi) -> None:
    """One that runs is stopped, but only for a snapshot of its own; the line names what keeps the files as they were."""
    own_api.add("one", "ready")
    run_irons("snapshot", "create", "one", "--as", "clean").ok()
    done = run_irons("restore", "one", "none", "--yes")
    assert (done.code, own_api.sandboxes["one"].status) == (3, "ready")
    done = run_irons("restore", "one", "clean", "--yes").ok()
    assert done.out == (
        "one is restored; its files as they were are the snapshot one-2; irons start one starts it\n"
    )
    assert own_api.sandboxes["one"].status == "stopped"


def test_create_from_a_snapshot(run_irons: Runner, own_api: FakeApi, tmp_path: Path) -> None:
    """The request names the snapshot; an image or an engine next to it is refused, and so is a server that makes none."""
    key = tmp_path / "id.pub"
    key.write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGnJ8Rk9jvXKBv9J8U6Zzr0mFQ4d1vJcS3uJ0Gk4mV5h me\n")
    run_irons("create", "new", "--from", "clean", "--key", str(key)).ok()
    assert own_api.sandboxes["new"].extra["snapshot"] == "clean"
    done = run_irons("create", "newer", "--from", "clean", "--image", "debian", "--key", str(key))
    assert (done.code, "has its image and its engine" in done.err) == (2, True)
    own_api.extensions = tuple(each for each in own_api.extensions if each != "snapshots")
    for words in (
        ("create", "newer", "--from", "clean", "--key", str(key)),
        ("fork", "new", "newest"),
        ("snapshot", "list"),
    ):
        done = run_irons(*words)
        assert (done.code, "a server that makes snapshots" in done.err) == (1, True), done.err


def test_keys_that_came_with_the_files_are_told(run_irons: Runner, own_api: FakeApi) -> None:
    """The line says how many there are; nothing is said where there are none, or where a server says something else."""
    row = {"name": "copy", "id": "sb_1", "status": "ready"}
    told = {
        number: keys_inside(Sandbox.of({**row, "metadata": {"keys_inside": number}}))
        for number in ("1", "12", "0", "", "many")
    }
    assert told["1"].startswith("copy: a public key in .ssh/authorized_keys came with the files; it may")
    assert told["12"].startswith("copy: 12 public keys in .ssh/authorized_keys came with the files; they may")
    assert (told["0"], told[""], told["many"]) == ("", "", "")
    own_api.add("one", "ready")
    assert "public key" not in run_irons("fork", "one", "two").ok().err
