"""Where irons keeps its files, as the XDG Base Directory Specification 0.8 says; plain text, so that completion need not import more."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

STATE: Final = ("XDG_STATE_HOME", ".local/state")
"""The variable of the base directory for what must last, and where that is below the home."""


def named_directory(variable: str, fallback: str, env: Mapping[str, str]) -> str | None:
    """Return a base directory: the variable where it is an absolute path, else `fallback` below `HOME`; None where neither is one."""
    named, home = env.get(variable, ""), env.get("HOME", "")
    if named.startswith("/"):
        return named
    return os.path.join(home, fallback) if home.startswith("/") else None  # noqa: PTH118 - see above


def home_directory(variable: str, fallback: str, env: Mapping[str, str]) -> str:
    """Return a base directory as `named_directory` does, else below the home of the user database."""
    named = named_directory(variable, fallback, env)
    return named or os.path.join(env.get("HOME") or os.path.expanduser("~"), fallback)  # noqa: PTH111, PTH118 - see above


def config_file(env: Mapping[str, str]) -> str:
    """Return where the configuration file is: `$IRONS_CONFIG`, else `$XDG_CONFIG_HOME/irons/config.toml`."""
    return env.get("IRONS_CONFIG") or f"{home_directory('XDG_CONFIG_HOME', '.config', env)}/irons/config.toml"


def plugin_directory(env: Mapping[str, str]) -> str:
    """Return where a person's plugins of a single file are: `$XDG_CONFIG_HOME/irons/plugins`."""
    return f"{home_directory('XDG_CONFIG_HOME', '.config', env)}/irons/plugins"
