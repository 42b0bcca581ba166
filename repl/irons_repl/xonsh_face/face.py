"""What xonsh keeps between irons commands: the host, made when first needed, the open connection, the sandbox in use."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons.command import Exec
    from irons.host import PluginHost
    from irons.settings.settings import Settings
    from irons_repl.run.connections import Connections

SANDBOX = "IRONS_SANDBOX"


class Face:
    """One loaded xontrib. Implements `irons.context.Session`.

    Attributes:
        used: The sandbox that `use` chose last; None where it chose none.
    """

    def __init__(self, xsh: Any) -> None:
        """Take xonsh's session object."""
        self.xsh = xsh
        self.used: str | None = None
        self._host: PluginHost | None = None
        self._connections: Connections | None = None
        self._making = threading.RLock()

    def env(self) -> dict[str, str]:
        """Return the variables as a child process would get them; `os.environ` does not see what xonsh sets."""
        return dict(self.xsh.env.detype())

    @property
    def host(self) -> PluginHost:
        """The plugins and their commands."""
        return self._host or self.made_with(self.env())

    def made_with(self, env: Mapping[str, str]) -> PluginHost:
        """Return the host; make it with these variables the first time. A thread calls this, and must not read the variables of xonsh."""
        with self._making:
            if self._host is None:
                from irons.host import PluginHost

                self._host = PluginHost(env=env)
            return self._host

    def settings(self, *, in_passing: bool = False) -> Settings:
        """Return what holds now; `in_passing` starts no local backend. Raises `ConfigError`."""
        from irons.settings.settings import load

        return load({}, {**self.env(), "IRONS_NO_START": "1"} if in_passing else self.env())

    def api(self, settings: Settings) -> Api:
        """Return the client these settings choose: the open one, unless they choose another backend. Threads may share it."""
        with self._making:
            if self._connections is None:
                from irons_repl.run.connections import Connections

                self._connections = Connections(self.host, lambda line: print(line, file=sys.stderr))
        return self._connections.api(settings)

    def execute(self, program: Exec) -> int:
        """Run another program; commands that do so own the terminal, so they are dispatched to a process of their own before."""
        import subprocess

        return subprocess.call(program.argv, env=dict(self.env() if program.env is None else program.env))

    def use(self, sandbox: str | None) -> None:
        """Make `sandbox` the one that is meant where none is named."""
        self.used = sandbox
        if sandbox:
            self.xsh.env[SANDBOX] = sandbox
        else:
            self.xsh.env.pop(SANDBOX, None)

    def close(self) -> None:
        """Close the connection."""
        if self._connections is not None:
            self._connections.close()
