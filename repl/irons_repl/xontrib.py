"""irons for xonsh: `xontrib load irons`; loaded at every start by its entry point.

xonsh is imported inside the functions only, so that this module costs nothing where there is no xonsh.
"""

from __future__ import annotations

from typing import Any


def _load_xontrib_(xsh: Any, **_: object) -> dict[str, object]:
    """Add the alias and its completer."""
    from xonsh.completers.completer import add_one_completer

    from irons_repl.xonsh_face.alias import IN_PROCESS, dispatcher, runner
    from irons_repl.xonsh_face.completion import completer_of
    from irons_repl.xonsh_face.face import Face

    face = Face(xsh)
    xsh.aliases[IN_PROCESS] = runner(face)
    xsh.aliases["irons"] = dispatcher(face)
    add_one_completer("irons", completer_of(face), "<base")
    # Nothing named irons in the namespace: it would shadow the alias.
    return {}


def _unload_xontrib_(xsh: Any, **_: object) -> dict[str, object]:
    """Take it all away again."""
    from irons_repl.xonsh_face.alias import IN_PROCESS

    for alias in ("irons", IN_PROCESS):
        xsh.aliases.pop(alias, None)
    xsh.completers.pop("irons", None)
    return {}
