"""Handlers of the host's own commands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from irons.errors import NotFound
from irons.host import PluginInfo
from irons.record import NamedTuple

if TYPE_CHECKING:
    from irons.context import Context


MASK = "********"
"""What stands for a key."""


class SettingRow(NamedTuple):
    """A setting as `config show` lists it."""

    key: str
    value: str
    source: str


def show_help(ctx: Context, *, words: tuple[str, ...]) -> str:
    """Return the help for a command's words, or a topic's text; an alias of the configuration has that of what it stands for."""
    from irons.cli.aliases import expand_alias
    from irons.cli.help.pages import help_text
    from irons.cli.help.sections import third_parties
    from irons.cli.help.topics import TOPICS, topic_text

    if len(words) == 1 and words[0] in TOPICS:
        return topic_text(words[0], ctx.streams.columns if ctx.streams.stdout_is_tty else None)
    tree = ctx.host.tree
    named = expand_alias(tree, words, lambda: ctx.settings.aliases)
    owners = third_parties(ctx.host.plugins)
    text = help_text(tree, named, face=ctx.face, width=ctx.streams.columns, owners=owners)
    return (
        text
        if named == list(words)
        else f"{words[0]} is an alias: {ctx.settings.aliases[words[0]]}\n\n{text}"
    )


def schema(ctx: Context, *, words: tuple[str, ...]) -> str:
    """Return the JSON Schema of a command's parameters. Raises `NotFound` where the words name no command."""
    import json

    from irons.cli.help.schema import schema_of
    from irons.cli.suggesting import commands_like, either

    found = ctx.host.tree.find(words)
    if found is None or found.command.path != words:
        near = either(commands_like(ctx.host.tree, words))
        raise NotFound(
            f"there is no command {' '.join(words)!r}", hint=near or "irons help lists the commands"
        )
    return json.dumps(schema_of(found.command), ensure_ascii=False, indent=2)


def plugins(ctx: Context) -> Iterable[PluginInfo]:
    """Return every plugin, failed ones included; of third parties the functions that commands name are imported and checked."""
    from irons.plugin.references import broken

    faults: dict[str, list[str]] = {}
    for command in ctx.host.tree:
        owner = ctx.host.owner(command)
        if owner is not None:
            faults.setdefault(owner.name, []).extend(
                f"command {command.name}: {fault}" for fault in broken(command)
            )
    for info in ctx.host.plugins:
        told = faults.get(info.name) if info.status == "ok" else None
        yield info._replace(status="faulty", error="; ".join(told)) if told else info


def config_show(ctx: Context) -> Iterable[SettingRow]:
    """Return every setting with its source, the key masked; of a plugin's invalid value the source says what it is not."""
    return _settings(ctx)


def _settings(ctx: Context, strict: str = "") -> Iterator[SettingRow]:
    """Yield every setting; an invalid value of the plugin's setting `strict` is an error."""
    settings = ctx.settings
    yield SettingRow("profile", settings.profile, settings.profile_source)
    yield SettingRow("config", str(settings.path), "file" if settings.path.exists() else "no file yet")
    for key, (value, source) in settings.values.items():
        shown = "" if value is None else str(value)
        if key == "api_key" and value:
            shown = MASK
        if key == "api_url" and value is None:
            shown = settings.api_url
        yield SettingRow(key, shown, source)
    for name, words in settings.aliases.items():
        yield SettingRow(f"aliases.{name}", words, "config")
    from irons.settings.keys import ASK_KEYS

    for name, known in ASK_KEYS.items():
        source = "config" if name in settings.ask else "default"
        yield SettingRow(f"ask.{name}", _shown(settings.ask.get(name, known.default)), source)
    yield from _of_plugins(ctx, strict)


