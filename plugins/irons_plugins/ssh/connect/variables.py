"""Variables of the caller's environment for a sandbox (`--env KEY`): named by the caller, never with a value in an argument list."""

from __future__ import annotations

import re
from collections.abc import Mapping

from irons.errors import UsageError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def variables_of(names: tuple[str, ...], env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that `--env` names, by name.

    Raises:
        UsageError: A value was given next to the name, a name is invalid, or the variable is not set here.
    """
    for name in names:
        if "=" in name:
            known = name.partition("=")[0]
            known = known if _VARIABLE.fullmatch(known) else "KEY"
            raise UsageError(
                "--env takes the name of a variable, not its value: others could read that in the argument list",
                hint=f"set it in the environment: {known}=… irons … --env {known}",
            )
        if not _VARIABLE.fullmatch(name):
            raise UsageError(f"--env takes the name of a variable, not {name!r}")
        if name not in env:
            raise UsageError(f"--env {name}: it is not set here", hint=f"export {name}=… sets it")
    return {name: env[name] for name in names}
