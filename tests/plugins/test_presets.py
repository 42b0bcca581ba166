"""`egress preset`: known sets of hosts, written out as rules where a person asks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any

import pytest

from irons.hookspecs import hookimpl
from irons.plugin.hook_data import Preset, PresetHost
from irons.presets.known_sets import OURS
from irons.testing import FakeApi, Runner
from irons_policy.patterns import read_pattern

MIRROR = Preset(
    "mirror",
    "2026-01-02",
    "A mirror.",
    "Names.",
    (PresetHost("Mirror.Example.", "all of it", "https://mirror.example/"),),
)


class Desk:
    """A plugin with presets of its own."""

    def __init__(self, *presets: object) -> None:
        self.presets = presets

    @hookimpl
    def irons_presets(self) -> Iterable[object]:
        """Return them."""
        return self.presets


def test_ours_are_whole() -> None:
    """Each has a version that is a date, a sentence on what can be sent there, and hosts in their one spelling with a source each."""
    names = [preset.name for preset in OURS]
    assert names == sorted(
        {"anthropic", "crates", "debian", "github", "go", "npm", "openai", "pypi", "ubuntu"}
    )
    for preset in OURS:
        assert date.fromisoformat(preset.version) <= date.today()  # noqa: DTZ011 - a day is enough
        assert preset.what.endswith(".")
        assert preset.sends.endswith(".")
        patterns = [host.pattern for host in preset.hosts]
        assert patterns == [read_pattern(pattern).text for pattern in dict.fromkeys(patterns)]
        assert all(host.what and host.source.startswith("https://") for host in preset.hosts)
        # What is below a name is whoever's that registers it there.
        assert not any(pattern.startswith("*") for pattern in patterns)


def test_showing_changes_nothing(run_irons: Runner, own: FakeApi) -> None:
    """`list` and `show` ask no server; `show` says what can be sent there before the hosts."""
    assert "pypi" in run_irons("egress", "preset", "list").ok().out
    done = run_irons("egress", "preset", "show", "pypi").ok()
    assert [line.split("\t")[0] for line in done.out.splitlines()] == ["pypi.org", "files.pythonhosted.org"]
    assert "what a sandbox can send there: The names that are asked for." in done.err
    assert own.calls == []


def test_hosts_are_shown_whole(run_irons: Runner, own: FakeApi) -> None:
    """On a narrow terminal too a name stands in one line; the page that all are listed on is said once."""
    done = run_irons(
        "egress", "preset", "show", "github", tty=True, env={"COLUMNS": "40", "NO_COLOR": "1"}
    ).ok()
    lines = [line.split()[0] for line in done.out.splitlines()]
    github = next(preset for preset in OURS if preset.name == "github")
    assert lines[1:] == [host.pattern for host in github.hosts]
    assert f"the hosts are listed at {github.hosts[0].source}\n" in done.err
    assert own.calls == []


def test_allowing_writes_the_hosts_out(run_irons: Runner, own: FakeApi) -> None:
    """A rule each, whose note names the preset and its date, for the scope that is named and for as long as was asked."""
    done = run_irons("egress", "preset", "allow", "pypi", "--sandbox", "one", "--for", "1h").ok()
    assert [line.split(" is ")[0] for line in done.out.splitlines()] == ["pypi.org", "files.pythonhosted.org"]
    assert own.rules == []
    rules = own.sandboxes["one"].rules
    assert [(rule["pattern"], rule["list"], rule["note"]) for rule in rules] == [
        (host, "allow", "preset pypi 2026-11-27") for host in ("pypi.org", "files.pythonhosted.org")
    ]
    assert all(rule["until"] for rule in rules)


def test_a_rule_that_is_there_stays(run_irons: Runner, own: FakeApi) -> None:
    """A person's deny is not undone by a name that covers it, and a second time changes nothing."""
    run_irons("egress", "deny", "pypi.org", "--all").ok()
    done = run_irons("egress", "preset", "allow", "pypi", "--all").ok()
    assert "left as it is: pypi.org (denied)\n" in done.err
    assert [(rule["pattern"], rule["list"]) for rule in own.rules] == [
        ("pypi.org", "deny"),
        ("files.pythonhosted.org", "allow"),
    ]
    assert run_irons("egress", "preset", "allow", "pypi", "--all").ok().out == ""


