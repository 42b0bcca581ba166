"""A whole policy as a file: read, written, compared, applied."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons.errors import UsageError
from irons.testing import FakeApi, Runner
from irons_plugins.egress.policy_file import parse_policy, read_policy, render_policy
from irons_policy.rules import Rule, make_rule

FILE = """\
mode = "deny"

[allow]
"example.com" = "why"
"*.example.org:443" = ""
'db.example:5432' = { note = "tests", private = ["10.0.0.5"] }

[deny]
"ads.example" = "not from here"
"""


@pytest.fixture
def own(own_api: FakeApi) -> FakeApi:
    """A server of irons' own kind with one sandbox."""
    own_api.add("one")
    return own_api


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A policy file."""
    path = tmp_path / "policy.toml"
    path.write_text(FILE)
    return path


def test_a_file_is_read(file: Path) -> None:
    """Mode, lists, notes and private addresses are read, patterns in their one spelling."""
    found = read_policy(str(file))
    assert found.mode == "deny"
    assert found.rules == (
        make_rule("example.com", "allow", note="why"),
        make_rule("*.example.org:443", "allow"),
        make_rule("db.example:5432", "allow", private=["10.0.0.5"], note="tests"),
        make_rule("ads.example", "deny", note="not from here"),
    )


labels = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
names = st.builds(lambda a, b: f"{a}.{b}.example", labels, labels)
kinds: st.SearchStrategy[Literal["allow", "deny"]] = st.sampled_from(["allow", "deny"])
notes = st.text(st.characters(codec="utf-8"), max_size=40)


@pytest.mark.slow
@given(
    mode=st.none() | st.sampled_from(["warn", "deny"]),
    rules=st.lists(
        st.builds(make_rule, names, kinds, note=notes, broad=st.booleans()),
        unique_by=lambda rule: rule.pattern.text,
        max_size=8,
    ),
)
def test_what_is_written_reads_back(mode: str | None, rules: list[Rule]) -> None:
    """A policy written as a file reads back as the same policy, no matter what its notes say."""
    found = parse_policy(render_policy(mode, rules), "it")
    assert found.mode == mode
    assert set(found.rules) == set(rules)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mode = 'block'\n", "line 1: mode is warn or deny"),
        ("[allow]\n\n'a b' = ''\n", "line 3: 'a b' can't be a rule"),
        ("[allow]\n'a.example' = 1\n", "line 2: 'a.example' has a note"),
        ("[allow]\n'a.example' = {nota = ''}\n", "line 2: 'a.example' has 'nota'"),
        ("[allow]\n'a.example' = {private = 'x'}\n", "line 2: 'a.example': private is a list"),
        ("[deny]\n'a.example' = {private = ['10.0.0.5']}\n", "line 2: 'a.example' can't be a rule"),
        ("[allow]\n'a.example' = {note = 1}\n", "line 2: 'a.example': a note is text"),
        ("[allow]\n'a.example' = ''\n[deny]\n'A.example' = ''\n", "line 4: a.example is in the file already"),
        ("[alow]\n", "line 1: 'alow' is none of mode, allow, deny and ask"),
        ("allow = 1\n", "line 1: allow is a table of rules"),
        ("[allow]\n'a' = ''\n'a' = ''\n", "is not TOML"),
        ("[allow\n", "is not TOML"),
        ("[allow]\na = ''\n'b c' = ''\nd.e = ''\n", "line 3: 'b c'"),
    ],
)
def test_bad_entries_are_named_by_line(text: str, said: str) -> None:
    """What is invalid is named by its line."""
    with pytest.raises(UsageError) as caught:
        parse_policy(text, "policy.toml")
    assert said in caught.value.message


def test_several_bad_entries_are_told_at_once() -> None:
    """All bad entries are named, the first five with their reasons."""
    text = "[allow]\n" + "".join(f"'bad {n}' = ''\n" for n in range(8))
    with pytest.raises(UsageError) as caught:
        parse_policy(text, "policy.toml")
    assert "line 2: " in caught.value.message
    assert "line 6: " in caught.value.message
    assert "and 3 more" in caught.value.message


@pytest.mark.parametrize("command", ["diff", "apply"])
@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"mode = 'x'", b"x" * (5 << 20)])
def test_a_file_that_is_none(
    run_irons: Runner, own: FakeApi, tmp_path: Path, command: str, content: bytes | None
) -> None:
    """A missing, huge or senseless file is exit code 2 before any request."""
    path = tmp_path / "x"
    if content is not None:
        path.write_bytes(content)
    assert run_irons("egress", command, str(path)).code == 2
    assert own.calls == []


def test_apply_puts_all_in_force_at_once(run_irons: Runner, own: FakeApi, file: Path) -> None:
    """`egress apply` replaces everything in one request and says what that changed; after it there is no drift."""
    own.rules = [
        {"pattern": "old.example", "list": "allow"},
        {"pattern": "example.com", "list": "deny", "note": "x"},
    ]
    done = run_irons("egress", "apply", str(file)).ok()
    assert done.lines == [
        "mode: warn -> deny",
        "~ allow example.com (now deny, noted 'x')  # why",
        "+ allow *.example.org:443",
        "+ allow db.example:5432 --private 10.0.0.5  # tests",
        "+ deny ads.example  # not from here",
        "- allow old.example",
    ]
    assert own.mode == "deny"
    assert [rule["pattern"] for rule in own.rules] == [
        "example.com",
        "*.example.org:443",
        "db.example:5432",
        "ads.example",
    ]
    again = run_irons("egress", "apply", str(file)).ok()
    assert (again.out, again.err) == ("", "the active policy of all sandboxes is the file's already\n")
    assert run_irons("egress", "diff", str(file)).ok().out == ""


def test_a_dry_run_changes_nothing(run_irons: Runner, own: FakeApi, file: Path) -> None:
    """`--dry-run` shows what would change, and what it would cut, and changes nothing."""
    own.cut = 1
    done = run_irons("egress", "apply", str(file), "--dry-run").ok()
    assert len(done.lines) == 5
    assert (
        done.err == "this cuts 1 live connection\nnothing was changed for all sandboxes: this was a dry run\n"
    )
    assert (own.mode, own.rules) == ("warn", [])


def test_diff_exits_with_1_on_drift(run_irons: Runner, own: FakeApi, file: Path) -> None:
    """`egress diff` exits with 1 where the policy active is another, and shows how."""
    done = run_irons("egress", "diff", str(file), "-o", "json")
    assert done.code == 1
    assert [row["change"] for row in done.json()] == ["mode", "added", "added", "added", "added"]
    assert done.err == ""


def test_diff_at_a_plain_server(run_irons: Runner, fake_api: FakeApi, tmp_path: Path) -> None:
    """A plain v0 server's lists can be compared too."""
    run_irons("egress", "allow", "example.com").ok()
    path = tmp_path / "x.toml"
    path.write_text("[allow]\n'example.com' = ''\n")
    assert run_irons("egress", "diff", str(path)).code == 0


