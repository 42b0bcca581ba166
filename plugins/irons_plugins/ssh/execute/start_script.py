"""Starting a program in the sandbox's shell, so that the reason why it does not start is a sentence of irons.

A shell reports a program that it cannot start with its own name and a line of the script, which is irons' script here.
"""

from __future__ import annotations

START = r"""
# A subshell: its variables may be names of the environment. 0 where the program is found, as execvp(3) looks for it.
startable() (
  name=$1 rest=${PATH-}:
  case $name in */*) rest=: ;; esac
  while [ -n "$rest" ]; do
    place=${rest%%:*} rest=${rest#*:}
    case $name in */*) place=$name ;; *) place=${place:-.}/$name ;; esac
    [ ! -f "$place" ] || [ ! -x "$place" ] || exit 0
  done
  exit 1
)
start() {
  if ! startable "$1"; then
    # Some shells start programs that are not in PATH; then this is the program's own stderr.
    { irons_error=$( (exec "$@" 3>&-) 2>&1 >&3 ); } 3>&1
    irons_code=$?
    # In a function bash calls a script of -c "environment".
    case $irons_code$irons_error in
      126$0:* | 126environment:*) printf 'irons: %s cannot be run in the sandbox: permission denied\n' "$1" >&2 ;;
      127$0:* | 127environment:*) printf 'irons: there is no program %s in the sandbox\n' "$1" >&2 ;;
      *) [ -z "$irons_error" ] || printf '%s\n' "$irons_error" >&2 ;;
    esac
    exit "$irons_code"
  fi
  exec "$@"
}
"""
"""Shell functions (POSIX sh): `start PROGRAM ARGUMENT...` takes the place of the shell; 127 where it is not there, 126 where it is not a program."""
