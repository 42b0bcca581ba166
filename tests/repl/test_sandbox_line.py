"""Lines that run in a sandbox: what goes there, what stays here, what is refused, and how it looks while it is typed."""

from __future__ import annotations

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from irons.cli.completing import RemotePath, Sources
from irons.host import PluginHost
from irons.tree import Tree
from irons_repl.line.completer import PromptCompleter, place
from irons_repl.line.grammar import LineError, Redirection, steps_of
from irons_repl.line.highlight import LineLexer

SOURCES = Sources(sandboxes=lambda: {"alpha": "ready", "alpine-2": "stopped", "beta": "ready"})


@pytest.fixture(scope="module")
def tree() -> Tree:
    """The commands of all built-in plugins."""
    return PluginHost(env={"IRONS_PLUGINS": ""}).tree


def there(line: str) -> str:
    """Return what the sandbox's shell reads of a line of one step."""
    (step,) = steps_of(line)
    assert step.words[:4] == ("exec", "alpha", "--", "sh")
    return step.words[-1]


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("alpha: make", "make"),
        ("alpha:  make   test ", "make   test"),
        ("alpha: ls ~/x *.py $HOME '$X' \"$Y\" a\\ b", "ls ~/x *.py $HOME '$X' \"$Y\" a\\ b"),
        ("alpha: 'make && make test'", "make && make test"),
        ('alpha: "make; make test"', "make; make test"),
        ("alpha: it\\'s", "it\\'s"),
        ('alpha: echo "$(ls | wc -l)"', 'echo "$(ls | wc -l)"'),
        ('alpha: echo "$(echo "a" | wc -l)"', 'echo "$(echo "a" | wc -l)"'),
        ("alpha: make # all of it", "make"),
    ],
)
def test_words_reach_the_sandbox_as_they_were_typed(line: str, read: str) -> None:
    """Nothing is expanded or quoted here; one quoted word is the line itself."""
    assert there(line) == read


def test_a_pipeline_and_a_file_are_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """`|` and one last `>` end what runs in the sandbox; the file's `~` is this home."""
    monkeypatch.setenv("HOME", "/home/me")
    (piped,) = steps_of("alpha: pytest -q | grep FAIL > out")
    assert (piped.words[-1], piped.shell, piped.output) == ("pytest -q", "grep FAIL > out", None)
    (written,) = steps_of("alpha: cat ~/log >> ~/log")
    assert (written.words[-1], written.output) == ("cat ~/log", Redirection("/home/me/log", append=True))
    assert [step.words[-1] for step in steps_of("list; alpha: a\nalpha: b")] == ["list", "a", "b"]


@pytest.mark.parametrize(
    ("line", "column", "form"),
    [
        ("alpha: make && rm build", 12, "alpha: 'make && rm build'"),
        ("alpha: make || rm build", 12, "alpha: 'make || rm build'"),
        ("alpha: make; rm build", 11, "alpha: 'make; rm build'"),
        ("alpha: make;", 11, "alpha: 'make;'"),
        ("alpha: make | grep 'x' && rm build", 23, "alpha: 'make | grep '\\''x'\\'' && rm build'"),
        ("list\nalpha: a && b\nlist", 14, "alpha: 'a && b'"),
        ("alpha: (cd src && make)", 15, "alpha: '(cd src && make)'"),
        ("alpha: echo $(ls | wc -l)", 17, "alpha: 'echo $(ls | wc -l)'"),
        ("alpha: echo `ls | wc -l`", 16, "alpha: 'echo `ls | wc -l`'"),
        ("alpha: make 2>&1 | less", 13, "alpha: 'make 2>&1' | less"),
        ("alpha: cat < in", 11, "alpha: 'cat < in'"),
        ("alpha: sleep 9 & ls", 15, "alpha: 'sleep 9 & ls'"),
    ],
)
def test_what_would_run_elsewhere_than_it_seems_is_refused(line: str, column: int, form: str) -> None:
    """The error points at the operator, and shows the form that runs it in the sandbox."""
    with pytest.raises(LineError) as caught:
        steps_of(line)
    assert caught.value.column == column
    assert caught.value.hint.startswith(f"{form} runs ")


