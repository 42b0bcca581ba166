"""The plugin host: an object that registers plugins, collects their commands and answers for what failed.

Built-in plugins and third parties (entry point group ``irons``) take the same door. A plugin that can't be imported, or brings a
command that is there already, costs a line of warning and never the run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from irons import hookspecs
from irons.command import Command
from irons.errors import PluginError
from irons.text import clean
from irons.tree import Clash, Tree

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    import pluggy

    from irons.hookspecs import Backend
    from irons.settings.settings import Settings

BUILT_IN: tuple[tuple[str, str], ...] = (
    ("lifecycle", "irons_plugins.lifecycle"),
    ("ssh", "irons_plugins.ssh"),
    ("run", "irons_plugins.run"),
    ("egress", "irons_plugins.egress"),
    ("audit", "irons_plugins.audit"),
    ("local", "irons_plugins.local.plugin"),
    ("shell", "irons_repl.shell_plugin"),
    ("irons", "irons.cli.own_commands"),
)
"""Name and module of each built-in plugin. The host knows them as strings alone."""

GROUP = "irons"


class PluginInfo(NamedTuple):
    """One plugin as `irons plugins` lists it; `status` is `ok` or `failed`, `error` says why it failed."""

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    status: str = "ok"
    error: str = ""


# A plain class: it is made at every start, and a named tuple takes several times as long to make.
class _Found:
    __slots__ = ("distribution", "load", "name", "version")

    def __init__(self, name: str, distribution: str, version: str, load: Callable[[], object]) -> None:
        self.name, self.distribution, self.version, self.load = name, distribution, version, load


_HOOKS: Mapping[str, tuple[str, ...]] = {
    "irons_commands": (),
    "irons_backend": ("url", "settings"),
    "irons_engines": (),
}
"""The arguments of each hook."""


def implementations(plugin: object) -> dict[str, Callable[..., Any]]:
    """Return the functions of a module that are marked as hooks, by name."""
    return {name: value for name, value in vars(plugin).items() if hasattr(value, "irons_impl")}


def is_plain(plugin: object) -> bool:
    """Tell whether a plugin's hooks can be called without pluggy: a module whose functions have the whole signature and no options."""
    if not isinstance(plugin, ModuleType):
        return False
    for name, function in implementations(plugin).items():
        if not isinstance(function, FunctionType) or any(vars(function)["irons_impl"].values()):
            return False
        code = function.__code__
        if code.co_varnames[: code.co_argcount] != _HOOKS.get(name) or code.co_kwonlyargcount:
            return False
    return True


