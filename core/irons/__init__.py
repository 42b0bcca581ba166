"""irons: real machines for AI agents, without the internet.

The names here are all that a plugin author or a Python program needs (`docs/plugins.md`, `docs/library.md`); they load when first
touched, so that `irons --version` stays cheap. `irons.aio` is the same with `async`. At this level: the plugin host, its hooks, commands as data, errors and text. The
command line, the client, settings and the terminal are folders. No plugin is imported here: the host knows their names, and those of sandboxes as objects lead
to `irons_plugins.box`, as strings.
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
    from irons.plugin.hook_data import (
        AskedQuestion,
        CompletionState,
        LifecycleChange,
        PluginCheck,
        PromptStatus,
    )
    from irons.settings.plugin_settings import PluginSetting
    from irons_plugins.box.box import Box
    from irons_plugins.box.files import FileEntry
    from irons_plugins.box.process import BoxProcess
    from irons_plugins.box.result import ExecResult, ProgramError
    from irons_plugins.box.sandbox import sandbox
    from irons_policy.event import Event

__all__ = [
    "Api",
    "Arg",
    "AskedQuestion",
    "Backend",
    "Box",
    "BoxProcess",
    "Column",
    "Command",
    "CompletionState",
    "Context",
    "EgressRules",
    "Event",
    "Exec",
    "ExecResult",
    "FileEntry",
    "Flag",
    "IronsError",
    "LifecycleChange",
    "Opt",
    "PluginCheck",
    "PluginSetting",
    "ProgramError",
    "PromptStatus",
    "Result",
    "Sandbox",
    "SshAddress",
    "View",
    "__version__",
    "connect",
    "hookimpl",
    "sandbox",
]

_ROOMS = {
    "irons.client.api": ("Api", "Sandbox", "SshAddress", "connect"),
    "irons.client.models.egress": ("EgressRules",),
    "irons.command": ("Arg", "Column", "Command", "Exec", "Flag", "Opt", "Result", "View"),
    "irons.context": ("Context",),
    "irons.errors": ("IronsError",),
    "irons.plugin.hook_data": (
        "AskedQuestion",
        "CompletionState",
        "LifecycleChange",
        "PluginCheck",
        "PromptStatus",
    ),
    "irons.hookspecs": ("Backend", "hookimpl"),
    "irons.settings.plugin_settings": ("PluginSetting",),
    "irons_plugins.box.box": ("Box",),
    "irons_plugins.box.files": ("FileEntry",),
    "irons_plugins.box.process": ("BoxProcess",),
    "irons_plugins.box.result": ("ExecResult", "ProgramError"),
    "irons_plugins.box.sandbox": ("sandbox",),
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
