"""The presets that what is asked about belongs to, so that a person may take the set instead of one host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.client.models.questions import QuestionPage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from irons.client.models.questions import OpenQuestion
    from irons.plugin.hook_data import Preset
    from irons_policy.patterns import Pattern


class PresetOffers:
    """Finds the preset of a question.

    Args:
        presets: All that there are; of two with the same host the first is offered.
    """

    def __init__(self, presets: Iterable[Preset]) -> None:
        from irons_policy.patterns import read_pattern

        self._sets: list[tuple[str, tuple[str, ...], tuple[Pattern, ...]]] = [
            (each.name, hosts, tuple(map(read_pattern, hosts)))
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
        for name, hosts, patterns in self._sets:
            if any(each.covers_host(host) and each.covers_port(question.port or 0) for each in patterns):
                return question._replace(preset=name, preset_hosts=hosts)
        return question
