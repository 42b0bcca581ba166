"""Where plugins are found: modules that irons brings, distributions with an entry point, and single files of the person's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "irons"
"""The entry point group."""

NAMED = "IRONS_PLUGINS"
"""The variable that names the third-party plugins to load; with an empty value there are none."""


# A plain class: it is made at every start, and a named tuple takes several times as long to make.
class PluginSource:
    """A plugin that can be loaded. `own` is one that irons brings."""

    __slots__ = ("distribution", "load", "name", "own", "version")

    def __init__(
        self, name: str, distribution: str, version: str, load: Callable[[], object], *, own: bool = False
    ) -> None:
        """Take its name, where it comes from, and what loads it."""
        self.name, self.distribution, self.version, self.load = name, distribution, version, load
        self.own = own


def built_ins(modules: Iterable[tuple[str, str]]) -> Iterator[PluginSource]:
    """Yield the plugins of these names and modules."""
    from irons.version import __version__

    for name, module in modules:
        yield PluginSource(name, "irons", __version__, partial(import_module, module), own=True)


def third_parties(
    env: Mapping[str, str], *, files: bool = True, owner: int | None = None
) -> Iterator[PluginSource]:
    """Yield the plugins of others that the environment asks for, by name; installed ones come before single files.

    Args:
        env: The environment; `IRONS_PLUGINS` names the plugins, if it is set.
        files: Whether to look for single files too.
        owner: Whose those must be, by uid; by default the effective user's.
    """
    named = env.get(NAMED)
    wanted = None if named is None else {name.strip() for name in named.split(",") if name.strip()}
    if wanted == set():
        return
    found = list(_installed())
    if files:
        found += _single_files(env, {each.name for each in found}, owner)
    for name in sorted((wanted or set()) - {each.name for each in found}):
        yield PluginSource(name, "", "", partial(_missing, name))
    for each in found:
        if wanted is None or each.name in wanted:
            yield each


def are_there(env: Mapping[str, str]) -> bool:
    """Tell whether there may be plugins of third parties, without loading one."""
    from irons.plugin.entry_points import any_in_group

    if env.get(NAMED, "any").strip(" ,") == "":
        return False
    return any_in_group(GROUP, sys.path) or bool(_files(env))


def _installed() -> Iterator[PluginSource]:
    from irons.plugin.entry_points import any_in_group

    if not any_in_group(GROUP, sys.path):
        return
    from importlib.metadata import entry_points

    for entry in sorted(entry_points(group=GROUP), key=_name):
        distribution = entry.dist
        yield PluginSource(
            entry.name,
            distribution.name if distribution else "",
            distribution.version if distribution else "",
            entry.load,
        )


def _name(entry: EntryPoint) -> str:
    return entry.name


def _single_files(env: Mapping[str, str], taken: Iterable[str], owner: int | None) -> list[PluginSource]:
    paths = _files(env)
    if not paths:
        return []
    from irons.plugin.plugin_file import load, refusing

    found: list[PluginSource] = []
    for path in paths:
        stem = path.rpartition("/")[2].removesuffix(".py")
        if stem in taken:
            why = f"a plugin that is installed has the name {stem!r} already"
            found.append(PluginSource(stem, path, "", partial(refusing, why)))
        else:
            found.append(PluginSource(stem, path, "", partial(load, path, stem, owner)))
    return found


def _files(env: Mapping[str, str]) -> list[str]:
    """The paths of plugins of a single file, by name."""
    from irons.settings.xdg import plugin_directory

    directory = plugin_directory(env)
    try:
        names = os.listdir(directory)  # noqa: PTH208 - no pathlib at start
    except OSError:
        return []
    return [
        f"{directory}/{name}"
        for name in sorted(names)
        if name.endswith(".py") and not name.startswith((".", "_"))
    ]


def _missing(name: str) -> object:
    from irons.errors import PluginError

    raise PluginError(f"it is named in {NAMED} but not installed: {name}")


def fingerprint(env: Mapping[str, str]) -> tuple[object, ...]:
    """Return what changes where a plugin, its file or the configuration file changes, or a distribution is installed."""
    from irons.settings.xdg import config_file

    return tuple(_when(path) for path in (config_file(env), *_files(env), *sys.path))


def _when(path: str) -> tuple[str, int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - no pathlib at start
    except OSError:
        return path, 0, 0
    return path, found.st_mtime_ns, found.st_size
