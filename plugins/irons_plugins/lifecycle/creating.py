"""Handler of `create`: what is asked for is checked on this side, then sent, then waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irons.errors import ConfigError, UsageError
from irons_plugins.lifecycle.selection import checked_labels
from irons_plugins.lifecycle.waiting import CREATE_GRACE, patience, wait_for
from irons_plugins.ssh.identities import Identities
from irons_plugins.ssh.keys import find_key
from irons_plugins.ssh.variables import variables_of

if TYPE_CHECKING:
    from irons.api import Sandbox
    from irons.context import Context


def create(
    ctx: Context,
    *,
    name: str,
    key: str | None,
    mode: str | None,
    allow: tuple[str, ...],
    policy: str | None,
    image: str | None,
    cpus: float | None,
    memory: int | None,
    disk: int | None,
    engine: str | None,
    labels: tuple[str, ...],
    env: tuple[str, ...],
    at_once: bool,
    wait_timeout: float | None,
) -> Sandbox:
    """Create a sandbox with the public key's text, remember the private key that goes with it, wait until it is ready.

    Raises:
        UsageError: No public key, a private one given by mistake, an invalid pattern or policy, a variable that is not set here.
        Unsupported: The server does not know what was asked for beyond name and key; nothing was created.
    """
    found = find_key(key or ctx.settings["public_key"], ctx.settings.env)
    if cpus is not None and not 0 < cpus < 4096:
        raise UsageError(f"--cpus takes a number of CPUs above 0, not {cpus:g}")
    more = {
        **_policy(mode, allow, policy),
        "image": image,
        "cpus": cpus,
        "memory": memory,
        "disk": disk,
        "engine": engine,
        "labels": checked_labels(labels, valued=True) or None,
        "environment": variables_of(env, ctx.settings.env) or None,
    }
    more = {field: value for field, value in more.items() if value is not None}
    if more:
        ctx.api.need("rules", f"a server that knows of {', '.join(sorted(more))}")
    if labels:
        ctx.api.need("labels", "a server that knows of labels")
    made = ctx.api.create(name, found.text, **more)
    ctx.names.put(name, made.status)
    try:
        Identities.of(ctx.settings).remember(name, found.identity)
    except ConfigError as error:
        ctx.progress(f"irons: the key's path is not remembered: {error.message}")
    if not at_once:
        # Imported while the sandbox starts, when there is nothing else to do.
        from irons_plugins.ssh.config_handlers import arrived

        made = wait_for(ctx, name, "ready", patience(ctx, wait_timeout), grace=CREATE_GRACE)
        arrived(ctx, name)
    _say_open(ctx, name)
    return made


def _policy(mode: str | None, allow: tuple[str, ...], policy: str | None) -> dict[str, Any]:
    rules: dict[str, dict[str, Any]] = {}
    if policy is not None:
        from irons_plugins.egress.policy_file import read_policy

        told = read_policy(policy)
        mode = mode or told.mode
        rules = {rule.pattern: rule.to_body() for rule in told.rules}
    for text in allow:
        from irons_plugins.egress.patterns import checked

        pattern = checked(text, "allow").pattern
        rules[pattern] = {"pattern": pattern, "list": "allow"}
    return {"mode": mode, "rules": list(rules.values()) or None}


def _say_open(ctx: Context, name: str) -> None:
    """Say so where the new sandbox may reach anything, and how to lock it."""
    if "rules" not in ctx.api.extensions:
        return
    if ctx.api.mode(name).get("mode") == "warn":
        ctx.progress(
            f"egress mode is warn: {name} can reach anything, and it is written down; "
            f"irons egress lock {name} closes it, irons egress mode deny closes all"
        )
