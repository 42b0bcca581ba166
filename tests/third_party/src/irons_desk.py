"""A plugin that uses the hooks beyond commands: settings, completion, the toolbar, checks and notes on suggestions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from irons import Arg, Command, CompletionState, Context, PluginCheck, PluginSetting, PromptStatus, hookimpl

irons_needs = {"irons_settings": 1, "irons_toolbar": 1}


@hookimpl
def irons_settings() -> Iterable[PluginSetting]:
    """Declare what `[plugins.desk]` may have."""
    return [
        PluginSetting("team", "Whose desk it is.", "nobody"),
        PluginSetting("seats", "How many sandboxes it has room for.", 3, type=int),
        PluginSetting("colours", "The colours of its labels.", ["red", "green"], type=list),
        PluginSetting("mood", "How it greets.", "calm", choices=("calm", "loud")),
        PluginSetting("token", "What opens the desk.", env="DESK_TOKEN", secret=True),
    ]


@hookimpl
def irons_commands() -> list[Command]:
    """Bring `desk`."""
    return [
        Command(
            ("desk",),
            "Label the desk.",
            f"{__name__}:desk",
            (Arg("colour", "The colour.", kind="desk-colour"),),
            examples=("irons desk red",),
        )
    ]


def desk(ctx: Context, *, colour: str) -> Mapping[str, object]:
    """Return the label; a class of `dict` and nothing from the server."""
    own = ctx.plugin_settings("desk")
    return {"team": own["team"], "colour": colour, "seats": own["seats"]}


@hookimpl
def irons_completions() -> Mapping[str, object]:
    """Complete colours."""
    return {"desk-colour": _colours}


def _colours(state: CompletionState) -> Mapping[str, str]:
    return {colour: f"a label for {len(state.sandboxes)}" for colour in state.settings["colours"]}


@hookimpl
def irons_toolbar(status: PromptStatus, settings: Mapping[str, Any]) -> str | None:
    """Show the team, and the seats that are free where the states are known."""
    if status.states is None:
        return f"desk {settings['team']}"
    free = settings["seats"] - sum(status.states.values())
    return f"desk {settings['team']}: {free} free"


@hookimpl
def irons_checks(settings: Mapping[str, Any]) -> Iterator[PluginCheck]:
    """Check that there is a token."""
    if settings["token"]:
        yield PluginCheck("token", ok=True, what="there is a token")
    else:
        yield PluginCheck(
            "token", ok=False, what="no token is set", fix="irons config set plugins.desk.token TOKEN"
        )


@hookimpl
def irons_rule(pattern: str) -> str | None:
    """Say which suggestions are mirrors of packages."""
    return "package mirror" if pattern.startswith("mirror.") else None