def test_the_order_of_private_addresses_is_no_drift(run_irons: Runner, own: FakeApi, tmp_path: Path) -> None:
    """A file and a server that have the same private addresses in another order, do not differ."""
    own.rules = [
        {
            "pattern": "db.example:5432",
            "list": "allow",
            "private": ["192.168.0.0/16", "10.0.0.5/32"],
            "broad": False,
        }
    ]
    path = tmp_path / "x.toml"
    path.write_text("[allow]\n'DB.example:5432' = { private = ['10.0.0.5', '192.168.0.0/16'] }\n")
    assert run_irons("egress", "diff", str(path)).code == 0


def test_a_rule_accepted_as_broad_is_drift_of_its_own(
    run_irons: Runner, own: FakeApi, tmp_path: Path
) -> None:
    """`broad` is part of a rule: without it in the export, the export could not be read back."""
    own.rules = [{"pattern": "*.github.io", "list": "allow"}]
    path = tmp_path / "x.toml"
    path.write_text("[allow]\n'*.github.io' = { broad = true }\n")
    assert run_irons("egress", "apply", str(path)).ok().lines == ["~ allow *.github.io (now no --broad)"]
    assert own.rules[0]["broad"] is True
    assert run_irons("egress", "diff", str(path)).code == 0


def test_a_rule_that_cannot_be_read_is_named(run_irons: Runner, own: FakeApi, file: Path) -> None:
    """A rule of a server that irons cannot read ends export, diff and apply; it is neither left out nor sent back."""
    own.rules = [{"pattern": "a..example", "list": "allow"}]
    for words in (["export"], ["diff", str(file)], ["apply", str(file)]):
        done = run_irons("egress", *words)
        assert done.code == 1
        assert "a..example" in done.err
    assert own.rules == [{"pattern": "a..example", "list": "allow"}]


