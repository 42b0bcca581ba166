"""Values that plugins complete: their own kinds, and their output formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irons.cli.completing import Sources
    from irons.host import PluginHost
    from irons.settings.settings import Settings


def values_of(
    host: PluginHost, settings: Callable[[], Settings | None]
) -> Callable[[str, Sources], Mapping[str, str]]:
    """Return what completion asks for a kind that irons does not know; a plugin that fails completes nothing.

    Args:
        host: The plugins.
        settings: Gives the settings of the call; None where they are invalid.
    """

    def values(kind: str, sources: Sources) -> Mapping[str, str]:
        if kind == "format":
            return dict.fromkeys(host.formats(), "")
        try:
            asked = host.own_completions().get(kind) or host.completions().get(kind)
            if asked is None:
                return {}
            from irons.plugin.hook_data import CompletionState

            owner, found = host.owner_of_kind(kind), settings()
            own = {} if owner is None or found is None else host.plugin_settings(owner, found)
            state = CompletionState(
                tuple(sources.before), sources.typed, sources.sandboxes(), sources.domains(), own
            )
            return {str(word): str(about) for word, about in asked(state).items()}
        except Exception:  # noqa: BLE001 - a stranger's code; at a key there is no place for its errors
            return {}

    return values
