"""Handler of `exec`: a program in a sandbox, without a terminal, with its exit code."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from irons.command import Exec
from irons.errors import UsageError
from irons_plugins.ssh.entrance import entrance, failing_as_ssh
from irons_plugins.ssh.openssh import ssh_argv

if TYPE_CHECKING:
    from irons.context import Context


def execute(
    ctx: Context,
    *,
    name: str,
    timeout: float | None,
    env: tuple[str, ...],
    workdir: str | None,
    strict_hostkeys: bool,
    words: tuple[str, ...],
) -> Exec:
    """Run a program in the sandbox."""
    if not words:
        raise UsageError("exec needs a program to run", hint=f"irons exec {name} -- CMD…")
    if timeout is not None or env:
        raise UsageError("exec takes neither --timeout nor --env yet")
    line = shlex.join(words)
    if workdir is not None:
        line = f"cd -- {shlex.quote(workdir)} && exec {line}"
    with failing_as_ssh():
        way = entrance(ctx, name, strict=strict_hostkeys)
    return Exec(ssh_argv(way.target, way.options, ("-T",), line))
