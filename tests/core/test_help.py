"""Help and its topics, and the documents that repeat them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from irons.cli.help import sections
from irons.cli.help.pages import help_text, wrap
from irons.cli.help.topics import TOPICS, topic_text
from irons.command import GLOBAL_OPTIONS, Arg, Command, Flag, Opt
from irons.errors import EXIT_CODES
from irons.host import PluginHost, PluginInfo
from irons.settings.keys import KEYS
from irons.testing import Runner
from irons.tree import Tree

DOCS = Path(__file__).parents[2] / "docs"
TREE = PluginHost({"IRONS_PLUGINS": ""}, lambda _: None).tree

GREET = Command(
    ("greet",),
    "Greet a sandbox.",
    "x:y",
    (
        Arg("name", "Whom to greet.", kind="sandbox"),
        Arg("how", choices=("loud", "low"), takes="?"),
        Arg("words", takes="*"),
        Arg("argv", takes="--", metavar="CMD"),
        Opt(("-t", "--times"), "How often.", type="int", default=1),
        Flag(("--now",), "At once."),
        Opt(("--a-very-long-option-name",), "Long."),
    ),
    about="It says hello.\n\nAnd means it.",
    examples=("irons greet one", 'eval "$(irons greet)"'),
    exits=(3,),
    aliases=(("hi",),),
)


def test_a_commands_whole_help() -> None:
    """Usage, what it does, arguments, options, aliases, examples, the options of every command and exit codes, in that order."""
    text = help_text(Tree().with_commands([GREET]), ["greet"])
    begin, _, rest = text.partition("Options of every command:\n")
    assert begin == (
        "usage: irons greet [-t TIMES] [--now] [--a-very-long-option-name A_VERY_LONG_OPTION_NAME] NAME [HOW] [WORDS...] "
        "[-- CMD...]\n\n"
        "Greet a sandbox.\n\n"
        "It says hello.\n\n"
        "And means it.\n\n"
        "Arguments:\n"
        "  NAME   Whom to greet.\n"
        "  HOW     One of: loud, low.\n".replace("HOW     One", "HOW    One")
        + "  WORDS\n"
        "  CMD\n\n"
        "Options:\n"
        "  -t, --times TIMES               How often. [default: 1]\n"
        "  --now                           At once.\n"
        "  --a-very-long-option-name A_VERY_LONG_OPTION_NAME\n"
        "                                  Long.\n\n"
        "Also: hi\n\n"
        "Examples:\n"
        "  irons greet one\n"
        '  eval "$(irons greet)"\n\n'
    )
    assert rest.partition("\n\n")[2] == (
        "Exit codes:\n"
        "  0    It worked.\n"
        "  1    It failed: the server or this machine refused.\n"
        "  2    Usage: a word or option is not understood, or the configuration is invalid.\n"
        "  3    Not found: no such sandbox, rule, image or profile.\n"
        "  130  Interrupted by Ctrl-C.\n"
    )


def test_the_prompt_has_no_word_irons() -> None:
    """At the prompt commands are shown as they are typed there."""
    text = help_text(Tree().with_commands([GREET]), ["greet"], face="prompt")
    assert text.startswith("usage: greet ")
    assert "\n  greet one\n" in text


@pytest.mark.parametrize("width", [40, 60, 80, 96])
def test_help_fits_the_terminal(width: int) -> None:
    """Prose is broken to the terminal's width, down to forty columns."""
    for words in ([], ["egress"], *(list(command.path) for command in TREE)):
        for line in help_text(TREE, words, width=width).splitlines():
            breakable = not line.startswith(("usage: ", "  irons ", "Also: ")) and " " in line.strip()
            assert (
                len(line) <= width
                or not breakable
                or line.lstrip().startswith(("-", "--"))
                or "irons" in line
            )


@pytest.mark.parametrize("command", [*TREE], ids=lambda command: command.name)
def test_help_lines_are_short_sentences(command: Command) -> None:
    """Each line of help is a sentence of at most 60 characters, and each command has an example unless it is hidden."""
    assert command.help.endswith(".")
    lines = [command.help, *(each.help for each in (*command.params, *GLOBAL_OPTIONS))]
    for line in lines:
        assert len(line.partition(" [default")[0]) <= 60, line
    assert command.examples or command.hidden


def test_wrapping() -> None:
    """Words are kept whole; a word longer than the line stands alone."""
    assert wrap("aa bb cc", 5) == ["aa bb", "cc"]
    assert wrap("a" * 9 + " b", 4) == ["a" * 9, "b"]
    assert wrap(" \n ", 4) == []


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("help",), ("-o", "plain", "--help")])
def test_the_overview_lists_every_command(run_irons: Runner, words: tuple[str, ...]) -> None:
    """Each command is in it once, and each topic; hidden ones are not."""
    text = run_irons(*words).ok().out
    for command in TREE:
        assert (re.search(rf"^  {re.escape(command.name)}\s", text, re.MULTILINE) is None) is command.hidden
    for topic, about in sections.TOPICS.items():
        assert re.search(rf"^  help {topic} +{re.escape(about)}$", text, re.MULTILINE)


