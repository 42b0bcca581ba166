"""Where irons keeps its files, as the XDG Base Directory Specification 0.8 says; plain text, so that completion need not import more."""

from __future__ import annotations

import os
from collections.abc import Mapping


def home_directory(variable: str, fallback: str, env: Mapping[str, str]) -> str:
    """Return a base directory: the variable where it is an absolute path, else `fallback` below the home."""
    named = env.get(variable, "")
    if named.startswith("/"):
        return named
    return os.path.join(env.get("HOME") or os.path.expanduser("~"), fallback)  # noqa: PTH111, PTH118 - see above


def config_file(env: Mapping[str, str]) -> str:
    """Return where the configuration file is: `$IRONS_CONFIG`, else `$XDG_CONFIG_HOME/irons/config.toml`."""
    return env.get("IRONS_CONFIG") or f"{home_directory('XDG_CONFIG_HOME', '.config', env)}/irons/config.toml"
