"""What xonsh keeps between irons commands: the host, made when first needed, the open connection, the sandbox in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irons.api import Api
    from irons.command import Exec
    from irons.host import PluginHost
    from irons.settings import Settings

SANDBOX = "IRONS_SANDBOX"
_CONNECTION = ("api_url", "api_key", "connect_timeout", "read_timeout")


class Face:
    """One loaded xontrib. Implements `irons.context.Session`."""

    def __init__(self, xsh: Any) -> None:
        """Take xonsh's session object."""
        self.xsh = xsh
        self._host: PluginHost | None = None
        self._opened: tuple[tuple[object, ...], Api] | None = None

    def env(self) -> dict[str, str]:
        """Return the variables as a child process would get them; `os.environ` does not see what xonsh sets."""
        return dict(self.xsh.env.detype())

    @property
    def host(self) -> PluginHost:
        """The plugins and their commands."""
        if self._host is None:
            from irons.host import PluginHost

            self._host = PluginHost(env=self.env())
        return self._host

    def api(self, settings: Settings) -> Api:
        """Return the client these settings choose: the open one, unless they choose another backend."""
        from irons.api import open_api

        which = (*(settings[key] for key in _CONNECTION), settings.profile)
        if self._opened is None or self._opened[0] != which or settings.debug:
            self.close()
            self._opened = (which, open_api(settings, self.host))
        return self._opened[1]

    def execute(self, program: Exec) -> int:
        """Run another program; commands that do so own the terminal and are dispatched to a process of their own before."""
        import subprocess

        return subprocess.call(program.argv, env=dict(self.env() if program.env is None else program.env))

    def use(self, sandbox: str | None) -> None:
        """Make `sandbox` the one that is meant where none is named."""
        if sandbox:
            self.xsh.env[SANDBOX] = sandbox
        else:
            self.xsh.env.pop(SANDBOX, None)

    def close(self) -> None:
        """Close the connection."""
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None
