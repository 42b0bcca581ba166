"""Process 1 of a guest whose image has no systemd: a script that the static busybox of the kernel kit runs.

It lays what every Linux machine has, runs the same steps as a namespace sandbox does at its start, keeps the SSH server running, reaps
what is left to it, and ends the machine cleanly: at the power button, or at the signals that busybox's `poweroff` and `reboot` send.
"""

from __future__ import annotations

from irons_local.bundle import boot_steps
from irons_local.bundle.oci import BUSYBOX, CONFIG_DIRECTORY, KIT_DIRECTORY, MODPROBE, PATH
from irons_local.bundle.session import READING

_NAME = "small-init"
_STEPS = "small-init-steps"
_BUTTON = "acpi/PWRF/00000080"
"""Where busybox's acpid looks for what to do when the power button was pressed."""

WORDS = f"{KIT_DIRECTORY}/{BUSYBOX} sh {CONFIG_DIRECTORY}/{_NAME}"
"""The words of process 1."""

# Of the image nothing is needed: the shell of the kit has every program in itself, before the search path.
_SCRIPT = f"""
PATH={PATH}:{KIT_DIRECTORY}
export PATH
cd /
mkdir -p /proc /sys /dev /tmp
[ -d /proc/1 ] || mount -t proc -o nosuid,noexec,nodev proc /proc
mount -t sysfs -o nosuid,noexec,nodev sysfs /sys
mount -t cgroup2 -o nosuid,noexec,nodev cgroup2 /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm /run/lock
mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /dev/shm
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
chmod 1777 /run/lock
chmod 666 /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/ptmx
[ ! -e /proc/sys/kernel/modprobe ] || echo {KIT_DIRECTORY}/{MODPROBE} >/proc/sys/kernel/modprobe
hostname -F /etc/hostname
how=
trap 'how=reboot' TERM INT
trap 'how=poweroff' USR1 USR2 PWR
{{
  for module in button evdev virtio_rng; do modprobe -q "$module"; done
  exec acpid -f -c {CONFIG_DIRECTORY}/acpi -l /dev/null -p /run/acpid.pid
}} </dev/null >/dev/null 2>&1 &
{{
  {KIT_DIRECTORY}/resize2fs /dev/vda >/dev/null 2>&1
  exec {{shell}} {CONFIG_DIRECTORY}/{_STEPS}
}} </dev/null &
while [ -z "$how" ]; do
  {{server}} </dev/null &
  server=$!
  wait "$server"
  [ -n "$how" ] || sleep 1
done
trap '' TERM INT USR1 USR2 PWR
others() {{
  for process in /proc/[0-9]*; do
    # Threads of the kernel have no program.
    [ "$process" = /proc/1 ] || [ ! -e "$process/exe" ] || return 0
  done
  return 1
}}
kill -TERM -1
tries=0
while others && [ "$tries" -lt 30 ]; do
  tries=$((tries + 1))
  sleep 0.1
done
kill -KILL -1
sync
mount -o remount,ro /
"$how" -f
"""
_BUTTON_SCRIPT = f"#!{KIT_DIRECTORY}/{BUSYBOX} sh\nkill -USR2 1\n"

_EACH = f"""{READING}
PATH={PATH}:{KIT_DIRECTORY} HOME=/root
export PATH HOME
cd /
irons_machine
unset irons_line irons_name irons_value
for step in {CONFIG_DIRECTORY}/{boot_steps.DRIVER}-*; do
  [ -f "$step" ] || continue
  {{shell}} "$step" </dev/null || echo "irons: boot step ${{step##*-}} ended with exit code $?"
done
"""


def files(server: str, shell: str, *, services: bool) -> dict[str, str]:
    """The settings files of a guest that starts by this init.

    Args:
        server: the command line of the SSH server, as text of sh(1).
        shell: path of the shell that runs the steps.
        services: run the sandbox's own steps too.
    """
    steps = boot_steps.files(server, boot_steps.STEPS if services else None, shell)
    kept = {name: text for name, text in steps.items() if name.startswith(f"{boot_steps.DRIVER}-")}
    return {
        **kept,
        _NAME: _SCRIPT.replace("{shell}", shell).replace("{server}", server),
        _STEPS: _EACH.replace("{shell}", shell),
        _BUTTON: _BUTTON_SCRIPT,
    }
