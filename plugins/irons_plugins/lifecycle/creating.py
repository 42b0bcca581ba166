"""The work of `create`: what is asked for is checked on this side, then sent, then waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, cast

from irons.client.names import NameCache
from irons.errors import ConfigError, Conflict, Interrupted, IronsError, NotFound, UsageError
from irons.text import clean
from irons_plugins.lifecycle.destroyed import forget
from irons_plugins.lifecycle.several import Failures
from irons_plugins.lifecycle.views import keys_inside
from irons_plugins.lifecycle.waiting import CREATE_GRACE, wait_for
from irons_plugins.ssh.connect.identities import Identities
from irons_plugins.ssh.keys.own_keys import key_for

if TYPE_CHECKING:
    from irons.client.api import Sandbox
    from irons.client.models.sandboxes import CreateOptions
    from irons.context import Context
    from irons_plugins.ssh.keys.public_key import PublicKey
    from irons_policy.rules import Rule

WARNED_EVERY = 60.0
"""Seconds in which a mode that needs a word is explained once."""

_COMING = ("creating", "starting")


def make(
    ctx: Context,
    names: tuple[str, ...],
    wish: CreateOptions,
    *,
    timeout: float | None,
    key: str | None = None,
    if_missing: bool = False,
    created: Callable[[Sandbox], None] = lambda _: None,
) -> Iterator[Sandbox]:
    """Ask for sandboxes and yield each as it is ready; everything that can be refused here is refused before the first.

    Args:
        ctx: The call's context.
        names: Their names.
        wish: Fields of the request other than name and key; those that are None are left out.
        timeout: Seconds to wait for all of them; None does not wait.
        key: The public key file; by default the setting.
        if_missing: Leave what is there as it is.
        created: Called with each new sandbox as soon as the server has answered, before anything else can fail.

    Raises:
        UsageError: A private key given by mistake.
        Unsupported: The server does not know what was asked for.
    """
    asked = cast("CreateOptions", {field: value for field, value in wish.items() if value is not None})
    chosen = tuple(dict.fromkeys(names))
    there = _those_there(ctx, chosen) if if_missing else {}
    making = _Making(ctx, chosen, timeout, created, if_missing=if_missing)
    if len(there) < len(chosen):
        making.found = key_for(ctx, key or ctx.settings["public_key"])
        _check_server(ctx, asked)
        image = asked.get("image")
        prepare = ctx.api.backend.before_create
        if image and prepare is not None:
            prepare(ctx, image)
    return making.each(asked, there)


class _Making:
    """One `create` at work."""

    def __init__(
        self,
        ctx: Context,
        names: tuple[str, ...],
        timeout: float | None,
        created: Callable[[Sandbox], None],
        *,
        if_missing: bool,
    ) -> None:
        """Take the names, the seconds to wait for all of them (None does not wait), and what to call with each new one."""
        self._ctx = ctx
        self._names = names
        self._timeout = timeout
        self._created = created
        self._if_missing = if_missing
        self._failures = Failures(ctx, len(names), "created")
        self._pending: dict[str, Sandbox] = {}
        self._narrated: set[str] = set()
        self.found: PublicKey | None = None

    def each(self, wish: CreateOptions, there: dict[str, Sandbox]) -> Iterator[Sandbox]:
        """Ask for each that is not there, then yield each that is ready."""
        made: list[str] = []
        for name in self._names:
            try:
                row = there.get(name) or self._asked(name, wish)
            except KeyboardInterrupt:
                raise self._interrupted(made, asked=name) from None
            except IronsError as error:
                self._failures.add(name, error)
            else:
                self._pending[name] = row
                if name not in there:
                    made.append(name)
        left = self._timeout or 0.0
        deadline = time.monotonic() + left
        first = True
        for name in list(self._pending):
            try:
                row = self._ready(name, left, new=name in made)
            except KeyboardInterrupt:
                coming = [
                    each for each, row in self._pending.items() if row.status in _COMING or each in made
                ]
                raise self._interrupted(coming) from None
            except IronsError as error:
                self._failures.add(name, self._undone(name, error) if name in made else error)
            else:
                if name in made and first:
                    if wish.get("mode"):
                        from irons.client.refreshing import refresh_after_change

                        refresh_after_change(self._ctx.api, self._ctx.settings)
                    _say_mode(self._ctx, name, len(made))
                    if keys := keys_inside(row):
                        self._ctx.progress(keys)
                    note = row.metadata.get("accelerator_note")
                    if note and note not in self._narrated:
                        self._ctx.progress(f"{name}: {clean(str(note))}")
                    remark = self._ctx.api.backend.after_create
                    if remark is not None:
                        remark(self._ctx)
                    first = False
                del self._pending[name]
                yield row
            left = max(0.0, deadline - time.monotonic())
        self._failures.end()

    def _asked(self, name: str, wish: CreateOptions) -> Sandbox:
        ctx, found = self._ctx, self.found
        if found is None:
            raise UsageError("no public key")
        try:
            # A policy without a mode follows the mode of all sandboxes.
            options: CreateOptions = {"mode": None, **wish}
            made = ctx.api.create(name, found.text, **options)
        except Conflict as error:
            if not self._if_missing:
                error.hint = error.hint or self._taken(name)
                raise
            return ctx.api.status(name)
        self._created(made)
        ctx.names.put(name, made.status)
        try:
            Identities.of(ctx.settings).remember(name, found.identity)
        except ConfigError as error:
            ctx.progress(f"irons: the key's path is not remembered: {error.message}")
        return made

    def _taken(self, name: str) -> str:
        """Return what to do about a name that is taken; nothing where it is taken by something else, or not known."""
        try:
            status = self._ctx.api.status(name).status
        except IronsError:
            return ""
        if status in _COMING:
            return f"it is still {status}: {_either([name])}"
        if self._ctx.face == "library":
            return "attach=True uses the one that is there"
        return f"irons status {name} shows it; --if-missing uses the one that is there"

    def _ready(self, name: str, left: float, *, new: bool) -> Sandbox:
        row = self._pending[name]
        if self._timeout is None or (not new and row.status not in _COMING):
            return row
        if _is_installed(self._ctx):
            # Imported while the sandbox starts, when there is nothing else to do.
            import_module("irons_plugins.ssh.config.handlers")
        row = wait_for(self._ctx, name, "ready", left, grace=CREATE_GRACE, narrated=self._narrated)
        if _is_installed(self._ctx):
            from irons_plugins.ssh.config.handlers import arrived

            arrived(self._ctx, name)
        return row

    def _undone(self, name: str, error: IronsError) -> IronsError:
        """Free the name of a sandbox that could not be made; the error says why, and the log keeps it."""
        ctx = self._ctx
        try:
            if "terms" in ctx.api.extensions and ctx.api.status(name).status == "error":
                ctx.api.destroy(name)
                forget(ctx, name)
                del self._pending[name]
                if error.hint.startswith("irons status"):
                    error.hint = "it was removed; irons local logs keeps what happened"
        except IronsError:
            pass  # the first failure is the one that is reported
        return error

    def _interrupted(self, coming: list[str], asked: str = "") -> Interrupted:
        """Return what is being made: `coming`, and perhaps `asked`, of which the server has not answered."""
        goes = "is still being created" if len(coming) == 1 else "are still being created"
        told = [f"{', '.join(coming)} {goes}"] if coming else []
        if asked:
            told.append(f"{asked} may have been created")
        hints = ["irons list shows whether it is there"] if asked else []
        if coming:
            hints.append(_either(coming))
        return Interrupted("; ".join(["interrupted", *told]), hint="; ".join(hints))


def _either(names: list[str]) -> str:
    """What to do about sandboxes that are being created."""
    these = " ".join(names)
    what = "it" if len(names) == 1 else "them"
    return f"irons wait {these} waits for {what}; irons destroy {these} --force ends {what}"


def _is_installed(ctx: Context) -> bool:
    """Tell whether OpenSSH is to find sandboxes by name; a configuration that can't be read counts, since `arrived` reports it."""
    from irons_plugins.ssh.config.blocks import Installed

    try:
        return bool(Installed(ctx.settings))
    except ConfigError:
        return True


