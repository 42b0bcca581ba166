"""irons for xonsh: `xontrib load irons`; loaded at every start by its entry point.

xonsh and the rest of irons are imported inside the functions only: this module costs nothing where there is no xonsh.
"""

from __future__ import annotations

import sys
from typing import Any

_COMPLETER = "irons"
_FIELD = "irons"
_LOADED = "_irons_loaded"
"""The attribute of xonsh's session that remembers what is to be taken back."""


def _load_xontrib_(xsh: Any, **_: object) -> dict[str, object]:
    """Add the aliases, the completer, the variables and the prompt field."""
    from xonsh.completers.completer import add_one_completer

    from irons_repl.xonsh_face.alias import aliases
    from irons_repl.xonsh_face.completion import completer_of
    from irons_repl.xonsh_face.face import Face
    from irons_repl.xonsh_face.field import field_of
    from irons_repl.xonsh_face.places import Places, listener_of
    from irons_repl.xonsh_face.questions import FaceQuestions, listeners_of
    from irons_repl.xonsh_face.variables import register

    face = Face(xsh)
    for name, alias in aliases(face).items():
        xsh.aliases[name] = alias
    places = Places(face)
    add_one_completer(_COMPLETER, completer_of(face, places), "<base")
    questions = FaceQuestions(face)
    xsh.env["PROMPT_FIELDS"][_FIELD] = field_of(face, lambda: questions.count)
    variables = register(xsh)
    places.keep_in_step()
    listener = listener_of(places)
    asking, resting = listeners_of(questions)
    for at_prompt in (listener, asking):
        xsh.builtins.events.on_pre_prompt(at_prompt)
    xsh.builtins.events.on_precommand(resting)
    setattr(xsh, _LOADED, (face, places, questions, (listener, asking, resting), variables))
    # Nothing named irons in the namespace: it would shadow the alias.
    return {}


def _unload_xontrib_(xsh: Any, **_: object) -> dict[str, object]:
    """Take it all back, modules included."""
    from irons_repl.xonsh_face.alias import aliases
    from irons_repl.xonsh_face.variables import deregister

    face, places, questions, listeners, variables = getattr(xsh, _LOADED)
    for listener in listeners:
        xsh.builtins.events.on_pre_prompt.discard(listener)
        xsh.builtins.events.on_precommand.discard(listener)
    places.remove()
    questions.remove()
    for name in aliases(face):
        xsh.aliases.pop(name, None)
    xsh.completers.pop(_COMPLETER, None)
    xsh.env["PROMPT_FIELDS"].pop(_FIELD, None)
    deregister(xsh, variables)
    face.close()
    delattr(xsh, _LOADED)
    for module in [
        name for name in sys.modules if name.partition(".")[0] == "irons_repl" and name != __name__
    ]:
        del sys.modules[module]
    return {}
