"""What an API key of the role `user` may not do to rules and modes, also of its own sandboxes: all that would widen what an admin has set.

The rules and the mode of all sandboxes are an admin's. A rule of one sandbox only adds to them, and a deny rule of all sandboxes wins over it.
What would go round them is checked where rules and modes are written, in the transaction that writes them, so that no way there is left out.
"""

from __future__ import annotations

from collections.abc import Iterable

from irons_local.control.schema.errors import forbidden
from irons_local.control.store.changelog import ORIGIN
from irons_local.control.store.sandboxes import StoredSandbox
from irons_policy.policy import PatternIndex
from irons_policy.rules import Rule


def check_scope(sandbox: StoredSandbox | None) -> None:
    """Refuse a change for all sandboxes, and of a sandbox that another created.

    Raises:
        HttpError: 403.
    """
    origin = ORIGIN.get()
    if origin.role == "admin":
        return
    if origin.role != "user":
        raise forbidden(f"a key of the role {origin.role} changes nothing")
    if sandbox is None:
        raise forbidden("a key of the role user changes nothing for all sandboxes")
    if sandbox.creator != origin.owner:
        raise forbidden(f"{sandbox.name} was not created with this key")


def check_mode(mode: str | None, *, copied: bool = False) -> None:
    """Refuse the mode `warn` to a sandbox of its own: it lets pass what the rules of all sandboxes forbid.

    Args:
        mode: None follows the mode of all sandboxes, which an admin sets.
        copied: it is that of a copy.

    Raises:
        HttpError: 403.
    """
    if ORIGIN.get().role != "admin" and mode == "warn":
        raise forbidden(
            "a key of the role user does not set the mode warn, which lets pass what rules forbid; "
            "deny, ask, or no mode of its own",
            "a copy has the mode of what is copied, unless --mode deny or --mode ask is given"
            if copied
            else "irons egress mode account --sandbox NAME has it follow the mode of all sandboxes",
        )


def check_rules(rules: Iterable[Rule], never: PatternIndex) -> None:
    """Refuse rules that open what is an admin's to open: networks of the server, and what no person is asked about.

    Args:
        rules: those that are new or changed.
        never: `[ask] never`.

    Raises:
        HttpError: 403, naming the rule.
    """
    if ORIGIN.get().role == "admin":
        return
    for rule in rules:
        if rule.list != "allow":
            continue
        shown = rule.pattern.text[:200]
        if rule.private:
            raise forbidden(f"{shown}: a key of the role user opens no addresses of the server's networks")
        shut = never.overlapping(rule.pattern)
        if shut is not None:
            raise forbidden(f"{shown}: [ask] never has {shut.text}, which is locked")
