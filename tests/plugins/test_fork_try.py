"""`fork --try`: a program in a copy of a sandbox, what it changed, and whether the copy stays. The copy is this machine, by a real SSH server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from irons.testing import EXTENSIONS, FakeApi, Runner
from irons_plugins.lifecycle.changed_files import _LIST, ChangedFile, compare, files_of, lines
from tests.machine import Machine
from tests.repl.terminal import Terminal

from .conftest import Irons, Sshd, until
from .remote_processes import running, seconds

_BELOW = """
import sys
from irons_plugins.lifecycle import changed_files
changed_files.ROOT = sys.argv.pop(1)
from irons.__main__ import main
sys.exit(main())
"""


class Trying(Irons):
    """`irons` that looks for changes below one directory alone, since the copy is the whole machine."""

    below = "/nonexistent"

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-c", _BELOW, self.below, *words]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What is looked at."""
    found = tmp_path / "files"
    (found / "deep").mkdir(parents=True)
    for name in ("same", "changed", "deep/removed"):
        (found / name).write_text("as it was")
    return found


@pytest.fixture
def tries(into: Irons, fake_api: FakeApi, sshd: Sshd, files: Path) -> Trying:
    """`irons` whose sandbox `one`, and every copy of it, is this machine."""
    fake_api.extensions = EXTENSIONS
    fake_api.sandboxes["one"].status = "ready"
    found = Trying({**into.env, "IRONS_PUBLIC_KEY": f"{sshd.identity}.pub"}, into.started)
    found.below = str(files)
    return found


def left(api: FakeApi) -> list[str]:
    """The copies that are there."""
    with api.lock:
        return [name for name in api.sandboxes if name != "one"]


def line(files: Path) -> str:
    """A shell line that changes something of each kind."""
    return (
        f"cd {files}; cat; echo told >&2; echo new > added; echo x >> changed; chmod 600 deep; "
        f"rm deep/removed; mkdir 'made here'; exit 7"
    )


def test_what_it_changed_is_shown_and_the_copy_is_dropped(
    tries: Trying, fake_api: FakeApi, files: Path
) -> None:
    """stdin, stdout and stderr are the program's, the exit code too; where no one is there to ask, nothing of the copy is left."""
    done = tries("fork", "one", "--try", line(files), stdin=b"in")
    assert (done.returncode, done.stdout) == (7, b"in"), done
    told = done.stderr.decode().splitlines()
    assert "told" in told
    assert told[told.index("irons: exit code 7") :] == [
        "irons: exit code 7",
        "files: 2 added, 2 changed, 1 removed",
        f"  + {files}/added",
        f"  ~ {files}/changed",
        f"  ~ {files}/deep",
        f"  - {files}/deep/removed",
        f"  + {files}/made here",
        told[-1],
    ]
    assert told[-1].endswith("is dropped")
    assert left(fake_api) == []
    body = next(call.body for call in fake_api.calls if call.path.endswith("/fork"))
    assert (body["held"], len(body["names"])) == (True, 1)
    assert any(call.line.endswith("/hold") for call in fake_api.calls)


def test_one_object_for_programs(tries: Trying, fake_api: FakeApi, files: Path) -> None:
    """`-o json` is the object of `exec`, with the changed files; `--keep` keeps the copy, with the name that is given."""
    words = ("fork", "one", "two", "--keep", "-o", "json", "--try", f"echo hello; echo new > {files}/added")
    done = tries(*words)
    told = json.loads(done.stdout)
    assert (done.returncode, told["name"], told["exit"], told["stdout"]) == (0, "two", 0, "hello\n")
    assert (told["kept"], told["changed"]) == (True, [{"path": f"{files}/added", "change": "added"}])
    assert left(fake_api) == ["two"]
    assert not fake_api.sandboxes["two"].held


