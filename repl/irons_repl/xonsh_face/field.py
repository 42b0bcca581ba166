"""The prompt field `{irons}`: profile, egress mode and the sandbox in use, from what is on hand; it never waits."""

from __future__ import annotations

from collections.abc import Callable

from irons_repl.xonsh_face.face import Face


def field_of(face: Face) -> Callable[[], str]:
    """Return what xonsh calls for `{irons}` in `$PROMPT`."""

    def irons_field() -> str:
        from irons.client.names import NameCache
        from irons.client.refreshing import MODE, refresh_detached
        from irons.ending import ENDS, told
        from irons.errors import IronsError
        from irons.text import clean

        try:
            settings = face.settings()
        except IronsError:
            return "irons: configuration broken"
        refresh_detached(settings)
        mode = NameCache.of(settings, what="facts").read().get(MODE, "")
        sandbox = settings["sandbox"] or ""
        ends = told(NameCache.of(settings, what=ENDS).read(), sandbox)
        sandbox = f"{clean(sandbox, limit=30)} ({ends})" if ends else sandbox
        return " ".join(clean(part, limit=60) for part in (settings.profile, mode, sandbox) if part)

    return irons_field