def test_export_reads_back(run_irons: Runner, own: FakeApi, file: Path, tmp_path: Path) -> None:
    """What `egress export` prints is a file that differs in nothing."""
    run_irons("egress", "apply", str(file)).ok()
    copy = tmp_path / "copy.toml"
    copy.write_text(run_irons("egress", "export").ok().out)
    assert run_irons("egress", "diff", str(copy)).code == 0
    assert read_policy(str(copy)) == read_policy(str(file))


def test_a_sandboxs_own_policy(run_irons: Runner, own: FakeApi, file: Path) -> None:
    """With --sandbox it is that sandbox's own policy; one that follows the account has no mode in its file."""
    assert "mode" not in run_irons("egress", "export", "--sandbox", "one").ok().out
    run_irons("egress", "apply", str(file), "--sandbox", "one").ok()
    assert (own.mode, own.sandboxes["one"].mode) == ("warn", "deny")
    assert run_irons("egress", "diff", str(file), "--sandbox", "one").code == 0
    assert run_irons("egress", "diff", str(file)).code == 1


def test_export_as_json(run_irons: Runner, own: FakeApi, file: Path) -> None:
    """In JSON the policy is data."""
    run_irons("egress", "apply", str(file)).ok()
    found = run_irons("egress", "export", "-o", "json").ok().json()
    assert found["mode"] == "deny"
    assert found["rules"][2] == {
        "pattern": "db.example:5432",
        "list": "allow",
        "private": ["10.0.0.5"],
        "note": "tests",
        "broad": False,
    }


NEVER = 'mode = "ask"\n\n[ask]\nnever = ["*.Paste.example", "*:25"]\n\n[allow]\n"example.com" = ""\n'


def test_a_policy_says_what_no_one_is_asked_about(run_irons: Runner, own: FakeApi, tmp_path: Path) -> None:
    """`[ask] never` of a file is shown by diff, put by apply, written by export, and left by lock and by a file without it."""
    path = tmp_path / "team.toml"
    path.write_text(NEVER)
    differs = run_irons("egress", "diff", str(path), "--sandbox", "one", "-o", "plain")
    assert differs.code == 1
    assert "+ never *.paste.example:*" in differs.out
    assert run_irons("egress", "apply", str(path), "--sandbox", "one").ok()
    assert own.sandboxes["one"].never == ["*.paste.example:*", "*:25"]
    written = run_irons("egress", "export", "--sandbox", "one").ok().out
    assert parse_policy(written, "x") == parse_policy(NEVER, "x")
    again = tmp_path / "again.toml"
    again.write_text(written)
    assert run_irons("egress", "diff", str(again), "--sandbox", "one").code == 0
    assert run_irons("egress", "export", "--sandbox", "one", "-o", "json").ok().json()["never"] == [
        "*.paste.example:*",
        "*:25",
    ]
    assert run_irons("egress", "lock", "one", "--yes").ok()
    path.write_text('[allow]\n"other.example" = ""\n')
    assert run_irons("egress", "apply", str(path), "--sandbox", "one").ok()
    assert own.sandboxes["one"].never == ["*.paste.example:*", "*:25"]
    path.write_text("[ask]\nnever = []\n")
    assert run_irons("egress", "apply", str(path), "--sandbox", "one").ok()
    assert own.sandboxes["one"].never == []


@pytest.mark.process
def test_an_older_server_does_not_lose_it(run_irons: Runner, own: FakeApi, tmp_path: Path) -> None:
    """A server whose policies have no such part gets nothing of the file, by apply and by create."""
    own.extensions = tuple(each for each in own.extensions if each != "policy-never")
    path = tmp_path / "team.toml"
    path.write_text(NEVER)
    for words in (
        ("egress", "apply", str(path), "--sandbox", "one"),
        ("create", "two", "--policy", str(path)),
    ):
        failed = run_irons(*words)
        assert failed.code != 0
        assert "asked about" in failed.err
    assert (own.sandboxes["one"].rules, "two" in own.sandboxes) == ([], False)


@pytest.mark.parametrize(
    "text",
    ["ask = 3", "[ask]\nnever = 'x'", "[ask]\nnever = ['a b']", "[ask]\nnever = [3]", "[ask]\nexec = []"],
)
def test_what_is_wrong_in_it_is_named(text: str) -> None:
    """What is not a list of patterns, and what else `[ask]` of the settings has, is refused with its line."""
    with pytest.raises(UsageError, match="line"):
        parse_policy(text, "team.toml")
