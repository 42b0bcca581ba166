"""Completion in the prompt, asked with documents."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from irons.cli.completing import Sources
from irons.command import Arg, Command, Opt
from irons.host import PluginHost
from irons.tree import Tree
from irons_repl.line.completer import PromptCompleter, place

SOURCES = Sources(
    sandboxes=lambda: {"agent-42": "ready", "agent-7": "stopped", "builder": "error"},
    domains=lambda: {"pypi.org": "allowed", "*.example.com": "denied"},
    aliases=lambda: {"hi": "greet --tone warm"},
)


@pytest.fixture(scope="module")
def tree() -> Tree:
    """The commands of all built-in plugins, and one of a third party."""
    host = PluginHost(env={"IRONS_PLUGINS": ""})
    greet = Command(
        ("greet",),
        "Greet.",
        "x:y",
        (
            Arg("name", kind="sandbox"),
            Opt(("--tone",), choices=("warm", "cold")),
            Opt(("--from",), kind="file"),
        ),
    )
    return host.tree.with_commands([greet])


def complete(tree: Tree, text: str) -> list[tuple[str, str, int]]:
    """What the menu offers: text, description, and how far back it reaches."""
    completer = PromptCompleter(tree, SOURCES, {"exit": "Leave."})
    found = completer.get_completions(Document(text, len(text)), CompleteEvent())
    return [(c.text, c.display_meta_text, c.start_position) for c in found]


def texts(tree: Tree, text: str) -> list[str]:
    """What the menu offers, texts only."""
    return [found[0] for found in complete(tree, text)]


def test_commands_come_with_their_help(tree: Tree) -> None:
    """The first word is a command of any plugin, or one of the prompt's own words."""
    assert ("greet", "Greet.", -2) in complete(tree, "gr")
    assert texts(tree, "exi") == ["exit"]
    assert {"egress", "audit", "create"} <= set(texts(tree, ""))


def test_the_word_irons_is_no_obstacle(tree: Tree) -> None:
    """A line as it is typed at the shell is completed as one without the word."""
    assert texts(tree, "irons greet ag42") == ["agent-42"]
    assert ("greet", "Greet.", -3) in complete(tree, "irons gre")


def test_groups_lead_to_their_commands(tree: Tree) -> None:
    """Behind a group's word its commands are offered."""
    assert {"allow", "deny", "list", "mode"} <= set(texts(tree, "egress "))


def test_sandboxes_come_with_their_state_and_fuzzily(tree: Tree) -> None:
    """A sandbox argument offers names; letters in order are enough."""
    assert complete(tree, "greet ag42") == [("agent-42", "ready", -4)]
    assert texts(tree, "status b") == ["builder"]


def test_options_choices_and_values_are_offered(tree: Tree) -> None:
    """Flags, an option's choices after a space and after an equals sign."""
    assert "--tone" in texts(tree, "greet --t")
    assert texts(tree, "greet --tone ") == ["warm", "cold"]
    assert complete(tree, "greet --tone=w") == [("--tone=warm", "", -8)]
    assert "--tone" not in texts(tree, "greet --tone warm -")


def test_domains_are_offered_where_rules_are_made(tree: Tree) -> None:
    """`egress allow` offers patterns of rules and recent hosts."""
    assert ("pypi.org", "allowed", -2) in complete(tree, "egress allow py")


def test_each_command_of_a_line_is_completed_on_its_own(tree: Tree) -> None:
    """Behind `;` and `&&` a new command begins."""
    assert texts(tree, "list; greet b") == ["builder"]
    assert texts(tree, "list&&gree") == ["greet"]


@pytest.mark.parametrize("text", ["!ls ag", "list | grep ag", "# ag", "list | cat; !x"])
def test_nothing_is_offered_for_the_shell(tree: Tree, text: str) -> None:
    """The system shell's text and comments are left alone."""
    assert texts(tree, text) == []


def test_quotes_are_taken_into_account(tree: Tree) -> None:
    """A word that is being quoted is completed as a whole."""
    assert complete(tree, "greet 'agent-4") == [("agent-42", "ready", -8)]
    assert ("'*.example.com'", "denied", -3) not in complete(tree, "egress allow '*.")
    assert "*.example.com" in texts(tree, "egress allow '*.")


def test_files_are_offered(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File arguments and redirections offer files, quoted where they must be, folders with a slash."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key one.pub").touch()
    (tmp_path / "keys").mkdir()
    (tmp_path / ".hidden").touch()
    assert texts(tree, "greet --from k") == ["'key one.pub'", "keys/"]
    assert texts(tree, "list > ") == ["'key one.pub'", "keys/"]
    assert texts(tree, "list > .") == [".hidden"]
    assert texts(tree, f"list >{tmp_path}/keys") == [f"{tmp_path}/keys/"]


def test_aliases_are_words_and_complete_as_what_they_mean(tree: Tree) -> None:
    """An alias of the configuration is offered, and after it what it stands for is completed."""
    assert ("hi", "greet --tone warm", -1) in complete(tree, "h")
    assert "agent-42" in texts(tree, "hi a")


def test_a_place_knows_its_words() -> None:
    """The cursor's place has the command's words and where the last one begins."""
    at = place("a; status --output js")
    assert at is not None
    assert (at.words, at.start) == (["status", "--output", "js"], 19)


def test_a_key_is_drawn_before_its_menu_is_looked_for(tree: Tree) -> None:
    """What is ready to run, as drawing is that waits for its turn, precedes the search among the values on hand."""
    happened: list[str] = []

    def sandboxes() -> dict[str, str]:
        happened.append("searched")
        return {"agent-42": "ready"}

    completer = PromptCompleter(tree, Sources(sandboxes=sandboxes), {})

    async def typed() -> list[str]:
        asyncio.get_running_loop().call_soon(happened.append, "drawn")
        text = "status ag"
        coming = completer.get_completions_async(Document(text, len(text)), CompleteEvent(text_inserted=True))
        return [found.text async for found in coming]

    assert asyncio.run(typed()) == ["agent-42"]
    assert happened[0] == "drawn"
    assert "searched" in happened
