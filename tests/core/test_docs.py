"""The handbook says what the code does."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
import subprocess
from itertools import takewhile
from pathlib import Path

import pytest

import irons
from irons import Box, BoxProcess, ExecResult, FileEntry, aio, hookspecs, sandbox
from irons.cli.parsing import parse, split_globals
from irons.client.api import Api
from irons.client.models import audit, changes, egress, sandboxes, server
from irons.command import Arg, Column, Command, Flag, Opt, View
from irons.context import Context
from irons.host import PluginHost
from irons.settings.scope import Scope
from irons.testing import FakeApi, faults
from irons_local.ipc import messages
from irons_plugins.ssh.ending.denial_summary import Tried

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
ROOTS = [ROOT / name for name in ("core", "plugins", "repl")]
TREE = PluginHost({"IRONS_PLUGINS": ""}, lambda _: None).tree

HOOKS = [
    found
    for name, found in inspect.getmembers(hookspecs, inspect.isfunction)
    if name.startswith("irons_") and found.__module__ == hookspecs.__name__
]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_every_hook_and_its_arguments_are_documented(hook: object) -> None:
    """docs/plugins.md has a heading for each hook with exactly its arguments, and the hook says when it fires."""
    arguments = ", ".join(inspect.signature(hook).parameters)  # type: ignore[arg-type]
    heading = f"### {hook.__name__}({arguments})"  # type: ignore[attr-defined]
    assert heading in (DOCS / "plugins.md").read_text().splitlines()
    assert "Fires" in (inspect.getdoc(hook) or "")


def test_no_hook_is_documented_that_is_not_there() -> None:
    """Every hook of docs/plugins.md exists."""
    documented = re.findall(r"^### (irons_\w+)\(", (DOCS / "plugins.md").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(hook.__name__ for hook in HOOKS)


@pytest.mark.parametrize("kind", [Command, Arg, Opt, Flag, View, Column], ids=lambda kind: kind.__name__)
def test_the_fields_of_commands_are_documented(kind: type) -> None:
    """docs/plugins.md names the fields of each kind of data, in their order."""
    fields = ", ".join(kind._fields)  # type: ignore[attr-defined]
    assert f"{kind.__name__}({fields})" in (DOCS / "plugins.md").read_text()


def test_the_library_does_what_its_page_shows(
    own_api: FakeApi,
    irons_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The program in docs/library.md lists sandboxes, and prints what was refused."""
    own_api.add("my-sandbox")
    own_api.record("a.example", "my-sandbox")
    own_api.record("b.example", "my-sandbox", allowed=False, reason="no rule allows it")
    for name, value in {**irons_env, "IRONS_API_URL": own_api.url}.items():
        monkeypatch.setenv(name, value)
    _, _, text = (DOCS / "library.md").read_text().partition("## The client")
    program = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert program is not None
    exec(compile(program[1], "library.md", "exec"), {})
    told = capsys.readouterr().out
    assert "my-sandbox ready" in told
    assert "b.example 443 no rule allows it" in told
    assert "a.example" not in told


def test_what_a_context_has_is_documented() -> None:
    """docs/plugins.md names each public attribute and method of `Context`."""
    text = (DOCS / "plugins.md").read_text()
    names = {name for name in vars(Context) if not name.startswith("_")} - {"close"}
    for name in names | {"settings", "host", "streams", "face"}:
        assert f"ctx.{name}" in text


def test_the_faults_are_documented() -> None:
    """docs/plugins.md names every fault of the fake server."""
    text = (DOCS / "plugins.md").read_text()
    for name, found in inspect.getmembers(faults, inspect.isfunction):
        if found.__module__ == faults.__name__:
            assert f"`{name}(" in text


def test_the_library_is_documented() -> None:
    """docs/library.md names every call of the client and every field of what it returns."""
    text = (DOCS / "library.md").read_text()
    for name in dir(Api):
        assert (
            name.startswith("_")
            or f"api.{name}(" in text
            or name in ("close", "extensions", "need", "made", "face")
        ), name
    modules = (audit, changes, egress, sandboxes, server)
    kinds = {kind for module in modules for kind in vars(module).values() if hasattr(kind, "_fields")}
    for kind in kinds:
        if not kind.__name__.startswith("_") and kind not in (audit.Unrecorded, audit.EventUpdate):
            assert f"{kind.__name__}({', '.join(kind._fields)})" in " ".join(text.split())


@pytest.mark.parametrize("kind", [Box, BoxProcess], ids=lambda kind: kind.__name__)
def test_sandboxes_as_objects_are_documented(kind: type) -> None:
    """docs/library.md names each call of a sandbox and of a process, each keyword of `irons.sandbox`, and all fields of their data."""
    text = (DOCS / "library.md").read_text()
    shown = {Box: "`box.{}(", BoxProcess: "`{}("}[kind]
    for name, found in vars(kind).items():
        if not name.startswith("_") and callable(found):
            assert shown.format(name) in text, name
    for name in inspect.signature(sandbox).parameters:
        assert f"`{name}`" in text or f"`{name}=True`" in text, name
    for data in (ExecResult, FileEntry, Tried):
        assert f"{data.__name__}({', '.join(data._fields)})" in " ".join(text.split())


def test_every_call_of_a_sandbox_has_a_twin() -> None:
    """What a sandbox can, it can with `async`, and what a process can, too."""
    for kind, twin in ((Box, aio.AsyncBox), (BoxProcess, aio.AsyncProcess)):
        assert {name for name in dir(kind) if not name.startswith("_")} <= set(dir(twin))


def _links(path: Path) -> list[tuple[str, str]]:
    """The links of a page: where each leads, and the heading there."""
    return re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", path.read_text())


