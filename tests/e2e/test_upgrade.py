"""Another version of irons comes: its processes take the place of the older ones, and sandboxes do not notice."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from irons.version import __version__
from irons_local.linux.namespaces import birth
from tests.e2e.lab import Person, eventually
from tests.e2e.test_kills import Session, assert_recorded_once, pids, session

Version = Callable[[str], Person]


FACTS = "import json, site, sys; print(json.dumps([sys._base_executable, site.getsitepackages()[0], *sys.version_info[:3]]))"


ROOT = Path(__file__).parents[2]
SINGLE = "604a43b"
"""The last commit whose gateway is one process."""


def another_python(person: Person, directory: Path, version: str = "", tree: Path | None = None) -> Path:
    """An environment with the same irons, which says of itself that it is of another version; gives its interpreter.

    The daemon heeds no variable of whoever starts it, so an environment is what it takes. With a source tree it is the
    irons of that tree, and without a version that one's own.
    """
    first, *more = person.program
    python = first if more else str(Path(first).with_name("python"))
    base, packages, *numbers = json.loads(subprocess.check_output([python, "-I", "-c", FACTS], text=True))
    own = directory / "lib" / f"python{numbers[0]}.{numbers[1]}" / "site-packages"
    for made in (directory / "bin", own):
        made.mkdir(mode=0o755, parents=True)
    for made in (directory, *directory.rglob("*")):
        made.chmod(0o755)
    interpreter = directory / "bin/python"
    interpreter.symlink_to(base)
    settings = ["include-system-site-packages = false", f"version = {'.'.join(map(str, numbers))}"]
    (directory / "pyvenv.cfg").write_text("\n".join([f"home = {Path(base).parent}", *settings]) + "\n")
    lines = [
        *(str(tree / part) for part in ("core", "plugins", "repl") if tree is not None),
        f"import site; site.addsitedir({packages!r})",
        *([f"import irons.version; irons.version.__version__ = {version!r}"] if version else []),
    ]
    (own / "other.pth").write_text("\n".join(lines) + "\n")
    return interpreter


@pytest.fixture
def as_version(person: Person, sandbox: str) -> Iterator[Version]:
    """The same person with an irons of another version."""
    person.ok("status", sandbox)

    def other(version: str) -> Person:
        python = another_python(person, person.home / f"version-{version}", version)
        return replace(person, program=(str(python), "-m", "irons"))

    yield other
    person.run("local", "down")


def versions(person: Person) -> set[str]:
    """What versions the backend's processes have."""
    return {row["version"] for row in json.loads(person.ok("local", "status", "-o", "json"))}


def inner(person: Person, sandbox: str) -> str:
    """Process 1 of a sandbox."""
    return str(json.loads(person.ok("status", sandbox, "-o", "json"))["metadata"]["pid"])


def test_a_newer_irons_replaces_the_daemon_and_no_sandbox_notices(
    person: Person, sandbox: str, as_version: Version
) -> None:
    """All three processes are replaced by `up`; the sandbox, its sessions and its rules go on, and each attempt has its event."""
    older = as_version("0.0.1")
    mark = len(person.lab.arrivals())
    person.ok("local", "down")
    older.ok("egress", "allow", "--sandbox", sandbox, "web.example.test")
    eventually(lambda: versions(older) == {"0.0.1"}, what="the older daemon")
    before, machine = pids(older), inner(older, sandbox)
    follow = ("audit", "egress", sandbox, "--follow", "-o", "jsonl")
    with session(older, sandbox) as inside, older.start(*follow) as follower:
        assert inside.request() == "200"
        await_host(follower, inside)
        inside.begin_request()
        person.ok("local", "up")
        assert inside.end().strip() in ("200", "000")
        eventually(lambda: versions(person) == {__version__}, what="the daemon of now")
        after = pids(person)
        assert not set(before.values()) & set(after.values())
        assert inner(person, sandbox) == machine
        assert inside.request() == "200"
        await_host(follower, inside)
        assert "web.example.test" in person.ok("egress", "list", "--sandbox", sandbox)
    assert_recorded_once(person, sandbox, mark, 2)


def await_host(follower: subprocess.Popen[str], inside: Session) -> None:
    """Read what follows the log until it tells of the last request."""
    assert follower.stdout is not None
    for line in follower.stdout:
        if json.loads(line)["host"] == f"203.0.113.{inside.asked[-1]}":
            return
    raise AssertionError("following ended")


def test_a_newer_daemon_is_left_alone(person: Person, sandbox: str, as_version: Version) -> None:
    """An older irons says so with what to do, and changes nothing; ssh goes on."""
    newer = as_version("99.0")
    newer.ok("local", "up")
    eventually(lambda: versions(newer) == {"99.0"}, what="the newer daemon")
    before = pids(newer)
    refused = person.run("list")
    assert refused.returncode == 1
    assert "version 99.0, newer than this one" in refused.stderr
    assert "irons local down" in refused.stderr
    assert pids(newer) == before
    assert newer.inside(sandbox, "id -un").stdout == "irons\n"


@pytest.fixture
def single(make_person: Callable[..., Person]) -> Iterator[tuple[Person, Person]]:
    """Someone with the irons of now, and the same with the last one whose gateway was one process."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", SINGLE], capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"this is no clone with the history of irons: {SINGLE} is not in it")
    person = make_person()
    tree = person.home / "tree"
    tree.mkdir(mode=0o755)
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
    python = another_python(person, person.home / "single", tree=tree)
    yield person, replace(person, program=(str(python), "-m", "irons"))
    for words in (["destroy", "one", "two", "--force"], ["local", "down"]):
        person.run(*words)


def test_a_daemon_with_one_gateway_is_upgraded_under_an_open_session(single: tuple[Person, Person]) -> None:
    """Its sandboxes, rules, sessions and log go on with several workers, in which each cell keeps its seven sockets; nothing of it stays."""
    person, older = single
    for name in ("one", "two"):
        older.ok("create", name, timeout=180)
    older.ok("egress", "allow", "--sandbox", "one", "web.example.test")
    mark, machine = len(person.lab.arrivals()), inner(older, "one")
    before = {row["process"]: row["pid"] for row in json.loads(older.ok("local", "status", "-o", "json"))}
    assert set(before) == {"keeper", "server", "gateway"}
    with session(older, "one") as inside:
        assert inside.request() == "200"
        inside.begin_request()
        person.ok("local", "up")
        assert inside.end().strip() in ("200", "000")
        eventually(lambda: versions(person) == {__version__}, what="the daemon of now")
        assert not set(before.values()) & set(pids(person).values())
        assert inner(person, "one") == machine
        answers = [inside.request()]
        while answers[-1] != "200":
            answers.append(inside.request())
        assert "web.example.test" in person.ok("egress", "list", "--sandbox", "one")
    assert_recorded_once(person, "one", mark, 2)
    assert person.inside("two", "curl -s -o /dev/null -w '%{http_code}' http://203.0.113.77/").stdout == "200"
    # The SSH server of a sandbox made by the older version accepts what `ssh --env` sends.
    keyed = replace(person, more={"TOKEN": "a key"})
    assert keyed.ok("ssh", "two", "--env", "TOKEN", "--workdir", "~", "--", 'echo "$TOKEN"; pwd') == (
        "a key\n/home/irons\n"
    )
    assert not (person.home / "run/irons/gateway.sock").exists()
    assert not [pid for pid in before.values() if birth(pid) is not None]
