"""irons' settings as xonsh variables: their types, and what `$NAME?` says of them."""

from __future__ import annotations

from typing import Any

OTHERS = {
    "IRONS_PROFILE": ("str", "", "The profile of irons' configuration file to use."),
    "IRONS_CONFIG": ("str", "", "irons' configuration file itself."),
    "IRONS_NO_INPUT": ("bool", False, "Have irons never ask; it fails with what would have been asked."),
    "IRONS_PLACES": ("bool", True, "Whether each sandbox has an alias: @NAME runs a program in it."),
    "IRONS_PLUGINS": ("str", "", "The third-party plugins that irons loads, by name."),
}
"""Variables that are no settings of a profile: type, default, what they are."""


def register(xsh: Any) -> tuple[str, ...]:
    """Register the variables that xonsh does not know yet, and return their names."""
    from irons.settings.keys import KEYS

    wanted = {
        key.env: (
            "float" if key.type is float else "str",
            key.default if key.default is not None else "",
            f"irons: {key.help}",
        )
        for key in KEYS.values()
        if key.env
    }
    names: list[str] = []
    for name, (kind, default, doc) in {**wanted, **OTHERS}.items():
        if name in xsh.env._vars:  # noqa: SLF001 - there is no public way to ask
            continue
        xsh.env.register(name, type=kind, default=default, doc=doc)
        names.append(name)
    return tuple(names)


def deregister(xsh: Any, names: tuple[str, ...]) -> None:
    """Take them back."""
    for name in names:
        xsh.env.deregister(name)
