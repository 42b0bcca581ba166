"""irons: real machines for AI agents, without the internet.

The names here are all that a plugin author or a Python program needs (`docs/plugins.md`, `docs/library.md`); they load when first
touched, so that `irons --version` stays cheap. At this level: the plugin host, its hooks, commands as data, errors and text. The
command line, the client, settings and the terminal are folders. No plugin is imported here: the host knows their names.
"""

from __future__ import annotations

from irons.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from irons.client.api import Api, Sandbox, SshAddress, connect
    from irons.client.models.egress import EgressRules
    from irons.command import Arg, Column, Command, Exec, Flag, Opt, Result, View
    from irons.context import Context
    from irons.errors import IronsError
    from irons.hookspecs import Backend, hookimpl
    from irons_policy.event import Event

__all__ = [
    "Api",
    "Arg",
    "Backend",
    "Column",
    "Command",
    "Context",
    "EgressRules",
    "Event",
    "Exec",
    "Flag",
    "IronsError",
    "Opt",
    "Result",
    "Sandbox",
    "SshAddress",
    "View",
    "__version__",
    "connect",
    "hookimpl",
]

_ROOMS = {
    "irons.client.api": ("Api", "Sandbox", "SshAddress", "connect"),
    "irons.client.models.egress": ("EgressRules",),
    "irons.command": ("Arg", "Column", "Command", "Exec", "Flag", "Opt", "Result", "View"),
    "irons.context": ("Context",),
    "irons.errors": ("IronsError",),
    "irons.hookspecs": ("Backend", "hookimpl"),
    "irons_policy.event": ("Event",),
}


def __getattr__(name: str) -> object:
    for room, names in _ROOMS.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(room), name)
    message = f"module 'irons' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted(__all__)
