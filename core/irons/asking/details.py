"""What a person is shown of a question before answering, beyond what is asked: one fact a line, the warnings first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from irons.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from irons.client.models.questions import OpenQuestion

WARNINGS: Final[dict[str, str]] = {
    "random": "the name looks made by a machine",
    "punycode": "the name stands for letters of another script",
    "paste": "known relay: anyone can paste there",
    "tunnel": "known relay: a tunnel to anyone's machine",
    "webhook": "known relay: a webhook passes on what it is sent",
    "doh": "known relay: DNS over HTTPS",
}
"""What each mark of a question means; others are of a later version."""


def details(question: OpenQuestion) -> list[str]:
    """Return what there is to say, from the name and from the audit log."""
    lines = [f"! {WARNINGS[each]}" for each in question.marks if each in WARNINGS]
    if question.new:
        lines.append("new: not tried before by this sandbox")
    if question.refused:
        lines.append(f"{question.refused:,} refused before, which a rule would let pass")
    if question.below:
        more = question.below_count - len(question.below)
        lines.append(f"also tried: {_named(question.below)}{f' and {more:,} more' if more > 0 else ''}")
    if question.preset:
        name, count = clean(question.preset), len(question.preset_hosts)
        lines.append(f"preset {name}, {count} {'host' if count == 1 else 'hosts'}: p shows and takes it")
    return lines


def _named(hosts: Iterable[str]) -> str:
    return ", ".join(map(clean, hosts))
