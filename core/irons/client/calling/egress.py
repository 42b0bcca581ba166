"""The calls about egress: rules, modes, and what the gateway would say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from irons.client.calling.calls import Calls, segment

if TYPE_CHECKING:
    from irons.client.models.egress import (
        CheckResult,
        EgressRules,
        ModeChanged,
        ModeInfo,
        NewPolicy,
        PolicyDiff,
        RulesChanged,
    )


class EgressCalls(Calls):
    """What `irons.client.api.Api` answers about egress; `sandbox` is whose rules and mode, None for those of all sandboxes."""

    def allow(
        self,
        domain: str,
        sandbox: str | None = None,
        *,
        private: Sequence[str] = (),
        note: str = "",
        broad: bool = False,
    ) -> RulesChanged:
        """Allow a domain; the keywords are those of `change_rules`, and need irons' own server."""
        return self.change_rules("allow", (domain,), sandbox, private=private, note=note, broad=broad)

    def deny(
        self, domain: str, sandbox: str | None = None, *, note: str = "", broad: bool = False
    ) -> RulesChanged:
        """Deny a domain; the keywords are those of `change_rules`, and need irons' own server."""
        return self.change_rules("deny", (domain,), sandbox, note=note, broad=broad)

    def remove_rule(self, pattern: str, sandbox: str | None = None) -> RulesChanged:
        """Take a rule out of its list; needs irons' own server."""
        return self.change_rules("remove", (pattern,), sandbox)

    def change_rules(
        self,
        kind: Literal["allow", "deny", "remove"],
        patterns: Sequence[str],
        sandbox: str | None = None,
        *,
        private: Sequence[str] = (),
        note: str = "",
        broad: bool = False,
        seconds: int | None = None,
        until: str = "",
        dry_run: bool = False,
    ) -> RulesChanged:
        """Allow, deny or remove patterns in one request: all of them, or none.

        More than one pattern, and `dry_run`, need a server with the extension `rule-batches`: any other one would carry out
        a dry run.

        Args:
            kind: What is done.
            patterns: One at least.
            sandbox: Whose rules; None for those of all sandboxes.
            private: Networks that allowed names may lead to.
            note: Kept with each rule.
            broad: Accept wildcards over private public suffixes.
            seconds: After which each rule ends by itself; needs the extension `timed-rules`, as `until` does.
            until: When each rule ends by itself: an RFC 3339 time, or `stop`, for when the sandbox stops.
            dry_run: Change nothing; the answer is what it would be.
        """
        from irons.client.models.egress import RulesChanged

        params = {"dry_run": "true"} if dry_run else {}
        if kind == "remove" and len(patterns) == 1:
            params["domain"] = patterns[0]
            answer = self.call("DELETE", f"{_egress(sandbox)}/rules", params=params, route=True)
        else:
            which = {"domain": patterns[0]} if len(patterns) == 1 else {"domains": list(patterns)}
            more = {"private": list(private), "note": note, "broad": broad, "for": seconds, "until": until}
            body = {**which, **{key: value for key, value in more.items() if value}}
            route = sandbox is not None or kind == "remove"
            answer = self.call(
                "POST",
                f"{_egress(sandbox)}/{kind}",
                body,
                params=params,
                removes=kind == "remove",
                route=route,
            )
        return RulesChanged.of(answer, patterns)

    def rules(self, sandbox: str | None = None) -> EgressRules:
        """The allow and deny lists, of all sandboxes or of one."""
        from irons.client.models.egress import EgressRules

        return EgressRules.of(self.call("GET", _egress(sandbox), route=sandbox is not None))

    def replace_rules(
        self, policy: NewPolicy, sandbox: str | None = None, *, dry_run: bool = False
    ) -> PolicyDiff:
        """Put a whole policy in place at once; needs irons' own server.

        A policy with the `revision` of the rules it was made of is refused with `Conflict` where they have changed since.
        """
        from irons.client.models.egress import PolicyDiff

        params = {"dry_run": "true"} if dry_run else None
        return PolicyDiff.of(self.call("PUT", _egress(sandbox), policy, params=params, route=True))

    def mode(self, sandbox: str | None = None) -> ModeInfo:
        """The egress mode."""
        from irons.client.models.egress import ModeInfo

        return ModeInfo.of(self.call("GET", f"{_egress(sandbox)}/mode", route=sandbox is not None), sandbox)

    def is_mode_undecided(self) -> bool:
        """Tell whether no sandbox was ever created and the mode of all sandboxes was never set; False where the server does not say."""
        return self.call("GET", "/egress/mode").get("undecided") is True

    def set_mode(self, mode: str | None, sandbox: str | None = None, *, dry_run: bool = False) -> ModeChanged:
        """Set the egress mode; None makes a sandbox follow the mode of all again.

        With `dry_run` nothing changes, and the answer is what it would be; needs the extension `rule-batches`.
        """
        from irons.client.models.egress import ModeChanged

        params = {"dry_run": "true"} if dry_run else None
        path, route = f"{_egress(sandbox)}/mode", sandbox is not None
        return ModeChanged.of(self.call("PUT", path, {"mode": mode}, params=params, route=route))

    def check(self, host: str, sandbox: str | None = None, *, live: bool = False) -> CheckResult:
        """What the gateway would say of a host, and with `live` how it reaches it; needs irons' own server."""
        from irons.client.models.egress import CheckResult

        params = {
            "host": host,
            **({"sandbox": sandbox} if sandbox else {}),
            **({"live": "true"} if live else {}),
        }
        return CheckResult.of(self.call("GET", "/egress/check", params=params, route=True), host)


def _egress(sandbox: str | None) -> str:
    return f"/sandboxes/{segment(sandbox)}/egress" if sandbox else "/egress"