def test_what_a_newer_version_would_add(run_irons: Runner, own: FakeApi) -> None:
    """What the rules lack, and what only an earlier version had; rules of other notes are nobody's."""
    own.rules += [
        {"pattern": "pypi.org", "list": "allow", "note": "preset pypi 2025-01-01"},
        {"pattern": "old.example", "list": "allow", "note": "preset pypi 2025-01-01"},
        {"pattern": "mine.example", "list": "allow", "note": "mine"},
    ]
    done = run_irons("egress", "preset", "diff", "pypi", "--all").ok()
    assert done.out == (
        "+ allow files.pythonhosted.org  # the packages\n- allow old.example  # preset pypi 2025-01-01\n"
    )
    run_irons("egress", "allow", "files.pythonhosted.org", "--all").ok()
    run_irons("egress", "remove", "old.example", "--all").ok()
    done = run_irons("egress", "preset", "diff", "pypi", "--all").ok()
    assert (done.out, "have all of preset pypi" in done.err) == ("", True)


def test_a_sandbox_has_the_rules_of_all_too(run_irons: Runner, own: FakeApi) -> None:
    """What all sandboxes may reach is not missing from one, unless a rule of its own denies it."""
    run_irons("egress", "preset", "allow", "pypi", "--all").ok()
    done = run_irons("egress", "preset", "diff", "pypi", "--sandbox", "one").ok()
    assert (done.out, "the rules of one have all of preset pypi" in done.err) == ("", True)
    run_irons("egress", "deny", "pypi.org", "--sandbox", "one").ok()
    done = run_irons("egress", "preset", "diff", "pypi", "--sandbox", "one").ok()
    assert [line.split()[:3] for line in done.out.splitlines()] == [["+", "allow", "pypi.org"]]


def test_a_plugins_presets(run_irons: Runner, own: FakeApi) -> None:
    """They stand beside ours, can't replace one, and what is none is left out with its reason."""
    bad = Preset("bad", "2026-01-01", "", "", (PresetHost("*.com"),))
    run_irons("egress", "preset", "list").ok()
    assert run_irons.host is not None
    run_irons.host.register(Desk(MIRROR, MIRROR._replace(name="pypi"), bad, "x"), "desk")
    done = run_irons("egress", "preset", "show", "mirror").ok()
    assert done.out == "mirror.example\tall of it\thttps://mirror.example/\n"
    done = run_irons("egress", "preset", "show", "pypi").ok()
    assert "mirror.example" not in done.out
    assert "plugin desk: pypi is left out: the name is taken\n" in done.err
    assert "plugin desk: bad is left out: " in done.err
    assert "plugin desk: one of its presets is left out: " in done.err
    assert own.calls == []


HOST = PresetHost("a.example", "what", "source")


def wrong(data: Any, **fields: object) -> Any:
    """The same with fields that a plugin should not give."""
    return data._replace(**fields)


