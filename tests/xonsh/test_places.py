"""`@NAME` in a real xonsh on a real terminal: programs in a sandbox, as any other in pipes, captures and jobs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from irons.client.names import NameCache
from irons.settings.settings import load
from irons.testing import FakeApi
from irons_repl.xonsh_face.alias import PROCESS, PROCESS_VERBATIM
from irons_repl.xonsh_face.completion import quoted
from irons_repl.xonsh_face.in_sandbox import exec_words
from irons_repl.xonsh_face.places import PROCESS as IN_SANDBOX
from tests.repl.terminal import Terminal

Open = Callable[..., Terminal]


def test_one_word_is_a_line_and_several_are_a_program() -> None:
    """As with `irons ssh NAME --`; nothing after the name is for exec to refuse."""
    assert exec_words(["alpha", "ls", "*", "$X"]) == ["exec", "alpha", "--", "ls", "*", "$X"]
    assert exec_words(["alpha", "make && make test"])[-2:] == ["irons-line", "make && make test"]
    assert exec_words(["alpha"]) == ["exec", "alpha", "--"]
    assert exec_words([]) == ["exec", "--"]


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("a-b_c/d.e:", "a-b_c/d.e:"),
        ("a b", "r'a b'"),
        ("$HOME", "r'$HOME'"),
        ("it's", 'r"it\'s"'),
        ("*", "r'*'"),
        ("@x", "r'@x'"),
        ("~x", "r'~x'"),
        ("a\\", ""),
        ("'\"", ""),
    ],
)
def test_words_are_quoted_for_xonsh(word: str, written: str) -> None:
    """In other strings than raw ones xonsh expands variables; what it has no way to write is not offered."""
    assert quoted(word) == written


@pytest.mark.parametrize(
    "argv", [(*PROCESS, "--version"), (*PROCESS_VERBATIM, "--version"), (*IN_SANDBOX, "x")]
)
@pytest.mark.process
def test_nothing_of_the_working_directory_is_imported(
    argv: tuple[str, ...], home_env: dict[str, str], tmp_path: Path
) -> None:
    """A directory that an agent wrote may have modules of any name."""
    for name in ("irons", "irons_repl", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(99)")
    done = subprocess.run(argv, env=home_env, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode != 99


@pytest.mark.usefixtures("entered")
def test_a_program_in_a_sandbox_is_one_of_the_shells(
    xonsh: Open, env: dict[str, str], tmp_path: Path
) -> None:
    """Pipes, captures, exit codes, Ctrl-C and the sandbox's own wildcards work; this machine's are xonsh's."""
    NameCache.of(load({}, env)).replace({"agent-1": "ready"})
    (tmp_path / "here-1").touch()
    screen = xonsh()
    screen.send("@agent-1 echo here* '*' | tr a-z A-Z\r")
    screen.until(r"\nHERE-1 \*\n")
    screen.send("int($(@agent-1 r'echo $((4000+4))')) + 40000\r")
    screen.until(r"\n44004\n")
    screen.send("!(@agent-1 'exit 6').returncode + 5000\r")
    screen.until(r"\n5006\n")
    screen.send("!(@agent-1 sh -c 'exit 7').returncode + 6000\r")
    screen.until(r"\n6007\n")
    screen.send("@irons agent-1 'echo $((600+66))'\r")
    screen.until(r"\n666\n")
    screen.send("@agent-1 sh -c 'echo begun; sleep 1000'\r")
    screen.until(r"\nbegun")
    screen.send("\x03")
    screen.until("irons: interrupted")


def test_the_aliases_keep_in_step_with_the_list(xonsh: Open, env: dict[str, str], fake: FakeApi) -> None:
    """A new sandbox has one at the next prompt, one that is gone has none; what someone else named so stays."""
    NameCache.of(load({}, env)).replace({"agent-1": "ready", "json": "ready", "$(odd)": "ready"})
    screen = xonsh()

    def places(number: int, wanted: str) -> None:
        screen.send(f"{number}, sorted(a for a in aliases if a[:3] in ('@ag', '@ne', '@ir', '@$('))\r")
        screen.until(rf"\({number}, \[{wanted}\]\)")

    places(1, "'@agent-1', '@irons'")
    screen.send("aliases['@new'] = 'echo mine'\r")
    fake.add("new")
    fake.add("newer")
    screen.send("irons list -q\r")
    screen.until(r"\nnewer\n")
    places(2, "'@agent-1', '@agent-2', '@irons', '@new', '@newer'")
    screen.send("@new plus ours\r")
    screen.until(r"\nmine plus ours\n")
    fake.sandboxes.pop("newer")
    screen.send("irons list -q | wc -l\r")
    screen.until(r"\n3\n")
    places(3, "'@agent-1', '@agent-2', '@irons', '@new'")
    screen.send("$IRONS_PLACES = False\r")
    places(4, "'@new'")
    screen.send("$IRONS_PLACES = True\r")
    places(5, "'@agent-1', '@agent-2', '@irons', '@new'")
    screen.send("xontrib unload irons\r")
    places(6, "'@new'")
