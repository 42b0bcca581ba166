"""Rules made and unmade for the live view, by the client."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from irons.errors import ApiError, Conflict
from irons.record import NamedTuple
from irons_policy.rules import Rule, RuleError
from irons_repl.forecast.listed_rules import rules_of
from irons_repl.watch.standing import KnownRules
from irons_repl.watch.state import RuleEdit

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons.client.models.egress import EgressRules, ListedRule, NewPolicy
    from irons_policy.rules import RuleRequest
    from irons_repl.watch.standing import Proposal

TRIES = 5
"""Times that a change is made again where other rules changed in between."""


class Undone(NamedTuple):
    """What came of undoing: what to say, and whether the change is done with."""

    text: str
    gone: bool = True


class Reading(NamedTuple):
    """Rules, and the state of each scope that they were read in."""

    standing: KnownRules
    revisions: tuple[str, str]


def read_standing(api: Api, sandbox: str | None, before: Reading | None = None) -> Reading:
    """Read the rules that are for a sandbox, or for all; where nothing has changed it is what was read before.

    Raises:
        IronsError: The server did not answer, or has no such sandbox.
    """
    own = api.rules(sandbox) if sandbox is not None and "rules" in api.extensions else None
    every = api.rules()
    revisions = every.revision, own.revision if own is not None else ""
    if before is not None and every.revision and revisions == before.revisions:
        return before
    rules = (*rules_of(every, "account"), *(rules_of(own, "sandbox") if own is not None else ()))
    return Reading(KnownRules(sandbox, rules), revisions)


def apply(api: Api, proposal: Proposal) -> tuple[str, RuleEdit | None]:
    """Make the rule that was asked for; return what to say, and the change, where there was any.

    Raises:
        IronsError: The server did not answer, or refused.
    """
    before = _row(api.rules(proposal.sandbox), proposal.pattern)
    done = api.change_rules(
        proposal.verb, [proposal.pattern], proposal.sandbox, private=proposal.private, note=proposal.note
    )
    after = _row(api.rules(proposal.sandbox), proposal.pattern)
    word = "allowed" if proposal.verb == "allow" else "denied"
    text = f"{word} for {proposal.scope}: {proposal.rule}"
    if done.cut:
        text += f" ({done.cut} live connection{'s' if done.cut != 1 else ''} cut)"
    if proposal.verb == "deny" and (done.mode or api.mode(proposal.sandbox).mode) == "warn":
        text += "; mode warn blocks nothing yet"
    if before == after:
        return text, None
    return f"{text}; u undoes it", RuleEdit(proposal, before, after)


def undo(api: Api, change: RuleEdit) -> Undone:
    """Put a rule back as it was, only if it still is as the change left it.

    Raises:
        IronsError: The server did not answer, or refused.
    """
    pattern, sandbox = change.proposal.pattern, change.proposal.sandbox
    if "policy" not in api.extensions:
        return Undone("This server can't put a rule back", gone=False)
    for _ in range(TRIES):
        found = api.rules(sandbox)
        if _row(found, pattern) != change.after:
            return Undone(f"Not undone: {pattern} has been changed since, for {change.proposal.scope}")
        kept = [rule for rule in found.rules if rule.pattern != pattern]
        try:
            rules = [_request(rule) for rule in (*kept, *((change.before,) if change.before else ()))]
        except RuleError as error:
            return Undone(f"Not undone: the server has a rule that irons can't read: {error}", gone=False)
        body: NewPolicy = {"rules": rules}
        if found.revision:
            body["revision"] = found.revision
        try:
            api.replace_rules(body, sandbox)
        except Conflict:
            # Another rule, or the mode, changed between the two requests: this one is looked at again.
            continue
        except ApiError as error:
            ended = _ended(change.before) if error.status == 400 else ""
            if not ended:
                raise
            return Undone(f"Not undone: the rule that was there ended at {ended}")
        return Undone(f"undone for {change.proposal.scope}: {change.proposal.verb} {change.proposal.rule}")
    raise ApiError("the rules change all the time; nothing was undone")


def _row(found: EgressRules, pattern: str) -> ListedRule | None:
    """Return the rule of a pattern, with its time, by which it differs from one that was made again."""
    rule = next((rule for rule in found.rules if rule.pattern == pattern), None)
    # How long it still stays is not what it is.
    return None if rule is None else rule._replace(left=None)


def _ended(rule: ListedRule | None) -> str:
    """Return when a rule ended by itself, on this machine's clock, with the day where that is another one; empty where it has not."""
    until = None if rule is None else Rule.from_json(rule._asdict()).until
    now = datetime.now().astimezone()
    if until is None or until.at is None or until.at > now.timestamp() * 1_000_000:
        return ""
    end = datetime.fromtimestamp(until.at / 1_000_000).astimezone()
    return f"{end:%H:%M}" if end.date() == now.date() else f"{end:%Y-%m-%d %H:%M}"


def _request(rule: ListedRule) -> RuleRequest:
    """Return a rule as a request carries it."""
    return Rule.from_json(rule._asdict()).to_request()
