"""The systemd user unit that keeps the backend up: rendered here, checked by `systemd-analyze` where there is one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from irons.errors import LocalError
from irons.settings.settings import home_of

NAME = "irons.service"
_SYSTEMD_WITHIN = 20.0

_UNIT = """\
# Written by `irons local service install`; removed by `irons local uninstall`.
[Unit]
Description=irons: sandboxes behind an airtight egress gateway

[Service]
Type=exec
ExecStart={command}
# Sandboxes outlive the daemon: only its own processes are stopped with it.
KillMode=process
Restart=on-failure
RestartSec=1
# Lets the backend give each sandbox limits of its own (cgroup v2).
Delegate=yes

[Install]
WantedBy=default.target
"""


def unit_path(env: Mapping[str, str]) -> Path:
    """Return where the user's unit lies."""
    return home_of("XDG_CONFIG_HOME", ".config", env) / "systemd" / "user" / NAME


def render(python: str) -> str:
    """Return the unit's text, for the interpreter that runs irons (an absolute path)."""
    return _UNIT.format(command=f"{quoted(python)} -m irons local up --foreground")


def write(env: Mapping[str, str], python: str) -> Path:
    """Write the unit and return its path.

    Raises:
        LocalError: It can't be written.
    """
    path = unit_path(env)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(python))
    except OSError as error:
        raise LocalError(f"{path} can't be written: {error.strerror}") from None
    return path


def remove(env: Mapping[str, str]) -> None:
    """Disable the unit and remove it, with the link by which it was enabled; none is not an error.

    Raises:
        LocalError: It can't be removed.
    """
    path = unit_path(env)
    link = path.parent / "default.target.wants" / NAME
    if not path.exists() and not link.is_symlink():
        return
    control = shutil.which("systemctl", path=env.get("PATH"))
    if control is not None:
        # Where the user's systemd does not run there is nothing to disable but the link.
        with suppress(subprocess.TimeoutExpired, OSError):
            words = [control, "--user", "disable", "--now", NAME]
            subprocess.run(words, capture_output=True, check=False, timeout=_SYSTEMD_WITHIN)
    try:
        for each in (link, path):
            each.unlink(missing_ok=True)
    except OSError as error:
        raise LocalError(f"{path} can't be removed: {error.strerror}") from None


def runs_machine(run: Path = Path("/run")) -> bool:
    """Return whether systemd is this machine's first process, as sd_booted(3) finds out."""
    return (run / "systemd/system").is_dir()


def complaint(path: Path, env: Mapping[str, str]) -> str:
    """Return what is wrong with the unit by systemd-analyze (empty: nothing, or there is none here).

    It judges no unit where no systemd of this user runs: it complains of that alone, so it is not asked there.
    """
    checker = shutil.which("systemd-analyze", path=env.get("PATH"))
    if checker is None:
        return ""
    if not (Path(env.get("XDG_RUNTIME_DIR") or "/nonexistent") / "systemd").is_dir():
        return "no systemd of yours runs, so the unit is untested: log in, or have one started by loginctl enable-linger"
    try:
        done = subprocess.run(
            [checker, "--user", "verify", str(path)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_SYSTEMD_WITHIN,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        return f"systemd-analyze did not check the unit: {error}"
    return done.stderr.strip()


def quoted(word: str) -> str:
    """Return a word of ExecStart= as systemd.service(5) asks: percent and dollar doubled, quoted where it has white space."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(c.isspace() for c in word) else escaped
