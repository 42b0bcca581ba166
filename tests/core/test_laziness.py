"""Start-up stays cheap: what is imported, and that every name in the command tree leads somewhere."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib import import_module

import pytest

import irons
from irons.command import Arg, Command, View
from irons.context import Context
from irons.errors import EXIT_CODES
from irons.host import PluginHost

COMMANDS = list(PluginHost({"IRONS_PLUGINS": ""}, lambda _: None).tree)

HEAVY = (
    "httpx",
    "rich",
    "prompt_toolkit",
    "xonsh",
    "asyncio",
    "argparse",
    "tomllib",
    "ssl",
    "pydoc",
    "email",
)
"""What no one needs to say a version or to print help."""


def imported(*words: str, env: dict[str, str]) -> set[str]:
    """The modules that `irons WORDS…` imports, as the interpreter tells."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "irons", *words],
        env={key: value for key, value in {**os.environ, **env}.items() if not key.startswith("COVERAGE")},
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        line.rpartition("|")[2].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }


def is_handler(module: str) -> bool:
    """Tell whether a module holds handlers, and does their work: it is named by a command, and declares none itself."""
    named = {command.run.partition(":")[0] for command in COMMANDS}
    return module in named and not _declares(module)


def _declares(module: str) -> bool:
    """Tell whether a module has a command as data, next to a handler that imports its work when it is called."""
    return any(isinstance(value, Command) for value in vars(import_module(module)).values())


@pytest.mark.process
@pytest.mark.parametrize(
    "words",
    [("--version",), ("-V",), ("--help",), ("egress", "--help"), ("create", "--help"), ("__complete", "")],
    ids=" ".join,
)
def test_version_help_and_completion_are_lazy(irons_env: dict[str, str], words: tuple[str, ...]) -> None:
    """They import neither httpx, rich, prompt_toolkit, asyncio nor a handler."""
    found = imported(*words, env=irons_env)
    assert "irons.__main__" in found or "runpy" in found
    assert not {module for module in found if module.partition(".")[0] in HEAVY}
    assert not {module for module in found if is_handler(module)}


@pytest.mark.process
def test_a_command_beside_its_handler_costs_no_work(irons_env: dict[str, str]) -> None:
    """A module that declares a command and holds its handler imports only what declares commands and refuses words."""
    beside = {command.run.partition(":")[0] for command in COMMANDS}
    beside = {module for module in beside if _declares(module)}
    assert beside == {"irons_plugins.lifecycle.create"}
    found = imported("create", "--help", env=irons_env)
    assert beside <= found
    assert not found & {"irons_plugins.lifecycle.creating", "irons.client.names", "irons.client.models"}


@pytest.mark.process
def test_a_create_is_asked_for_before_its_rest_is_imported() -> None:
    """What `create` imports has nothing that only new keys, configurations and certificates take, nor `inspect`."""
    code = (
        "import sys, irons.client.api, irons_plugins.lifecycle.creating, irons_plugins.ssh.config.blocks;"
        "import irons_local.daemon.transport, irons_local.config.authority_files, irons_plugins.local.trusted;"
        "heavy = ('subprocess', 'tempfile', 'shutil', 'hashlib', 'random', 'inspect');"
        "print([module for module in heavy if module in sys.modules])"
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.process
def test_an_exec_over_a_kept_connection_imports_nothing_that_starts_processes() -> None:
    """Neither what starts a daemon or OpenSSH is imported before it is needed, nor an HTTP library."""
    code = (
        "import sys, irons.client.unix_channel, irons_plugins.ssh.execute.handlers, irons_local.daemon.transport;"
        "heavy = ('subprocess', 'tempfile', 'inspect', 'dataclasses', 'httpx', 'irons_local.daemon.spawn', 'irons_local.keeper');"
        "print([module for module in heavy if module in sys.modules])"
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.process
def test_the_version_takes_nothing_at_all(irons_env: dict[str, str]) -> None:
    """`irons --version` does not even build the plugin host."""
    found = imported("--version", env=irons_env)
    assert {module for module in found if module.startswith("irons")} <= {"irons", "irons.version"}
    assert "typing" not in found or "coverage" in found
    assert "pluggy" not in found


@pytest.mark.process
def test_commands_do_without_pluggy_and_dataclasses(irons_env: dict[str, str]) -> None:
    """Where only modules with plain hooks are installed nothing is imported that takes `inspect`: it is most of a start."""
    for words in (("--help",), ("__complete", "")):
        found = imported(*words, env=irons_env)
        assert "irons.host" in found
        assert not found & {"pluggy", "dataclasses", "inspect"} or "coverage" in found


@pytest.mark.process
def test_a_pipe_does_without_rich(irons_env: dict[str, str]) -> None:
    """Rows that go to a pipe are printed without the library that draws tables."""
    found = imported("plugins", env=irons_env)
    assert "irons.terminal.output" in found
    assert not {module for module in found if module.partition(".")[0] in ("rich", "httpx")}


@pytest.mark.process
def test_httpx_comes_without_its_command_line() -> None:
    """The client imports httpx without click, pygments and rich, which its own command line would drag in."""
    code = (
        "import sys; from irons.client.backends import load_httpx; load_httpx(); load_httpx();"
        "print([m for m in ('click', 'pygments', 'rich', 'httpx._main') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_handler_is_there_and_takes_its_parameters(command: Command) -> None:
    """Each `run` names a function that takes a Context and, by keyword, exactly what the command's parameters give."""
    module, _, name = command.run.partition(":")
    handler = getattr(import_module(module), name)
    signature = inspect.signature(handler)
    first, *rest = signature.parameters.values()
    assert first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD)
    assert inspect.get_annotations(handler).get(first.name) in (Context, "Context")
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in rest)
    assert {parameter.name for parameter in rest} == command.keywords
    assert handler.__doc__


def _functions(view: View) -> list[str]:
    return [name for name in (view.line, *(column.text for column in view.columns)) if name]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_is_well_described(command: Command) -> None:
    """Help is a sentence, examples call the command, exit codes are known, view functions exist, flags are spelled alike."""
    assert command.help.endswith(".")
    assert command.help[0].isupper()
    assert command.hidden or command.examples
    assert command.hidden or any(f"irons {command.name}" in example for example in command.examples)
    assert set(command.exits) <= set(EXIT_CODES)
    for name in _functions(command.view):
        module, _, function = name.partition(":")
        assert callable(getattr(import_module(module), function))
    for param in command.params:
        assert param.help.endswith((".", "]")), param
        if not isinstance(param, Arg):
            assert all(flag.startswith("-") for flag in param.flags)
            assert param.dest.isidentifier()
    dests = [param.dest for param in command.params]
    assert len(dests) == len(set(dests))


def test_the_public_names_are_sorted_and_complete() -> None:
    """`__all__` is sorted, each name in it is there, and each name that loads when touched is in it."""
    assert irons.__all__ == sorted(irons.__all__)
    for name in irons.__all__:
        assert getattr(irons, name) is not None
    lazy = {name for names in irons._ROOMS.values() for name in names}
    assert lazy | {"__version__"} == set(irons.__all__)
    assert dir(irons) == sorted(irons.__all__)


def test_a_name_that_is_not_there() -> None:
    """Any other name is an AttributeError, as of every module."""
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = irons.nonsense
