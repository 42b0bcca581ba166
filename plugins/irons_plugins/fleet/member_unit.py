"""The systemd unit that keeps a member up: one of the machine's, since a member is root's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from irons.errors import LocalError
from irons_plugins.local.systemd import quoted

NAME = "irons-member.service"
DIRECTORY = Path("/etc/systemd/system")
_KEPT = ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "IRONS_CONFIG")
"""What says where a member's state and settings are; systemd itself gives a service none of it."""

_UNIT = """\
# Written by `irons member service install`.
[Unit]
Description=irons: a member of a fleet
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
{environment}ExecStart={command}
# Sandboxes outlive the daemon: only its own processes are stopped with it.
KillMode=process
Restart=on-failure
RestartSec=1
# Lets the backend give each sandbox limits of its own (cgroup v2).
Delegate=yes

[Install]
WantedBy=multi-user.target
"""


def render(env: Mapping[str, str], python: str) -> str:
    """Return the unit's text, for the interpreter that runs irons (an absolute path)."""
    # A dollar sign means nothing there (systemd.exec(5)).
    words = [quoted(f"{name}={env[name]}").replace("$$", "$") for name in _KEPT if env.get(name)]
    kept = "".join(f"Environment={word}\n" for word in words)
    return _UNIT.format(environment=kept, command=f"{quoted(python)} -m irons member run")


def write(env: Mapping[str, str], python: str) -> Path:
    """Write the unit and return its path.

    Raises:
        LocalError: It can't be written.
    """
    path = DIRECTORY / NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(env, python))
    except OSError as error:
        raise LocalError(f"{path} can't be written: {error.strerror}") from None
    return path
