"""The script that starts each session of a sandbox, run by the shells that images have as /bin/sh."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.machine import Machine

from irons_local.bundle import session

pytestmark = pytest.mark.process

SHELLS = [["dash"], ["bash", "--posix"], ["busybox", "sh"]]
GIVEN = {"SHELL": "/bin/sh", "HOME": "/root", "PATH": "/usr/bin:/bin", "SHLVL": "1"}


@pytest.fixture(params=SHELLS, ids=lambda shell: str(shell[0]))
def shell(request: pytest.FixtureRequest, machine: Machine) -> list[str]:
    """A shell that an image may have."""
    words: list[str] = request.param
    machine.require(words[0])
    return words


class Inside:
    """A stand-in for a sandbox's files, and sessions in it."""

    def __init__(self, root: Path, shell: list[str]) -> None:
        self.root = root
        self.shell = shell
        for directory in ("etc/default", "usr/lib/locale", "run/irons"):
            (root / directory).mkdir(parents=True)

    def write(self, path: str, text: str) -> None:
        """Write one of its files."""
        (self.root / path).write_text(text, encoding="utf-8")

    def run(self, command: str | None, **sent: str) -> subprocess.CompletedProcess[str]:
        """Start a session as sshd does, with a command or a login on a closed input, and variables of the client."""
        script = session.SCRIPT
        for path in ("/etc/", "/usr/lib/", "/usr/libexec/", "/run/irons/"):
            script = script.replace(path, f"{self.root}{path}")
        asked = {} if command is None else {"SSH_ORIGINAL_COMMAND": command}
        file = self.root / "session"
        file.write_text(script, encoding="utf-8")
        return subprocess.run(
            [*self.shell, str(file)],
            env={**GIVEN, **sent, **asked},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def variables(self, **sent: str) -> dict[str, str]:
        """What a program sees in its environment."""
        done = self.run("env -0", **sent)
        assert done.returncode == 0, done.stderr
        return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)


@pytest.fixture
def inside(tmp_path: Path, shell: list[str]) -> Inside:
    """A stand-in for a sandbox's files."""
    return Inside(tmp_path, shell)


def test_a_session_without_files_is_utf8_and_otherwise_as_it_was(inside: Inside) -> None:
    """The locale is C.UTF-8, and nothing of the script stays behind."""
    found = inside.variables(FOO="bar")
    assert found.pop("LANG") == "C.UTF-8"
    assert {name: found[name] for name in ("FOO", "HOME", "PATH", "SHELL")} == {
        "FOO": "bar",
        "HOME": "/root",
        "PATH": "/usr/bin:/bin",
        "SHELL": "/bin/sh",
    }
    assert not {name for name in found if name.startswith(("irons_", "SSH_"))}


def test_the_environment_file_is_read_as_pam_reads_it(inside: Inside) -> None:
    """Quotes, `export`, comments and blanks are PAM's; what is not an assignment is passed over, and nothing is run."""
    inside.write(
        "etc/environment",
        "# A=comment\n  B=two words \nexport C=\"quoted 'c'\"\nD='single'\nnot an assignment\n9E=no\nF-G=no\n"
        "H=$(touch run)`touch run`; touch run\nI=#kept=\n\n\tJ=last",
    )
    found = inside.variables()
    assert {name: found.get(name) for name in "ABCDHIJ"} == {
        "A": None,
        "B": "two words",
        "C": "quoted 'c'",
        "D": "single",
        "H": "$(touch run)`touch run`; touch run",
        "I": "#kept=",
        "J": "last",
    }
    assert "9E" not in found


