"""Variables of the caller's environment for a sandbox (`--env KEY`): named by the caller, never with a value in an argument list."""

from __future__ import annotations

import re
from collections.abc import Mapping

from irons.errors import UsageError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def variables_of(names: tuple[str, ...], env: Mapping[str, str], face: str = "cli") -> dict[str, str]:
    """Return the variables that `--env` names, by name.

    Args:
        names: What was given.
        env: The caller's environment.
        face: Who calls, by which a hint is one that can be followed there.

    Raises:
        UsageError: A value was given next to the name, a name is invalid, or the variable is not set here.
    """
    for name in names:
        if "=" in name:
            known = name.partition("=")[0]
            known = known if _VARIABLE.fullmatch(known) else "KEY"
            raise UsageError(
                "--env takes the name of a variable, not its value: others could read that in the argument list",
                hint=f"export {known}=…, then --env {known}",
            )
        if not _VARIABLE.fullmatch(name):
            raise UsageError(f"--env takes the name of a variable, not {name!r}")
        if name not in env:
            raise UsageError(f"--env {name}: it is not set here", hint=_how_to_set(name, face))
    return {name: env[name] for name in names}


def _how_to_set(name: str, face: str) -> str:
    return f"${name} = '…' sets it" if face == "xonsh" else f"export {name}=… sets it"


def checked_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a program names with their values. Raises `UsageError` where a name or value is invalid."""
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name):
            raise UsageError(f"{name!r} is not the name of a variable")
        if "\0" in value:
            raise UsageError(f"the value of {name} has a zero byte, which no variable can have")
    return dict(variables)
