"""What to tell a person about a refusal: the command that would let it pass."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final

from irons_policy import floor
from irons_policy.addresses import Address, network_of, unmapped
from irons_policy.causes import Cause
from irons_policy.hostnames import Host, HostError, canonical_host
from irons_policy.patterns import PatternError, narrowest, parse_pattern
from irons_policy.policy import Decision

NOTES: Final[Mapping[Cause, str]] = {
    Cause.RULE: "",
    Cause.UNCOVERED: "",
    Cause.FLOOR: "only --private on a rule for it opens that address",
    Cause.NEVER: "no rule opens it",
    Cause.CAP: "a limit was reached, which no rule lifts; it passes when fewer are open",
    Cause.MALFORMED: "the program must send it well formed; no rule changes that",
    Cause.PROTOCOL: "the program must speak what this port is for; no rule changes that",
    Cause.SECOND_NAME: "the program must open a connection to each name; no rule changes that",
    Cause.UNRESOLVED: "this machine found no address for the name: check its spelling, DNS, or [local.hosts]",
    Cause.UNREACHED: "no server answered: check that it runs and that this machine reaches it",
    Cause.NO_POLICY: "the gateway was not ready; try again, and see irons local status",
    Cause.ASKED: "a person was asked; a rule decides without a question",
    Cause.JOURNAL: "nothing passes that cannot be recorded: free some disk space",
}
"""What to know about each cause, next to the command that a rule's refusal has."""


ANSWERED_IN: Final = "irons ask, the prompt, irons audit watch or xonsh"
"""Where a person who watches is asked, and answers."""


def note(cause: str, mode: str = "") -> str:
    """Return what a person should know about a cause; nothing for none and for one that is not known here.

    Args:
        cause: what decided.
        mode: the mode it was judged in; in `ask` a person may decide what no rule covers.
    """
    if cause == Cause.UNCOVERED and mode == "ask":
        return f"in mode ask a person decides while {ANSWERED_IN} is open"
    return NOTES[Cause(cause)] if cause in NOTES else ""


def suggestion(
    host: Host | str,
    port: int,
    *,
    decision: Decision | None = None,
    sandbox: str | None = None,
    private: Address | None = None,
) -> str | None:
    """The command that would let a refused connection pass, quoted for a shell; None for what no rule can name.

    Args:
        host: what was refused.
        port: the TCP port.
        decision: how it was refused; where a deny rule did it, the command removes that rule, and allows the host where no
            other rule does.
        sandbox: the name, for a rule of that sandbox alone; None for a rule of all sandboxes. The command says which, so
            that it means the same whichever sandbox is in use where it is typed.
        private: the address the floor refused, to be pinned. A host that is itself an address that the floor holds is
            pinned without it: a rule alone would lead to the next refusal.
    """
    private = held_address(host) if private is None else private
    if private is not None and _step(private) == "never":
        return None
    where = ["--all"] if sandbox is None else ["--sandbox", sandbox]
    remove: list[str] = []
    if decision is not None and decision.list == "deny" and decision.rule is not None:
        own = decision.scope == "sandbox"
        remove = ["irons", "egress", "remove", decision.rule, *(where if own else ("--all",))]
        if decision.covered:
            return shlex.join(remove)
    try:
        canonical = canonical_host(host) if isinstance(host, str) else host
        typed = _typed(canonical, port, exact=private is not None)
    except (HostError, PatternError):
        return shlex.join(remove) if remove else None
    if decision is not None and decision.scope == "sandbox" and decision.rule == typed:
        # The later of two rules of one pattern and scope takes the place of the earlier.
        remove = []
    pinned = [] if private is None else ["--private", str(unmapped(private))]
    allow = shlex.join(["irons", "egress", "allow", typed, *pinned, *where])
    return f"{shlex.join(remove)} && {allow}" if remove else allow


def held_address(host: Host | str) -> Address | None:
    """Return the address that a host is, where the floor holds it; None for names and for other addresses."""
    try:
        address = (canonical_host(host) if isinstance(host, str) else host).address
    except HostError:
        return None
    return address if address is not None and _step(address) else None


def _step(address: Address) -> str:
    """Return the step of the floor that holds an address; empty where none does."""
    return (floor.held(network_of(unmapped(address))) or ("",))[0]


def _typed(host: Host, port: int, *, exact: bool) -> str:
    return parse_pattern(narrowest(host.text, port, exact=exact)).text
