"""What `exec` has the sandbox's shell do: plain sh, with nothing needed but /proc, dd and grep.

Every program that `exec` starts carries a token in its environment, and hands it on to all that it starts in its turn, however it
detaches itself. By that token they are found and ended. What clears its environment is still found below its parent.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from irons_plugins.ssh.connect.workdir import GO_TO, Workdir
from irons_plugins.ssh.execute.start_script import START

GRACE = 2.0
"""Seconds between TERM and KILL."""

_HUNT = r"""
hunt() {
  irons_found=
  for irons_file in $(grep -lsF "IRONS_EXEC=$irons_token" /proc/[0-9]*/environ 2>/dev/null); do
    irons_pid=${irons_file#/proc/}
    irons_found="$irons_found ${irons_pid%/environ}"
  done
  irons_fresh=$irons_found
  while [ -n "$irons_fresh" ]; do
    irons_parents=$irons_fresh irons_fresh=
    for irons_file in /proc/[0-9]*/stat; do
      read -r irons_line 2>/dev/null <"$irons_file" || continue
      irons_pid=${irons_line%% *} irons_line=${irons_line##*) } irons_line=${irons_line#* } irons_parent=${irons_line%% *}
      case " $irons_parents " in *" $irons_parent "*) ;; *) continue ;; esac
      case " $irons_found " in *" $irons_pid "*) ;; *) irons_found="$irons_found $irons_pid" irons_fresh="$irons_fresh $irons_pid" ;; esac
    done
  done
  [ -n "$irons_found" ]
}
end_all() {
  hunt || return 0
  kill -s "$1" $irons_found 2>/dev/null || sudo -n kill -s "$1" $irons_found 2>/dev/null
}
# By the clock, in hundredths of a second: on a busy machine a single hunt may take as long as the whole grace.
tick() { read -r irons_up irons_rest </proc/uptime && irons_now=$((${irons_up%.*} * 100 + 1${irons_up#*.} - 100)); }
end_them() {
  end_all TERM
  tick
  irons_last=$((irons_now + irons_grace * 10))
  while hunt && tick && [ "$irons_now" -lt "$irons_last" ]; do sleep 0.1; done
  end_all KILL
}
"""

REPORTER = "/run/irons/kit/perl"
"""A program that tells a death by a signal from an exit code, where the sandbox has irons' kit; no shell does so for each signal."""

# Argument 1 starts in a shell what perl can't start, and says why not. Argument 2 is `mine` where PERL_BADLANG is not the program's own: without
# it perl would complain of a locale that is not there. Its name hides the program's words from `pgrep -f` and `pkill -f`.
_REPORT = r"""
$0 = "irons-exec";
open(my $report, ">&=", 6) or exit 126;
my $start = shift;
delete $ENV{PERL_BADLANG} if shift eq "mine";
my $child = fork;
if (!$child) {
  exec { $ARGV[0] } @ARGV;
  exec "sh", "-c", $start, "irons-exec", @ARGV;
  exit 126;
}
$SIG{$_} = "IGNORE" for qw(HUP INT QUIT TERM PIPE);
waitpid $child, 0;
my $status = $?;
syswrite $report, "!$status";
exit($status & 127 ? 128 + ($status & 127) : $status >> 8);
"""

_RUN = (
    GO_TO
    + r"""
irons_token=$1 irons_limit=$2 irons_grace=$3 irons_bytes=$4 irons_dir=$5 irons_other=$6
eval "set -- ${IRONS_WORDS-}"
unset IRONS_RUN IRONS_WORDS
mark() { printf '\000irons %s %s\n' "$irons_token" "$*"; }
irons_told=
if [ "$irons_bytes" != 0 ]; then
  irons_told=$(dd bs="$irons_bytes" count=1 iflag=fullblock 2>/dev/null; printf x)
  [ "$irons_told" != x ] || irons_told=$(dd bs=1 count="$irons_bytes" 2>/dev/null; printf x)
  irons_told=${irons_told%x}
fi
trap 'mark failed >&2' EXIT
start_in "$irons_dir" "$irons_other"
trap - EXIT
"""
    + _HUNT
    + r"""
# Ends what was started once nobody reads at the other end, or this shell is gone. Only a write tells of a closed pipe here.
(
  trap '' PIPE
  while sleep 1 5>&- || [ "$?" -gt 128 ] || exit 0; kill -0 "$$" && mark alive >&5; do :; done
  trap '' TERM
  irons_grace=7
  end_them
) 5>&2 </dev/null >/dev/null 2>&1 &
irons_beat=$!
irons_dog=
if [ "$irons_limit" != 0 ]; then
  (
    # KILL: a TERM is lost on a process that the shell has forked and that is not yet the program.
    trap 'kill -KILL "$!" 2>/dev/null; exit 0' TERM
    sleep "$irons_limit" &
    irons_nap=$!
    wait "$irons_nap"
    trap '' TERM
    end_them
    exit 124
  ) </dev/null >/dev/null 2>&1 &
  irons_dog=$!
fi
"""
    + f"irons_reporter={REPORTER} irons_report='{_REPORT}' irons_start={shlex.quote(START)}\n"
    + r"""
mark began >&2
exec 4>&1 5>&2 >/dev/null 2>&1
# The shell that waits for the program reports its death by a signal on stderr, which is read here.
irons_said=$(
  exec 2>&1
  (
    IRONS_EXEC=$irons_token
    export IRONS_EXEC
    eval "$irons_told"
    # What changes how programs are loaded is meant for the image's own, and not for the kit's.
    if [ -x "$irons_reporter" ] && [ -z "${LD_PRELOAD-}${LD_LIBRARY_PATH-}${PERL5OPT-}" ]; then
      irons_mine=
      [ -n "${PERL_BADLANG+x}" ] || { PERL_BADLANG=0 irons_mine=mine; export PERL_BADLANG; }
      exec "$irons_reporter" -e "$irons_report" "$irons_start start \"\$@\"" "$irons_mine" "$@"
    fi
    eval "$irons_start"
    start "$@" 6>&-
  ) 6>&1 >&4 2>&5 4>&- 5>&-
  echo "=$?"
)
irons_code=${irons_said##*=}
# The shell that waited for the program was killed: it may run on.
case $irons_code in '' | *[!0-9]*) irons_code= ;; esac
kill "$irons_beat"
wait "$irons_beat"
if [ -n "$irons_dog" ]; then
  kill "$irons_dog"
  wait "$irons_dog"
  if [ "$?" = 124 ]; then
    mark ended 124 time >&5
    exit 124
  fi
fi
[ -n "$irons_code" ] || { end_them; mark killed >&5; exit 254; }
irons_killed=no
irons_told=${irons_said##*!} irons_told=${irons_told%%=*}
case $irons_told in
  *[!0-9]* | "") irons_told= ;;
esac
if [ -n "$irons_told" ] && [ "$irons_said" = "!$irons_told=$irons_code" ]; then
  # As wait(2) gives it: the signal in the lowest bits.
  [ "$((irons_told & 127))" = 0 ] || irons_killed=yes
elif [ "$irons_code" -gt 128 ]; then
  case $irons_code$irons_said in
    130=* | 141=*) irons_killed=maybe ;;
    ???=*)
      # Not every shell reports.
      irons_told=$(exec 2>&1; (exec sh -c 'kill -s HUP $$' >/dev/null 2>/dev/null); :)
      [ -n "$irons_told" ] || irons_killed=maybe
      ;;
    *) irons_killed=yes ;;
  esac
fi
mark ended "$irons_code" "$irons_killed" >&5
# The mark has the code; 255 is what OpenSSH says of a connection that was lost.
[ "$irons_code" != 255 ] || exit 254
exit "$irons_code"
"""
)

_END = "irons_token=$1 irons_grace=$2\n" + _HUNT + "end_them\nhunt && sleep 0.2\n! hunt\n"


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
    # In its environment, not in its arguments: `pkill -f` and `pgrep -f` take the program's words for the program alone.
    told = (f"IRONS_RUN={_RUN}", f"IRONS_WORDS={shlex.join(words)}")
    return shlex.join(
        [
            *("exec", "env", *told, "sh", "-c", 'eval "$IRONS_RUN"', "irons-exec"),
            *(token, f"{limit:.3f}" if limit else "0", str(int(GRACE * 10)), str(len(header)), *workdir),
        ]
    )


def size_of(words: Sequence[str]) -> int:
    """Return how many bytes words take in the line of `run_line`."""
    return len(shlex.quote(shlex.join(words)).encode(errors="surrogateescape"))


def end_line(token: str) -> str:
    """Return the line for the sandbox's shell that ends everything known by the token."""
    return shlex.join(["exec", "sh", "-c", _END, "irons-end", token, str(int(GRACE * 10))])


def header_of(words: Sequence[str], variables: Mapping[str, str]) -> bytes:
    """Return the shell text that sets the words of the program and its variables; names are the caller's to check."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    if words:
        lines.append(f"set -- {shlex.join(words)}\n")
    return "".join(lines).encode(errors="surrogateescape")
