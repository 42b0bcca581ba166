"""What the tools do, and in which sandboxes they may: those that the agent made and those that the person named."""

from __future__ import annotations

import base64
import logging
import math
import secrets
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from irons.cli.values import check_sandbox_name, read_value
from irons.errors import Conflict, IronsError, NotFound, UsageError
from irons.text import clean
from irons_plugins.box.box import Box
from irons_plugins.box.files import FileRefused, TooLarge
from irons_plugins.box.sandbox import make_sandbox, policy_wish
from irons_plugins.lifecycle.handlers import destroy_one
from irons_plugins.mcp.answers import LONGEST, ToolAnswer
from irons_plugins.mcp.tools import LARGEST, Tool, options
from irons_plugins.ssh.openssh.endings import NotStarted

if TYPE_CHECKING:
    from irons.client.api import Sandbox
    from irons.client.models.sandboxes import CreateOptions
    from irons.tree import Tree
    from irons_plugins.box.calls import Library
    from irons_policy.event import Event

MOST_SANDBOXES = 16
"""Sandboxes that an agent may have at once."""

MOST_SNAPSHOTS = 16
"""Snapshots that an agent may make."""

MOST_ROWS = 50
"""Rows of an answer."""

PATIENCE = 600.0
"""Seconds that a program may run unless the agent asks for another limit."""

LONGEST_TIMEOUT = 6 * 3600.0

FILE_PATIENCE = 60.0
"""Seconds that reading or writing a file may take: what is there may be a pipe that nothing writes to."""

_log = logging.getLogger(__name__)

HINTS = {
    "create": "give another name, or none",
    "read": "exec reads a part of it: head, tail or sed -n",
}
"""What a tool's caller can do about an error whose own hint is for a person, or for Python; empty where there is nothing."""


