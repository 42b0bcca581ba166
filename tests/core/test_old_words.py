"""Earlier spellings of commands and options: taken as before, shown nowhere."""

from __future__ import annotations

import pytest

from irons.cli.completing import Sources, complete
from irons.cli.help.pages import help_text
from irons.cli.parsing import parse
from irons.host import PluginHost

TREE = PluginHost(env={"IRONS_PLUGINS": ""}).tree
OLD_PATHS = [(path, command) for command in TREE for path in command.old]
OLD_FLAGS = [(flag, option, command) for command in TREE for option in command.options for flag in option.old]


def test_there_are_some() -> None:
    """`local install` and `--async` are among them."""
    assert ("local", "install") in {path for path, _ in OLD_PATHS}
    assert {command.name for flag, _, command in OLD_FLAGS if flag == "--async"} == {
        "create",
        "start",
        "stop",
    }


@pytest.mark.parametrize(("path", "command"), OLD_PATHS, ids=str)
def test_an_earlier_path_is_its_command(path: tuple[str, ...], command: object) -> None:
    """It finds the same command, and neither help nor completion shows it."""
    found = TREE.find([*path, "x"])
    assert found is not None
    assert (found.command, found.rest) == (command, ["x"])
    assert path[-1] not in TREE.below(path[:-1])
    assert path[-1] not in [each.word for each in complete(TREE, [*path[:-1], ""], Sources())]
    assert " ".join(path) not in help_text(TREE, [])


@pytest.mark.parametrize(
    ("flag", "option", "command"), OLD_FLAGS, ids=lambda each: getattr(each, "name", each)
)
def test_an_earlier_flag_is_its_option(flag: str, option: object, command: object) -> None:
    """It gives the same option, also with a value, and neither help nor completion shows it."""
    assert parse(command, ["one", flag]).arguments["at_once"] is True  # type: ignore[arg-type]
    assert parse(command, ["one", f"{flag}=true"]).arguments["at_once"] is True  # type: ignore[arg-type]
    path = command.path  # type: ignore[attr-defined]
    assert flag not in help_text(TREE, path)
    offered = [each.word for each in complete(TREE, [*path, "--"], Sources())]
    assert flag not in offered
    assert max(option.flags, key=len) in offered  # type: ignore[attr-defined]
