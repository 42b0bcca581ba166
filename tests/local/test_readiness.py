"""What a newcomer meets on a machine that cannot run sandboxes: doctor's words and its fix, from every first command."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.local import people

from irons.errors import LocalError
from irons_local.daemon import spawn
from irons_local.doctor import readiness
from irons_local.doctor.checks import DoctorCheck
from irons_local.errors import CellError, EngineError
from irons_local.images.sources.mmdebstrap import piped
from irons_local.paths import Paths

WORDS = "user namespaces are switched off"
FIX = "user.max_user_namespaces=10000"
REFUSING = (sys.executable, "-m", "tests.refusing", "--no-user-namespaces", "--")


refusing = pytest.mark.needs("user-namespaces")
"""For tests that take the right to make user namespaces away, and so begin with it."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a key."""
    (tmp_path / "run").mkdir(mode=0o700)
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")]
    subprocess.run(keygen, check=True)
    return tmp_path


def _there(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command on a machine without user namespaces."""
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "IRONS_"))},
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
    }
    command = [*REFUSING, *words]
    return subprocess.run(
        command, env=env, cwd=people.ROOT, capture_output=True, text=True, check=False, timeout=100
    )


def _irons(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return _there(home, sys.executable, "-m", "irons", *words)


@refusing
def test_the_first_commands_begin_with_the_checks(home: Path) -> None:
    """`create`, `image build` and `image import` fail at once, with doctor's words and its fix last; nothing is half made."""
    try:
        up = _irons(home, "local", "up")
        assert up.returncode == 0
        assert WORDS in up.stderr
        for words in (
            ("create", "box", "--key", str(home / "key.pub")),
            ("local", "image", "build"),
            ("local", "image", "import", str(home / "key")),
        ):
            done = _irons(home, *words)
            first, last = done.stderr.splitlines()
            assert (done.returncode, done.stdout) == (1, ""), words
            assert first == f"irons: this machine cannot run sandboxes: {WORDS}"
            assert FIX in last
        assert _irons(home, "list", "-q").stdout == ""
    finally:
        _irons(home, "local", "down")


def test_nothing_is_doubtful_on_a_machine_that_is_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With every program, ids and leave to make namespaces there is no doubt, and one missing program is one."""
    setting = tmp_path / "most"
    setting.write_text("100\n")
    monkeypatch.setattr(readiness, "_MOST_NAMESPACES", setting)
    monkeypatch.setattr(readiness, "_CLONE", tmp_path / "none")
    monkeypatch.setattr(readiness, "outer_map", lambda: None)
    monkeypatch.setattr("irons_local.doctor.readiness.shutil.which", lambda name, path: f"{path}/{name}")
    assert not readiness.doubtful()
    monkeypatch.setattr(
        "irons_local.doctor.readiness.shutil.which",
        lambda name, path: None if name == "nft" else f"{path}/{name}",
    )
    assert readiness.doubtful()


@refusing
def test_the_quickstart_begins_with_the_checks(home: Path) -> None:
    """It ends before it makes anything, and says why and what to run."""
    done = _there(home, sys.executable, "docs/quickstart.py")
    assert done.returncode == 1
    *_, what, fix = done.stderr.splitlines()
    assert WORDS in what
    assert FIX in fix
    assert "$ irons" not in done.stdout


@pytest.mark.process
def test_the_quickstart_names_a_place_that_it_cannot_use(home: Path) -> None:
    """A cache directory that cannot be made is one line, with the variable that names another."""
    (home / ".cache").write_text("")
    env = {"HOME": str(home), "PATH": os.environ["PATH"]}
    words = [sys.executable, "docs/quickstart.py"]
    done = subprocess.run(
        words, env=env, cwd=people.ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "XDG_CACHE_HOME" in done.stderr


def _failing(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[Paths]:
    asked: list[Paths] = []

    def examine(paths: Paths) -> tuple[DoctorCheck, ...]:
        asked.append(paths)
        return tuple(DoctorCheck(name, False, f"no {name}", f"get {name}") for name in names)

    monkeypatch.setattr(readiness, "examine", examine)
    return asked


PLACES = Paths(Path("/nowhere"), Path("/nowhere"))


def test_what_the_machine_may_have_caused_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of the machine's ends with doctor's words; one of the request's is left alone and costs no check."""
    asked = _failing(monkeypatch, "mmdebstrap", "crun")
    found = readiness.explained(EngineError("failed", "it did not start"), PLACES)
    assert (found.message, found.hint) == ("it did not start: no crun", "get crun")
    assert readiness.cause(CellError("no cell"), PLACES) == DoctorCheck("crun", False, "no crun", "get crun")
    assert readiness.cause(OSError(28, "full"), PLACES) is not None
    assert len(asked) == 3
    refusal = EngineError("input", "no such name")
    assert readiness.explained(refusal, PLACES) is refusal
    assert readiness.cause(ValueError("a fault of ours"), PLACES) is None
    assert len(asked) == 3


def test_only_a_build_needs_what_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an archive is imported, a missing mmdebstrap is not in the way; a machine without an internet never is."""
    _failing(monkeypatch, "names", "internet", "mmdebstrap")
    assert readiness.obstacle(PLACES) is None
    found = readiness.obstacle(PLACES, building=True)
    assert found is not None
    assert "no mmdebstrap" in readiness.refused(found).message


@pytest.mark.process
def test_a_daemon_that_does_not_come_up_ends_with_doctors_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper's error is printed, and after it what this machine lacks, with the line that fixes it."""
    _failing(monkeypatch, "kernel")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (tmp_path / "run").mkdir(mode=0o700)
    with pytest.raises(LocalError) as raised:
        spawn.start(Paths(tmp_path / "state", tmp_path / "run"), {})
    assert raised.value.message.endswith("it ended at once: no kernel")
    assert raised.value.hint == "get kernel"


@pytest.mark.needs("user-namespaces")
def test_root_of_a_user_namespace_is_told_what_it_lacks(tmp_path: Path) -> None:
    """Where the daemon can't start as such a root, the first command says so in doctor's words, without an errno."""
    env = {**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    env = {key: value for key, value in env.items() if not key.startswith(("XDG_STATE", "IRONS_"))}
    command = ["unshare", "-Ur", sys.executable, "-m", "irons", "list"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 1
    assert "this root has no ids" in done.stderr
    assert "Errno" not in done.stderr


NAMESPACES = EngineError("failed", "a namespace cannot be made")
TRUNCATED = EngineError("image", "the archive is damaged: unexpected end of data")
BUILDER = EngineError("image", "mmdebstrap failed: broken pipe")


@pytest.mark.parametrize(
    ("writer", "reader", "told"),
    [
        (BUILDER, NAMESPACES, NAMESPACES),
        (BUILDER, EngineError("limit", "the disk is full"), "the disk is full"),
        (BUILDER, TRUNCATED, BUILDER),
        (BUILDER, None, BUILDER),
        (None, TRUNCATED, TRUNCATED),
        (None, NAMESPACES, NAMESPACES),
    ],
)
@pytest.mark.parametrize("first", ["writer", "reader"])
def test_the_true_cause_is_told_whichever_end_fails_first(
    writer: EngineError | None, reader: EngineError | None, told: EngineError | str, first: str
) -> None:
    """What one end's failure did to the other is not reported in its place."""

    async def work() -> None:
        gone = asyncio.Event()

        async def end(name: str, error: EngineError | None) -> str:
            if name != first:
                await gone.wait()
            gone.set()
            if error is not None:
                raise error
            return name

        read, write = os.pipe()
        with pytest.raises(EngineError) as raised:
            await piped(end("writer", writer), write, end("reader", reader), read)
        assert raised.value.message == (told if isinstance(told, str) else told.message)

    asyncio.run(work())


def test_a_writer_is_ended_when_nobody_can_read() -> None:
    """Where the reader cannot do its work, its failure is reported at once, and the writer does not go on for nothing."""

    async def work() -> None:
        ended = asyncio.Event()

        async def writing() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async def reading() -> None:
            raise NAMESPACES

        read, write = os.pipe()
        with pytest.raises(EngineError, match="namespace"):
            await piped(writing(), write, reading(), read)
        assert ended.is_set()

    asyncio.run(work())


@refusing
def test_a_limit_of_namespaces_is_not_called_a_full_disk(home: Path) -> None:
    """The kernel's word for it is that of a full disk, which is not one of ours."""
    script = "from irons_local.linux import namespaces; namespaces.unshare(namespaces.NEWUSER)"
    done = _there(home, sys.executable, "-c", script)
    assert "the limit of namespaces" in done.stderr
    assert "No space" not in done.stderr


def test_a_machine_without_a_way_out_makes_sandboxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is amiss with names or the way to the internet is in no sandbox's way."""
    _failing(monkeypatch, "names", "internet")
    assert readiness.obstacle(PLACES, building=True) is None