def _of_plugins(ctx: Context, strict: str) -> Iterator[SettingRow]:
    """Yield the settings that plugins declare, then what the file has for plugins beyond that, which is never an error."""
    declared = ctx.host.declared()
    stored = ctx.settings.plugins
    if not declared and not stored:
        return
    from irons.errors import ConfigError
    from irons.settings.plugin_settings import UNKNOWN, as_stored, values

    for plugin, known in declared.items():
        table, env = stored.get(plugin), ctx.settings.env
        for setting in known:
            key = f"plugins.{plugin}.{setting.name}"
            try:
                value, source = values(plugin, (setting,), table, env)[setting.name]
            except ConfigError:
                if key == strict:
                    raise
                value, source = as_stored(setting, table, env)
            shown = MASK if setting.secret and value else _shown(value)
            yield SettingRow(key, shown, source)
    for plugin, table in stored.items():
        if not isinstance(table, Mapping):
            yield SettingRow(f"plugins.{plugin}", _shown(table), UNKNOWN)
            continue
        names = {setting.name for setting in declared.get(plugin, ())}
        for name in table:
            if name not in names:
                # It may be a secret of a plugin that is not loaded now.
                yield SettingRow(f"plugins.{plugin}.{name}", MASK, UNKNOWN)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(str(each) for each in value)
    return "" if value is None else str(value)


def config_get(ctx: Context, *, key: str) -> SettingRow:
    """Return one of the settings that `config show` lists.

    Raises:
        ConfigError: There is no such setting, or its value is invalid.
    """
    from irons.settings.checking import check_key

    for setting in _settings(ctx, key):
        if setting.key == key:
            return setting
    check_key(key)
    raise AssertionError(key)


def value_alone(setting: SettingRow) -> str:
    """Return the value as one line."""
    from irons.text import clean

    return clean(setting.value)


def config_path(ctx: Context) -> str:
    """Return where the configuration file is."""
    return str(ctx.settings.path)


def config_init(ctx: Context) -> str:
    """Write a configuration file that explains every setting; return where it is."""
    from irons.cli.config_template import annotated
    from irons.errors import ConfigError, Conflict
    from irons.files import write_new

    path = ctx.settings.path
    try:
        write_new(path, annotated())
    except FileExistsError:
        raise Conflict(
            f"{path} exists already and was not changed",
            hint=f"to start again from a new one, move it away: mv {path} {path}.old",
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}") from None
    ctx.progress("every setting in it is a comment; remove the # before a line to set it")
    return str(path)


def config_set(ctx: Context, *, key: str, value: str) -> None:
    """Set a value in the file."""
    if key.startswith("plugins."):
        _set_of_plugin(ctx, key, value)
        return
    from irons.settings.config_file import set_value

    if key == "output":
        from irons.settings.settings import Value
        from irons.terminal.formats import check_format

        check_format(Value(value or None, ""), ctx.host)
    kept_local = set_value(ctx.settings.path, ctx.settings.profile, key, value)
    ctx.progress(
        f"{key} is {'unset' if not value else 'set'} in profile {ctx.settings.profile} of {ctx.settings.path}"
    )
    if kept_local:
        ctx.progress(
            "no api_url was set there: it is local now, this machine; irons config set api_url URL names the key's server"
        )


def _set_of_plugin(ctx: Context, key: str, value: str) -> None:
    """Set a value in `[plugins.NAME]`: as what the plugin declares, else as text."""
    from irons.errors import UsageError
    from irons.settings.config_file import set_plugin_value
    from irons.settings.plugin_settings import from_text

    plugin, _, name = key.removeprefix("plugins.").rpartition(".")
    if not plugin or not name:
        raise UsageError(
            f"{key!r} names no setting of a plugin", hint="irons config set plugins.NAME.KEY VALUE"
        )
    setting = next((each for each in ctx.host.declared().get(plugin, ()) if each.name == name), None)
    typed = value if setting is None or not value else from_text(plugin, setting, value)
    set_plugin_value(ctx.settings.path, plugin, name, typed)
    if setting is None:
        ctx.progress(f"no plugin that is loaded declares {key}; it is kept as text")
    ctx.progress(f"{key} is {'set' if value else 'unset'} in {ctx.settings.path}")


def config_use(ctx: Context, *, profile: str) -> None:
    """Choose the profile."""
    from irons.settings.config_file import use_profile

    use_profile(ctx.settings.path, profile)
    ctx.progress(f"profile {profile} is used from now on")


def completion(ctx: Context, *, shell: str) -> str:
    """Return the shell's completion script."""
    del ctx
    from irons.cli.shell_completion import SCRIPTS

    return SCRIPTS[shell]