class PluginHost:
    """Plugins and their commands. Made once per process by a face, or as often as a test likes.

    Attributes:
        env: The environment that says which plugins to load.
        tree: The commands of all plugins.
        plugins: All plugins in the order they came, failed ones included.
    """

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        warn: Callable[[str], None] | None = None,
        built_in: tuple[tuple[str, str], ...] = BUILT_IN,
    ) -> None:
        """Register the built-ins, then the third parties that the environment asks for.

        Args:
            env: The environment; by default this process's.
            warn: Called with each line of warning; by default it is printed on stderr.
            built_in: Name and module of each plugin that comes first.
        """
        self.env = os.environ if env is None else env
        self.tree = Tree()
        self.plugins: list[PluginInfo] = []
        self._warn = warn or _to_stderr
        self._plain: list[tuple[str, object]] = []
        self._made: pluggy.PluginManager | None = None
        for found in self._found(built_in):
            self._register(found)

    def register(self, plugin: object, name: str, *, distribution: str = "", version: str = "") -> None:
        """Register one plugin object; a plugin that fails is listed with its reason and warned about.

        Args:
            plugin: A module or object with hook implementations marked by `hookimpl`.
            name: What `irons plugins` calls it.
            distribution: The distribution it came from.
            version: That distribution's version.
        """
        self._register(_Found(name, distribution, version, lambda: plugin))

    def backend(self, url: str, settings: Settings) -> Backend | None:
        """Ask the plugins where requests for this URL go; None if none of them knows it."""
        if self._made is None:
            asked = (implementations(plugin).get("irons_backend") for _, plugin in reversed(self._plain))
            answers = (ask(url=url, settings=settings) for ask in asked if ask is not None)
            return next((answer for answer in answers if answer is not None), None)
        answer: Backend | None = self._manager.hook.irons_backend(url=url, settings=settings)
        return answer

    def engines(self) -> dict[str, Callable[[Any], Any]]:
        """Collect the engines that plugins bring for the local backend, by name; of two with one name the first plugin's is taken."""
        found: dict[str, Callable[[Any], Any]] = {}
        for answer in self._manager.hook.irons_engines():
            found.update(answer)
        return found

    def _found(self, built_in: tuple[tuple[str, str], ...]) -> Iterator[_Found]:
        from irons.version import __version__

        for name, module in built_in:
            yield _Found(name, "irons", __version__, partial(import_module, module))
        for entry in self._entry_points():
            distribution = entry.dist
            yield _Found(
                entry.name,
                distribution.name if distribution else "",
                distribution.version if distribution else "",
                entry.load,
            )

    def _entry_points(self) -> Iterable[EntryPoint]:
        wanted = self.env.get("IRONS_PLUGINS")
        names = None if wanted is None else {name.strip() for name in wanted.split(",") if name.strip()}
        if names == set():
            return ()
        from irons.entry_points import any_in_group

        if not any_in_group(GROUP, sys.path):
            for name in sorted(names or ()):
                self._missing(name)
            return ()
        from importlib.metadata import entry_points

        entries = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
        if names is not None:
            for name in sorted(names - {entry.name for entry in entries}):
                self._missing(name)
            entries = [entry for entry in entries if entry.name in names]
        return entries

    def _missing(self, name: str) -> None:
        self._failed(_Found(name, "", "", lambda: None), "it is named in IRONS_PLUGINS but not installed")

    @property
    def _manager(self) -> pluggy.PluginManager:
        """Pluggy's manager, made for the first plugin that takes more than `is_plain`: its import is most of a command's."""
        if self._made is None:
            import pluggy

            self._made = pluggy.PluginManager(hookspecs.PROJECT)
            self._made.add_hookspecs(hookspecs)
            if self.env.get("IRONS_TRACE_PLUGINS"):
                self._made.add_hookcall_monitoring(self._before, self._after)
            for name, plugin in self._plain:
                self._made.register(plugin, name=name)
        return self._made

    def _register(self, found: _Found) -> None:
        plugin: object = None
        try:
            plugin = found.load()
            if self._made is None and not self.env.get("IRONS_TRACE_PLUGINS") and is_plain(plugin):
                self._register_plain(found, plugin)
                return
            self._manager.register(plugin, name=found.name)
            self._manager.check_pending()
            hooks = tuple(sorted(caller.name for caller in self._manager.get_hookcallers(plugin) or ()))
            commands = self._commands_of(plugin)
            self.tree = self.tree.with_commands(commands)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - anything that a plugin's import raises, SystemExit included, must not end the run
            if self._made is not None and plugin is not None and self._made.get_plugin(found.name) is plugin:
                self._made.unregister(plugin)
            self._failed(found, _why(error))
            return
        self.plugins.append(
            PluginInfo(found.name, found.distribution, found.version, hooks, tuple(c.name for c in commands))
        )

    def _register_plain(self, found: _Found, plugin: object) -> None:
        hooks = implementations(plugin)
        told = hooks["irons_commands"]() if "irons_commands" in hooks else ()
        commands = _checked(told)
        self.tree = self.tree.with_commands(commands)
        self._plain.append((found.name, plugin))
        self.plugins.append(
            PluginInfo(
                found.name,
                found.distribution,
                found.version,
                tuple(sorted(hooks)),
                tuple(command.name for command in commands),
            )
        )

    def _commands_of(self, plugin: object) -> tuple[Command, ...]:
        others = [known for known in self._manager.get_plugins() if known is not plugin]
        caller = self._manager.subset_hook_caller("irons_commands", others)
        return _checked(command for answer in caller() for command in answer)

    def _failed(self, found: _Found, why: str) -> None:
        self.plugins.append(
            PluginInfo(found.name, found.distribution, found.version, status="failed", error=why)
        )
        self._warn(f"irons: plugin {clean(found.name)} is left out: {clean(why, limit=300)}")

    def _before(self, hook_name: str, methods: Any, kwargs: Any) -> None:
        names = ", ".join(method.plugin_name for method in reversed(methods))
        arguments = ", ".join(
            f"{key}={value!r}" for key, value in sorted(kwargs.items()) if key != "settings"
        )
        self._warn(clean(f"irons: {hook_name}({arguments}) -> {names or 'no plugin'}"))

    def _after(self, outcome: Any, hook_name: str, methods: Any, kwargs: Any) -> None:
        del methods, kwargs
        told = outcome.exception or outcome.get_result()
        self._warn(clean(f"irons: {hook_name} = {told!r}", limit=200))


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def _checked(told: Iterable[object]) -> tuple[Command, ...]:
    """The commands that a plugin returned. Raises `PluginError` where something else is among them."""
    commands: list[Command] = []
    for command in told:
        if not isinstance(command, Command):
            raise PluginError(f"irons_commands returned {type(command).__name__}, not Command")
        commands.append(command)
    return tuple(commands)


def _why(error: BaseException) -> str:
    """One line that says why a plugin was left out."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, Clash | PluginError):
        return " ".join(lines)
    validation = getattr(sys.modules.get("pluggy"), "PluginValidationError", None)
    if validation is not None and isinstance(error, validation):
        return "; ".join(lines)
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
