"""`egress lock` and `egress apply` next to others who change the same rules: what those did is never lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from irons.client.api import Api
from irons.client.models.egress import NewPolicy, PolicyDiff
from irons.testing import FakeApi, Runner

Meddle = Callable[[int], None]


@pytest.fixture
def own(own_api: FakeApi) -> FakeApi:
    """A server of irons' own kind with a sandbox that has tried one host."""
    own_api.add("one")
    for _ in range(2):
        own_api.record("api.example.com", verdict="warn", mode="warn", port=443, protocol="tls")
    return own_api


@pytest.fixture
def meddle(own: FakeApi, monkeypatch: pytest.MonkeyPatch) -> Meddle:
    """Have another add a rule to the sandbox just before each of the next so many replacements of its policy."""
    plain, left = Api.replace_rules, [0]

    def replace_rules(
        api: Api, policy: NewPolicy, sandbox: str | None = None, *, dry_run: bool = False
    ) -> PolicyDiff:
        if not dry_run and left[0]:
            left[0] -= 1
            own.sandboxes["one"].rules.append({"pattern": f"theirs{left[0]}.example", "list": "allow"})
        return plain(api, policy, sandbox, dry_run=dry_run)

    monkeypatch.setattr(Api, "replace_rules", replace_rules)
    return lambda times: left.__setitem__(0, times)


def patterns(own: FakeApi) -> list[str]:
    """The sandbox's rules."""
    return sorted(rule["pattern"] for rule in own.sandboxes["one"].rules)


def test_lock_reads_again_what_has_changed(run_irons: Runner, own: FakeApi, meddle: Meddle) -> None:
    """Locking without being asked goes on from the rules that are there by then."""
    meddle(2)
    run_irons("egress", "lock", "one", "--yes").ok()
    assert patterns(own) == ["api.example.com", "theirs0.example", "theirs1.example"]
    assert own.sandboxes["one"].mode == "deny"


def test_what_a_person_agreed_to_is_not_made_anew(run_irons: Runner, own: FakeApi, meddle: Meddle) -> None:
    """After a yes, rules that changed in between are a conflict, and nothing is changed."""
    meddle(1)
    done = run_irons("egress", "lock", "one", tty=True, stdin="y\n")
    assert done.code == 5
    assert "the rules of one changed in between; this command changed nothing" in done.err
    assert patterns(own) == ["theirs0.example"]
    assert own.sandboxes["one"].mode is None


def test_apply_tells_what_it_really_changed(
    run_irons: Runner, own: FakeApi, meddle: Meddle, tmp_path: Path
) -> None:
    """The file's policy is put in place of the one that is there by then, and the difference shown is to that one."""
    own.sandboxes["one"].rules.append({"pattern": "old.example", "list": "allow"})
    file = tmp_path / "policy.toml"
    file.write_text('[allow]\n"new.example" = ""\n')
    meddle(1)
    done = run_irons("egress", "apply", str(file), "--sandbox", "one").ok()
    assert done.lines == ["+ allow new.example", "- allow old.example", "- allow theirs0.example"]
    assert patterns(own) == ["new.example"]


def test_rules_that_never_rest_are_a_conflict(run_irons: Runner, own: FakeApi, meddle: Meddle) -> None:
    """Where others are quicker again and again, that is reported after a few tries."""
    meddle(100)
    done = run_irons("egress", "lock", "one", "--yes", "-o", "json")
    assert (done.code, done.error()["code"]) == (5, "conflict")
    assert "api.example.com" not in patterns(own)


def test_a_server_without_revisions_is_served_as_before(
    run_irons: Runner, own: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that tells no revision is sent none."""
    monkeypatch.setattr("irons.testing.egress_routes._revision", lambda *_: "")
    run_irons("egress", "lock", "one", "--yes").ok()
    sent = [call.body for call in own.calls if call.method == "PUT"]
    assert sent
    assert all("revision" not in body for body in sent)
