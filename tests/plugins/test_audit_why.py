"""`irons audit why`: the last refusal, what decided it, and the command that would allow it."""

from __future__ import annotations

import pytest

from irons.errors import UsageError
from irons.testing import FakeApi, Runner, faults
from irons_policy.causes import Cause
from irons_policy.remedy import NOTES


def fix(run_irons: Runner) -> str:
    """The command that is shown for the last refusal; empty where there is none."""
    return str(run_irons("audit", "why", "one", "-o", "json").ok().json()["fix"])


@pytest.mark.parametrize("command", [("why", "one"), ("egress", "one", "--host"), ("hosts", "one", "--host")])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("evil.example:8443", "type evil.example\n"),
        ("[2001:db8::1]:443", "type 2001:db8::1\n"),
        ("https://evil.example", "a name or an address"),
    ],
)
def test_a_host_with_a_port_or_a_scheme_is_refused(
    run_irons: Runner, own: FakeApi, command: tuple[str, ...], given: str, told: str
) -> None:
    """No event has such a host, so an empty answer would say that nothing happened."""
    own.record("evil.example", allowed=False, verdict="blocked", port=8443)
    done = run_irons("audit", *command, given)
    assert done.code == UsageError.exit_code
    assert told in done.err


@pytest.mark.parametrize("host", ["2001:db8::1", "::1", "192.0.2.0/24", "*.example.com", "2001:db8::/48"])
def test_a_host_without_a_port_is_looked_for(run_irons: Runner, own: FakeApi, host: str) -> None:
    """Addresses with colons, blocks and patterns are hosts."""
    own.record("fine.example", verdict="allowed")
    run_irons("audit", "egress", "one", "--host", host).ok()


def test_why(run_irons: Runner, own: FakeApi) -> None:
    """The last refusal is shown with its reason and the command that would allow it."""
    own.record("old.example", allowed=False, verdict="blocked", reason="no rule allows old.example")
    own.record("evil.example", allowed=False, verdict="blocked", port=8443, reason="no rule allows port 8443")
    own.record("fine.example", verdict="allowed")
    own.mode = "deny"
    done = run_irons("audit", "why", "one", "-o", "json").ok().json()
    assert (done["host"], done["port"], done["reason"]) == ("evil.example", 8443, "no rule allows port 8443")
    assert done["fix"] == "irons egress allow evil.example:8443 --sandbox one"
    done = run_irons("audit", "why", "one", "old.example", tty=True).ok()
    assert done.lines[-1] == "to allow it: irons egress allow old.example --sandbox one"


def test_why_of_a_deny_rule(run_irons: Runner, own: FakeApi) -> None:
    """Where a deny rule refused it, the command removes that rule."""
    own.mode = "deny"
    own.rules = [{"pattern": "evil.example", "list": "deny"}]
    own.record("evil.example", allowed=False, verdict="blocked", rule="evil.example")
    assert fix(run_irons) == "irons egress remove evil.example --all"


def test_why_of_the_floor(run_irons: Runner, own: FakeApi) -> None:
    """Where the rules would let it pass, the address that it led to is what must be opened."""
    own.rules = [{"pattern": "db.example", "list": "allow"}]
    own.record(
        "db.example",
        allowed=False,
        verdict="blocked",
        address="10.0.0.5",
        reason="10.0.0.5 is private",
        cause="floor",
    )
    assert fix(run_irons) == "irons egress allow db.example:443 --private 10.0.0.5 --sandbox one"


def test_why_of_a_literal_address_beneath_the_floor(run_irons: Runner, own: FakeApi) -> None:
    """A rule and the pin come in one command; where nothing opens the address there is none."""
    own.mode = "deny"
    own.record(
        "10.1.1.1",
        allowed=False,
        verdict="blocked",
        port=80,
        address="10.1.1.1",
        reason="10.1.1.1 is private (RFC 1918); --private on its rule would open it",
        cause="floor",
    )
    assert fix(run_irons) == "irons egress allow 10.1.1.1:80 --private 10.1.1.1 --sandbox one"
    for address, what in (("169.254.169.254", "link-local or metadata"), ("198.51.100.2", "a port of irons")):
        own.record(
            address,
            allowed=False,
            verdict="blocked",
            address=address,
            reason=f"{address} is {what}; no rule opens that",
            cause="never",
        )
        assert fix(run_irons) == ""


