"""The presets that what is asked about belongs to, so that a person may take the set instead of one host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.client.models.questions import QuestionPage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from irons.client.models.questions import OpenQuestion
    from irons.host import PluginHost
    from irons.plugin.hook_data import Preset
    from irons.settings.settings import Settings
    from irons_policy.patterns import Pattern


def offers_of(host: PluginHost, settings: Settings, say: Callable[[str], None]) -> PresetOffers:
    """Return what finds the preset of a question, among those of irons and of plugins; `say` hears which is left out."""
    from irons.presets.collecting import presets
    from irons.presets.known_sets import OURS

    # No plugin's set stands in the place of one of ours, whatever its name is.
    return PresetOffers(sorted(presets(host, settings, say).values(), key=lambda preset: preset not in OURS))


class PresetOffers:
    """Finds the preset of a question.

    Args:
        presets: All that there are; of two with the same host the first is offered.
    """

    def __init__(self, presets: Iterable[Preset]) -> None:
        from irons_policy.patterns import read_pattern

        self._sets: list[tuple[Preset, tuple[str, ...], tuple[Pattern, ...]]] = [
            (each, hosts, tuple(map(read_pattern, hosts)))
            for each in presets
            for hosts in (tuple(host.pattern for host in each.hosts),)
        ]

    def page(self, page: QuestionPage) -> QuestionPage:
        """Return a page with the preset of each of its questions."""
        return page._replace(questions=tuple(map(self.question, page.questions)))

    def question(self, question: OpenQuestion) -> OpenQuestion:
        """Return a question with its preset, where it belongs to one."""
        from irons_policy.hostnames import HostError, canonical_host

        try:
            host = canonical_host(question.host)
        except HostError:
            return question
        for preset, hosts, patterns in self._sets:
            if any(each.covers_host(host) and each.covers_port(question.port or 0) for each in patterns):
                return question._replace(
                    preset=preset.name,
                    preset_hosts=hosts,
                    preset_version=preset.version,
                    preset_sends=preset.sends,
                )
        return question
