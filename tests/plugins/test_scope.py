"""The scope of a command: the sandbox in use, one that is named, or all; its answer names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irons.testing import FakeApi, Runner

OTHERS = "the other sandboxes keep warn; --all is for all\n"
COVERS = "alone, and no name below it, on ports 443 and 80."


@pytest.fixture
def three(own_api: FakeApi) -> FakeApi:
    """A server of irons' own kind with three sandboxes."""
    for name in ("alpha", "beta", "gamma"):
        own_api.add(name)
    return own_api


@pytest.fixture
def alpha(run_irons: Runner, three: FakeApi) -> Runner:
    """A runner with `alpha` in use by the variable."""
    run_irons.env["IRONS_SANDBOX"] = "alpha"
    return run_irons


FOR_ALPHA = "for alpha, chosen by IRONS_SANDBOX; --all is for all sandboxes\n"


@pytest.mark.parametrize(
    ("words", "out", "err"),
    [
        (
            ["allow", "a.example"],
            f"a.example is allowed for alpha. a.example {COVERS}\n",
            FOR_ALPHA,
        ),
        (
            ["deny", "a.example"],
            f"a.example is denied for alpha. a.example {COVERS}\n",
            (
                f"{FOR_ALPHA}the mode of alpha is warn (log only), which blocks nothing; "
                f"irons egress mode deny --sandbox alpha blocks\n{OTHERS}"
            ),
        ),
        (
            ["allow", "a.example", "--all"],
            f"a.example is allowed for all sandboxes (3 follow it). a.example {COVERS}\n",
            "",
        ),
        (
            ["deny", "a.example", "--all"],
            f"a.example is denied for all sandboxes (3 follow it). a.example {COVERS}\n",
            (
                "the mode of all sandboxes is warn (log only), which blocks nothing; "
                "irons egress mode deny --all blocks\n"
            ),
        ),
        (
            ["allow", "a.example", "--sandbox", "beta"],
            f"a.example is allowed for beta. a.example {COVERS}\n",
            "",
        ),
        (
            ["mode", "deny"],
            "the mode is deny for alpha: what no rule allows is blocked\n",
            f"{FOR_ALPHA}{OTHERS}",
        ),
        (
            ["mode", "deny", "--all"],
            "the mode is deny for all sandboxes (3 follow it): what no rule allows is blocked\n",
            "",
        ),
        (
            ["mode", "warn"],
            "the mode is warn for alpha: what no rule allows passes, and is logged\n",
            FOR_ALPHA,
        ),
        (
            ["mode", "account"],
            "the mode is warn for alpha, which follows all sandboxes: what no rule allows passes, and is logged\n",
            FOR_ALPHA,
        ),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_an_answer_to_a_change_names_its_scope(
    alpha: Runner, three: FakeApi, words: list[str], out: str, err: str
) -> None:
    """Each change names its scope, and what chose it where no word did; no other rules and modes change."""
    done = alpha("egress", *words).ok()
    assert (done.out, done.err) == (out, err)
    changed = {
        name: (len(rules), mode)
        for name, rules, mode in (
            ("all", three.rules, None if three.mode == "warn" else three.mode),
            *((each.name, each.rules, each.mode) for each in three.sandboxes.values()),
        )
        if rules or mode
    }
    scope = "all" if "--all" in words else "beta" if "beta" in words else "alpha"
    assert changed.keys() <= {scope}
    assert changed or "account" in words


def test_removing_a_rule_names_its_scope(alpha: Runner, three: FakeApi) -> None:
    """`remove` takes the rule of the sandbox in use, never that of all; where it has none it says what would."""
    three.rules = [{"pattern": "a.example", "list": "allow"}]
    three.sandboxes["alpha"].rules = [{"pattern": "a.example", "list": "allow"}]
    assert alpha("egress", "remove", "a.example").ok().out == "the rule a.example is removed for alpha.\n"
    assert len(three.rules) == 1
    done = alpha("egress", "remove", "a.example")
    assert (done.code, len(three.rules)) == (3, 1)
    # Once: a line before the error, or in an error that is read by itself.
    assert done.err.startswith(FOR_ALPHA)
    assert done.err.count("chosen by") == 1
    done = alpha("egress", "remove", "a.example", "-o", "json")
    hint = json.loads(done.err.splitlines()[-1])["error"]["hint"]
    assert hint.endswith("(for alpha, chosen by IRONS_SANDBOX; --all is for all sandboxes)")
    done = alpha("egress", "remove", "a.example", "--all").ok()
    assert done.out == "the rule a.example is removed for all sandboxes (3 follow it).\n"
    assert three.rules == []


def test_removing_a_rule_of_one_from_all_names_the_one(alpha: Runner, three: FakeApi) -> None:
    """Where all sandboxes have no such rule, the one that has it is named, with the command that removes it there."""
    three.sandboxes["beta"].rules = [{"pattern": "b.example", "list": "allow"}]
    done = alpha("egress", "remove", "b.example", "c.example", "--all")
    said = "the rule b.example is of sandbox beta alone; irons egress remove b.example --sandbox beta removes it there"
    assert (done.code, said in done.err) == (3, True), done.err
    assert len(three.sandboxes["beta"].rules) == 1
    done = alpha("egress", "remove", "c.example", "--all")
    assert (done.code, "of sandbox" in done.err) == (3, False), done.err
    # What all sandboxes have is not what is missing.
    three.rules = [{"pattern": "b.example", "list": "deny"}]
    done = alpha("egress", "remove", "b.example", "c.example", "--all")
    assert (done.code, "of sandbox" in done.err) == (3, False), done.err


@pytest.mark.parametrize(
    ("words", "alone", "everyone"),
    [
        (["list"], "allow\town.example\t\t\t\n", "allow\tshared.example\t\t\t\n"),
        (["mode"], "deny (sandbox)\n", "warn (but alpha: deny)\n"),
        (["export"], "own.example", "shared.example"),
        (["suggest"], "alpha.example", "beta.example"),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_what_is_shown_is_of_the_sandbox_in_use(
    alpha: Runner, three: FakeApi, words: list[str], alone: str, everyone: str
) -> None:
    """Reads mean the sandbox in use too, say so on stderr, and `--all` widens them."""
    three.rules = [{"pattern": "shared.example", "list": "allow"}]
    three.sandboxes["alpha"].rules = [{"pattern": "own.example", "list": "allow"}]
    three.sandboxes["alpha"].mode = "deny"
    for name in ("alpha", "beta"):
        three.record(f"{name}.example", sandbox=name, allowed=True, verdict="warn", count=2)
    done = alpha("egress", *words).ok()
    assert alone in done.out
    assert done.err == FOR_ALPHA
    assert everyone not in done.out
    done = alpha("egress", *words, "--all").ok()
    assert everyone in done.out
    assert done.err == ""


def test_audit_means_the_sandbox_in_use(alpha: Runner, three: FakeApi) -> None:
    """`audit egress` shows the sandbox in use, and with `--all` the log of all."""
    for name in ("alpha", "beta"):
        three.record(f"{name}.example", sandbox=name)
    done = alpha("audit", "egress", "-o", "jsonl").ok()
    assert [row["host"] for row in done.jsonl()] == ["alpha.example"]
    assert done.err == FOR_ALPHA
    done = alpha("audit", "egress", "--all", "-o", "jsonl").ok()
    assert [row["host"] for row in done.jsonl()] == ["alpha.example", "beta.example"]
    assert done.err == ""


@pytest.mark.parametrize("tty", [False, True])
def test_what_is_of_one_sandbox_says_of_which(alpha: Runner, three: FakeApi, tty: bool) -> None:
    """An answer that needs no scope names the sandbox in use in a field of its own, or on stderr."""
    three.record("a.example", sandbox="alpha", allowed=False, verdict="blocked")
    done = alpha("audit", "why", tty=tty).ok()
    assert any(line.split() in (["sandbox:", "alpha"], ["sandbox", "alpha"]) for line in done.lines)
    assert done.err == ""
    said = "for alpha, chosen by IRONS_SANDBOX"
    assert alpha("audit", "hosts", tty=tty).ok().err.splitlines()[0] == said
    assert "for alpha" not in alpha("audit", "hosts", "alpha", tty=tty).ok().err
    assert alpha("status", tty=tty).ok().err == ""


@pytest.mark.parametrize(
    "words",
    [
        ["egress", "allow", "a.example"],
        ["egress", "deny", "a.example"],
        ["egress", "remove", "a.example"],
        ["egress", "list"],
        ["egress", "mode"],
        ["egress", "mode", "deny"],
        ["egress", "check", "a.example"],
        ["egress", "suggest"],
        ["egress", "lock", "--yes"],
        ["egress", "export"],
        ["egress", "diff", "FILE"],
        ["egress", "apply", "FILE"],
        ["audit", "egress"],
    ],
    ids=" ".join,
)
def test_a_sandbox_in_use_that_does_not_exist(
    run_irons: Runner, three: FakeApi, tmp_path: Path, words: list[str]
) -> None:
    """Where the sandbox in use does not exist the command fails with 3, changes nothing, and says what chose it."""
    three.rules = [{"pattern": "a.example", "list": "allow"}]
    three.record("a.example", sandbox="alpha")
    (tmp_path / "FILE").write_text('mode = "deny"\n')
    run_irons.env["IRONS_SANDBOX"] = "gone"
    done = run_irons(*(str(tmp_path / word) if word == "FILE" else word for word in words))
    assert (done.code, done.out) == (3, "")
    lines = done.err.splitlines()
    assert lines[0] == "for gone, chosen by IRONS_SANDBOX; --all is for all sandboxes"
    assert lines[1] == "irons: there is no sandbox gone"
    assert done.err.count("chosen by") == 1
    assert three.rules == [{"pattern": "a.example", "list": "allow"}]
    assert three.mode == "warn"
    assert not any(each.rules or each.mode for each in three.sandboxes.values())


def test_the_setting_chooses_too(run_irons: Runner, three: FakeApi) -> None:
    """A setting of the file or of a profile chooses the sandbox, and the answer says which of them."""
    run_irons("config", "set", "sandbox", "beta").ok()
    done = run_irons("egress", "allow", "a.example").ok()
    assert done.err == "for beta, chosen by the setting sandbox; --all is for all sandboxes\n"
    run_irons("config", "set", "--profile", "work", "sandbox", "gamma").ok()
    done = run_irons("egress", "mode", "--profile", "work").ok()
    assert (
        done.err == "for gamma, chosen by the setting sandbox of profile work; --all is for all sandboxes\n"
    )
    done = run_irons("egress", "mode", "--profile", "work", env={"IRONS_SANDBOX": "alpha"}).ok()
    assert done.err == FOR_ALPHA


def test_a_deny_where_all_are_closed_says_nothing_more(alpha: Runner, three: FakeApi) -> None:
    """Where the mode of all sandboxes is deny, no other sandbox keeps warn."""
    three.mode = "deny"
    assert alpha("egress", "deny", "a.example").ok().err == FOR_ALPHA
    assert alpha("egress", "mode", "deny").ok().err == FOR_ALPHA


def test_those_with_their_own_mode_do_not_keep_that_of_all(alpha: Runner, three: FakeApi) -> None:
    """What is said of the other sandboxes names those whose own mode is another."""
    alpha("egress", "mode", "deny", "--sandbox", "beta").ok()
    said = alpha("egress", "mode", "deny").ok().err
    assert "the other sandboxes but those with their own (beta: deny) keep warn; --all is for all\n" in said


def test_lock_and_apply_name_their_scope(alpha: Runner, three: FakeApi, tmp_path: Path) -> None:
    """What changes a whole policy names its scope, and a lock of all names those that it leaves open."""
    for name in ("alpha", "beta"):
        three.record(f"{name}.example", sandbox=name, allowed=True, verdict="warn", count=2)
    locked = "alpha is locked: what no rule allows is blocked from now on\n"
    assert alpha("egress", "lock", "--yes").ok().err == FOR_ALPHA + locked
    assert [rule["pattern"] for rule in three.sandboxes["alpha"].rules] == ["alpha.example"]
    assert (three.rules, three.mode) == ([], "warn")
    three.sandboxes["gamma"].mode = "warn"
    done = alpha("egress", "lock", "--all", "--yes").ok()
    assert done.err == (
        "all sandboxes are locked (3 follow it): what no rule allows is blocked from now on\n"
        "not locked, with a mode of their own: gamma\n"
    )
    # The host that alpha's own rule covers stays alpha's.
    assert [rule["pattern"] for rule in three.rules] == ["beta.example"]
    assert three.mode == "deny"
    file = tmp_path / "policy.toml"
    file.write_text('[allow]\n"a.example" = ""\n')
    assert alpha("egress", "apply", str(file)).ok().err == f"{FOR_ALPHA}applied to alpha\n"
    done = alpha("egress", "apply", str(file), "--all").ok()
    assert done.err == "applied to all sandboxes (3 follow it)\n"
    done = alpha("egress", "apply", str(file)).ok()
    assert done.err == f"{FOR_ALPHA}the active policy of alpha is the file's already\n"


def test_a_v0_server_has_no_narrow_scope(run_irons: Runner, fake_api: FakeApi) -> None:
    """At a plain v0 server a change for the sandbox in use is refused, never widened; `--all` makes it."""
    fake_api.add("alpha")
    run_irons.env["IRONS_SANDBOX"] = "alpha"
    done = run_irons("egress", "allow", "a.example")
    assert (done.code, fake_api.rules) == (1, [])
    assert "--all is for all sandboxes" in done.err
    done = run_irons("egress", "allow", "a.example", "--all").ok()
    assert done.out == f"a.example is allowed for all sandboxes. a.example {COVERS}\n"


def test_a_person_reads_what_a_mode_does(alpha: Runner, three: FakeApi) -> None:
    """On a terminal a mode is shown with what it does, its scope and the exceptions; a pipe keeps the bare word."""
    assert alpha("egress", "mode", tty=True).ok().out == "warn (log only) for alpha, as all sandboxes\n"
    three.sandboxes["beta"].mode = "deny"
    told = "warn (log only) for all sandboxes (but beta: deny)\n"
    assert alpha("egress", "mode", "--all", tty=True).ok().out == told
    three.sandboxes["alpha"].mode = "deny"
    assert alpha("egress", "mode", tty=True).ok().out == "deny for alpha\n"
    assert alpha("egress", "mode", "--all").ok().out == "warn (but alpha: deny, beta: deny)\n"