def test_later_files_go_before_earlier_ones_and_the_client_before_all(inside: Inside) -> None:
    """The order is locale, environment, variables of `create`, what the client sent."""
    inside.write("etc/default/locale", "LANG=C\nA=locale\nB=locale\n")
    inside.write("etc/environment", "A=environment\nC=environment\nD=environment\nHOME=/nowhere\n")
    inside.write("run/irons/environment", "export C='it'\\''s\ntwo lines'\nexport D=create\n")
    found = inside.variables(D="client")
    assert [found[name] for name in ("LANG", "A", "B", "C", "D", "HOME")] == [
        "C",
        "environment",
        "locale",
        "it's\ntwo lines",
        "client",
        "/root",
    ]


def test_the_search_path_is_the_files(inside: Inside) -> None:
    """The server's own path gives way, and `$PATH` in the file means what it says."""
    inside.write("etc/environment", "PATH=/opt/bin:$PATH:/games\n")
    assert inside.variables()["PATH"] == "/opt/bin:/usr/bin:/bin:/games"


@pytest.mark.parametrize(
    "name", ["OPTIND", "UID", "PPID", "IFS", "BASHOPTS", "SHELLOPTS", "LINENO", "irons_command"]
)
def test_a_name_the_shell_lives_by_locks_nobody_out(inside: Inside, name: str) -> None:
    """A session goes on no matter what the file says of the shell's own variables."""
    inside.write("etc/environment", f"{name}=abc\nA=read\n")
    assert inside.variables()["A"] == "read"


@pytest.mark.parametrize(
    ("sent", "found"), [("de_DE.UTF-8", "C.UTF-8"), ("C", "C"), ("fr_FR.UTF-8", "fr_FR.UTF-8")]
)
def test_a_locale_without_data_is_not_taken_from_the_client(inside: Inside, sent: str, found: str) -> None:
    """A client's locale is kept where the sandbox knows it."""
    (inside.root / "usr/lib/locale/fr_FR.utf8").mkdir()
    variables = inside.variables(LANG=sent, LC_ALL=sent)
    assert variables["LANG"] == found
    assert variables.get("LC_ALL") == (sent if sent == found else None)


def test_a_login_is_a_login_shell_and_exit_codes_are_the_programs(inside: Inside) -> None:
    """Without a command the person's shell is a login shell; with one its exit code comes back."""
    inside.write("etc/environment", "A=read\n")
    assert inside.run(None).returncode == 0
    assert inside.run("exit 7").returncode == 7
    assert inside.run("").returncode == 0
    assert inside.run("kill -9 $$").returncode == -9


def test_an_image_without_an_sftp_server_says_so(inside: Inside) -> None:
    """The subsystem fails with a sentence."""
    done = inside.run(session.SFTP)
    assert (done.returncode, done.stderr) == (127, "irons: this image has no sftp-server\n")


def test_java_is_told_of_the_limit_of_memory(inside: Inside) -> None:
    """Its launcher reads one variable; a value of the image's, the machine's or the session's own wins."""
    assert session.of_limits(None) == {}
    inside.write("run/irons/limits", session.of_limits(512 << 20)[session.LIMITS])
    assert inside.variables()["JDK_JAVA_OPTIONS"] == "-XX:MaxRAM=536870912"
    assert inside.variables(JDK_JAVA_OPTIONS="-Xmx1g")["JDK_JAVA_OPTIONS"] == "-Xmx1g"
    inside.write("run/irons/image", "export JDK_JAVA_OPTIONS=-Xss1m\n")
    assert inside.variables()["JDK_JAVA_OPTIONS"] == "-Xss1m"
    inside.write("etc/environment", "JDK_JAVA_OPTIONS=\n")
    assert inside.variables()["JDK_JAVA_OPTIONS"] == ""


@pytest.mark.needs("java", optional=True)
def test_a_real_java_keeps_to_it(inside: Inside) -> None:
    """By default the heap may be a quarter of the memory that it knows of."""
    inside.write("run/irons/limits", session.of_limits(512 << 20)[session.LIMITS])
    told = inside.run("java -XX:+PrintFlagsFinal -version")
    assert re.search(r" MaxHeapSize +:?= (\d+)", told.stdout)[1] == str(128 << 20), told  # type: ignore[index]