@pytest.mark.parametrize(
    ("preset", "why"),
    [
        (wrong(MIRROR, name=5), "not a Preset with a plain name"),
        (wrong(MIRROR, name="a b"), "not a Preset with a plain name"),
        (wrong(MIRROR, name="x" * 51), "not a Preset with a plain name"),
        (wrong(MIRROR, version=1), "are not text"),
        (wrong(MIRROR, sends=None), "are not text"),
        (wrong(MIRROR, hosts=()), "not a tuple of 1 to 500"),
        (wrong(MIRROR, hosts="a.example"), "not a tuple of 1 to 500"),
        (wrong(MIRROR, hosts=(HOST,) * 501), "not a tuple of 1 to 500"),
        (wrong(MIRROR, hosts=(("a.example", "what", "source"),)), "is not a PresetHost"),
        (wrong(MIRROR, hosts=(wrong(HOST, what=2),)), "is not a PresetHost"),
        (wrong(MIRROR, hosts=(HOST._replace(pattern="a\x1b[2Jb"),)), "'a\\x1b[2Jb': "),
        (None, "not a Preset with a plain name"),
    ],
)
def test_a_preset_of_wrong_data_hides_no_other(
    run_irons: Runner, own: FakeApi, preset: object, why: str
) -> None:
    """Whatever its fields are, it alone is left out, with a line that has its reason and no control character."""
    run_irons("egress", "preset", "list").ok()
    assert run_irons.host is not None
    run_irons.host.register(Desk(preset, MIRROR._replace(name="my-mirror")), "desk")
    done = run_irons("egress", "preset", "list").ok()
    assert [line.split("\t")[0] for line in done.out.splitlines()] == sorted(
        [*(each.name for each in OURS), "my-mirror"]
    )
    (line,) = done.err.splitlines()
    assert "is left out: " in line
    assert why in line
    assert line.isprintable()
    assert own.calls == []


def test_a_host_that_is_there_twice_is_one_rule(run_irons: Runner, own: FakeApi) -> None:
    """In two spellings too."""
    run_irons("egress", "preset", "list").ok()
    assert run_irons.host is not None
    twice = MIRROR._replace(hosts=(HOST, HOST._replace(pattern="A.Example.", what="again")))
    run_irons.host.register(Desk(twice), "desk")
    run_irons("egress", "preset", "allow", "mirror", "--all").ok()
    assert [rule["pattern"] for rule in own.rules] == ["a.example"]


@pytest.mark.parametrize(
    ("typed", "hint"), [("pyp", "did you mean pypi?"), ("zzz", "irons egress preset list")]
)
def test_a_name_that_is_none(run_irons: Runner, own: FakeApi, typed: str, hint: str) -> None:
    """Is exit code 3, with the nearest name or where they are listed."""
    done = run_irons("egress", "preset", "allow", typed, "--all")
    assert (done.code, hint in done.err, own.calls) == (3, True, [])


class Breaks:
    """A plugin whose presets end in an error."""

    @hookimpl
    def irons_presets(self) -> Iterable[object]:
        """Yield one, and fail."""
        yield MIRROR
        raise OSError("no file of hosts")


def test_a_plugin_that_fails_while_it_is_read_costs_its_own_alone(run_irons: Runner, own: FakeApi) -> None:
    """Irons' own presets are there, with the reason for what is not."""
    run_irons("egress", "preset", "list").ok()
    assert run_irons.host is not None
    run_irons.host.register(Breaks(), "breaks")
    done = run_irons("egress", "preset", "list").ok()
    assert "pypi" in done.out
    assert "no file of hosts" in done.err


def test_a_plugin_takes_no_place_of_ours_in_a_question(run_irons: Runner, own: FakeApi) -> None:
    """A host of both has ours, whatever the plugin's is called; a host of the plugin's alone has that."""
    about = {"sandbox_name": "box", "sandbox_id": "sb_1", "since": "2026-11-27T08:00:00Z", "port": 443}
    own.questions = [{"id": f"q_{host}", "host": host, **about} for host in ("pypi.org", "evil.example")]
    hosts = ("pypi.org", "evil.example")
    theirs = Preset("a", "2026-01-02", "All.", "", tuple(PresetHost(each, "", "") for each in hosts))
    run_irons("ask", "--list").ok()
    assert run_irons.host is not None
    run_irons.host.register(Desk(theirs), "desk")
    found = run_irons("ask", "--list", "-o", "json").ok().json()
    assert {each["id"]: each["preset"] for each in found} == {"q_pypi.org": "pypi", "q_evil.example": "a"}