@pytest.mark.parametrize(("key", "stays"), [("y", True), ("n", False), ("", False)])
def test_a_person_is_asked(tries: Trying, fake_api: FakeApi, files: Path, key: str, *, stays: bool) -> None:
    """On a terminal the answer decides; without one the copy goes."""
    words = tries.argv("fork", "one", "two", "--try", f"rm {files}/same </dev/null")
    with Terminal(words, {**tries.env, "TERM": "xterm"}) as screen:
        screen.until(r"- \S*/same")
        screen.until(r"Keep two\? \[y/N\]")
        screen.send(f"{key}\r")
        screen.until("two is kept" if stays else "two is dropped")
        screen.ended()
    assert left(fake_api) == (["two"] if stays else [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_drops_the_copy(tries: Trying, fake_api: FakeApi, number: signal.Signals) -> None:
    """What runs there is ended, and the copy destroyed."""
    nap = seconds()
    process = tries.start("fork", "one", "--try", f"sleep {nap}")
    until(lambda: running(nap))
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (128 + number, b""), err
    assert left(fake_api) == []
    until(lambda: not running(nap))


def test_what_does_not_go_together(run_irons: Runner, own_api: FakeApi) -> None:
    """Nothing is made then, nor where the server does not end a copy with its client."""
    own_api.add("one", "ready")
    for words in (
        ("fork", "one", "two", "three", "--try", "true"),
        ("fork", "one", "--try", " "),
        ("fork", "one", "--try", "true", "--no-wait"),
        ("fork", "one", "two", "--keep"),
        ("fork", "one"),
        ("fork", "one", "two", "--memory"),
    ):
        assert run_irons(*words).code == 2, words
    own_api.extensions = tuple(each for each in EXTENSIONS if each != "fork-held")
    done = run_irons("fork", "one", "--try", "true")
    assert (done.code, "ends a copy with its client" in done.err) == (125, True), done
    assert not [call for call in own_api.calls if call.path.endswith("/fork")]


def test_a_copy_that_cannot_be_made(run_irons: Runner, own_api: FakeApi) -> None:
    """The exit code is that of irons' own failures, since any other may be the program's."""
    done = run_irons("fork", "none", "--try", "true")
    assert (done.code, "none" in done.err) == (125, True), done


@pytest.mark.parametrize("taken", ["two", "one"])
def test_a_sandbox_that_has_the_name_stays(run_irons: Runner, own_api: FakeApi, taken: str) -> None:
    """Where another sandbox, or the original, has the name of the copy, nothing is made and nothing destroyed."""
    for name in ("one", "two"):
        own_api.add(name, "ready")
    done = run_irons("fork", "one", taken, "--try", "true")
    assert (done.code, f"named '{taken}' already" in done.err) == (125, True), done
    assert {name: each.status for name, each in own_api.sandboxes.items()} == {"one": "ready", "two": "ready"}


@pytest.mark.process
@pytest.mark.parametrize("kind", ["gnu", "busybox"])
def test_files_are_listed_by_any_find(kind: str, tmp_path: Path, files: Path, machine: Machine) -> None:
    """The script tells what is added, changed, also within a second and to the same size, and removed, with GNU's programs and BusyBox's."""
    env = {"PATH": os.environ["PATH"]}
    if kind == "busybox":
        machine.require("busybox")
        busybox = str(shutil.which("busybox"))
        for name in ("sh", "id", "find", "stat", "grep"):
            (tmp_path / name).symlink_to(busybox)
        env["PATH"] = str(tmp_path)

    def listed() -> dict[bytes, bytes]:
        words = ["sh", "-c", _LIST, "irons-files", str(files)]
        done = subprocess.run(words, env=env, capture_output=True, check=True)
        return dict(files_of(done.stdout))

    before = listed()
    assert bytes(files / "deep/removed") in before
    (files / "new").symlink_to("same")
    (files / "changed").write_text("as IT was")
    (files / "deep/removed").unlink()
    (files / "deep").rmdir()
    assert compare(before, listed()) == (
        ChangedFile(f"{files}/changed", "changed"),
        ChangedFile(f"{files}/deep", "removed"),
        ChangedFile(f"{files}/deep/removed", "removed"),
        ChangedFile(f"{files}/new", "added"),
    )


def test_a_hostile_listing_is_data() -> None:
    """Names with line ends, escapes and no UTF-8 are one file each, and fit for a terminal; what has no path or no end is left out."""
    before = dict(files_of(b"nul\nf 1/a\0"))
    after = dict(files_of(b"nul\nf 1/a\0f 2/b\nf 3/c\0f 4/\x1b[2J\xff\0no path\0f 5/cut"))
    assert list(after) == [b"/a", b"/b\nf 3/c", b"/\x1b[2J\xff"]
    shown = list(lines(compare(before, after)))
    assert shown == ["files: 2 added", r"  + /\x1b[2J\xff", r"  + /b\nf 3/c"]
    assert list(files_of(b"")) == list(files_of(b"other\nf 1/a\0")) == []
    many = dict(files_of(b"nul\n" + b"".join(b"f 1/%04d\0" % number for number in range(1041))))
    shown = list(lines(compare({}, many)))
    assert (shown[0], shown[-1], len(shown)) == (
        "files: 1,041 added",
        "  and 1,001 more: -o json has all",
        42,
    )
    assert list(lines(())) == ["no file was changed"]