def test_why_of_an_address_that_a_rule_denies(run_irons: Runner, own: FakeApi) -> None:
    """Where a name led to an address under a deny rule, the command removes that rule, and opens nothing beneath the floor."""
    own.rules = [
        {"pattern": "web.example", "list": "allow"},
        {"pattern": "203.0.113.9", "list": "deny"},
    ]
    own.record(
        "web.example",
        allowed=False,
        verdict="blocked",
        rule="203.0.113.9",
        address="203.0.113.9",
        reason="web.example leads to 203.0.113.9, and rule 203.0.113.9 (account) denies that",
        cause="rule",
    )
    assert fix(run_irons) == "irons egress remove 203.0.113.9 --all"


def test_why_of_a_second_name(run_irons: Runner, own: FakeApi) -> None:
    """A name that was asked for on a connection to another is refused whatever the rules say, so no command is offered."""
    own.mode = "deny"
    own.record(
        "evil.example",
        allowed=False,
        verdict="blocked",
        reason="evil.example was asked for on a connection to web.example",
        cause="second-name",
    )
    assert fix(run_irons) == ""


def test_why_in_warn_opens_nothing_beneath_the_floor(run_irons: Runner, own: FakeApi) -> None:
    """What passed in mode warn was dialled somewhere, and needs no pin."""
    own.record(
        "a.example",
        verdict="warn",
        mode="warn",
        address="203.0.113.9",
        reason="no rule allows a.example (let pass: mode warn)",
        cause="uncovered",
    )
    assert fix(run_irons) == "irons egress allow a.example --sandbox one"


def test_why_of_a_floor_that_names_no_address(run_irons: Runner, own: FakeApi) -> None:
    """Where neither the rules nor an address explain it, or the server fails to say, there is no command."""
    own.rules = [{"pattern": "db.example", "list": "allow"}]
    own.record("db.example", allowed=False, verdict="blocked", reason="too many connections", cause="cap")
    assert fix(run_irons) == ""
    own.fail(faults.error(400, "no"), on="GET /egress/check")
    assert fix(run_irons) == ""


def test_why_of_what_no_rule_can_name(run_irons: Runner, own: FakeApi) -> None:
    """For UDP, ICMP and names that are not there is no command; the reason is shown all the same."""
    for host, more in (("8.8.8.8", {"protocol": "udp"}), ("a b;rm -rf /", {})):
        own.events.clear()
        own.record(host, allowed=False, verdict="blocked", reason="UDP is refused", cause="never", **more)
        assert fix(run_irons) == ""


def test_why_in_warn(run_irons: Runner, own: FakeApi) -> None:
    """Where nothing was refused, the last that mode warn let pass is shown."""
    own.record("a.example", verdict="warn", mode="warn")
    done = run_irons("audit", "why", "one").ok()
    assert "verdict\twould-deny" in done.lines


def test_why_of_nothing(run_irons: Runner, own: FakeApi) -> None:
    """Where nothing was refused it says so, with exit code 3."""
    own.record("a.example", verdict="allowed")
    done = run_irons("audit", "why", "one", "b.example")
    assert (done.code, done.err.splitlines()[0]) == (3, "irons: nothing of b.example was refused for one")


def test_a_host_alone_is_no_sandbox(run_irons: Runner, own: FakeApi) -> None:
    """With a sandbox in use the only word is a sandbox all the same; the hint has the words for the host."""
    done = run_irons("audit", "why", "b.example", env={"IRONS_SANDBOX": "one"})
    assert done.code == 3
    assert "irons audit why one b.example asks about that host" in done.err
    assert "asks about" not in run_irons("audit", "why", "b.example").err


def test_why_at_a_plain_server(run_irons: Runner, one: FakeApi) -> None:
    """A plain v0 server tells no reason, but the command that would allow it is known."""
    one.record("b.example", allowed=False)
    done = run_irons("audit", "why", "one", "-o", "json").ok().json()
    assert (done["host"], done["reason"], done["fix"]) == (
        "b.example",
        "",
        "irons egress allow b.example --all",
    )


@pytest.mark.parametrize(
    "cause", [cause for cause in Cause if cause not in (Cause.RULE, Cause.UNCOVERED, Cause.FLOOR)]
)
def test_why_of_what_the_rules_did_not_decide(run_irons: Runner, own: FakeApi, cause: Cause) -> None:
    """The cause alone says that no rule helps, no matter what the prose looks like; a note says what does."""
    own.mode = "deny"
    own.record("a.example", allowed=False, verdict="blocked", cause=cause, reason="no rule allows a.example")
    done = run_irons("audit", "why", "one", "-o", "json").ok().json()
    assert (done["cause"], done["fix"], done["note"]) == (cause, "", NOTES[cause])
    assert done["note"]


