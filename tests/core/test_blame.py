"""A third party's fault is named: the plugin, the command, and what is wrong; at load where data shows it, else when it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import httpx
import pytest

from irons import Arg, Backend, Column, Command, Flag, Opt, Result, View, hookimpl
from irons.errors import NotFound
from irons.plugin.command_checks import KINDS, faults
from irons.testing import Runner


def plugin(*commands: Command) -> object:
    """A plugin object that brings these commands."""

    class Plugin:
        @hookimpl
        def irons_commands(self) -> list[Command]:
            return list(commands)

    return Plugin()


Install = Callable[..., None]


@pytest.fixture
def bad(run_irons: Runner, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a plugin `bad` of the distribution irons-bad whose command `boom` has this handler."""

    def install(handler: Callable[..., Any], view: View = View()) -> None:  # noqa: B008 - immutable
        module = ModuleType("bad_handlers")
        vars(module)["boom"] = handler
        monkeypatch.setitem(sys.modules, "bad_handlers", module)
        command = Command(("boom",), "Break.", "bad_handlers:boom", view=view)
        run_irons.plugins().register(plugin(command), "bad", distribution="irons-bad", version="1.0")

    return install


def _divides(ctx: object) -> float:
    del ctx
    return 1 / 0


def _yields_and_divides(ctx: object) -> Iterator[object]:
    yield {"row": 1}
    yield _divides(ctx)


def _opens(ctx: object) -> None:
    del ctx
    open("/nonexistent/file")  # noqa: PTH123, SIM115 - it fails


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (_divides, "ZeroDivisionError: division by zero"),
        (_yields_and_divides, "ZeroDivisionError: division by zero"),
        (_opens, "FileNotFoundError: [Errno 2] No such file or directory: '/nonexistent/file'"),
        (lambda _: 3, "TypeError: a handler returns a row, rows, a string, Result, Exec or None, not int"),
        (lambda _: [3], "TypeError: a row is a dataclass, a named tuple or a mapping, not int"),
        (
            lambda _: Result([b"x"]),
            "TypeError: a row is a dataclass, a named tuple or a mapping, not bytes",
        ),
        (lambda _: Result(None, exit="no"), "TypeError: the exit code of a Result is an integer, not str"),  # type: ignore[arg-type]
        (lambda: None, "TypeError: "),
    ],
)
@pytest.mark.parametrize("form", ["table", "plain", "json", "jsonl"])
def test_a_crash_names_the_plugin_and_the_command(
    run_irons: Runner, bad: Install, handler: Callable[..., Any], why: str, form: str
) -> None:
    """What a handler raises or returns wrongly is one line that names plugin, command and fault; exit code 1."""
    bad(handler)
    found = run_irons("boom", "-o", form)
    assert found.code == 1
    told = (
        found.error()["message"]
        if form in ("json", "jsonl")
        else found.err.splitlines()[0].removeprefix("irons: ")
    )
    assert told.startswith(f"plugin bad, command boom: {why}")
    assert "irons-bad 1.0" in found.err
    assert "inside irons" not in found.err


@pytest.mark.parametrize(("given", "code"), [(9, 9), ("no way", 1)])
def test_a_handler_that_leaves_is_named_and_keeps_its_exit_code(
    run_irons: Runner, bad: Install, given: object, code: int
) -> None:
    """`sys.exit` in a plugin is one line that names plugin, command and what it left with; the exit code is the plugin's."""
    bad(leaving(given))
    found = run_irons("boom")
    assert (found.code, found.err) == (code, f"irons: plugin bad, command boom: SystemExit: {given}\n")


@pytest.mark.parametrize("given", [0, None])
def test_a_handler_that_leaves_without_a_failure_says_nothing(
    run_irons: Runner, bad: Install, given: object
) -> None:
    """`sys.exit(0)` in a plugin is left to whoever runs the command."""
    bad(leaving(given))
    with pytest.raises(SystemExit) as caught:
        run_irons("boom")
    assert caught.value.code == given


def leaving(given: object) -> Callable[..., Any]:
    """A handler that leaves with this."""

    def boom(ctx: object) -> None:
        del ctx
        raise SystemExit(given)

    return boom


def test_what_a_handler_means_to_say_is_said_as_it_is(run_irons: Runner, bad: Install) -> None:
    """An error of `irons.errors` is the handler's own message, with its exit code."""

    def refuses(ctx: object) -> None:
        del ctx
        raise NotFound("there is no colour 'blu'", hint="did you mean blue?")

    bad(refuses)
    found = run_irons("boom")
    assert (found.code, found.err) == (3, "irons: there is no colour 'blu'\n  did you mean blue?\n")


def test_a_run_string_that_names_nothing_is_named(run_irons: Runner) -> None:
    """A `run=` of a missing module or function says so, and `irons plugins` finds it before anyone runs it."""
    gone = Command(("gone",), "Help.", "irons_of_nobody.handlers:gone")
    less = Command(("less",), "Help.", "irons.text:no_such")
    wide = Command(("wide",), "Help.", "irons.text:clean", view=View((Column("a", text="irons.text:nope"),)))
    run_irons.plugins().register(plugin(gone, less, wide), "bad", distribution="irons-bad")
    found = run_irons("gone")
    assert found.code == 1
    assert found.err.startswith(
        "irons: plugin bad, command gone: run='irons_of_nobody.handlers:gone' names nothing: ModuleNotFoundError"
    )
    assert "run='irons.text:no_such' names nothing: AttributeError" in run_irons("less").err
    rows = {row["name"]: row for row in run_irons("plugins", "-o", "json").ok().json()}
    assert rows["bad"]["status"] == "faulty"
    for word in (
        "command gone: run='irons_of_nobody",
        "command less: run='irons.text:no_such'",
        "column 'a' text",
    ):
        assert word in rows["bad"]["error"]
    assert rows["lifecycle"]["status"] == "ok"


