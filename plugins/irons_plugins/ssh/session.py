"""What `ssh --env` and `--workdir` have the sandbox's shell do before the session begins: plain sh.

Values go by OpenSSH's own protocol (`SendEnv`, RFC 4254, 6.4), from the environment of the ssh process, under reserved names. A
server accepts names that it knows: every `LC_*` is accepted by sandboxes of any version and by Debian's own configuration. The
script gives each variable its own name and removes the reserved one.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping

from irons_plugins.ssh.connect.workdir import GO_TO, Workdir
from irons_plugins.ssh.execute.start_script import START

RESERVED = "LC_IRONS_"
"""Begins the name under which a variable travels."""

_BEGIN = (
    GO_TO
    + START
    + r"""
start_in "$1" "$2"
irons_kind=$3 irons_names=$4
shift 4
for irons_name in $irons_names; do
  eval "irons_there=\${LC_IRONS_$irons_name+x}"
  if [ -z "$irons_there" ]; then
    printf 'irons: the SSH server of this sandbox did not accept %s; its sshd_config needs: AcceptEnv LC_*\n' "$irons_name" >&2
    exit 125
  fi
  eval "export $irons_name=\"\$LC_IRONS_$irons_name\"; unset LC_IRONS_$irons_name"
done
unset irons_name irons_names irons_there
case $irons_kind in
  shell) unset irons_kind; exec "${SHELL:-/bin/sh}" -l ;;
  line) unset irons_kind; exec "${SHELL:-/bin/sh}" -c "$1" ;;
  *) unset irons_kind; start "$@" ;;
esac
"""
)


def carried(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables under the names by which they travel."""
    return {f"{RESERVED}{name}": value for name, value in variables.items()}


def send_options(names: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Return the OpenSSH options that send the variables; only names are in them."""
    return tuple(("SendEnv", f"{RESERVED}{name}") for name in names)


def session_line(words: tuple[str, ...], line: str, names: Collection[str], workdir: Workdir) -> str:
    """Return the line for the sandbox's shell that sets variables, changes the directory and begins the session.

    Args:
        words: The caller's own: one is a line for the shell, several are a program and its arguments, none is a login shell.
        line: A line that the server names to run in place of a shell; empty where it names none.
        names: The variables to set; their values are with the server under the reserved names.
        workdir: Where to start.
    """
    if not words and line:
        words = (line,)
    kind = ("shell", "line", "words")[min(len(words), 2)]
    return shlex.join(["exec", "sh", "-c", _BEGIN, "irons-ssh", *workdir, kind, " ".join(names), *words])