@pytest.mark.parametrize(("mode", "told"), [("ask", True), ("deny", False)])
def test_why_names_where_questions_are_answered(
    run_irons: Runner, own: FakeApi, mode: str, *, told: bool
) -> None:
    """What no rule covers in mode ask a person may decide: a note says where, next to the command; in deny there is none."""
    own.mode = mode
    own.record(
        "a.example",
        allowed=False,
        verdict="blocked",
        mode=mode,
        cause="uncovered",
        reason="no rule allows it",
    )
    done = run_irons("audit", "why", "one", "-o", "json").ok().json()
    assert done["fix"] == "irons egress allow a.example --sandbox one"
    ask = "in mode ask a person decides while irons ask, the prompt, irons audit watch or xonsh is open"
    assert done["note"] == (ask if told else "")


def test_why_does_not_read_prose(run_irons: Runner, own: FakeApi) -> None:
    """With the cause `uncovered` the command is shown, no matter what words the reason has."""
    own.mode = "deny"
    own.record("a.example", allowed=False, verdict="blocked", cause="uncovered", reason="no rule opens that")
    assert fix(run_irons) == "irons egress allow a.example --sandbox one"


def test_why_of_an_event_from_before_causes(run_irons: Runner, own: FakeApi) -> None:
    """An event that gives a reason and no cause is marked as one; the command is what the rules need now."""
    own.mode = "deny"
    own.record("a.example", allowed=False, verdict="blocked", reason="no rule allows a.example")
    done = run_irons("audit", "why", "one", "-o", "json").ok().json()
    assert done["note"].startswith("the event has no cause")
    assert (done["cause"], done["fix"]) == ("", "irons egress allow a.example --sandbox one")


def now(run_irons: Runner) -> object:
    """What the rules say by now of the last refusal, where that has changed."""
    return run_irons("audit", "why", "one", "-o", "json").ok().json()["now"]


def by_now(run_irons: Runner) -> str:
    """The line of it that a person sees; empty where there is none."""
    lines = run_irons("audit", "why", "one", tty=True).ok().lines
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("by now:")), "")


@pytest.mark.parametrize("verdict", ["blocked", "warn"])
def test_why_says_that_a_rule_allows_it_by_now(run_irons: Runner, own: FakeApi, verdict: str) -> None:
    """An older refusal, which a person has put a rule for since, is allowed by now, with the rule and its scope; no command follows."""
    own.mode = "deny" if verdict == "blocked" else "warn"
    own.record(
        "a.example",
        allowed=verdict == "warn",
        verdict=verdict,
        mode=own.mode,
        cause="uncovered",
        reason="no rule allows a.example",
    )
    assert now(run_irons) is None
    assert by_now(run_irons) == ""
    run_irons("egress", "allow", "a.example", "--sandbox", "one").ok()
    assert now(run_irons) == {"verdict": "allowed", "rule": "a.example", "sandbox": "one"}
    assert by_now(run_irons) == "allowed for one by rule a.example"
    assert fix(run_irons) == ""
    run_irons("egress", "remove", "a.example", "--sandbox", "one").ok()
    run_irons("egress", "allow", "a.example", "--all").ok()
    assert by_now(run_irons) == "allowed for all sandboxes by rule a.example"


def test_why_says_that_a_rule_denies_it_by_now(run_irons: Runner, own: FakeApi) -> None:
    """A deny rule since then is shown with its scope; the rule that refused it then is not news, and that it is gone is."""
    own.mode = "deny"
    own.record("a.example", allowed=False, verdict="blocked", cause="uncovered", reason="no rule allows it")
    run_irons("egress", "deny", "a.example", "--all").ok()
    assert now(run_irons) == {"verdict": "blocked", "rule": "a.example", "sandbox": None}
    assert by_now(run_irons) == "denied for all sandboxes by rule a.example"
    own.record("a.example", allowed=False, verdict="blocked", cause="rule", rule="a.example", reason="denied")
    assert now(run_irons) is None
    run_irons("egress", "remove", "a.example", "--all").ok()
    assert by_now(run_irons) == "denied for one: no rule allows a.example"


def test_why_says_that_the_mode_lets_it_pass_by_now(run_irons: Runner, own: FakeApi) -> None:
    """What mode deny refused, mode warn would only log; the command that a rule needs stays."""
    own.mode = "warn"
    own.record("a.example", allowed=False, verdict="blocked", mode="deny", cause="uncovered", reason="no")
    assert by_now(run_irons).startswith("would-deny for one: no rule allows a.example")
    assert fix(run_irons) == "irons egress allow a.example --sandbox one"


