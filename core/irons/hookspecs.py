"""The hooks a plugin can implement, and the marker it implements them with.

A plugin is a module (or any object) behind an entry point of the group ``irons``:

    [project.entry-points.irons]
    greet = "irons_greet"

    # irons_greet.py
    from irons import Arg, Command, hookimpl

    @hookimpl
    def irons_commands():
        return [Command(("greet",), "Greet a sandbox.", "irons_greet_handlers:greet", (Arg("name", kind="sandbox"),))]

The built-in plugins take the same door. `docs/plugins.md` is the guide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from irons.record import NamedTuple

if TYPE_CHECKING:
    import httpx

    from irons.command import Command
    from irons.context import Context
    from irons.plugin.hook_data import (
        AskedQuestion,
        CompletionState,
        LifecycleChange,
        PluginCheck,
        Preset,
        PromptStatus,
    )
    from irons.settings.plugin_settings import PluginSetting
    from irons.settings.settings import Settings
    from irons_policy.event import Event

PROJECT = "irons"

_F = TypeVar("_F", bound=Callable[..., Any])


def hookspec(*, firstresult: bool = False) -> Callable[[_F], _F]:
    """Mark a function as a hook, as `pluggy.HookspecMarker` does; pluggy is imported only where others' plugins are."""
    marks = {
        "firstresult": firstresult,
        "historic": False,
        "warn_on_impl": None,
        "warn_on_impl_args": None,
    }
    return _marked("irons_spec", marks)


@overload
def hookimpl(function: _F) -> _F: ...


@overload
def hookimpl(
    *,
    wrapper: bool = ...,
    hookwrapper: bool = ...,
    optionalhook: bool = ...,
    tryfirst: bool = ...,
    trylast: bool = ...,
    specname: str | None = ...,
) -> Callable[[_F], _F]: ...


def hookimpl(
    function: _F | None = None,
    *,
    wrapper: bool = False,
    hookwrapper: bool = False,
    optionalhook: bool = False,
    tryfirst: bool = False,
    trylast: bool = False,
    specname: str | None = None,
) -> _F | Callable[[_F], _F]:
    """Mark a function of a plugin as the implementation of a hook, as `pluggy.HookimplMarker` does; its options are pluggy's."""
    marks = {
        "wrapper": wrapper,
        "hookwrapper": hookwrapper,
        "optionalhook": optionalhook,
        "tryfirst": tryfirst,
        "trylast": trylast,
        "specname": specname,
    }
    mark: Callable[[_F], _F] = _marked("irons_impl", marks)
    return mark if function is None else mark(function)


def _marked(attribute: str, marks: Mapping[str, object]) -> Callable[[_F], _F]:
    def mark(function: _F) -> _F:
        setattr(function, attribute, dict(marks))
        return function

    return mark


class Waker(Protocol):
    """Brings up the server behind a unix socket."""

    def before(self) -> None:
        """Look after it before a request."""
        ...

    def after_refusal(self) -> None:
        """Bring it up where it let no connection in; the request is then sent. Raises `IronsError` where that fails."""
        ...


class Backend(NamedTuple):
    """Where the v0 API is answered.

    Attributes:
        base_url: Where requests go.
        transport: An httpx transport, where that is neither HTTP over TCP nor a unix socket.
        local: Whether the server runs on this machine and can hand over connected descriptors.
        handover: A command that hands one to OpenSSH; the sandbox's cell is its last word (`ProxyCommand` with
            `ProxyUseFdpass`, ssh_config(5)).
        socket: The path of the server's unix socket, which then is the way to it.
        waker: What brings the server up.
        before_create: Called by `create --image` with the image's name, before the request; it may fetch the image.
        after_create: Called by `create` once the first sandbox is ready; it may print notes on this backend.
    """

    base_url: str
    transport: httpx.BaseTransport | None = None
    local: bool = False
    handover: tuple[str, ...] = ()
    socket: str = ""
    waker: Waker | None = None
    before_create: Callable[[Context, str], None] | None = None
    after_create: Callable[[Context], None] | None = None


ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "irons_commands": (),
    "irons_backend": ("url", "settings"),
    "irons_engines": (),
    "irons_settings": (),
    "irons_completions": (),
    "irons_formats": (),
    "irons_toolbar": ("status", "settings"),
    "irons_checks": ("settings",),
    "irons_rule": ("pattern", "events", "settings"),
    "irons_presets": ("settings",),
    "irons_event": ("event", "settings"),
    "irons_lifecycle": ("change", "settings"),
    "irons_ask": ("question", "settings"),
}
"""The arguments of every hook; new ones are only ever added at the end."""