def test_the_overview_goes_by_task() -> None:
    """What is used every day comes first, then the sections; every built-in command has its section, the daily ones before others."""
    text = help_text(TREE, [])
    titles = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert titles == ["Daily use", *sections.SECTIONS, "Topics", "Options of every command"]
    egress = text.partition("\nEgress:\n")[2].partition("\n\n")[0]
    assert [line.split()[1] for line in egress.splitlines()][:2] == ["allow", "deny"]
    assert re.search(r"^  audit  .*\n  audit watch  ", text, re.MULTILINE)
    for line, _ in sections.DAILY:
        match = TREE.find(line.split())
        assert match is not None
        assert f"  irons {line} " in text


def test_a_plugins_commands_go_under_its_name(run_irons: Runner) -> None:
    """Commands of another distribution have a section with the plugin's name, after irons' own; none without one is lost."""
    more = TREE.with_commands([GREET])
    own = help_text(more, [], owners={"greet": "hello"})
    assert "\n\nPlugin hello:\n  greet  " in own
    assert own.index("Settings:") < own.index("Plugin hello:") < own.index("Topics:")
    assert f"\n\n{sections.OTHER}:\n  greet  " in help_text(more, [])
    third = PluginInfo("hello", "irons-hello", "1", commands=("greet",))
    assert sections.third_parties([PluginInfo("ssh", "irons", "1", commands=("ssh",)), third]) == {
        "greet": "hello"
    }
    assert "Plugin " not in run_irons("--help").ok().out


def test_a_group_names_its_topic() -> None:
    """The help of a group that is a topic too says how the topic is read."""
    assert "`irons help egress`: " in help_text(TREE, ["egress"])
    assert "`help egress`: " in help_text(TREE, ["egress"], face="prompt")
    assert "help local" not in help_text(TREE, ["local"])


def test_help_wherever_it_is_asked_for(run_irons: Runner) -> None:
    """`--help` before or after a command, or the command `help`, say the same; a group lists what is below it."""
    wanted = run_irons("egress", "allow", "--help").ok().out
    assert wanted.startswith("usage: irons egress allow ")
    for words in (("--help", "egress", "allow"), ("help", "egress", "allow"), ("egress", "allow", "x", "-h")):
        assert run_irons(*words).ok().out == wanted
    group = run_irons("egress", "--help").ok().out
    assert group.startswith("usage: irons egress COMMAND")
    assert run_irons("help", "egress", "-o", "plain").ok().out != group, "the topic goes before the group"
    assert run_irons("help", "config").ok().out.startswith("usage: irons config COMMAND")


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_is_told(run_irons: Runner, topic: str) -> None:
    """Each topic has a text of its own, which names what it is about."""
    assert set(TOPICS) == set(sections.TOPICS)
    assert run_irons("help", topic).ok().out == TOPICS[topic]()


@pytest.mark.parametrize("width", [40, 80, 100, 200])
@pytest.mark.parametrize("topic", TOPICS)
def test_topics_fit_the_terminal(topic: str, width: int) -> None:
    """No line of a topic is longer than the terminal is wide, and no word is lost or broken."""
    text = topic_text(topic, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.split() == TOPICS[topic]().split()
    assert topic_text(topic, None) == TOPICS[topic]()


def test_topics_say_what_is_there(run_irons: Runner) -> None:
    """The topics on exit codes and on the environment have each of them."""
    codes = run_irons("help", "exit-codes").ok().out
    for code, meaning in EXIT_CODES.items():
        assert f"{code:>4}  {meaning}" in codes
    variables = run_irons("help", "environment").ok().out
    for key in KEYS.values():
        assert key.env in variables


def test_the_document_on_exit_codes_has_the_same_table() -> None:
    """docs/exit-codes.md and irons.errors tell the same, no code more or less."""
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", (DOCS / "exit-codes.md").read_text(), re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES


def test_the_reference_is_what_help_says() -> None:
    """docs/cli.md has the help of every command, word by word; `make docs` writes it again."""
    assert (DOCS / "cli.md").read_text() == reference()


def reference() -> str:
    """The text of docs/cli.md, made from the command tree."""
    parts = [
        "# Commands\n",
        "What `irons COMMAND --help` prints, for every command. `make docs` writes this file; a test holds it in step.\n",
        "```text\n" + help_text(TREE, []) + "```\n",
    ]
    for command in TREE:
        if not command.hidden:
            text = help_text(TREE, command.path)
            begin, _, rest = text.partition("\nOptions of every command:\n")
            tail = rest.partition("\n\n")[2]
            parts.append(
                f"## irons {command.name}\n\n```text\n{begin}\n{tail}```\n".replace("\n\n```\n", "\n```\n")
            )
    return "\n".join(parts)


def test_every_option_of_every_command_is_in_the_overview() -> None:
    """The options that all commands share are reported once, in the overview of the reference."""
    text = reference()
    for option in GLOBAL_OPTIONS:
        assert max(option.flags, key=len) in text


if __name__ == "__main__":
    (DOCS / "cli.md").write_text(reference())
