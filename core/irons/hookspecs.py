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
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, overload

if TYPE_CHECKING:
    import httpx

    from irons.command import Command
    from irons.context import Context
    from irons.settings.settings import Settings

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
