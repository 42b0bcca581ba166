"""The rules that a server lists, as the policy knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons_policy.rules import Rule, RuleError

if TYPE_CHECKING:
    from irons.client.models.egress import EgressRules
    from irons_policy.rules import Scope


def rules_of(found: EgressRules, scope: Scope) -> tuple[Rule, ...]:
    """Return the rules that a server has in one scope; those that this version can't read are left out."""
    rules: list[Rule] = []
    for listed in found.rules:
        try:
            rules.append(Rule.from_json({**listed._asdict(), "scope": scope}))
        except RuleError:
            continue
    return tuple(rules)
