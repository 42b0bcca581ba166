"""A whole policy in place of the one that was read, so that nothing which others change in between is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from irons.errors import Conflict
from irons.record import NamedTuple

if TYPE_CHECKING:
    from irons.client.models.egress import EgressRules, NewPolicy, PolicyDiff
    from irons.context import Context
    from irons_plugins.egress.rows import Drift
    from irons_policy.rules import Rule

_TRIES = 5


class Replacement(NamedTuple):
    """What a new policy changes, and the request that puts it in place of the one it was made of.

    `followers` counts the sandboxes that a policy of all is for, once it is in place, where the server says it.
    """

    changes: tuple[Drift, ...]
    body: NewPolicy
    followers: int | None = None


def body_of(
    read: EgressRules, rules: Iterable[Rule], mode: str | None, never: Iterable[str] | None = None
) -> NewPolicy:
    """Return the request that puts `rules`, and a mode and what no person is asked about if given, in place of what was read, and of nothing else.

    A server without revisions takes it even where others changed the rules in between.
    """
    body: NewPolicy = {"rules": [rule.to_request() for rule in rules]}
    if mode is not None:
        body["mode"] = mode
    if never is not None:
        body["never"] = list(never)
    if read.revision:
        body["revision"] = read.revision
    return body


def replace(
    ctx: Context,
    sandbox: str | None,
    plan: Callable[[], Replacement],
    agree: Callable[[Replacement, PolicyDiff], bool],
    *,
    asks: bool,
) -> Replacement:
    """Plan, say what it would do, and do it; where another was quicker, plan again from what is there now.

    Args:
        ctx: The call's context.
        sandbox: Whose policy; None for the account's.
        plan: Reads the policy active and makes the new one.
        agree: Gets the plan and the server's forecast, before it is done; False leaves all as it is.
        asks: A person agreed to just this plan: then it is not made again behind their back.

    Raises:
        Conflict: Someone else changed it after the person had agreed, or others keep changing it.
    """
    for _ in range(_TRIES):
        made = plan()
        if not made.changes:
            return made
        try:
            forecast = ctx.api.replace_rules(made.body, sandbox, dry_run=True)
        except Conflict:
            continue
        if not agree(made, forecast):
            return made
        try:
            done = ctx.api.replace_rules(made.body, sandbox)
        except Conflict:
            if asks:
                break
        else:
            if "mode" in made.body:
                from irons.client.refreshing import refresh_after_change

                refresh_after_change(ctx.api, ctx.settings)
            return made._replace(followers=done.followers)
    whose = f"the rules of {sandbox or 'all sandboxes'}"
    raise Conflict(f"{whose} changed in between; this command changed nothing", hint="run it again")