class AgentSandboxes:
    """The sandboxes that one server's tools may touch, and the tools.

    Args:
        library: What calls share.
        named: The sandboxes that the person named.
        allow: Hosts that new sandboxes may reach.
        keep: Leave new sandboxes there at the end.
    """

    def __init__(
        self, library: Library, named: Sequence[str], allow: Sequence[str] = (), *, keep: bool = False
    ) -> None:
        self._library = library
        self._named = tuple(dict.fromkeys(named))
        self._policy = policy_wish("deny", allow, ())
        self._keep = keep
        self._lock = threading.Lock()
        self._made: dict[str, tuple[str, ExitStack]] = {}
        self._snapshots = 0
        self._tools: Mapping[str, Callable[..., ToolAnswer]] = {
            "create": self.create,
            "list": self.list_all,
            "status": self.status,
            "exec": self.execute,
            "read": self.read,
            "write": self.write,
            "start": self.start,
            "stop": self.stop,
            "destroy": self.destroy,
            "snapshot": self.snapshot,
            "fork": self.fork,
            "egress_check": self.egress_check,
            "audit_why": self.audit_why,
            "denied_since": self.denied_since,
            "egress_allow": self.egress_allow,
            "egress_deny": self.egress_deny,
            "egress_remove": self.egress_remove,
            "egress_mode": self.egress_mode,
        }

    def call(self, tool: Tool, tree: Tree, arguments: Mapping[str, Any]) -> ToolAnswer:
        """Call a tool with arguments that its schema allows; what fails is an answer too."""
        try:
            return self._tools[tool.name](**_read(tool, tree, arguments))
        except FileRefused as error:
            told = {"error": error.code, "message": f"{error.what}: the sandbox's own program failed"}
            return ToolAnswer(told, {"error": error.said}, failed=True)
        except NotStarted as error:
            told = {"error": error.code, "message": "the program was not started"}
            return ToolAnswer(told, {"error": error.said} if error.said else {}, failed=True)
        except IronsError as error:
            hint = HINTS.get(tool.name, error.hint) if isinstance(error, Conflict | TooLarge) else error.hint
            told = {"error": error.code, "message": error.message, "hint": hint}
            return ToolAnswer({key: value for key, value in told.items() if value}, failed=True)
        except Exception as error:  # noqa: BLE001 - the package would pass its text on, which may be the sandbox's, unmarked
            told_by = "\n".join(clean(line) for line in traceback.format_exc().splitlines())
            _log.error("the tool %s broke\n%s", tool.name, told_by)
            told = {"error": "internal", "message": f"something broke inside irons: {type(error).__name__}"}
            return ToolAnswer(told, failed=True)

    def close(self) -> None:
        """Destroy what the agent made, unless it is kept."""
        with self._lock:
            made, self._made = self._made, {}
        # At once: a client may wait only for seconds until it kills the server.
        with ThreadPoolExecutor(MOST_SANDBOXES) as workers:
            closings = [workers.submit(stack.close) for _, stack in made.values()]
        for closing in closings:
            closing.result()

    # Sandboxes

    def create(self, name: str | None = None, **more: Any) -> ToolAnswer:
        """Create a sandbox in mode deny, of an image that is here; its rules are the person's."""
        image = more.get("image")
        if image is not None and image not in [each.name for each in self._library.api.images()]:
            # To fetch one, this machine would ask a registry that the agent names.
            raise NotFound(f"there is no image {image} here", hint="only the person can fetch one")
        return self._make(name, {**more, **self._policy})

    def list_all(self) -> ToolAnswer:
        """List those that may be touched."""
        rows = []
        for name in self._visible():
            try:
                rows.append(_state(self._found(name)))
            except NotFound:
                rows.append({"name": name, "status": "gone"})
        return ToolAnswer({"sandboxes": rows})

    def status(self, name: str) -> ToolAnswer:
        """Show one."""
        return ToolAnswer(_state(self._found(name)))

    def start(self, name: str) -> ToolAnswer:
        """Start one and wait."""
        return ToolAnswer(_state(self._box(name).start()))

    def stop(self, name: str) -> ToolAnswer:
        """Stop one and wait."""
        return ToolAnswer(_state(self._box(name).stop()))

    def destroy(self, name: str) -> ToolAnswer:
        """Destroy one. Of those that the person named none is; one that is gone no longer counts."""
        try:
            self._found(name)
        except NotFound:
            with self._lock:
                gone = self._made.pop(name, None) if self._is_made(name) else None
            if gone is None:
                raise
            gone[1].close()
            return ToolAnswer({"name": name, "status": "gone"})
        with self._lock:
            made = self._made.get(name)
        if made is None:
            raise UsageError(
                f"{name} is the person's, and only they destroy it", hint=f"irons destroy {name}"
            )
        if self._keep:
            destroy_one(self._library.context(), name, force=True)
        made[1].close()
        with self._lock:
            self._made.pop(name, None)
        return ToolAnswer({"name": name, "status": "destroyed"})

    def snapshot(self, name: str, snapshot: str | None = None, note: str | None = None) -> ToolAnswer:
        """Keep the files of a sandbox. Only the person can bring them back, and remove them."""
        self._found(name)
        with self._lock:
            if self._snapshots >= MOST_SNAPSHOTS:
                raise UsageError(f"{MOST_SNAPSHOTS} snapshots were made already")
            self._snapshots += 1
        try:
            made = self._library.api.snapshot(name, snapshot, note=note)
        except BaseException:
            with self._lock:
                self._snapshots -= 1
            raise
        return ToolAnswer({"name": name, "snapshot": made.name, "paused_seconds": made.pause})

    def fork(self, name: str, new: str | None = None) -> ToolAnswer:
        """Make a copy with the rules of the sandbox as they are now, in mode deny; it is the agent's, as one that it created."""
        self._found(name)
        api = self._library.api
        kept = api.snapshot(name, note="for a copy that an agent asked for")
        try:
            return self._make(new, {"mode": "deny", "snapshot": kept.name})
        finally:
            api.remove_snapshot(kept.name)

    def _make(self, name: str | None, wish: Mapping[str, Any]) -> ToolAnswer:
        """Create a sandbox that is the agent's, and wait until it is ready."""
        chosen = f"agent-{secrets.token_hex(4)}" if name is None else check_sandbox_name(name)
        stack = ExitStack()
        with self._lock:
            if len(self._made) >= MOST_SANDBOXES:
                raise UsageError(f"there are {MOST_SANDBOXES} sandboxes already: destroy one first")
            if chosen in self._made or chosen in self._named:
                raise Conflict(f"there is a sandbox {chosen}")
            self._made[chosen] = ("", stack)
        try:
            asked = cast("CreateOptions", wish)
            found = make_sandbox(self._library, chosen, asked, stack, keep=self._keep)
        except BaseException:
            with self._lock:
                self._made.pop(chosen, None)
            stack.close()
            raise
        with self._lock:
            kept = chosen in self._made
            if kept:
                self._made[chosen] = (found.id, stack)
        if not kept:
            # The server has ended since.
            stack.close()
            raise IronsError(f"{chosen} was destroyed: the server has ended")
        return ToolAnswer(_state(found))

    # Programs and files

    def execute(
        self,
        name: str,
        words: Sequence[str],
        stdin: str | None = None,
        timeout: float | None = None,
        workdir: str | None = None,
    ) -> ToolAnswer:
        """Run a program; its output is untrusted, and so are the hosts that it tried."""
        limit = PATIENCE if timeout is None else min(timeout, LONGEST_TIMEOUT)
        result = self._box(name).exec(words, stdin=stdin, timeout=limit, cwd=workdir, keep=LONGEST)
        facts = {
            "name": name,
            "exit": result.exit,
            "signal": result.signal,
            "seconds": result.seconds,
            "timed_out": result.timed_out,
            "message": result.message,
            "stdout_encoding": result.stdout_encoding,
            "stdout_cut": result.stdout_cut,
            "stderr_encoding": result.stderr_encoding,
            "stderr_cut": result.stderr_cut,
        }
        untrusted: dict[str, Any] = {"stdout": result.stdout, "stderr": result.stderr}
        for what, rows in (("refused", result.refused), ("unreachable", result.unreachable)):
            if rows:
                untrusted[what] = [each._asdict() for each in rows[:MOST_ROWS]]
        return ToolAnswer(facts, untrusted)

    def read(self, name: str, path: str) -> ToolAnswer:
        """Read a file; a text as it is, anything else as base64."""
        data = self._box(name).read(path, most=LARGEST, timeout=FILE_PATIENCE)
        try:
            text, encoding = data.decode(), "utf-8"
        except UnicodeDecodeError:
            text, encoding = base64.b64encode(data).decode("ascii"), "base64"
        cut = len(text) > LONGEST
        facts = {"name": name, "path": path, "bytes": len(data), "encoding": encoding, "cut": cut}
        return ToolAnswer(facts, {"content": text[:LONGEST]})

    def write(self, name: str, path: str, text: str) -> ToolAnswer:
        """Write a file."""
        data = text.encode()
        if len(data) > LARGEST:
            raise UsageError(f"the text has {len(data):,} bytes, and {LARGEST:,} can be written")
        self._box(name).write(path, data, timeout=FILE_PATIENCE)
        return ToolAnswer({"name": name, "path": path, "bytes": len(data)})

    # Egress, to look at

    def egress_check(self, name: str, host: str) -> ToolAnswer:
        """Show what the gateway would say."""
        found = self._box(name).check(host)
        fields = ("host", "port", "allowed", "verdict", "mode", "rule", "list", "scope", "reason")
        return ToolAnswer({field: getattr(found, field) for field in fields})

    def audit_why(self, name: str, host: str | None = None) -> ToolAnswer:
        """Show the last refusal and what would allow it: the host is the sandbox's text, and with it the command."""
        from irons_plugins.audit.why import why

        self._found(name)
        found = why(self._library.context(), name=name, host=host)
        trusted = ("time", "sandbox", "port", "verdict", "mode", "count", "cause", "outcome")
        return ToolAnswer(
            {field: getattr(found, field) for field in trusted},
            {
                "refusal": {
                    field: getattr(found, field)
                    for field in ("host", "protocol", "rule", "reason", "fix", "note")
                }
            },
        )

    def denied_since(self, name: str, since: datetime | None = None) -> ToolAnswer:
        """Show what was refused, by host: those tried last."""
        counts: dict[tuple[str, int | None, str], list[Any]] = {}
        for event in self._box(name).events(since=since, verdict="denied"):
            _count(counts, event)
        rows = [
            {"host": host, "port": port, "reason": reason, "count": count, "last": last}
            for (host, port, reason), (count, last) in counts.items()
        ]
        return ToolAnswer(
            {"name": name, "hosts": len(rows), "shown": min(len(rows), MOST_ROWS)},
            {"denied": rows[-MOST_ROWS:]},
        )

    # Egress, to change: offered only where the person says so

    def egress_allow(self, name: str, domains: Sequence[str], note: str | None = None) -> ToolAnswer:
        """Allow hosts for one sandbox."""
        return self._changed("allow", name, domains, note or "")

    def egress_deny(self, name: str, domains: Sequence[str], note: str | None = None) -> ToolAnswer:
        """Deny hosts for one sandbox."""
        return self._changed("deny", name, domains, note or "")

    def egress_remove(self, name: str, patterns: Sequence[str]) -> ToolAnswer:
        """Remove rules of one sandbox."""
        return self._changed("remove", name, patterns, "")

    def egress_mode(self, name: str, mode: str | None = None) -> ToolAnswer:
        """Set the mode of one sandbox, or show it."""
        self._found(name)
        api = self._library.api
        if mode is not None:
            from irons.client.refreshing import refresh_after_change

            api.set_mode(None if mode == "account" else mode, name)
            refresh_after_change(api, self._library.settings)
        found = api.mode(name)
        return ToolAnswer({"name": name, "mode": found.mode, "source": found.source})

    def _changed(self, kind: Any, name: str, patterns: Sequence[str], note: str) -> ToolAnswer:
        self._found(name)
        done = self._library.api.change_rules(kind, patterns, name, note=note)
        rules = [{"pattern": each.pattern, "changed": each.changed} for each in done.rules]
        return ToolAnswer({"name": name, "rules": rules, "cut": done.cut, "mode": done.mode})

    # Which sandboxes

    def _visible(self) -> tuple[str, ...]:
        with self._lock:
            return (*self._named, *(name for name, (number, _) in self._made.items() if number))

    def _is_made(self, name: str) -> bool:
        """Tell whether one was made here to the end; until then another one may have the name that was asked for."""
        return bool(self._made.get(name, ("",))[0])

    def _found(self, name: str) -> Sandbox:
        """Return a sandbox that may be touched; whether there is another one the answer does not tell.

        Raises:
            NotFound: It was neither made here nor named; or it is gone, and another one has its name.
        """
        with self._lock:
            made = self._made.get(name) if self._is_made(name) else None
        if made is None and name not in self._named:
            raise NotFound(f"there is no sandbox {name} here", hint="the tool list shows those there are")
        found = self._library.api.status(name)
        if made is not None and found.id != made[0]:
            raise NotFound(f"{name} is gone; another sandbox has its name")
        return found

    def _box(self, name: str) -> Box:
        return Box(self._library, name, self._found(name).id)


def _read(tool: Tool, tree: Tree, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments as values: durations, sizes and times may be texts, as in a command."""
    read = dict(arguments)
    for option in options(tool.parameters(tree)):
        value = read.get(option.dest)
        if isinstance(value, str):
            read[option.dest] = read_value(option.type, value, option.dest)
        elif isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{option.dest} takes a finite number")
    for key in ("ttl", "idle_stop"):
        if key in read:
            read[key] = round(read[key])
    return read


def _count(counts: dict[tuple[str, int | None, str], list[Any]], event: Event) -> None:
    """Count an event; what is tried again goes to the end."""
    what = event.host, event.port, event.reason
    before = counts.pop(what, [0, None])
    counts[what] = [before[0] + event.count, event.time]


def _state(sandbox: Sandbox) -> dict[str, Any]:
    fields = ("name", "status", "created_at", "ends_in", "ends_with", "note")
    return {field: getattr(sandbox, field) for field in fields}