def _those_there(ctx: Context, names: tuple[str, ...]) -> dict[str, Sandbox]:
    """The sandboxes among these names that there are already."""
    there: dict[str, Sandbox] = {}
    for name in names:
        try:
            there[name] = ctx.api.status(name)
        except NotFound:
            continue
        ctx.names.put(name, there[name].status)
    return there


def _check_server(ctx: Context, wish: CreateOptions) -> None:
    """Refuse what the server would leave out or refuse."""
    if wish:
        ctx.api.need("rules", f"a server that knows of {', '.join(sorted(wish))}")
    if "labels" in wish:
        ctx.api.need("labels", "a server that knows of labels")
    if not wish.keys().isdisjoint(("ttl", "rm", "idle_stop")):
        ctx.api.need("terms", "a server that ends sandboxes by time")
    if "entrypoint" in wish:
        ctx.api.need("entrypoint", "a server that runs the entrypoints of images")
    if "snapshot" in wish:
        ctx.api.need("snapshots", "a server that makes snapshots")
    if "never" in wish:
        ctx.api.need("policy-never", "a server whose policies say what no person is asked about")
    if "held" in wish:
        ctx.api.need("holds", "a server that ends a sandbox with its client")
    if "member" in wish:
        ctx.api.need("create-on", "a server of a fleet")


