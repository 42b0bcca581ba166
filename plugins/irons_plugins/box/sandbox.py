"""`irons.sandbox`: a sandbox that lives as long as a `with` block."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, cast

from irons.cli.values import check_sandbox_name, read_value
from irons.client.following.waiting import CREATE_GRACE
from irons.errors import IronsError, UsageError
from irons_plugins.box.box import Box
from irons_plugins.box.calls import Library
from irons_plugins.box.cancelling import is_cancelled
from irons_plugins.box.creation import SandboxCreation

if TYPE_CHECKING:
    import os
    from typing import Any

    from irons.client.api import Sandbox
    from irons.client.models.sandboxes import CreateOptions
    from irons_policy.modes import Mode
    from irons_policy.rules import Rule


@contextmanager
def sandbox(
    name: str | None = None,
    *,
    attach: bool = False,
    keep: bool = False,
    image: str | None = None,
    snapshot: str | None = None,
    mode: Mode | None = None,
    allow: Sequence[str] = (),
    deny: Sequence[str] = (),
    cpus: float | None = None,
    memory: int | str | None = None,
    disk: int | str | None = None,
    engine: str | None = None,
    member: str | None = None,
    labels: Mapping[str, str] | None = None,
    note: str | None = None,
    environment: Mapping[str, str] | None = None,
    entrypoint: bool = False,
    ttl: float | None = None,
    idle_stop: float | None = None,
    public_key: str | os.PathLike[str] | None = None,
    timeout: float | None = None,
    url: str | None = None,
    key: str | None = None,
    profile: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Box]:
    """Create a sandbox, wait until it is ready, and destroy it at the end of the `with` block, however that ends.

    Only what was created here is destroyed. Where the server can, it destroys the sandbox also a minute after this process has
    died.

    Args:
        name: Its name; by default one that nothing else has.
        attach: Use the sandbox that has this name already; nothing is created or destroyed.
        keep: Leave it there at the end.
        image: The image it starts from.
        snapshot: The snapshot it starts from; what is left out here is as the snapshot's sandbox had it.
        mode: Its own egress mode; by default `deny` where `allow` has hosts, else that of all sandboxes.
        allow: Hosts that it may reach from its first packet on.
        deny: Hosts that it may not reach.
        cpus: How many CPUs it may use.
        memory: How much memory, in bytes or as `"2G"`.
        disk: How much disk, likewise.
        engine: What makes the machine.
        member: The member of an Incus cluster to create it on.
        labels: Labels by key.
        note: A text of at most 200 characters.
        environment: Variables of all its sessions.
        entrypoint: Run the image's entrypoint at each start.
        ttl: Seconds after which it is stopped; with `keep` false, destroyed.
        idle_stop: Seconds of idleness after which it is stopped.
        public_key: The public key file that opens it; by default as `irons create` finds one.
        timeout: Seconds to wait until it is ready; by default the setting `wait_timeout`.
        url: The API's URL; by default as settings say.
        key: The key for it; by default as settings say.
        profile: The configuration profile to use.
        env: The environment to read settings from; by default this process's.

    Yields:
        The sandbox, ready.

    Raises:
        Conflict: A sandbox of this name is there.
        TimedOut: It was not ready in time.
        IronsError: The server refused, or it could not be made; nothing is left of it.
    """
    from irons.client.api import open_api
    from irons.host import PluginHost
    from irons.settings.settings import load

    if attach and name is None:
        raise UsageError("attach=True takes the name of a sandbox that is there")
    chosen = f"box-{secrets.token_hex(4)}" if name is None else check_sandbox_name(name)
    wish: dict[str, Any] = {
        **policy_wish(mode, allow, deny),
        "image": image,
        "snapshot": snapshot,
        "cpus": cpus,
        "memory": _size(memory, "memory"),
        "disk": _size(disk, "disk"),
        "engine": engine,
        "member": member,
        "labels": dict(labels) if labels else None,
        "note": note,
        "environment": dict(environment) if environment else None,
        "entrypoint": entrypoint or None,
        "ttl": None if ttl is None else round(ttl),
        "idle_stop": None if idle_stop is None else round(idle_stop),
        "rm": True if ttl is not None and not keep else None,
    }
    if attach and any(value is not None for value in wish.values()):
        given = ", ".join(field for field, value in wish.items() if value is not None)
        raise UsageError(f"attach=True changes nothing of a sandbox, and {given} would")
    settings = load({"api_url": url, "api_key": key, "profile": profile}, env)
    host = PluginHost(env=settings.env)
    with ExitStack() as left:
        api = left.enter_context(open_api(settings, host))
        library = Library(settings, host, api)
        if attach:
            found = api.wait(chosen, timeout=timeout)
        else:
            found = make_sandbox(
                library,
                chosen,
                cast("CreateOptions", wish),
                left,
                keep=keep,
                timeout=timeout,
                public_key=None if public_key is None else str(public_key),
            )
        yield Box(library, chosen, found.id)


def make_sandbox(
    library: Library,
    name: str,
    wish: CreateOptions,
    left: ExitStack,
    *,
    keep: bool,
    timeout: float | None = None,
    public_key: str | None = None,
) -> Sandbox:
    """Create a sandbox and wait until it is ready.

    Args:
        library: What calls share.
        name: Its name.
        wish: What it is created with.
        left: Gets what removes it, unless it is kept.
        keep: Leave it there.
        timeout: Seconds to wait; None for the setting.
        public_key: The public key file that opens it; None for the setting.
    """
    from irons_plugins.lifecycle.holding import Holder
    from irons_plugins.lifecycle.waiting import patience

    context = library.context()
    held = not keep and "holds" in library.api.extensions
    asked: CreateOptions = {**wish, "held": held or None}
    new = SandboxCreation(context, name)
    if keep:
        # What can't be made is of no use.
        with ExitStack() as unfinished:
            unfinished.push(new.remove)
            new.ask(asked, public_key)
            found = _ready(library, name, patience(context, timeout))
            unfinished.pop_all()
        return found
    left.push(new.remove)
    new.ask(asked, public_key)
    if held:
        left.enter_context(Holder(context, name))
    return _ready(library, name, patience(context, timeout))


def _ready(library: Library, name: str, timeout: float) -> Sandbox:
    """Wait until it is ready. Raises `IronsError` where the task was cancelled that waits for this."""
    from irons.client.following.waiting import wait_for_state

    def seen(_: Sandbox) -> None:
        if is_cancelled():
            raise IronsError(f"waiting for {name} was cancelled")

    return wait_for_state(library.api, name, "ready", timeout, grace=CREATE_GRACE, seen=seen)


def policy_wish(mode: str | None, allow: Sequence[str], deny: Sequence[str]) -> CreateOptions:
    """Return the mode and rules of a request. Raises `UsageError` where a pattern is invalid, or on both lists."""
    from irons_plugins.egress.patterns import checked

    if isinstance(allow, str) or isinstance(deny, str):
        raise UsageError("allow and deny take lists of hosts")
    rules: dict[str, Rule] = {}
    for kind, texts in (("allow", allow), ("deny", deny)):
        for text in texts:
            new = checked(text, "allow" if kind == "allow" else "deny")
            if rules.setdefault(new.pattern.text, new).list != new.list:
                raise UsageError(f"{text!r} is both allowed and denied")
    if allow and mode is None:
        # Who names what may pass means that all else may not.
        mode = "deny"
    return {"mode": mode, "rules": [rule.to_request() for rule in rules.values()] or None}


def _size(value: int | str | None, name: str) -> int | None:
    if not isinstance(value, str):
        return value
    return cast("int", read_value("size", value, name))
