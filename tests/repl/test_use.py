"""The sandbox in use."""

from __future__ import annotations

import subprocess
import sys

import pytest

from irons.cli.parsing import parse
from irons.errors import UsageError
from irons.host import PluginHost
from irons.settings.scope import ALL, NAMED, Scope
from irons.testing import FakeApi, faults

pytestmark = pytest.mark.process

BOX = Scope("box", "use")
TREE = PluginHost(env={"IRONS_PLUGINS": ""}).tree


def meant(line: str) -> dict[str, object]:
    """The arguments a line has while `box` is in use."""
    match = TREE.find(line.split())
    assert match is not None
    return parse(match.command, match.rest, lambda _: BOX).arguments


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("status", "names", ("box",)),
        ("status other", "names", ("other",)),
        ("status -o json", "names", ("box",)),
        ("ssh -- ls -l", "name", "box"),
        ("exec -- ls", "names", ("box",)),
        ("exec one two -- ls", "names", ("one", "two")),
        ("start --async", "names", ("box",)),
        ("stop --all", "names", ()),
        ("wait --for ready", "names", ("box",)),
        ("wait one --for ready", "names", ("one",)),
        ("forward 8080", "name", "box"),
    ],
)
def test_commands_mean_it_where_they_name_none(line: str, key: str, value: object) -> None:
    """A missing sandbox argument is the sandbox in use; a given one is itself."""
    assert meant(line)[key] == value


SCOPED = [
    "egress allow a.example",
    "egress deny a.example",
    "egress remove a.example",
    "egress list",
    "egress mode",
    "egress mode deny",
    "egress check a.example",
    "egress suggest",
    "egress lock",
    "egress export",
    "egress diff FILE",
    "egress apply FILE",
    "audit",
    "audit egress",
    "audit egress --follow",
    "audit watch",
    "watch",
]


@pytest.mark.parametrize("line", SCOPED)
def test_a_command_with_a_scope_means_the_sandbox_in_use(line: str) -> None:
    """Without a word it means the sandbox in use; `--all` means all sandboxes; a name means that one; both are refused."""
    option = (
        "other" if {"suggest", "lock", "audit", "watch"}.intersection(line.split()) else "--sandbox other"
    )
    assert meant(line)["scope"] == BOX
    assert meant(f"{line} --all")["scope"] == Scope(None, ALL)
    assert meant(f"{line} {option}")["scope"] == Scope("other", NAMED)
    with pytest.raises(UsageError, match="other is named together with --all"):
        meant(f"{line} {option} --all")


@pytest.mark.parametrize("line", SCOPED)
def test_without_one_in_use_a_scope_is_all_sandboxes(line: str) -> None:
    """Without a sandbox in use a command means all, as the original did; what never did asks for a name or `--all`."""
    match = TREE.find(line.split())
    assert match is not None
    if line in ("egress suggest", "egress lock"):
        with pytest.raises(UsageError, match="needs NAME or --all"):
            parse(match.command, match.rest)
    else:
        assert parse(match.command, match.rest).arguments["scope"] == Scope()


def test_every_egress_command_has_a_scope() -> None:
    """No command on rules or modes leaves out the sandbox in use."""
    # What is known of presets is of no sandbox.
    asks = [
        command for command in TREE if command.path[0] == "egress" and command.exits != (3,) and command.exits
    ]
    assert [command.name for command in asks if not command.scope] == []
    assert {command.name for command in TREE if command.path[0] == "egress"} - {
        each.name for each in asks
    } == {
        "egress preset list",
        "egress preset show",
    }


@pytest.mark.parametrize("line", ["destroy", "destroy --force", "create"])
def test_what_makes_or_ends_a_sandbox_names_it(line: str) -> None:
    """What can't be undone never means the sandbox in use."""
    with pytest.raises(UsageError, match="needs NAME"):
        meant(line)


@pytest.mark.parametrize("line", ["status --nope", "egress lock one two", "forward"])
def test_other_mistakes_stay_what_they_are(line: str) -> None:
    """The sandbox in use is invalid of what makes none."""
    with pytest.raises(UsageError):
        meant(line)


def test_it_is_an_environment_variable_elsewhere(env: dict[str, str]) -> None:
    """A shell exports IRONS_SANDBOX; `use`, which could not last, names it."""

    def ran(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "irons", *words]
        return subprocess.run(argv, env={**env, **more}, capture_output=True, text=True, check=False)

    assert '"name": "agent-2"' in ran("status", "-o", "json", IRONS_SANDBOX="agent-2").stdout
    assert ran("use", IRONS_SANDBOX="agent-2").stdout == "agent-2\n"
    done = ran("use", "agent-1")
    assert done.returncode == 2
    assert "export IRONS_SANDBOX=agent-1" in done.stderr
    assert ran("status", IRONS_SANDBOX="../x").returncode == 2


def test_an_unknown_one_is_refused_and_an_unreachable_server_is_not_waited_for(
    env: dict[str, str], fake: FakeApi
) -> None:
    """A name that the server does not know is not chosen; while the server is away a name is taken on trust."""
    argv = [sys.executable, "-m", "irons", "shell", "-c"]
    done = subprocess.run([*argv, "use nobody"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    fake.fail(faults.dropped(), times=100)
    done = subprocess.run([*argv, "use nobody; use"], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "nobody\n"
    assert "is not known" in done.stderr


def test_a_destroyed_sandbox_is_no_longer_in_use(env: dict[str, str]) -> None:
    """After its end the prompt means none, and while another is in use that one."""
    argv = [sys.executable, "-m", "irons", "shell", "-c"]
    line = "use agent-1; destroy agent-2 --force; use; destroy agent-1 --force; use"
    done = subprocess.run([*argv, line], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "agent-2 is destroyed\nagent-1\nagent-1 is destroyed\n"
    assert done.stderr.endswith("no sandbox is in use\n")
