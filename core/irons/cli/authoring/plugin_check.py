"""`irons plugins check`: what a release of a plugin should pass."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irons import hookspecs
from irons.command import Command, Result
from irons.errors import NotFound
from irons.host import PluginHost, PluginInfo
from irons.record import NamedTuple

if TYPE_CHECKING:
    from irons.context import Context

LONGEST_HELP = 60
"""Characters of a help text; longer ones are cut in the list of commands."""

_TESTS_TAKE = 600


class ReleaseCheck(NamedTuple):
    """One thing that a release should pass."""

    check: str
    ok: bool
    what: str = ""
    fix: str = ""


class _Plugin(NamedTuple):
    """A plugin that was loaded: the object, its row, and the commands."""

    name: str
    module: Any
    info: PluginInfo
    commands: tuple[Command, ...]
    warnings: tuple[str, ...]


def check(ctx: Context, *, path: str | None) -> Result:
    """Check a directory with a `pyproject.toml`, or a single file; exit code 1 where something does not pass.

    Raises:
        NotFound: There is nothing to check at `path`.
    """
    place = Path(path or ".").absolute()
    env = {**ctx.streams.env, "IRONS_PLUGINS": ""}
    if place.is_file() and place.suffix == ".py":
        found = list(_file(place, env))
    elif (place / "pyproject.toml").is_file():
        found = list(_package(ctx, place, env))
    else:
        raise NotFound(
            f"{place} has no pyproject.toml, and is not a Python file",
            hint="irons plugins new NAME writes a package",
        )
    return Result(found, exit=0 if all(each.ok for each in found) else 1)


def _file(place: Path, env: Mapping[str, str]) -> Iterator[ReleaseCheck]:
    from irons.plugin.plugin_file import load

    yield from _checked(place.stem, partial(load, str(place), place.stem), env)


def _package(ctx: Context, place: Path, env: Mapping[str, str]) -> Iterator[ReleaseCheck]:
    import tomllib

    try:
        project = tomllib.loads((place / "pyproject.toml").read_text("utf-8")).get("project", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        yield ReleaseCheck("package", False, f"pyproject.toml: {error}")
        return
    points = project.get("entry-points", {}).get("irons", {})
    yield _named(project, points)
    yield _depends(project)
    source = place / "src" if (place / "src").is_dir() else place
    sys.path.insert(0, str(source))
    for name, module in points.items():
        yield from _checked(name, partial(import_module, str(module).partition(":")[0]), env)
    with ctx.waiting("running its tests"):
        yield _tests(place, source, env)


def _named(project: Mapping[str, Any], points: Mapping[str, Any]) -> ReleaseCheck:
    name = str(project.get("name", ""))
    if not points:
        fix = 'add [project.entry-points.irons] with NAME = "MODULE"'
        return ReleaseCheck("package", False, "it has no entry point of the group irons", fix)
    if not name.startswith("irons-"):
        fix = f"call it irons-{name}"
        return ReleaseCheck("package", False, f"its name {name!r} does not say that it belongs to irons", fix)
    return ReleaseCheck("package", True, f"{name}: {', '.join(points)}")


def _depends(project: Mapping[str, Any]) -> ReleaseCheck:
    needs = [str(each) for each in project.get("dependencies", ())]
    own = next(
        (
            each
            for each in needs
            if each.replace(" ", "").partition("[")[0].rstrip("<>=!~.,0123456789") == "irons"
        ),
        None,
    )
    if own is None or "<" not in own:
        what = (
            "it does not depend on irons" if own is None else f"{own!r} allows releases that may change hooks"
        )
        return ReleaseCheck("dependency", False, what, 'depend on "irons>=0.3,<0.4"')
    return ReleaseCheck("dependency", True, own)


def _checked(name: str, load: Callable[[], Any], env: Mapping[str, str]) -> Iterator[ReleaseCheck]:
    warnings: list[str] = []
    host = PluginHost(env, warnings.append)
    try:
        module = load()
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a stranger's module may raise anything
        yield ReleaseCheck(f"{name}: loads", False, f"{type(error).__name__}: {error}")
        return
    host.register(module, name)
    info = host.plugins[-1]
    if info.status != "ok":
        yield ReleaseCheck(f"{name}: loads", False, info.error)
        return
    commands = tuple(command for command in host.tree if command.name in info.commands)
    plugin = _Plugin(name, module, info, commands, tuple(warnings))
    yield ReleaseCheck(f"{name}: loads", True, ", ".join(info.commands) or "no commands")
    yield _hooks(plugin)
    yield _all(f"{name}: names", _bad_names(plugin, host), "kinds and settings are well named")
    yield _all(f"{name}: help", _bad_help(plugin), "every command and parameter is explained")
    yield _all(f"{name}: functions", _bad_functions(plugin, host), "every name leads to a function")


def _hooks(plugin: _Plugin) -> ReleaseCheck:
    if not plugin.info.hooks:
        return ReleaseCheck(
            f"{plugin.name}: hooks", False, "it implements no hook", "mark a function with @hookimpl"
        )
    versions = ", ".join(f"{hook} {hookspecs.VERSIONS[hook]}" for hook in plugin.info.hooks)
    new = [hook for hook in plugin.info.hooks if hook not in hookspecs.FIRST]
    needs: Mapping[str, int] = getattr(plugin.module, hookspecs.NEEDS, {})
    missing = {hook: hookspecs.VERSIONS[hook] for hook in new if hook not in needs}
    # An irons without the hook says so on its own; one with an older version of it can't.
    fix = f"say so: irons_needs = {missing}" if missing else ""
    return ReleaseCheck(f"{plugin.name}: hooks", True, versions, fix)


def _bad_names(plugin: _Plugin, host: PluginHost) -> Iterator[str]:
    yield from plugin.warnings
    for kind in host.completions():
        if not kind.startswith(plugin.name):
            yield f"kind {kind!r} does not begin with {plugin.name!r}"
    host.declared()


def _bad_help(plugin: _Plugin) -> Iterator[str]:
    for command in plugin.commands:
        if not (command.help.endswith(".") and command.help[:1].isupper()):
            yield f"{command.name}: {command.help!r} is not a sentence"
        if len(command.help) > LONGEST_HELP:
            yield f"{command.name}: its help has {len(command.help)} characters, more than {LONGEST_HELP}"
        if not command.examples:
            yield f"{command.name}: it has no example"
        for param in command.params:
            if not param.help:
                yield f"{command.name}: {param.dest} has no help"
    for setting in _settings(plugin):
        if not setting.help:
            yield f"setting {setting.name} has no help"


def _settings(plugin: _Plugin) -> Iterable[Any]:
    declares = getattr(plugin.module, "irons_settings", None)
    return declares() if declares is not None else ()


def _bad_functions(plugin: _Plugin, host: PluginHost) -> Iterator[str]:
    from irons.plugin.references import broken, found

    for command in plugin.commands:
        for fault in broken(command):
            yield f"{command.name}: {fault}"
    for name, writer in host.formats().items():
        _, fault = found(f"format {name}", writer)
        if fault:
            yield fault
    for kind, function in host.completions().items():
        if not callable(function):
            yield f"kind {kind}: {function!r} is not a function"


def _all(name: str, faults: Iterable[str], well: str) -> ReleaseCheck:
    told = "; ".join(faults)
    return ReleaseCheck(name, not told, told or well)


def _tests(place: Path, source: Path, env: Mapping[str, str]) -> ReleaseCheck:
    if not (place / "tests").is_dir():
        return ReleaseCheck("tests", False, "there are none", "write some: irons.testing has fixtures")
    path = os.pathsep.join(filter(None, (str(source), env.get("PYTHONPATH", ""))))
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            words,
            cwd=place,
            env={**env, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TESTS_TAKE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ReleaseCheck("tests", False, f"they took longer than {_TESTS_TAKE} s")
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    last = lines[-1] if lines else "they printed nothing"
    if "No module named pytest" in last:
        return ReleaseCheck("tests", False, "pytest is not installed here", "pip install pytest")
    return ReleaseCheck("tests", done.returncode == 0, last, "" if done.returncode == 0 else "pytest")