VERSIONS: Mapping[str, int] = {
    **dict.fromkeys(ARGUMENTS, 1),
    "irons_commands": 2,
    "irons_backend": 2,
    "irons_engines": 2,
}
"""How often what a hook gets or returns was extended, from 1 on."""

FIRST = ("irons_commands", "irons_backend", "irons_engines")
"""The hooks that every irons with plugins has."""

NEEDS = "irons_needs"
"""The attribute of a plugin that maps hooks to the least version that it takes."""


@hookspec()
def irons_commands() -> Iterable[Command]:  # type: ignore[empty-body]
    """Return the commands this plugin brings.

    Fires once, when the host is made. Return data only: handlers are named as strings and imported when their command runs.
    A path that is taken already makes the plugin fail with a line of warning; built-ins come first, then third parties by name.
    """


@hookspec(firstresult=True)
def irons_backend(url: str, settings: Settings) -> Backend | None:
    """Return where to send requests for an API URL whose scheme is not http or https, such as `local`; None if it is not yours.

    Fires when a command first needs the API. The first plugin that answers wins; the last registered is asked first.
    """


@hookspec()
def irons_engines() -> Mapping[str, Callable[[Any], Any]]:  # type: ignore[empty-body]
    """Return engines for the local backend: a name for `--engine`, and what makes the engine of an `irons_local.engines.protocol.Kit`.

    Fires in the control plane's process when it starts. Built-in names stay built-in; of two plugins with one name the first by name wins.
    """


@hookspec()
def irons_settings() -> Iterable[PluginSetting]:  # type: ignore[empty-body]
    """Return the settings that this plugin reads from `[plugins.NAME]`, NAME being the plugin's name.

    Fires when something needs them. A handler reads them by `ctx.plugin_settings(NAME)`; other hooks get them as `settings`.
    """


@hookspec()
def irons_completions() -> Mapping[str, Callable[[CompletionState], Mapping[str, str]]]:  # type: ignore[empty-body]
    """Return kinds of values, each with a function from what is on hand to words and what each is.

    Fires at Tab, and in the prompt at a key, when a parameter of that kind is completed: functions must answer within milliseconds and ask no server.
    """


@hookspec()
def irons_formats() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return output formats for `-o`: a name, and the writer as `"module:function"`. Fires when `-o` names none of irons' own.

    The writer gets `rows`, an iterator of mappings with the keys of `-o json`, and `columns`, those of them that the command's table shows
    (none where it has no table), and yields text.
    Names of irons' own formats stay its own; of two plugins with one name the first by name wins.
    """


@hookspec()
def irons_toolbar(status: PromptStatus, settings: Mapping[str, Any]) -> str | None:
    """Return a few words for the line below the prompt and for `{irons}` in xonsh, or None.

    Fires in the background after each look at the server (in xonsh: at each prompt), never while a key is handled.
    """


@hookspec()
def irons_checks(settings: Mapping[str, Any]) -> Iterable[PluginCheck]:  # type: ignore[empty-body]
    """Return checks for `irons doctor`. Fires when that runs."""


@hookspec()
def irons_rule(pattern: str, events: int, settings: Mapping[str, Any]) -> str | None:
    """Return a few words on a rule that `irons egress suggest` lists (say, "package mirror"), or None.

    Fires once for each suggested rule; `events` is how many connections it would have allowed.
    """


@hookspec()
def irons_presets(settings: Mapping[str, Any]) -> Iterable[Preset]:  # type: ignore[empty-body]
    """Return known sets of hosts for `irons egress preset`. Fires when that runs; a name that is taken stays with who has it."""


@hookspec()
def irons_event(event: Event, settings: Mapping[str, Any]) -> None:
    """Act on a connection that a sandbox tried: notify, page, open a ticket.

    Fires in a process of its own next to the local backend, for each new event of the audit log.
    """


@hookspec()
def irons_lifecycle(change: LifecycleChange, settings: Mapping[str, Any]) -> None:
    """Act on a sandbox that is ready, was stopped or was destroyed.

    Fires in the same process as `irons_event`.
    """


@hookspec()
def irons_ask(question: AskedQuestion, settings: Mapping[str, Any]) -> str | None:
    """Tell a person of a question of mode `ask`, and return their answer, one of `question.may`, or None.

    Fires in the same process as `irons_event`, for at most one question of a sandbox in 10 seconds. The first plugin that answers counts.
    """
