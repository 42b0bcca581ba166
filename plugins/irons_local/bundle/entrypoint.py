"""The boot step that runs an image's entrypoint: as the image's user, with its variables and in its directory.

The step comes back at once; the program goes on with the sandbox, prints to the boot log, and gets TERM at a stop. All that is
looked up for it (the account, its groups, the directory) is looked up inside, by the sandbox's own root.
"""

from __future__ import annotations

import shlex

from irons_local.bundle.boot_steps import REPORT, BootStep
from irons_local.bundle.image_config import ImageConfig
from irons_local.bundle.oci import CONFIG_DIRECTORY, KIT_DIRECTORY
from irons_local.bundle.session import READING
from irons_local.errors import EngineError

ORDER = 70
NAME = "entrypoint"
STATE = "entrypoint"
"""The file of the report that says `running`, then the exit code."""

RUNNING = "running"

_SCRIPT = r"""
irons_end() {
  echo "$1" >"$irons_state"
  exit "$1"
}
# The account, by name or number, and its groups; the group that the image names goes alone, as container engines have it.
irons_uid='' irons_gid=0 irons_home=/ irons_account=''
while IFS=: read -r irons_name _ irons_number irons_main _ irons_place _; do
  case $irons_asked in
  "$irons_name" | "$irons_number")
    irons_uid=$irons_number irons_gid=$irons_main irons_home=${irons_place:-/} irons_account=$irons_name
    break
    ;;
  esac
done </etc/passwd
if [ -z "$irons_uid" ]; then
  case $irons_asked in
  *[!0-9]*)
    echo "irons: the image runs its entrypoint as $irons_asked, and /etc/passwd has no such account"
    irons_end 126
    ;;
  esac
  irons_uid=$irons_asked
fi
irons_groups=''
while IFS=: read -r irons_name _ irons_number irons_members; do
  case $irons_group in
  '')
    case ,$irons_members, in *,"${irons_account:-:}",*) irons_groups=$irons_groups,$irons_number ;; esac
    ;;
  "$irons_name") irons_group=$irons_number ;;
  esac
done </etc/group
case $irons_group in
'') ;;
*[!0-9]*)
  echo "irons: the image runs its entrypoint in the group $irons_group, and /etc/group has no such group"
  irons_end 126
  ;;
*) irons_gid=$irons_group ;;
esac
irons_directory
HOME=$irons_home
export HOME
set -- --reuid "$irons_uid" --regid "$irons_gid" --groups "$irons_gid$irons_groups"
# So that programs can open /dev/stdout and /dev/stderr also as an ordinary user.
"${irons_kit}chown" "$irons_uid" /proc/self/fd/1 2>/dev/null
"""


def step(config: ImageConfig, *, kit: bool) -> BootStep:
    """The step that runs the entrypoint of an image.

    Args:
        config: what the image says of how its programs are run.
        kit: the machine is shown a kit.

    Raises:
        EngineError: the image names no entrypoint.
    """
    check(config, "the image")
    user, _, group = config.user.partition(":")
    values = {
        "irons_asked": user or "0",
        "irons_group": group,
        "irons_kit": f"{KIT_DIRECTORY}/" if kit else "",
        "irons_state": f"{CONFIG_DIRECTORY}/{REPORT}/{STATE}",
    }
    script = (
        READING
        + "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
        + _SCRIPT
        + f"""
set -- "${{irons_kit}}setpriv" "$@" -- {shlex.join(config.entrypoint)}
# A shell ignores INT and QUIT in what it starts in the background, and could not take that back itself; env(1) can since 8.31.
if "${{irons_kit}}env" --default-signal=INT,QUIT "${{irons_kit}}true" 2>/dev/null; then
  set -- "${{irons_kit}}env" --default-signal=INT,QUIT "$@"
fi
{{
  echo {RUNNING} >"$irons_state"
  "$@"
  irons_end "$?"
}} &
"""
    )
    return BootStep(ORDER, NAME, script)


def check(config: ImageConfig, image: str) -> None:
    """Refuse an image whose entrypoint cannot be run.

    Args:
        config: what the image says of how its programs are run.
        image: what to call it.

    Raises:
        EngineError: it names no entrypoint.
    """
    if not config.entrypoint:
        raise EngineError(
            "input",
            f"{image} names no entrypoint",
            "create it without --entrypoint; /etc/irons/boot is a program that runs at each start",
        )
