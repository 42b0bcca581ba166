"""Whose fault an exception is: the error that a person sees names the plugin and the command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from irons.errors import IronsError, PluginError, as_irons_error

if TYPE_CHECKING:
    from types import TracebackType

    from irons.command import Command
    from irons.host import PluginHost, PluginInfo


def blamed(error: Exception, host: PluginHost, command: Command | None) -> IronsError:
    """Return any exception as an error of irons; one of a third party's code names its plugin, and the command that ran.

    Args:
        error: What was raised; an `IronsError` is what its author meant to say, and comes back as it is.
        host: The plugins.
        command: The command that ran; None where none was found yet.
    """
    if isinstance(error, IronsError):
        return error
    plugin = _raised_by(error, host) or (None if command is None else host.owner(command))
    if plugin is None:
        return as_irons_error(error)
    ran = f", command {command.name}" if command is not None else ""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    named = " ".join(part for part in (plugin.distribution or plugin.name, plugin.version) if part)
    told = PluginError(
        f"plugin {plugin.name}{ran}: {what}",
        hint=f"the fault is in {named}; run it again with --debug for the traceback",
    )
    told.__cause__ = error
    return told


def left(leaving: SystemExit, host: PluginHost, command: Command | None) -> IronsError | None:
    """Return the error of a third party's code that left by `sys.exit`, with its exit code; None where it succeeded, or the code is not theirs."""
    # A signal that ends irons is an exception of a class of its own, wherever it arrives.
    if type(leaving) is not SystemExit or not leaving.code:
        return None
    plugin = _raised_by(leaving, host) or (None if command is None else host.owner(command))
    if plugin is None:
        return None
    ran = f", command {command.name}" if command is not None else ""
    told = PluginError(f"plugin {plugin.name}{ran}: SystemExit: {leaving.code}")
    told.exit_code = leaving.code if isinstance(leaving.code, int) else 1
    told.__cause__ = leaving
    return told


def _raised_by(error: BaseException, host: PluginHost) -> PluginInfo | None:
    """The third-party plugin whose code is the innermost that the exception passed through."""
    owners = (host.owner_of_module(module) for module in reversed(list(_modules(error.__traceback__))))
    return next((owner for owner in owners if owner is not None), None)


def _modules(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        yield str(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