@pytest.mark.parametrize("scope", [["--sandbox", "one"], ["--all"]])
@pytest.mark.parametrize("pattern", ["db.site.example", "*.site.example:443", "db.site.example:*"])
def test_why_says_that_a_rule_opens_the_address_by_now(
    run_irons: Runner, own: FakeApi, scope: list[str], pattern: str
) -> None:
    """What the floor refused is allowed once a rule of either scope pins the address; a rule without it changes nothing."""
    own.mode = "deny"
    own.record(
        "db.site.example",
        allowed=False,
        verdict="blocked",
        address="10.0.0.5",
        reason="10.0.0.5 is private",
        cause="floor",
    )
    run_irons("egress", "allow", "db.site.example", "--private", "10.9.0.0/16", "--all").ok()
    assert by_now(run_irons) == ""
    assert fix(run_irons) == "irons egress allow db.site.example:443 --private 10.0.0.5 --sandbox one"
    run_irons("egress", "allow", pattern, "--private", "10.0.0.0/24", *scope).ok()
    whose = "all sandboxes" if scope == ["--all"] else "one"
    assert by_now(run_irons) == f"allowed for {whose} by rule {pattern}, which opens 10.0.0.5"
    assert fix(run_irons) == ""


def test_why_of_what_a_person_refused(run_irons: Runner, own: FakeApi) -> None:
    """A rule that came after the question is shown, though no command was."""
    own.mode = "ask"
    own.record("a.example", allowed=False, verdict="blocked", mode="ask", cause="asked", reason="no answer")
    assert by_now(run_irons) == ""
    run_irons("egress", "allow", "a.example", "--sandbox", "one").ok()
    assert by_now(run_irons) == "allowed for one by rule a.example"


def test_why_of_what_was_not_reached(run_irons: Runner, own: FakeApi) -> None:
    """Of a refusal and a connection that was let through in vain the newer one is shown, with how it ended."""
    own.rules = [{"pattern": "down.example", "list": "allow"}]
    own.record(
        "evil.example", allowed=False, verdict="blocked", cause="uncovered", reason="no rule allows it"
    )
    own.record(
        "down.example",
        verdict="allowed",
        reason="rule down.example (account) allows it",
        cause="unresolved",
        outcome="unresolved",
        ended="unreachable: its name was not resolved: Name or service not known",
    )
    done = run_irons("audit", "why", "one", "-o", "json").ok().json()
    assert (done["host"], done["outcome"], done["fix"]) == ("down.example", "unresolved", "")
    assert "not resolved" in done["reason"]
    assert "[local.hosts]" in done["note"]
    own.record(
        "evil.example", allowed=False, verdict="blocked", cause="uncovered", reason="no rule allows it"
    )
    assert run_irons("audit", "why", "one", "-o", "json").ok().json()["host"] == "evil.example"
    asked = run_irons("audit", "why", "one", "down.example", "-o", "json").ok().json()
    assert asked["outcome"] == "unresolved"


def test_why_says_what_was_rotated_out(run_irons: Runner, own: FakeApi) -> None:
    """Whether or not a refusal is found, how much is missing is reported, and is a field."""
    own.rotated = [{"sandbox_name": "one", "events": 7, "before": "2026-02-19T20:00:00Z"}]
    done = run_irons("audit", "why", "one")
    assert (done.code, done.err.splitlines()[0].split(" of one")[0]) == (3, "irons: 7 events")
    own.record("evil.example", allowed=False, verdict="blocked", cause="uncovered")
    told = run_irons("audit", "why", "one", "-o", "json").ok().json()
    assert (told["rotated"], told["rotated_before"]) == (7, "2026-02-19T20:00:00Z")


def test_why_on_a_full_disk(run_irons: Runner, own: FakeApi) -> None:
    """Refusals that could not be recorded are newer than every event: they are the answer, and say what to do."""
    own.record("old.example", allowed=False, verdict="blocked", reason="no rule allows old.example")
    own.unrecorded = [{"sandbox_name": "one", "sandbox_id": "sb_1", "count": 3}]
    done = run_irons("audit", "why", "one", "-o", "json").ok()
    assert (done.json()["host"], done.json()["cause"], done.json()["count"]) == ("*", "journal", 3)
    assert "free some disk space" in done.json()["note"]
    assert done.err == (
        "irons: 3 attempts of one were refused and not recorded: the disk that holds the audit log is full\n"
    )
    named = run_irons("audit", "why", "one", "old.example", "-o", "json").ok()
    assert (named.json()["host"], "3 attempts of one" in named.err) == ("old.example", True)
    assert "3 attempts of one" in run_irons("audit", "egress", "one").ok().err
