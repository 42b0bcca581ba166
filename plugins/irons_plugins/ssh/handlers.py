"""Handlers: ssh."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from irons.command import Exec
from irons_plugins.ssh.entrance import entrance, failing_as_ssh
from irons_plugins.ssh.openssh import remote_line, ssh_argv

if TYPE_CHECKING:
    from irons.context import Context


def ssh(
    ctx: Context, *, name: str, printed: bool, strict_hostkeys: bool, words: tuple[str, ...]
) -> Exec | str:
    """Run OpenSSH in this process's place, or return the command line that would."""
    remote = remote_line(words)
    if printed:
        way = entrance(ctx, name, strict=strict_hostkeys, direct=False)
        return shlex.join(ssh_argv(way.target, way.options, remote=remote))
    with failing_as_ssh():
        way = entrance(ctx, name, strict=strict_hostkeys)
    person = ctx.streams.reads_person and ctx.streams.shows_person
    terminal = "-t" if person else "-T"
    return Exec(ssh_argv(way.target, way.options, (terminal,), remote))
