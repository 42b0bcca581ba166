"""The script that a sandbox's SSH server starts each session with: it sets the machine's variables, then runs what was asked for.

sshd reads no `/etc/environment`: PAM does, which a sandbox's server goes without. So the server forces this script
(sshd_config(5), `ForceCommand`), and each new session reads the files inside, as the person who logs in.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from irons_local.bundle import trust
from irons_local.bundle.oci import CONFIG_DIRECTORY, KIT_DIRECTORY

FILE = "session"
"""Its name in the settings directory."""

KEY = "IRONS_KEY"
"""The variable of a session that says which authorized key opened it, by its id."""

IMAGE = "image"
"""The file of the settings directory with the variables of the image, as text of sh(1)."""

LIMITS = "limits"
"""The file of the settings directory with the sandbox's limits as programs read them, as text of sh(1)."""

WORKDIR = "workdir"
"""A file of the settings directory: the directory that the image's programs start in."""

VARIABLES = "environment"
"""The file of the settings directory with the variables of `create --env`, as text of sh(1)."""

SFTP = "irons-sftp"
"""What sshd asks for where a client wants the subsystem `sftp`."""

SHELL = "/bin/sh"
"""What runs our scripts where there is no kit."""

READING = f"""
irons_read() {{
  [ -f "$1" ] && [ -r "$1" ] || return 0
  while IFS= read -r irons_line || [ -n "$irons_line" ]; do
    irons_line=${{irons_line#"${{irons_line%%[![:space:]]*}}"}}
    irons_line=${{irons_line%"${{irons_line##*[![:space:]]}}"}}
    irons_line=${{irons_line#export }}
    irons_name=${{irons_line%%=*}} irons_value=${{irons_line#*=}}
    case $irons_line in [A-Za-z_]*=*) ;; *) continue ;; esac
    case $irons_name in
      *[!A-Za-z0-9_]* | irons_* | IFS | OPT* | PPID | PS4 | ENV | *UID | *SHELLOPTS | BASH* | LINENO | FUNCNAME) continue ;;
    esac
    case $irons_value in
      \\"*\\") irons_value=${{irons_value#\\"}} irons_value=${{irons_value%\\"}} ;;
      \\'*\\') irons_value=${{irons_value#\\'}} irons_value=${{irons_value%\\'}} ;;
    esac
    case $irons_name=$irons_value in
      # PAM takes it as it is written, and then no program is found: as it was meant, it does what it says.
      PATH=*'$PATH'*) irons_value=${{irons_value%%'$PATH'*}}$PATH${{irons_value#*'$PATH'}} ;;
    esac
    command export "$irons_name=$irons_value" 2>/dev/null
  done <"$1"
}}
irons_machine() {{
  LANG=C.UTF-8
  export LANG
  [ ! -r {CONFIG_DIRECTORY}/{IMAGE} ] || . {CONFIG_DIRECTORY}/{IMAGE}
  [ ! -r {CONFIG_DIRECTORY}/{LIMITS} ] || . {CONFIG_DIRECTORY}/{LIMITS}
  {trust.SESSION}
  irons_read /etc/default/locale
  irons_read /etc/environment
  [ ! -r {CONFIG_DIRECTORY}/{VARIABLES} ] || . {CONFIG_DIRECTORY}/{VARIABLES}
  # An image of a single program: what the kit has is better than nothing.
  command -v ls >/dev/null 2>&1 || PATH=$PATH:{KIT_DIRECTORY}
}}
irons_directory() {{
  [ -r {CONFIG_DIRECTORY}/{WORKDIR} ] || return 0
  IFS= read -r irons_line <{CONFIG_DIRECTORY}/{WORKDIR}
  [ ! -d "$irons_line" ] || cd -- "$irons_line"
}}
"""
"""Functions of sh(1): `irons_machine` exports the machine's variables, the later file over the earlier one.

The format of the files is that of pam_env(8). A name that the script itself lives by is left out. Nothing of a value
is ever run.
"""

SCRIPT = (
    READING
    + """
# A locale that a client sends from its own machine, and this one has no data for, would be ASCII to programs.
irons_known() {
  case $1 in '' | C | POSIX | C.*) return 0 ;; esac
  [ ! -d /usr/lib/locale ] || [ -e /usr/lib/locale/locale-archive ] || [ -e "/usr/lib/locale/$1" ] ||
    [ -e "/usr/lib/locale/${1%.*}.utf8" ]
}
for irons_name in LANG LC_ALL LC_CTYPE LC_COLLATE LC_MESSAGES LC_MONETARY LC_NUMERIC LC_TIME LC_ADDRESS \\
  LC_IDENTIFICATION LC_MEASUREMENT LC_NAME LC_PAPER LC_TELEPHONE; do
  eval "irons_known \\"\\${$irons_name-}\\"" || unset "$irons_name"
done
irons_command=${SSH_ORIGINAL_COMMAND-} irons_asked=${SSH_ORIGINAL_COMMAND+yes}
unset SSH_ORIGINAL_COMMAND SHLVL
# What the client sent goes before what the machine says; the search path is the server's own.
irons_sent=$(unset PATH; export -p)
irons_machine
eval "$irons_sent"
# Files are copied to and from the home directory, whatever the image says.
[ "$irons_asked$irons_command" = "yes"""
    + SFTP
    + """" ] || irons_directory
unset irons_line irons_name irons_value irons_sent
case $irons_asked$irons_command in
"") exec "$SHELL" -l ;;
yes"""
    + SFTP
    + """)
  for irons_server in """
    + f"{KIT_DIRECTORY}/sftp-server"
    + """ /usr/lib/openssh/sftp-server /usr/lib/ssh/sftp-server /usr/libexec/openssh/sftp-server \\
    /usr/libexec/sftp-server /usr/lib/sftp-server; do
    [ ! -x "$irons_server" ] || exec "$irons_server"
  done
  echo 'irons: this image has no sftp-server' >&2
  exit 127
  ;;
esac
exec "$SHELL" -c "$irons_command"
"""
)


def forced(shell: str) -> str:
    """The command for the user's own login shell."""
    return f"exec {shell} {CONFIG_DIRECTORY}/{FILE}"


_OWN = re.compile(
    r"irons_.*|IFS|OPT.*|PPID|PS4|ENV|.*UID|.*SHELLOPTS|BASH.*|LINENO|FUNCNAME|HOME|PWD|OLDPWD|SHLVL"
)
"""Names that a shell lives by, or that are the session's own."""


def of_image(env: Mapping[str, str], workdir: str) -> dict[str, str]:
    """The files of the settings directory that tell sessions what the image says of its programs."""
    files = {IMAGE: exported({name: value for name, value in env.items() if not _OWN.fullmatch(name)})}
    return {**files, **({WORKDIR: f"{workdir}\n"} if workdir else {})}


def of_limits(memory: int | None) -> dict[str, str]:
    """The files of the settings directory for programs that take a limit of memory from no file.

    Java asks for a mount of a control group, and a sandbox has none. Its launcher reads this variable (from version 9 on); a value of
    the image's, of `/etc/environment` or of the session's own wins.

    Args:
        memory: bytes that the sandbox is held to; None for no limit.
    """
    if memory is None:
        return {}
    return {LIMITS: f': "${{JDK_JAVA_OPTIONS=-XX:MaxRAM={memory}}}"\nexport JDK_JAVA_OPTIONS\n'}


def exported(variables: Mapping[str, str]) -> str:
    """The text of the file `VARIABLES`: any value is one word of sh(1), and nothing of it is run."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
