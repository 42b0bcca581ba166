"""What completion has on hand, for every face: the caches of one backend, the settings, this process's variables."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from irons.cli.completing import RemotePath, Sources
from irons.settings.xdg import config_file

if TYPE_CHECKING:
    from irons.host import PluginHost
    from irons.settings.settings import Settings


def sources_of(
    settings: Callable[[], Settings | None],
    read: Callable[[str], Mapping[str, str]],
    env: Callable[[], Mapping[str, str]],
    host: PluginHost,
) -> Sources:
    """Return the sources of a face; each is asked only where a value of its kind may come.

    Args:
        settings: Returns the settings that the words typed so far choose; None where they are invalid.
        read: Returns what a cache holds, by its name.
        env: Returns the face's environment.
        host: The plugins, which may bring kinds of values.
    """

    def of(what: str) -> Callable[[], Mapping[str, str]]:
        return lambda: read(what)

    def scoped(what: str) -> Callable[[str], Mapping[str, str]]:
        def found(scope: str) -> Mapping[str, str]:
            from irons.client.scoped_names import in_scope

            return in_scope(read(what), scope)

        return found

    def used() -> str | None:
        chosen = settings()
        return None if chosen is None else chosen["sandbox"]

    def aliases() -> Mapping[str, str]:
        if not os.path.exists(config_file(env())):  # noqa: PTH110 - pathlib would cost more than the look
            return {}
        chosen = settings()
        return {} if chosen is None else chosen.aliases

    def more(kind: str, sources: Sources) -> Mapping[str, str]:
        from irons.cli.plugin_values import values_of

        return values_of(host, settings)(kind, sources)

    def remote(where: RemotePath) -> Mapping[str, str]:
        from importlib import import_module

        chosen = settings()
        if chosen is None:
            return {}
        module, _, name = where.finder.partition(":")
        found: Mapping[str, str] = getattr(import_module(module), name)(chosen, where.sandbox, where.path)
        return found

    def profiles() -> Mapping[str, str]:
        from irons.settings.settings import profiles_in

        return profiles_in(env())

    return Sources(
        sandboxes=of("names"),
        domains=of("domains"),
        images=of("images"),
        snapshots=of("snapshots"),
        labels=of("labels"),
        aliases=aliases,
        rules=scoped("rules"),
        keys=scoped("keys"),
        used=used,
        profiles=profiles,
        settings=lambda: _settings(host),
        variables=lambda: {name: "" for name in sorted(env()) if name.isidentifier() and name != "_"},
        more=more,
        remote=remote,
    )


def _settings(host: PluginHost) -> Mapping[str, str]:
    from irons.settings.keys import KEYS

    return {
        **{name: key.help for name, key in KEYS.items()},
        **{
            f"plugins.{plugin}.{setting.name}": setting.help
            for plugin, declared in host.declared().items()
            for setting in declared
        },
    }
