"""OpenSSH configuration that knows sandboxes as `NAME.irons`: one file a sandbox, and one Include line for all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from irons.errors import ConfigError, UsageError
from irons.files import make_private, write_whole

if TYPE_CHECKING:
    from irons.settings.settings import Settings
    from irons_plugins.ssh.connect.connect_info import Entrance

MARK = "# irons: sandboxes by name, as NAME.irons (irons ssh-config --uninstall takes this away)"
"""Stands above the Include line."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CLEAR = """\
  # The rest of the configuration forwards ports of the sandbox's side to this one: a way round the gateway.
  ClearAllForwardings yes
"""


def block(name: str, way: Entrance, *, clear: bool = False) -> str:
    """Return the Host block of a sandbox; with `clear` it also undoes every port forwarding, those of the command line included.

    Raises:
        UsageError: The name cannot be a host name in OpenSSH's configuration.
    """
    lines = [
        f"Host {host_of(name)}\n",
        f"  HostName {way.target.host}\n",
        f"  Port {way.target.port}\n",
        f"  User {way.target.user}\n",
        # A ControlPath of the person's own is theirs to share.
        *(f"  {key} {value}\n" for key, value in way.options if key != "ControlPath"),
        "  RemoteCommand none\n",
        "  GSSAPIDelegateCredentials no\n",
    ]
    return "".join(lines) + (_CLEAR if clear else "")


def host_of(name: str) -> str:
    """Return what OpenSSH calls a sandbox. Raises `UsageError` where its name has characters that mean something else there."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} can't be a host name in OpenSSH's configuration")
    return f"{name}.irons"


class Installed:
    """The files that OpenSSH reads: a directory of blocks, and the Include line in the person's configuration."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings whose home and state directory are meant."""
        env = settings.env
        home = Path(env["HOME"]) if env.get("HOME") else Path.home()
        self.config = home / ".ssh" / "config"
        self.blocks = settings.state_dir / "ssh" / "config.d"

    @property
    def _made(self) -> Path:
        """There while the person's configuration is one that irons made."""
        return self.blocks / ".made"

    @property
    def include(self) -> str:
        """The line that has OpenSSH read the blocks."""
        pattern = f"{self.blocks}/*.conf"
        return f'Include "{pattern}"' if " " in pattern else f"Include {pattern}"

    def __bool__(self) -> bool:
        return self.include in self._lines()

    def install(self) -> None:
        """Put the Include line at the top of the configuration, where nothing before it can win. Raises `ConfigError`."""
        try:
            make_private(self.blocks)
            make_private(self.config.parent)
        except OSError as error:
            raise ConfigError(f"{error.filename} can't be made: {error.strerror}") from None
        if not self:
            if not self.config.exists():
                self._made.touch(mode=0o600)
            self._write([MARK, self.include, "", *self._lines()])

    def uninstall(self) -> bool:
        """Take the Include line and the blocks away; tell whether they were there. Raises `ConfigError`."""
        there = bool(self)
        if there:
            kept = [line for line in self._lines() if line not in (MARK, self.include)]
            kept = kept[1:] if kept and not kept[0] else kept
            if self._made.exists() and not any(kept):
                self.config.unlink()
            else:
                self._write(kept)
            self._made.unlink(missing_ok=True)
        for path in self.blocks.glob("*.conf"):
            path.unlink(missing_ok=True)
        return there

    def put(self, name: str, text: str) -> None:
        """Write a sandbox's block. Raises `ConfigError`."""
        host_of(name)
        path = self.blocks / f"{name}.conf"
        try:
            write_whole(path, text)
        except OSError as error:
            raise ConfigError(f"{path} can't be written: {error.strerror}") from None

    def forget(self, name: str) -> None:
        """Take a sandbox's block away."""
        if _NAME.fullmatch(name):
            (self.blocks / f"{name}.conf").unlink(missing_ok=True)

    def forwards_back(self, env: Mapping[str, str]) -> bool:
        """Tell whether the person's own configuration would forward ports of a sandbox's side to this one."""
        if not self.config.is_file():
            return False
        # Each create asks whether the blocks are installed, and few go on to here: these take as long to import as its request.
        import subprocess
        import tempfile

        # The blocks would hide it: what counts is the rest.
        rest = "".join(f"{line}\n" for line in self._lines() if line != self.include)
        with tempfile.NamedTemporaryFile("w", prefix="irons-ssh-", errors="surrogateescape") as file:
            file.write(rest)
            file.flush()
            words = ["ssh", "-F", file.name, "-G", "--", "any.irons"]
            try:
                done = subprocess.run(
                    words,
                    env=dict(env),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=30,
                    check=True,
                )
            except (OSError, subprocess.SubprocessError):
                return False
        return any(line.startswith(b"remoteforward ") for line in done.stdout.splitlines())

    def _lines(self) -> list[str]:
        try:
            text = self.config.read_text(errors="surrogateescape")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigError(f"{self.config} can't be read: {error.strerror}") from None
        return text.removesuffix("\n").split("\n") if text else []

    def _write(self, lines: list[str]) -> None:
        """Write the person's configuration again, through a link to where it really is, its mode kept."""
        real = self.config.resolve()
        try:
            mode = real.stat().st_mode & 0o777 if real.exists() else 0o600
            write_whole(real, "".join(f"{line}\n" for line in lines), mode=mode, durable=True)
        except OSError as error:
            raise ConfigError(f"{self.config} can't be written: {error.strerror}") from None
