"""`irons run` with real sandboxes: files in, a program, results out, and nothing left, no matter what ends it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.lab import Person, eventually

README = Path(__file__).parents[2] / "README.md"
BUILD = """#!/bin/sh -e
test "$(pwd)" = "$HOME/work"
ls -A
readlink link
mkdir dist
tr a-z A-Z <input >dist/output
truncate -s 1G dist/hole
ln -s /etc/passwd dist/way
mkdir dist/.git
touch dist/.git/config
"""


@pytest.fixture(scope="module", autouse=True)
def abandoned(person: Person) -> str:
    """A sandbox of a `run` that was killed; its minute passes while the other tests run."""
    with person.start("run", "--", "sh", "-c", "echo here; exec sleep 1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        (name,) = made_by_run(person)
    return name


def made_by_run(person: Person, abandoned: str = "") -> list[str]:
    """The sandboxes of `run` that are there, but for the abandoned one."""
    return [name for name in person.ok("list", "-q").split() if name.startswith("run-") and name != abandoned]


@pytest.fixture(scope="module")
def project(person: Person) -> Path:
    """A git work tree in the person's home, theirs."""
    root = person.home / "project"
    root.mkdir()
    (root / ".gitignore").write_text("*.log\n")
    (root / "noise.log").write_text("ignored")
    (root / "build.sh").write_text(BUILD)
    (root / "build.sh").chmod(0o755)
    (root / "input").write_text("hello\n")
    (root / "link").symlink_to("input")
    if person.user:
        subprocess.run(["chown", "-Rh", f"{person.user}:", str(root)], check=True)
    words = [*person.lab.enter(user=person.user), "git", "-C", str(root), "init", "-q"]
    subprocess.run(words, env=person.env, check=True)
    return root


def test_the_line_of_the_readme_runs_as_printed(person: Person, project: Path, abandoned: str) -> None:
    """What git would add is in ~/work; results land here, a hole as a hole, nothing hostile; no sandbox is left."""
    found = re.search(r"^\$ (irons run .*)$", README.read_text(), re.MULTILINE)
    assert found is not None
    shim = person.home / "bin"
    shim.mkdir(exist_ok=True)
    (shim / "irons").write_text(f'#!/bin/sh\nexec {shlex.join(person.program)} "$@"\n')
    (shim / "irons").chmod(0o755)
    done = subprocess.run(
        [*person.lab.enter(user=person.user), "sh", "-c", f"cd {shlex.quote(str(project))} && {found[1]}"],
        env={**person.env, "PATH": f"{shim}:{person.env['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [".gitignore", "build.sh", "input", "link", "input"]
    assert "sending 4 files" in done.stderr
    assert "1 links that lead out left out" in done.stderr
    results = project / "dist"
    assert sorted(path.name for path in results.iterdir()) == ["hole", "output"]
    assert (results / "output").read_text() == "HELLO\n"
    hole = (results / "hole").stat()
    assert (hole.st_size, hole.st_blocks < 100) == (1 << 30, True)
    # Sent again it would be a gibibyte of zeros: only what is brought keeps its holes.
    shutil.rmtree(results)
    assert made_by_run(person, abandoned) == []


def test_a_failed_program_with_files_is_kept_for_an_hour(
    person: Person, project: Path, abandoned: str
) -> None:
    """Its code is the call's, `-o json` has what was refused, and the sandbox stays with a deadline."""
    script = "curl -s -m 60 http://web.example.test/; curl -s -m 60 https://evil.test/; kill -9 $$"
    words = ("run", "-o", "json", "--with", str(project), "--allow", "web.example.test")
    done = person.run(*words, "--", "sh", "-c", script, timeout=180)
    told = json.loads(done.stdout)
    assert (done.returncode, told["exit"], told["signal"], told["kept"]) == (137, 137, 9, True)
    assert [row["host"] for row in told["refused"]] == ["evil.test"]
    assert json.loads(told["stdout"])["host"] == "web.example.test"
    assert "is kept for an hour" in done.stderr
    (name,) = made_by_run(person, abandoned)
    status = json.loads(person.ok("status", name, "-o", "json"))
    assert (status["ends_with"], 3000 < status["ends_in"] <= 3600) == ("destroy", True)
    assert person.inside(name, "cat ~/work/link").stdout == "hello\n"
    person.ok("destroy", name, "--force", timeout=180)


def test_a_killed_client_leaves_nothing(person: Person, abandoned: str) -> None:
    """After KILL of `irons run` the server destroys the sandbox, and what ran in it with it."""
    eventually(lambda: abandoned not in person.ok("list", "-q").split(), within=300)
