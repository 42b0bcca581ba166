"""`irons plugins new`: a package with a working plugin and its tests, to be changed into what its author wants."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from irons.errors import Conflict, IronsError, UsageError

if TYPE_CHECKING:
    from irons.context import Context

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def new(ctx: Context, *, name: str, into: str) -> str:
    """Write the package, and return where it is.

    Raises:
        UsageError: The name is not one, or a command has it already.
        Conflict: The directory is there already.
    """
    name = name.removeprefix("irons-")
    if not _NAME.fullmatch(name) or len(name) > 40:
        raise UsageError(
            f"{name!r} is not a name for a plugin",
            hint="use small letters, digits and single hyphens: my-plugin",
        )
    if ctx.host.tree.get((name,)) is not None or ctx.host.tree.is_group((name,)):
        raise UsageError(f"irons has a command {name!r} already", hint="choose another name")
    place = Path(into) / f"irons-{name}"
    words = {"name": name, "module": f"irons_{name.replace('-', '_')}", **_release()}
    try:
        place.mkdir(parents=True)
        for path, text in _FILES.items():
            file = place / Template(path).substitute(words)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(Template(text).substitute(words), encoding="utf-8")
    except FileExistsError:
        raise Conflict(
            f"{place} exists already", hint="choose another name, or --into another directory"
        ) from None
    except OSError as error:
        raise IronsError(f"{place} can't be written: {error.strerror}") from None
    shown = place if place.is_absolute() else f"./{place}"
    ctx.progress(
        f"next: pip install -e '{shown}[test]', then irons {name} --help; irons plugins check {shown} tests it"
    )
    return str(place)


def _release() -> dict[str, str]:
    """The releases that a plugin written now is for."""
    from irons.version import __version__

    major, minor = (int(part) for part in __version__.split(".")[:2])
    return {"least": f"{major}.{minor}", "below": f"{major}.{minor + 1}" if major == 0 else f"{major + 1}"}


_PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "irons-$name"
version = "0.1"
description = "Greet sandboxes: a plugin for irons"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["irons>=$least,<$below"]

[project.optional-dependencies]
test = ["pytest"]

[project.entry-points.irons]
$name = "$module"

[tool.hatch.build.targets.wheel]
packages = ["src/$module"]

[tool.pytest.ini_options]
addopts = "-p irons.testing"
pythonpath = ["src"]
testpaths = ["tests"]
"""

_README = """\
# irons-$name

A plugin for irons.

    pip install irons-$name
    irons $name my-sandbox --tone loud

Settings, in `[plugins.$name]` of irons' configuration file:

| setting | default | |
|---|---|---|
| `greeting` | `hello` | What it says. |

To work on it:

    pip install -e '.[test]'
    pytest
    irons plugins check .
"""

_PLUGIN = '''\
"""The plugin $name: what it brings, as data. Handlers are named by strings and imported when their command runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from irons import Arg, Column, Command, CompletionState, Opt, PluginSetting, View, hookimpl

irons_needs = {"irons_settings": 1, "irons_completions": 1}

TONES = {"calm": "as it is", "loud": "in capitals"}


@hookimpl
def irons_settings() -> list[PluginSetting]:
    """Declare the settings of [plugins.$name]."""
    return [PluginSetting("greeting", "What it says.", "hello")]


@hookimpl
def irons_commands() -> list[Command]:
    """Bring the command $name."""
    return [
        Command(
            path=("$name",),
            help="Greet sandboxes.",
            run="$module.handlers:greet",
            params=(
                Arg("names", "The sandboxes to greet.", kind="sandbox", takes="+"),
                Opt(("--tone",), "How to say it.", kind="$name-tone", default="calm"),
            ),
            view=View((Column("name"), Column("words"))),
            examples=("irons $name my-sandbox --tone loud",),
            exits=(3, 4, 6),
        )
    ]


@hookimpl
def irons_completions() -> Mapping[str, Callable[[CompletionState], Mapping[str, str]]]:
    """Complete the values of --tone."""
    return {"$name-tone": lambda state: TONES}
'''

_HANDLERS = '''\
"""What the command does; imported when it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from irons import Context


class Greeting(NamedTuple):
    """One row of the answer."""

    name: str
    words: str


def greet(ctx: Context, *, names: tuple[str, ...], tone: str) -> Iterator[Greeting]:
    """Greet each sandbox; one that does not exist ends it with exit code 3."""
    greeting = ctx.plugin_settings("$name")["greeting"]
    for name in names:
        words = f"{greeting}, {ctx.api.status(name).status} {name}"
        yield Greeting(name, words.upper() if tone == "loud" else words)
'''

_TESTS = '''\
"""Tests of the plugin, against the fake server of irons.testing."""

from __future__ import annotations

import $module
import pytest
from irons.testing import FakeApi, Runner


@pytest.fixture
def irons(run_irons: Runner, fake_api: FakeApi) -> Runner:
    """Calls of irons with this plugin, and a server with one sandbox."""
    fake_api.add("one")
    run_irons.plugins().register($module, "$name")
    assert run_irons.warnings == []
    return run_irons


def test_greets(irons: Runner) -> None:
    """A line for each sandbox."""
    assert irons("$name", "one").ok().out == "one\\thello, ready one\\n"
    assert irons("$name", "one", "--tone", "loud", "-o", "json").ok().json() == [
        {"name": "one", "words": "HELLO, READY ONE"}
    ]


def test_says_what_is_set(irons: Runner) -> None:
    """The setting changes the greeting."""
    irons("config", "set", "plugins.$name.greeting", "good day").ok()
    assert "good day" in irons("$name", "one").ok().out


def test_completes(irons: Runner) -> None:
    """--tone completes, and so do names that an earlier command has seen."""
    assert set(irons.complete("$name", "--tone", "")) == {"calm", "loud"}
    irons("list").ok()
    assert set(irons.complete("$name", "o")) == {"one"}


def test_a_sandbox_that_does_not_exist(irons: Runner) -> None:
    """The exit code is 3."""
    assert irons("$name", "two").code == 3
'''

_FILES = {
    "pyproject.toml": _PYPROJECT,
    "README.md": _README,
    "src/$module/__init__.py": _PLUGIN,
    "src/$module/handlers.py": _HANDLERS,
    "src/$module/py.typed": "",
    "tests/test_${module}.py": _TESTS,
}