def test_a_long_line_is_not_repeated_in_its_hint() -> None:
    """A hint is one line that can be read."""
    with pytest.raises(LineError) as caught:
        steps_of(f"alpha: echo {'x' * 500} && rm build")
    assert caught.value.hint == "alpha: '…' runs all of it in alpha"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("alpha:", "nothing follows alpha:"),
        ("alpha: | wc", "nothing follows alpha:"),
        ("alpha: > out make", "> FILE is the last thing"),
        ("alpha: make > out -v", "> FILE is the last thing"),
        ("alpha: make > a > b", "output goes to one file"),
    ],
)
def test_a_line_for_a_sandbox_has_one_form(line: str, message: str) -> None:
    """A command comes first, a file last."""
    with pytest.raises(LineError, match=message):
        steps_of(line)


@pytest.mark.parametrize("line", ["'alpha:' x", "alpha:x y", "-a: x", "a/b: x", ".: x", ": x"])
def test_other_first_words_are_commands(line: str) -> None:
    """Only a sandbox's name with a colon after it, unquoted, is a sandbox."""
    (step,) = steps_of(line)
    assert step.words[0] != "exec"


def styles(tree: Tree, line: str) -> list[tuple[str, str]]:
    """What is drawn of a line, blanks left out."""
    fragments = LineLexer(tree, ()).lex_document(Document(line))(0)
    return [
        (fragment[0].removeprefix("class:"), fragment[1]) for fragment in fragments if fragment[1].strip()
    ]


def test_the_line_shows_what_runs_where(tree: Tree) -> None:
    """The sandbox's words have one colour, this machine's another, and what is refused is marked."""
    assert styles(tree, "alpha: list -q 'x' | wc; list -q") == [
        ("place", "alpha:"),
        ("there", "list"),
        ("there", "-q"),
        ("there", "'x'"),
        ("operator", "|"),
        ("shell", " wc"),
        ("wrong", ";"),
        ("command", "list"),
        ("option", "-q"),
    ]
    assert styles(tree, "alpha: ls > out")[-2:] == [("operator", ">"), ("word", "out")]
    assert styles(tree, "list && alpha: ls")[1:] == [("operator", "&&"), ("place", "alpha:"), ("there", "ls")]
    assert ("word", "beta:") in styles(tree, "alpha: ls > beta:")
    assert ("class:operator", ";") in LineLexer(tree, ()).lex_document(Document("alpha: a\nlist; list"))(1)


def test_paths_in_the_sandbox_come_at_tab_alone(tree: Tree) -> None:
    """While one types no sandbox is asked; at Tab each path is quoted for the shell that reads it."""
    asked: list[tuple[str, str]] = []

    def remote(where: RemotePath) -> dict[str, str]:
        asked.append((where.sandbox, where.path))
        return {f"{where.path}'s": "", f"{where.path}*/": "folder", f"{where.path}ü": ""}

    completer = PromptCompleter(tree, SOURCES._replace(remote=remote), {})

    def offered(text: str, *, tab: bool) -> list[str]:
        event = CompleteEvent(completion_requested=tab, text_inserted=not tab)
        found = list(completer.get_completions(Document(text, len(text)), event))
        assert all(completion.start_position == text.rfind(" ") + 1 - len(text) for completion in found)
        return [completion.text for completion in found]

    for text in ("alpha: cat fi", "exec alpha -- cat fi", "scp alpha:fi"):
        assert offered(text, tab=False) == []
    assert asked == []
    assert offered("alpha: cat fi", tab=True) == ["'fi'\\''s'", "'fi*/'", "fiü"]
    assert offered("alpha: cat ~/fi", tab=True) == ["~/'fi'\\''s'", "~/'fi*/'", "~/fiü"]
    assert offered("exec alpha -- cat fi", tab=True) == ["'fi'\\''s'", "fi*/", "'fiü'"]
    assert offered("scp alpha:fi", tab=True) == ["'alpha:fi'\\''s'", "alpha:fi*/", "'alpha:fiü'"]
    assert offered("exec alpha beta -- cat fi", tab=True) == []
    assert asked == [("alpha", "fi")] * 4


def test_a_sandbox_is_offered_as_a_place(tree: Tree) -> None:
    """The beginning of a sandbox's name offers it with a colon, next to the commands; nothing typed offers none."""

    def offered(text: str) -> list[str]:
        completer = PromptCompleter(tree, SOURCES, {})
        found = completer.get_completions(Document(text, len(text)), CompleteEvent())
        return [completion.text for completion in found]

    assert offered("al")[:2] == ["alpha:", "alpine-2:"]
    assert "beta:" in offered("list; be")
    assert not [text for text in offered("") if text.endswith(":")]
    assert place("list; alpha: cat ~/x") == (["exec", "alpha", "--", "cat", "~/x"], 17, False, True)
    assert place("alpha: ls > o") == (["o"], 12, True, False)
