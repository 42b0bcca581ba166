"""The plugin host: an object that registers plugins, collects their commands and answers for what failed.

Built-in plugins and third parties (entry point group ``irons``) take the same door. A plugin that can't be imported, or brings a
command that is there already, costs a line of warning and never the run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from irons import hookspecs
from irons.command import Command
from irons.errors import PluginError
from irons.plugin.finding import PluginSource, built_ins, third_parties
from irons.record import NamedTuple
from irons.text import clean
from irons.tree import Clash, Tree

if TYPE_CHECKING:
    import pluggy

    from irons.hookspecs import Backend
    from irons.settings.plugin_settings import PluginSetting
    from irons.settings.settings import Settings, Value

BUILT_IN: tuple[tuple[str, str], ...] = (
    ("lifecycle", "irons_plugins.lifecycle"),
    ("ssh", "irons_plugins.ssh"),
    ("run", "irons_plugins.run"),
    ("egress", "irons_plugins.egress"),
    ("audit", "irons_plugins.audit"),
    ("ask", "irons_plugins.ask"),
    ("mcp", "irons_plugins.mcp"),
    ("local", "irons_plugins.local.plugin"),
    ("fleet", "irons_plugins.fleet.plugin"),
    ("shell", "irons_repl.shell_plugin"),
    ("irons", "irons.cli.own_commands"),
)
"""Name and module of each built-in plugin. The host knows them as strings alone."""


_REMEMBERED = 100
"""Warnings that are not repeated, at most: what a plugin raises may be another text each time."""


class PluginInfo(NamedTuple):
    """One plugin as `irons plugins` lists it.

    `status` is `ok`, `failed` (it is left out) or `faulty` (it is loaded, and a command of it can't run); `error` says why.
    """

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    status: str = "ok"
    error: str = ""


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
        if code.co_varnames[: code.co_argcount] != hookspecs.ARGUMENTS.get(name) or code.co_kwonlyargcount:
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
        *,
        files: bool = True,
        owner: int | None = None,
    ) -> None:
        """Register the built-ins, then the third parties that the environment asks for.

        Args:
            env: The environment; by default this process's.
            warn: Called with each line of warning; by default it is printed on stderr.
            built_in: Name and module of each plugin that comes first.
            files: Whether to load plugins of a single file; the control plane doesn't.
            owner: Whose such files are, by uid; by default the user's that runs this.
        """
        self.env = os.environ if env is None else env
        self.tree = Tree()
        self.plugins: list[PluginInfo] = []
        self._warn = warn or _to_stderr
        self._plain: list[tuple[str, object]] = []
        self._strangers: list[tuple[PluginInfo, object]] = []
        self._own: list[object] = []
        self._made: pluggy.PluginManager | None = None
        self._warned: set[str] = set()
        self._declared: dict[str, tuple[PluginSetting, ...]] | None = None
        for found in built_ins(built_in):
            self._register(found)
        for found in third_parties(self.env, files=files, owner=owner):
            self._register(found)

    def register(self, plugin: object, name: str, *, distribution: str = "", version: str = "") -> None:
        """Register one plugin object; a plugin that fails is listed with its reason and warned about.

        Args:
            plugin: A module or object with hook implementations marked by `hookimpl`.
            name: What `irons plugins` calls it.
            distribution: The distribution it came from.
            version: That distribution's version.
        """
        self._register(PluginSource(name, distribution, version, lambda: plugin))

    def owner(self, command: Command) -> PluginInfo | None:
        """Return the third-party plugin that brought a command; None for a built-in one."""
        return next((info for info, _ in self._strangers if command.name in info.commands), None)

    def owner_of_module(self, module: str) -> PluginInfo | None:
        """Return the third-party plugin in whose package a module is; None where it is in none."""
        package = module.partition(".")[0]
        return next((info for info, plugin in self._strangers if package == _package(plugin)), None)

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
        return self._merged("irons_engines")

    def completions(self) -> dict[str, Callable[[Any], Mapping[str, str]]]:
        """Collect the kinds of values that plugins complete, each with its function."""
        return self._merged("irons_completions")

    def own_completions(self) -> dict[str, Callable[[Any], Mapping[str, str]]]:
        """Collect the kinds of values that irons' own plugins complete."""
        found: dict[str, Callable[[Any], Mapping[str, str]]] = {}
        for plugin in self._own:
            hook = implementations(plugin).get("irons_completions")
            found.update({} if hook is None else hook())
        return found

    def owner_of_kind(self, kind: str) -> str | None:
        """Return the name of the plugin that completes a kind; None where none does."""
        found = (info.name for info, answer in self.answers("irons_completions") if kind in answer)
        return next(found, None)

    def formats(self) -> dict[str, str]:
        """Collect the output formats of plugins, each with the `"module:function"` of its writer."""
        return self._merged("irons_formats")

    def has(self, hook: str) -> bool:
        """Tell whether a third-party plugin implements a hook."""
        return any(hook in info.hooks for info, _ in self._strangers)

    def answers(
        self,
        hook: str,
        settings: Settings | None = None,
        *,
        warn: Callable[[str], None] | None = None,
        **arguments: Any,
    ) -> Iterator[tuple[PluginInfo, Any]]:
        """Ask each third-party plugin that implements a hook, in the order they came; one that fails costs a line of warning.

        Args:
            hook: The hook.
            settings: Those of this call: a hook that takes `settings` gets those of its own plugin.
            warn: Called with a line of warning in place of the host's own.
            arguments: What else the hook gets.
        """
        for info, plugin in tuple(self._strangers):
            if hook not in info.hooks:
                continue
            try:
                if settings is not None:
                    arguments["settings"] = self.plugin_settings(info.name, settings)
                answer = self._ask(hook, plugin, arguments)
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:  # noqa: BLE001 - a stranger's code, SystemExit included
                self.failed(info, hook, error, warn)
                continue
            if answer is not None:
                yield info, answer

    def failed(
        self, info: PluginInfo, hook: str, error: BaseException, warn: Callable[[str], None] | None = None
    ) -> None:
        """Warn of a plugin that failed in a hook; of the same fault once, since some hooks are called again and again."""
        line = f"irons: plugin {clean(info.name)}, {hook}: {clean(_why(error), limit=300)}"
        if line not in self._warned:
            if len(self._warned) >= _REMEMBERED:
                self._warned.clear()
            self._warned.add(line)
            (warn or self._warn)(line)

    def declared(self) -> dict[str, tuple[PluginSetting, ...]]:
        """Collect the settings that plugins declare, by the plugin's name; one that declares them wrongly is warned about."""
        if self._declared is None:
            self._declared = {}
            for info, answer in self.answers("irons_settings"):
                from irons.settings.plugin_settings import faults

                try:
                    told = tuple(answer)
                    found = list(faults(told))
                except TypeError as error:
                    told, found = (), [f"TypeError: {error}"]
                if found:
                    self.failed(info, "irons_settings", PluginError("; ".join(found)))
                else:
                    self._declared[info.name] = told
        return self._declared

    def values(self, name: str, settings: Settings) -> dict[str, Value]:
        """Return the settings that a plugin declares, with their values and sources.

        Raises:
            ConfigError: A value in the file or a variable is invalid.
        """
        declared = self.declared().get(name, ())
        if not declared:
            return {}
        from irons.settings.plugin_settings import values

        return values(name, declared, settings.plugins.get(name), settings.env)

    def plugin_settings(self, name: str, settings: Settings) -> dict[str, Any]:
        """Return a plugin's own settings by name: those it declares, and what else its table in the file has.

        Raises:
            ConfigError: A value in the file or a variable is invalid.
        """
        table = settings.plugins.get(name)
        stored = dict(table) if isinstance(table, Mapping) else {}
        return {**stored, **{key: value for key, (value, _) in self.values(name, settings).items()}}

    def _merged(self, hook: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for info, answer in self.answers(hook):
            if not isinstance(answer, Mapping):
                self.failed(info, hook, PluginError(f"it returned {type(answer).__name__}, not a mapping"))
                continue
            for name, value in answer.items():
                found.setdefault(name, value)
        return found

    @classmethod
    def is_asking(cls, frame: FrameType | None) -> bool:
        """Say whether a plugin is being asked where this frame runs: what is raised there costs that plugin a warning, and no more.

        Args:
            frame: The frame that a signal handler gets.
        """
        while frame is not None and frame.f_code is not cls._ask.__code__:
            frame = frame.f_back
        return frame is not None

    def _ask(self, hook: str, plugin: object, arguments: Mapping[str, Any]) -> Any:
        if self._made is None:
            return implementations(plugin)[hook](**arguments)
        others = [known for known in self._made.get_plugins() if known is not plugin]
        answer = self._made.subset_hook_caller(hook, others)(**arguments)
        return next((each for each in answer if each is not None), None)

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

    def _register(self, found: PluginSource) -> None:
        plugin: object = None
        try:
            plugin = found.load()
            if self._made is None and not self.env.get("IRONS_TRACE_PLUGINS") and is_plain(plugin):
                self._register_plain(found, plugin)
                return
            self._manager.register(plugin, name=found.name)
            self._manager.check_pending()
            hooks = tuple(sorted(caller.name for caller in self._manager.get_hookcallers(plugin) or ()))
            _check_needs(plugin)
            commands = self._commands_of(plugin)
            if not found.own:
                _refuse_faults(commands, lambda: self._kinds(plugin, hooks))
            self.tree = self.tree.with_commands(commands)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - anything that a plugin's import raises, SystemExit included, must not end the run
            if self._made is not None and plugin is not None and self._made.get_plugin(found.name) is plugin:
                self._made.unregister(plugin)
            self._failed(found, _why(error))
            return
        self._listed(found, plugin, hooks, commands)

    def _register_plain(self, found: PluginSource, plugin: object) -> None:
        hooks = implementations(plugin)
        _check_needs(plugin)
        told = hooks["irons_commands"]() if "irons_commands" in hooks else ()
        commands = _checked(told)
        if not found.own:
            _refuse_faults(commands, lambda: self._kinds(plugin, tuple(hooks)))
        self.tree = self.tree.with_commands(commands)
        self._plain.append((found.name, plugin))
        self._listed(found, plugin, tuple(sorted(hooks)), commands)

    def _listed(
        self, found: PluginSource, plugin: object, hooks: tuple[str, ...], commands: Iterable[Command]
    ) -> None:
        names = tuple(command.name for command in commands)
        info = PluginInfo(found.name, found.distribution, found.version, hooks, names)
        self.plugins.append(info)
        if found.own:
            self._own.append(plugin)
        else:
            self._strangers.append((info, plugin))

    def _kinds(self, plugin: object, hooks: Iterable[str]) -> Iterable[str]:
        """The kinds that a plugin which is being loaded and those before it complete."""
        own = self._ask("irons_completions", plugin, {}) if "irons_completions" in hooks else None
        return (*(own or ()), *self.completions())

    def _commands_of(self, plugin: object) -> tuple[Command, ...]:
        others = [known for known in self._manager.get_plugins() if known is not plugin]
        caller = self._manager.subset_hook_caller("irons_commands", others)
        return _checked(command for answer in caller() for command in answer)

    def _failed(self, found: PluginSource, why: str) -> None:
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


def _refuse_faults(commands: Iterable[Command], kinds: Callable[[], Iterable[str]]) -> None:
    """Check the commands of a third party, where a type checker may not have. Raises `PluginError`."""
    from irons.plugin.command_checks import KINDS, faults

    found = [fault for command in commands for fault in faults(command)]
    if found:
        # Plugins are asked for the kinds that they bring only where one is used.
        known = (*KINDS, *kinds())
        found = [fault for command in commands for fault in faults(command, known)]
    if found:
        raise PluginError("; ".join(found))


def _check_needs(plugin: object) -> None:
    """Compare the versions of hooks that a plugin needs with those that there are. Raises `PluginError`."""
    needs = getattr(plugin, hookspecs.NEEDS, None)
    if not isinstance(needs, Mapping):
        return
    for name, least in needs.items():
        version = hookspecs.VERSIONS.get(name)
        if version is None:
            raise PluginError(f"it needs the hook {name}, which this irons does not have")
        if least > version:
            raise PluginError(f"it needs version {least} of {name}; this irons has version {version}")


def _package(plugin: object) -> str:
    """The top-level package that a plugin's code is in."""
    module = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__
    return module.partition(".")[0]


def _why(error: BaseException) -> str:
    """One line that says why a plugin was left out."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, Clash | PluginError):
        return " ".join(lines)
    validation = getattr(sys.modules.get("pluggy"), "PluginValidationError", None)
    if validation is not None and isinstance(error, validation):
        return "; ".join(lines)
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
