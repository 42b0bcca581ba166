"""Which DNS questions of a sandbox the gateway itself may ask: SRV and TXT, of names that an allow rule covers."""

from __future__ import annotations

from typing import Literal

from irons_policy.hostnames import INTERNAL, Host
from irons_policy.policy import Policy
from irons_policy.rules import Rule

Kind = Literal["SRV", "TXT"]

_MOST_LABELS = 2
"""A service and its protocol (RFC 2782)."""
_MOST_LABEL = 16
"""Bytes: an underscore, and a service name (RFC 6335, section 5.1). Longer ones would carry words of the sandbox's."""


def owner_of(name: str) -> str:
    """The name that a question is about: without the leading labels that begin with an underscore (RFC 8552)."""
    labels = name.split(".")
    while labels and labels[0].startswith("_"):
        del labels[0]
    return ".".join(labels)


def question_rule(policy: Policy, name: str, kind: Kind) -> Rule | None:
    """The rule that lets a question leave; None where none does.

    Only an allow rule does, in every mode, on whichever port: what a name has in the DNS is not about one. A wildcard
    lets no TXT question leave, for whoever runs the DNS of a name below it could answer with anything. One deny rule
    for the name, on whichever port, keeps all questions in. More leading labels, or longer ones, than a service and its
    protocol have could tell the name's servers something, and are kept in too.

    Args:
        policy: of the sandbox that asks.
        name: canonical.
        kind: the type of the records.
    """
    owner = owner_of(name)
    if not owner or owner in {"localhost", INTERNAL}:
        return None
    service = name.split(".")[: -len(owner.split("."))]
    if len(service) > _MOST_LABELS or any(len(label) > _MOST_LABEL for label in service):
        return None
    rules = policy.rules_for(Host(owner))
    if any(rule.list == "deny" for rule in rules):
        return None
    return next((rule for rule in rules if kind == "SRV" or rule.pattern.kind == "name"), None)
