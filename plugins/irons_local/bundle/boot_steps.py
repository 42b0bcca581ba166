"""What a sandbox does by itself when it has started: ordered steps, each a script of sh(1), run by its own root.

Process 1 starts the first script next to the SSH server. It waits until the server answers, then runs the steps in the order
of their names, and keeps the last of what they print. Nothing waits for it: neither `ready` nor a stop.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from irons_local.bundle import trust
from irons_local.bundle.oci import CONFIG_DIRECTORY, KIT_DIRECTORY, PATH
from irons_local.bundle.session import READING, SHELL
from irons_local.spec import SSH_PORT

FIRST = "init"
"""The settings file that process 1 runs: it starts the steps and becomes the SSH server."""

DRIVER = "boot"
"""The settings file that runs the steps; where it is missing, nothing is run."""

SKIPPED = "no-boot"
"""The settings file that says that the sandbox's own steps are skipped; only those of irons are run."""

REPORT = "log"
"""The directory below the settings in which the steps' output and exit code are; a small file system of its own."""

OUTPUT = "output"
EXIT = "exit"
KEPT = 64 << 10
"""Bytes of output that are kept."""

HOOK = "/etc/irons/boot"
"""A program in the sandbox that is run at each start."""


class BootStep(NamedTuple):
    """One thing to do at each start.

    Attributes:
        order: two digits; lower ones come first.
        name: a word for the log.
        script: text of sh(1), run as root of the sandbox; its exit code is the step's.
    """

    order: int
    name: str
    script: str


SERVICES = BootStep(
    50,
    "services",
    r"""
# What update-rc.d(8) has enabled; the SSH server runs already.
code=0
for service in /etc/rc2.d/S[0-9][0-9]*; do
  [ -x "$service" ] || continue
  name=${service##*/S[0-9][0-9]}
  case $name in ssh | sshd) continue ;; esac
  RUNLEVEL=2 PREVLEVEL=N "$service" start || {
    code=$?
    echo "irons: service $name did not start (exit code $code)"
  }
done
exit "$code"
""",
)
HOOKED = BootStep(
    60,
    "hook",
    f"""
[ -e {HOOK} ] || exit 0
[ -x {HOOK} ] || {{ echo 'irons: {HOOK} is not executable: chmod 755 {HOOK}'; exit 126; }}
exec {HOOK}
""",
)
# Of programs in the image nothing is needed: the shell does it all.
IDENTIFIED = BootStep(
    5,
    "machine-id",
    r"""
[ -d /etc ] && [ ! -s /etc/machine-id ] && [ ! -L /etc/machine-id ] || exit 0
read -r rest </proc/sys/kernel/random/uuid || exit 0
identity=
while [ -n "$rest" ]; do
  identity=$identity${rest%%-*}
  case $rest in *-*) rest=${rest#*-} ;; *) rest= ;; esac
done
umask 0222
{ printf '%s\n' "$identity" >/etc/machine-id; } 2>/dev/null || exit 0
""",
)
"""Gives the sandbox an identity of its own at its first start (machine-id(5)); no image has one."""

TRUSTED = BootStep(10, "trust", trust.SCRIPT)
ALWAYS = (IDENTIFIED, TRUSTED)
"""Steps of irons itself, run also at a start without the sandbox's own ones."""

STEPS = (SERVICES, HOOKED)
"""The sandbox's own steps."""

# The PATH of an image may lead to none of the programs that wait and keep the output: it is for the steps alone.
# The output's reader ends with the last program that holds the pipe, so that no service is ever written to death.
_DRIVER = (
    READING
    + f"""
irons_shell=$1
PATH={PATH}:{KIT_DIRECTORY} HOME=/root
export PATH HOME
cd /
irons_up() {{
  while read -r _ irons_at _ irons_state _; do
    case $irons_at:$irons_state in *:{SSH_PORT:04X}:0A) return 0 ;; esac
  done </proc/net/tcp
  return 1
}}
irons_tries=0
until irons_up || [ "$irons_tries" -ge 300 ]; do
  irons_tries=$((irons_tries + 1))
  sleep 0.1 || sleep 1
done
irons_steps() {{
  irons_machine
  unset irons_tries irons_at irons_state irons_line irons_name irons_value
  code=0
  for step in {CONFIG_DIRECTORY}/{DRIVER}-*; do
    [ -f "$step" ] || continue
    # Not handed on: what a service leaves open is the step's own output.
    "$irons_shell" "$step" </dev/null || {{
      failed=$?
      echo "irons: boot step ${{step##*-}} ended with exit code $failed"
      [ "$code" != 0 ] || code=$failed
    }}
  done
  echo "$code" >{CONFIG_DIRECTORY}/{REPORT}/{EXIT}
}}
irons_keep() {{
  trap '' TERM HUP
  cd {CONFIG_DIRECTORY}/{REPORT} || exit
  while dd bs=16384 count=1 of=new 2>/dev/null && [ -s new ]; do
    cat new >>{OUTPUT}
    if [ "$(wc -c <{OUTPUT})" -gt {2 * KEPT} ]; then
      tail -c {KEPT} {OUTPUT} >new
      mv new {OUTPUT}
    fi
  done
  # Without the programs above what is said is lost, and nobody is stopped by it.
  while read -r _; do :; done
}}
irons_steps 2>&1 | irons_keep
"""
)


def files(server: str, steps: Iterable[BootStep] | None, shell: str = SHELL) -> dict[str, str]:
    """The settings files of a start.

    Args:
        server: the command line of the SSH server, as text of sh(1).
        steps: the sandbox's own steps; None skips them.
        shell: path of the shell that runs them.
    """
    begun = f"{CONFIG_DIRECTORY}/{DRIVER}"
    first = f"[ ! -f {begun} ] || ({shell} {begun} {shell} </dev/null >/dev/null 2>&1 &)\nexec {server}\n"
    every = (*ALWAYS, *(steps or ()))
    named = {f"{DRIVER}-{step.order:02}-{step.name}": step.script for step in every}
    skipped = {SKIPPED: ""} if steps is None else {}
    return {FIRST: first, DRIVER: _DRIVER, **named, **skipped}