def policy_of(mode: str | None, allow: tuple[str, ...], policy: str | None) -> CreateOptions:
    """Return the mode and rules of a request: those of a policy file, joined with each host of `--allow`.

    Raises:
        UsageError: The file or a pattern is invalid, or the file denies what an option allows.
    """
    rules: dict[str, Rule] = {}
    never: tuple[str, ...] | None = None
    if policy is not None:
        from irons_plugins.egress.policy_file import read_policy

        told = read_policy(policy)
        mode, never = mode or told.mode, told.never
        rules = {rule.pattern.text: rule for rule in told.rules}
    for text in allow:
        from irons_plugins.egress.patterns import checked

        new = checked(text, "allow")
        pattern = new.pattern.text
        # A file is reviewed: an option neither reverses a rule of it nor removes its pins and its note.
        if rules.setdefault(pattern, new).list == "deny":
            raise UsageError(
                f"--allow {pattern}: the policy file {policy!r} denies that",
                hint="remove the rule from the file, or leave --allow out",
            )
    if allow and mode is None:
        # In warn everything passes: who names what may pass means that all else may not.
        mode = "deny"
    wish: CreateOptions = {"mode": mode, "rules": [rule.to_request() for rule in rules.values()] or None}
    if never:
        wish["never"] = never
    return wish


def _say_mode(ctx: Context, name: str, count: int) -> None:
    """Print a note where new sandboxes may reach anything, or ask a person; at most once a minute."""
    mode = ctx.api.mode(name).mode if "rules" in ctx.api.extensions else ""
    claimed = {"warn": "warned", "ask": "asked"}.get(mode)
    if claimed is None or not NameCache.of(ctx.settings, what=claimed).claim(WARNED_EVERY):
        return
    if mode == "ask":
        from irons_policy.remedy import ANSWERED_IN

        ctx.progress(
            "The egress mode is ask: what no rule allows waits a few seconds for your answer, "
            f"in {ANSWERED_IN}; while none of them is open it is blocked."
        )
        return
    these = name if count == 1 else f"these {count} sandboxes"
    ctx.progress(
        f"The egress mode is warn (log only): {these} can connect anywhere, and every connection is logged. "
        f"Restrict {name}: irons egress lock {name}. Restrict all: irons egress mode deny --all."
    )