def _anchors(path: Path) -> set[str]:
    """What the headings of a page are called in links, as forges name them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Each relative link of the handbook is a file that is there, and a heading in it."""
    for link, heading in _links(path):
        if not link.startswith(("http:", "https:")):
            target = path.parent / link if link else path
            assert target.exists(), link
            assert not heading or heading in _anchors(target), f"{link}#{heading}"


def test_every_page_is_in_the_index() -> None:
    """docs/README.md leads to every page of the handbook."""
    linked = {(DOCS / link).resolve() for link, _ in _links(DOCS / "README.md") if link}
    assert {*DOCS.glob("*.md")} - linked == {DOCS / "README.md"}
    decided = {(DOCS / "decisions" / link).resolve() for link, _ in _links(DOCS / "decisions/README.md")}
    assert {*DOCS.glob("decisions/0*.md")} == decided


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_that_are_named_exist(path: Path) -> None:
    """Each module that a page names by its import path is there."""
    names = re.findall(r"`(irons(?:_plugins|_local|_policy|_repl)?(?:\.[a-z_0-9]+)+)`", path.read_text())
    public = {*(f"irons.{each}" for each in irons.__all__), *(f"irons.aio.{each}" for each in aio.__all__)}
    for name in set(names) - public - {"irons.internal"}:  # a host that sandboxes have
        where = [root / name.replace(".", "/") for root in ROOTS]
        assert any(each.with_suffix(".py").exists() or each.is_dir() for each in where), name


def test_what_an_old_path_became_is_there() -> None:
    """Each file that docs/architecture.md gives for a path of an older irons exists."""
    text = (DOCS / "architecture.md").read_text()
    became = re.findall(r"^\| `[^`]+\.py` \| `([^`]+\.py)`", text, re.MULTILINE)
    assert len(became) > 100
    assert [path for path in became if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(("name", "made"), [("render_packages", "table"), ("render_lifecycle", "tables")])
def test_what_is_made_from_the_code_is_as_it_is(name: str, made: str) -> None:
    """The tables in docs/architecture.md are as `make docs` writes them."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    render = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(render)
    text = (DOCS / "architecture.md").read_text()
    assert getattr(render, made)().count("\n") > 10
    assert text == render.page(text)


def test_every_message_between_processes_is_documented() -> None:
    """docs/architecture.md has each operation that is sent over a link of the local backend."""
    _, _, text = (DOCS / "architecture.md").read_text().partition("## Messages between the processes")
    table = text.partition("\n## ")[0]
    documented = set(re.findall(r"`([a-z.]+)`", table))
    sent = {
        op
        for table in (
            messages.KEEPER_TO_WORKER,
            messages.KEEPER_TO_CONTROL,
            messages.CONTROL_TO_WORKER,
            messages.WORKER_TO_CONTROL,
            messages.WORKER_TO_KEEPER,
            messages.TO_KEEPER,
        )
        for op in table
    }
    for path in (ROOT / "plugins").rglob("*.py"):
        source = path.read_text()
        sent |= set(re.findall(r"\"op\": ?\"([a-z.]+)\"", source))
        sent |= set(re.findall(r"operation == \"([a-z]+)\"", source))
    assert len(sent) > 20
    assert sent <= documented


@pytest.mark.process
@pytest.mark.needs("make")
def test_make_lists_what_the_pages_name() -> None:
    """Each `make` target of README and CONTRIBUTING is one that `make` alone lists."""
    done = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True)
    listed = set(re.findall(r"^([a-z0-9-]+)  ", done.stdout, re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        found = re.findall(r"(?:`|^)make ([a-z0-9-]+)", (ROOT / page).read_text(), re.MULTILINE)
        assert set(found) <= listed
        assert "test" in found


def _commands(path: Path) -> list[str]:
    """The commands that a page shows, in blocks and in running text, without what a shell does with them."""
    text = path.read_text()
    block = r"^```(\w*)\n(.*?)^```"
    lines = [
        line.removeprefix("$ ")
        for kind, body in re.findall(block, text, re.MULTILINE | re.DOTALL)
        if kind in ("", "console", "xonsh")
        for line in body.splitlines()
    ]
    lines += re.findall(r"`([^`\n]+)`", re.sub(block, "", text, flags=re.MULTILINE | re.DOTALL))
    return [line for line in lines if re.match(r"irons [^_]", line) and "…" not in line]


def _words(line: str) -> list[str]:
    """The words of the first command of a line, as a shell would have them."""
    lexer = shlex.shlex(line.replace("\\|", "|"), posix=True, punctuation_chars="|&<>;")
    lexer.whitespace_split = True
    return list(takewhile(lambda word: word[0] not in "|&<>;", (word or "''" for word in lexer)))


@pytest.mark.parametrize(
    "path",
    [page for page in PAGES if page.name != "CHANGELOG.md"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_commands_that_are_shown_make_sense(path: Path) -> None:
    """Each command that the README and the handbook show is one, with options and arguments that it takes."""
    for line in _commands(path):
        words = split_globals(_words(line)[1:])
        if words.version or words.help or TREE.is_group(tuple(words.words)):
            continue
        if words.words[0] in ("COMMAND", "greet"):  # any command; the one that the guide for authors makes
            continue
        match = TREE.find(words.words)
        assert match is not None, line
        if not match.rest and f"`{line}`" in path.read_text():
            continue  # only named
        parse(match.command, match.rest, lambda _: Scope("in-use", "use"))


def test_commands_are_found_on_the_pages() -> None:
    """The pages that show how irons is used show commands."""
    for name in (
        "README.md",
        "docs/local.md",
        "docs/egress.md",
        "docs/ways-in.md",
        "docs/from-warn-to-deny.md",
    ):
        assert len(_commands(ROOT / name)) > 4, name
