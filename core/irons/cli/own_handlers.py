"""Handlers of the host's own commands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from irons.host import PluginInfo

if TYPE_CHECKING:
    from irons.context import Context


MASK = "********"
"""What stands for a key."""


class Setting(NamedTuple):
    """A setting as `config show` lists it."""

    key: str
    value: str
    source: str


def show_help(ctx: Context, *, words: tuple[str, ...]) -> str:
    """Return the help for a command's words, or a topic's text; an alias of the configuration has that of what it stands for."""
    from irons.cli.aliases import expand_alias
    from irons.cli.help import help_text
    from irons.cli.topics import TOPICS

    if len(words) == 1 and words[0] in TOPICS:
        return TOPICS[words[0]]()
    tree = ctx.host.tree
    named = expand_alias(tree, words, lambda: ctx.settings.aliases)
    text = help_text(tree, named, face=ctx.face, width=ctx.streams.columns)
    return (
        text
        if named == list(words)
        else f"{words[0]} is an alias: {ctx.settings.aliases[words[0]]}\n\n{text}"
    )


def plugins(ctx: Context) -> Iterable[PluginInfo]:
    """Return every plugin, failed ones included."""
    return tuple(ctx.host.plugins)


def config_show(ctx: Context) -> Iterable[Setting]:
    """Return every setting with its source, the key masked."""
    settings = ctx.settings
    yield Setting("profile", settings.profile, settings.profile_source)
    yield Setting("config", str(settings.path), "file" if settings.path.exists() else "no file yet")
    for key, (value, source) in settings.values.items():
        shown = "" if value is None else str(value)
        if key == "api_key" and value:
            shown = MASK
        if key == "api_url" and value is None:
            shown = settings.api_url
        yield Setting(key, shown, source)
    for name, words in settings.aliases.items():
        yield Setting(f"aliases.{name}", words, "config")


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
    from irons.settings.config_file import set_value

    set_value(ctx.settings.path, ctx.settings.profile, key, value)
    ctx.progress(
        f"{key} is {'unset' if not value else 'set'} in profile {ctx.settings.profile} of {ctx.settings.path}"
    )


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