def test_irons_plugins_compares_a_handler_with_its_parameters(run_irons: Runner, bad: Install) -> None:
    """A handler that does not take what the command gives it is found by `irons plugins`."""
    bad(lambda _, *, loud: loud)
    rows = {row["name"]: row for row in run_irons("plugins", "-o", "json").ok().json()}
    assert "does not take its parameters (none): missing a required" in rows["bad"]["error"]


def test_a_crash_of_a_plugins_backend_in_a_built_in_command_names_the_plugin(run_irons: Runner) -> None:
    """The innermost code of a third party is at fault where the command is one of irons itself."""
    module = ModuleType("irons_demo_of_tests")
    source = """
import httpx
from irons import Backend, hookimpl

def crashes(request):
    raise KeyError("colour")

@hookimpl
def irons_backend(url, settings):
    return Backend("http://demo", httpx.MockTransport(crashes)) if url == "demo" else None
"""
    exec(source, vars(module))
    run_irons.plugins().register(module, "demo", distribution="irons-demo", version="2")
    found = run_irons("list", "--api-url", "demo")
    assert found.code == 1
    assert found.err.startswith("irons: plugin demo, command list: KeyError: 'colour'\n")


@pytest.mark.parametrize(
    "answer",
    [
        lambda: httpx.Response(200, json={"sandboxes": []}),
        lambda: httpx.Response(200, content=b'{"sandboxes": []}'),
        lambda: httpx.Response(200, text='{"sandboxes": []}'),
        lambda: httpx.Response(200, content=iter([b'{"sandboxes"', b": []}"])),
        lambda: httpx.Response(200, stream=httpx.ByteStream(b'{"sandboxes": []}')),
    ],
    ids=["json", "content", "text", "pieces", "stream"],
)
def test_any_httpx_transport_is_a_backend(run_irons: Runner, answer: Callable[[], httpx.Response]) -> None:
    """Whatever way a transport makes its response, read already or not, the answer is read whole."""

    class Demo:
        @hookimpl
        def irons_backend(self, url: str) -> Backend | None:
            transport = httpx.MockTransport(lambda _: answer())
            return Backend("demo://x", transport) if url == "demo" else None

    run_irons.plugins().register(Demo(), "demo")
    assert run_irons("list", "--api-url", "demo", "-o", "json").ok().json() == []


def test_a_read_answer_is_bounded_as_any(run_irons: Runner) -> None:
    """An answer above the limit is refused from such a transport as well."""

    class Demo:
        @hookimpl
        def irons_backend(self, url: str) -> Backend | None:
            transport = httpx.MockTransport(lambda _: httpx.Response(200, content=b"x" * ((16 << 20) + 1)))
            return Backend("demo://x", transport) if url == "demo" else None

    run_irons.plugins().register(Demo(), "demo")
    found = run_irons("list", "--api-url", "demo")
    assert found.code == 1
    assert "longer than 16 MiB" in found.err


def _command(*params: object, **more: object) -> Command:
    return Command(("greet",), "Help.", "m:f", tuple(params), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (_command(Opt(("--c",), kind="sandbx")), "--c: unknown kind 'sandbx'; did you mean 'sandbox'?"),
        (_command(Arg("c", kind="colour")), "c: unknown kind 'colour'"),
        (_command(Arg("c", takes="2")), "c: unknown takes '2'"),  # type: ignore[arg-type]
        (_command(Opt(("--c",), type="integer")), "unknown type 'integer'; did you mean 'int'?"),  # type: ignore[arg-type]
        (_command(pace="fast"), "unknown pace 'fast'"),
        (_command(Flag(("--c",), pace="slow")), "unknown pace 'slow'"),  # type: ignore[arg-type]
        (_command(view=View((Column("a", cut="left"),))), "column 'a', cut 'left'"),  # type: ignore[arg-type]
        (_command(view=View((Column("a", hide="all"),))), "column 'a', hide 'all'"),  # type: ignore[arg-type]
        (_command(view="wide"), "view is a View, not str"),
        (_command(view=View(("a",))), "view has str, not Column"),  # type: ignore[arg-type]
        (_command("c"), "params has str, not Arg, Opt or Flag"),
        (_command(Opt("--c")), "flags is a tuple"),  # type: ignore[arg-type]
        (_command(Flag(("c",))), "flags is a tuple"),
        (_command(Arg("a b")), "its keyword would be 'a b'"),
        (_command(Arg("c"), Opt(("--c",))), "c and --c have the same keyword 'c'"),
        (_command(Opt(("--c",), choices="red")), "choices is a tuple"),  # type: ignore[arg-type]
        (_command(scope="sandbox"), "scope names no parameter"),
        (Command("greet", "Help.", "m:f"), "path is a tuple of words"),  # type: ignore[arg-type]
        (Command(("greet",), "Help.", "m.f"), "run is 'module:function', not 'm.f'"),
    ],
)
def test_a_misspelt_field_is_refused_at_load(run_irons: Runner, command: Command, why: str) -> None:
    """What a command's data shows to be wrong leaves the plugin out, with the field and the nearest word."""
    host = run_irons.plugins()
    host.register(plugin(command), "bad")
    assert host.plugins[-1].status == "failed"
    for part in why.split(", cut "):
        assert part in host.plugins[-1].error
    assert host.tree.get(("greet",)) is None


def test_built_in_commands_have_no_such_fault(run_irons: Runner) -> None:
    """The checks that third parties pass hold for the commands of irons itself."""
    host = run_irons.plugins()
    kinds = {*KINDS, *host.own_completions()}
    assert [fault for command in host.tree for fault in faults(command, kinds)] == []
