"""All known sets of hosts: those of irons, and those that plugins bring, checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from irons.plugin.hook_data import Preset, PresetHost
from irons.presets.known_sets import OURS
from irons.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from irons.host import PluginHost
    from irons.settings.settings import Settings

_LONGEST_NAME = 50
_MOST_PRESETS = 500
"""Of one plugin."""
_MOST_HOSTS = 500
"""In a preset of a plugin: each becomes a rule."""


def presets(host: PluginHost, settings: Settings, say: Callable[[str], None]) -> Mapping[str, Preset]:
    """Return all presets by name: irons' own, and those of plugins, which can't take a name that is taken.

    A plugin's preset whose hosts are not patterns is left out, and `say` hears why.
    """
    found = {preset.name: preset for preset in OURS}
    for info, answer in host.answers("irons_presets", settings, warn=say):
        for preset, why in _checked(answer):
            if why or preset is None or preset.name in found:
                name = clean(preset.name, limit=50) if preset is not None else "one of its presets"
                say(f"plugin {clean(info.name)}: {name} is left out: {why or 'the name is taken'}")
            else:
                found[preset.name] = preset
    return dict(sorted(found.items()))


def _checked(answer: object) -> Iterator[tuple[Preset | None, str]]:
    """Each preset of a plugin, and why it can't be one; empty where it can."""
    if isinstance(answer, str) or not isinstance(answer, Iterable):
        yield None, "it is not a list of presets"
        return
    try:
        given = list(islice(answer, _MOST_PRESETS))
    except Exception as error:  # noqa: BLE001 (a generator of a plugin's raises what it likes)
        yield None, clean(f"{type(error).__name__}: {error}", limit=200)
        return
    for each in given:
        if not isinstance(each, Preset) or not _is_plain(each.name):
            yield None, "it is not a Preset with a plain name"
            continue
        try:
            checked = _whole(each)
        except ValueError as error:
            yield each, clean(str(error), limit=200)
        else:
            yield checked, ""


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and len(name) <= _LONGEST_NAME and name.replace("-", "_").isidentifier()


def _whole(preset: Preset) -> Preset:
    """A preset of a plugin with its patterns in their one spelling, each once. Raises `ValueError` with what is wrong."""
    from irons_policy.patterns import PatternError, parse_pattern

    given: object = preset.hosts
    if not isinstance(given, tuple | list) or not 1 <= len(given) <= _MOST_HOSTS:
        raise ValueError(f"its hosts are not a tuple of 1 to {_MOST_HOSTS} PresetHost")
    if not all(isinstance(text, str) for text in (preset.version, preset.what, preset.sends)):
        raise ValueError("its version, what and sends are not text")
    hosts: dict[str, PresetHost] = {}
    for host in given:
        if not isinstance(host, PresetHost) or not all(isinstance(text, str) for text in host):
            raise ValueError(f"{clean(repr(host), limit=50)} is not a PresetHost of texts")
        try:
            pattern = parse_pattern(host.pattern).text
        except PatternError as error:
            raise ValueError(f"{clean(repr(host.pattern), limit=80)}: {error}") from None
        hosts.setdefault(pattern, host._replace(pattern=pattern))
    return preset._replace(hosts=tuple(hosts.values()))
