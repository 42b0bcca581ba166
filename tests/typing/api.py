"""What a plugin author and a Python program write, checked by mypy and pyright and never run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from irons import (
    Api,
    Arg,
    Backend,
    BoxProcess,
    Column,
    Command,
    Context,
    EgressRules,
    Event,
    Exec,
    ExecResult,
    FileEntry,
    Flag,
    IronsError,
    Opt,
    Result,
    Sandbox,
    SshAddress,
    View,
    __version__,
    aio,
    connect,
    hookimpl,
    sandbox,
)
from irons.client.models.egress import CheckResult, ListedRule
from irons.client.models.server import ServerInfo
from irons.errors import ApiError, NotFound

told: str = __version__


@hookimpl
def irons_commands() -> list[Command]:
    """Data alone."""
    return [
        Command(
            ("greet",),
            "Greet.",
            "module:function",
            (
                Arg("name", kind="sandbox"),
                Opt(("-n", "--times"), type="int", default=1),
                Flag(("--loud",), pace="waiting"),
            ),
            view=View((Column("name"),), record=True),
            exits=(3,),
        )
    ]


@hookimpl
def irons_backend(url: str) -> Backend | None:
    """A base URL, or nothing."""
    return Backend("http://127.0.0.1") if url == "mine" else None


def rows(ctx: Context, *, name: str, times: int, loud: bool) -> Iterator[Sandbox]:
    """A handler that yields rows."""
    for _ in range(times):
        yield ctx.api.status(name)
    if loud:
        ctx.progress("done")


def program(ctx: Context, *, name: str) -> Exec | Result:
    """A handler that becomes another program, or answers with an exit code of its own."""
    address: SshAddress = ctx.api.ssh(name)
    return Exec(("ssh", address.host)) if address.port else Result(None, exit=1)


def client() -> None:
    """A Python program."""
    with connect("local", profile="work") as api:
        api_too: Api = api
        sandboxes: tuple[Sandbox, ...] = api_too.list()
        rules: EgressRules = api.rules()
        patterns: tuple[str, ...] = rules.allowed
        events: Iterator[Event] = api.events("one", limit=10)
        made: Sandbox = api.create("two", "ssh-ed25519 AAAA", cpus=1.5, labels={"team": "web"}, note="mine")
        api.change("two", ttl=None, rm=False)
        server: ServerInfo = api.version()
        extensions: tuple[str, ...] = server.extensions
        mode: str = api.mode("one").mode
        check: CheckResult = api.check("example.com:443")
        added: tuple[ListedRule, ...] = api.replace_rules(
            {"rules": [{"pattern": "a.b", "list": "deny"}]}
        ).added
        noted: tuple[str | None, ...] = tuple(rule.note for rule in rules.rules)
        cut: int = api.allow("example.com", private=("10.0.0.5",), note="why").cut
        print(made.note, extensions, mode, check.live, added, noted, cut)
        # What no server knows of is an error before anything runs.
        api.create("two", "ssh-ed25519 AAAA", colour="red")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
        api.allow("example.com", nte="why")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
        api.events("one", limt=10)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
        for event in events:
            time: datetime | None = event.time
            port: int | None = event.port
            print(sandboxes, patterns, time, port)
        try:
            api.start("one")
        except NotFound as error:
            status: int = error.status
            print(status, error.hint)
        except ApiError as error:
            print(error.message)
        except IronsError as error:
            code: int = error.exit_code
            print(code)


def sandboxes() -> None:
    """Sandboxes as objects: a wrong keyword is an error before anything runs, also of what `async` makes of a call."""
    with sandbox("one", mode="deny", memory="2G") as box:
        result: ExecResult = box.exec(["true"], env={"A": "b"}, timeout=5)
        entries: tuple[FileEntry, ...] = box.list("~", most=10)
        process: BoxProcess = box.popen(["cat"])
        print(result.refused, entries, process.communicate(b"in"))
        box.exec(["true"], tmeout=5)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
        box.write("x", 5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    sandbox("one", modus="deny")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


async def sandboxes_awaited() -> None:
    """The same, awaited."""
    async with aio.sandbox("one", mode="deny") as box:
        result: ExecResult = await box.exec(["true"], env={"A": "b"}, timeout=5)
        text: str = await box.read_text("x")
        async for event in box.events(follow=True):
            host: str = event.host
            print(host, text, result.ok)
        async with box.forward(80) as port:
            here: int = port
            print(here)
        await box.exec(["true"], tmeout=5)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
        await box.write("x", 5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    aio.sandbox("one", modus="deny")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
