"""What `exec` has the sandbox's shell do: plain sh, with nothing needed but /proc, dd and grep.

Every program that `exec` starts carries a token in its environment, and hands it on to all that it starts in its turn, however it
detaches itself. By that token they are found and ended. What clears its environment is still found below its parent.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from irons_plugins.ssh.workdir import GO_TO, Workdir

GRACE = 2.0
"""Seconds between TERM and KILL."""

_HUNT = r"""
hunt() {
  found=
  for file in $(grep -lsF "IRONS_EXEC=$token" /proc/[0-9]*/environ 2>/dev/null); do
    pid=${file#/proc/}
    found="$found ${pid%/environ}"
  done
  fresh=$found
  while [ -n "$fresh" ]; do
    parents=$fresh fresh=
    for file in /proc/[0-9]*/stat; do
      read -r line 2>/dev/null <"$file" || continue
      pid=${line%% *} line=${line##*) } line=${line#* } parent=${line%% *}
      case " $parents " in *" $parent "*) ;; *) continue ;; esac
      case " $found " in *" $pid "*) ;; *) found="$found $pid" fresh="$fresh $pid" ;; esac
    done
  done
  [ -n "$found" ]
}
end_all() {
  hunt || return 0
  kill -s "$1" $found 2>/dev/null || sudo -n kill -s "$1" $found 2>/dev/null
}
end_them() {
  end_all TERM
  waited=0
  while hunt && [ "$waited" -lt "$grace" ]; do sleep 0.1; waited=$((waited + 1)); done
  end_all KILL
}
"""

_RUN = (
    GO_TO
    + r"""
token=$1 limit=$2 grace=$3 bytes=$4 dir=$5 other=$6
shift 6
mark() { printf '\000irons %s %s\n' "$token" "$*"; }
told=
if [ "$bytes" != 0 ]; then
  told=$(dd bs="$bytes" count=1 iflag=fullblock 2>/dev/null; printf x)
  [ "$told" != x ] || told=$(dd bs=1 count="$bytes" 2>/dev/null; printf x)
  told=${told%x}
fi
trap 'mark failed >&2' EXIT
start_in "$dir" "$other"
trap - EXIT
"""
    + _HUNT
    + r"""
# Ends what was started once nobody reads at the other end, or this shell is gone. Only a write tells of a closed pipe here.
(
  trap '' PIPE
  while sleep 1 5>&- || [ "$?" -gt 128 ] || exit 0; kill -0 "$$" && mark alive >&5; do :; done
  trap '' TERM
  grace=7
  end_them
) 5>&2 </dev/null >/dev/null 2>&1 &
beat=$!
dog=
if [ "$limit" != 0 ]; then
  (
    # KILL: a TERM is lost on a process that the shell has forked and that is not yet the program.
    trap 'kill -KILL "$!" 2>/dev/null; exit 0' TERM
    sleep "$limit" &
    nap=$!
    wait "$nap"
    trap '' TERM
    end_them
    exit 124
  ) </dev/null >/dev/null 2>&1 &
  dog=$!
fi
mark began >&2
exec 4>&1 5>&2 >/dev/null 2>&1
# The shell that waits for the program reports its death by a signal on stderr, which is read here.
said=$(
  exec 2>&1
  (
    IRONS_EXEC=$token
    export IRONS_EXEC
    eval "$told"
    exec "$@"
  ) >&4 2>&5 4>&- 5>&-
  echo "=$?"
)
code=${said##*=}
kill "$beat"
wait "$beat"
if [ -n "$dog" ]; then
  kill "$dog"
  wait "$dog"
  if [ "$?" = 124 ]; then
    mark ended 124 time >&5
    exit 124
  fi
fi
killed=no
if [ "$code" -gt 128 ]; then
  case $code$said in
    130=* | 141=*) killed=maybe ;;
    ???=*)
      # Not every shell reports.
      told=$(exec 2>&1; (exec sh -c 'kill -s HUP $$' >/dev/null 2>/dev/null); :)
      [ -n "$told" ] || killed=maybe
      ;;
    *) killed=yes ;;
  esac
fi
mark ended "$code" "$killed" >&5
exit "$code"
"""
)

_END = "token=$1 grace=$2\n" + _HUNT + "end_them\nhunt && sleep 0.2\n! hunt\n"


def run_line(
    words: Sequence[str],
    *,
    token: str,
    limit: float = 0.0,
    header: bytes = b"",
    workdir: Workdir = Workdir(),  # noqa: B008 - a tuple
) -> str:
    """Return the line for the sandbox's shell that runs a program.

    Args:
        words: The program and its arguments, taken as they are; none where the header has them.
        token: What its processes and its marks are known by: letters and digits.
        limit: Seconds after which all of them are ended and the exit code is 124; 0 for no limit.
        header: What `header_of` returned; only its length goes into the line, it travels itself as the first bytes of stdin.
        workdir: The directory to start in.
    """
    return shlex.join(
        [
            *("exec", "sh", "-c", _RUN, "irons-exec"),
            *(token, f"{limit:.3f}" if limit else "0", str(int(GRACE * 10)), str(len(header)), *workdir),
            *words,
        ]
    )


def end_line(token: str) -> str:
    """Return the line for the sandbox's shell that ends everything known by the token."""
    return shlex.join(["exec", "sh", "-c", _END, "irons-end", token, str(int(GRACE * 10))])


def header_of(words: Sequence[str], variables: Mapping[str, str]) -> bytes:
    """Return the shell text that sets the words of the program and its variables; names are the caller's to check."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    if words:
        lines.append(f"set -- {shlex.join(words)}\n")
    return "".join(lines).encode(errors="surrogateescape")
