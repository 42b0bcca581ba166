"""Where a session starts (`--workdir`): a path of the sandbox, in which `~` is the home directory there.

The caller's own shell replaces a bare `~/work` with a path below the home directory on this machine. Such a path is tried as
it is; where the sandbox has no such directory, it is tried below the home directory there.
"""

from __future__ import annotations

from collections.abc import Mapping

from irons.record import NamedTuple

GO_TO = r"""
go_to() {
  case $1 in
    '~' | '~/'*) set -- "$HOME${1#'~'}" ;;
    '~'*)
      irons_user=${1#'~'} irons_user=${irons_user%%/*}
      case $irons_user in
        *[!A-Za-z0-9_.-]*) ;;
        *) eval "irons_home=~$irons_user" && set -- "$irons_home${1#"~$irons_user"}" ;;
      esac
      ;;
  esac
  unset irons_user irons_home
  CDPATH='' cd -- "$1" >/dev/null 2>&1
}
start_in() {
  [ -z "$1" ] || go_to "$1" || { [ -n "$2" ] && go_to "$2"; } && return
  printf 'irons: there is no directory %s in the sandbox\n' "$1" >&2
  exit 125
}
"""
"""Shell functions (POSIX sh): `start_in DIR OTHER` goes to DIR, else to OTHER, else ends the shell with 125."""


class Workdir(NamedTuple):
    """The directory to start in, and another to try where the sandbox has no such one; both may be empty."""

    first: str = ""
    other: str = ""


def workdir_of(text: str | None, env: Mapping[str, str]) -> Workdir:
    """Return the directories that `--workdir TEXT` means; `env` is the caller's, whose HOME its shell put for `~`."""
    home = env.get("HOME", "").rstrip("/")
    if text and home and (text == home or text.startswith(f"{home}/")):
        return Workdir(text, f"~{text[len(home) :]}")
    return Workdir(text or "")
