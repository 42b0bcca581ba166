"""The egress commands: rules, mode, check; what is refused before a request, and what is reported about a change."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from irons.client.models.egress import ListedRule
from irons.errors import ApiError, UsageError
from irons.testing import FakeApi, Runner, faults
from irons.text import local_time
from irons_plugins.egress.until import read_until
from irons_plugins.egress.views import left
from irons_policy.ends import read_end


def patterns(api: FakeApi) -> list[tuple[str, str]]:
    """Return the account's rules as list and pattern."""
    return [(rule["list"], rule["pattern"]) for rule in api.rules]


@pytest.mark.parametrize(
    ("word", "shown"),
    [("enforce", "deny (sandbox)"), ("AUDIT", "warn (sandbox)"), ("inherit", "warn (account)")],
)
def test_other_words_for_a_mode(run_irons: Runner, own: FakeApi, word: str, shown: str) -> None:
    """Other tools' words for a mode are taken; the answer, help and completion have irons' own."""
    assert own.sandboxes
    run_irons("egress", "mode", word, "--sandbox", "one").ok()
    assert run_irons("egress", "mode", "--sandbox", "one").ok().out == f"{shown}\n"
    assert word not in run_irons("egress", "mode", "--help").ok().out
    assert list(run_irons.complete("egress", "mode", "")) == ["warn", "deny", "ask", "account"]


# allow and deny


@pytest.mark.parametrize("command", ["allow", "deny"])
@pytest.mark.parametrize(
    ("typed", "spelled"),
    [
        ("Example.COM.", "example.com"),
        ("*.Example.org:22", "*.example.org:22"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*", "*"),
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("[2001:DB8::/32]:443", "[2001:db8::/32]:443"),
        ("example.com:*", "example.com:*"),
    ],
)
def test_one_spelling_is_sent(
    run_irons: Runner, fake_api: FakeApi, command: str, typed: str, spelled: str
) -> None:
    """A pattern goes to the server in its one spelling, to a plain v0 server too."""
    done = run_irons("egress", command, typed, "-o", "json").ok().json()
    assert patterns(fake_api) == [(command, spelled)]
    assert (done[0]["pattern"], done[0]["list"]) == (spelled, command)
    assert done[0]["covers"]


@pytest.mark.parametrize("command", ["allow", "deny"])
@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("", "empty"),
        ("a b", "spaces"),
        ("https://example.com/x", "type example.com"),
        ("*.com", "every name registered under com"),
        ("*.github.io", "--broad"),
        ("exa*mple.com", "wildcard"),
        ("example.com:99999", "not a port"),
        ("010.0.0.1", "another spelling"),
        ("300.1.1.1", "not a valid one"),
        ("a..b", "a..b"),
        ("x" * 64 + ".example", "63"),
        ("exam\u202eple.com", "invisible"),
        ("exam\x1bple.com", "invisible"),
        ("10.0.0.1/8", "10.0.0.0/8"),
        ("-oProxy.example", "-oProxy.example"),
    ],
)
def test_a_bad_pattern_is_refused_with_its_reason(
    run_irons: Runner, fake_api: FakeApi, command: str, typed: str, why: str
) -> None:
    """A bad pattern, even the last of several, is exit code 2 with the reason, before any request."""
    done = run_irons("egress", command, "fine.example", *(["--"] if typed.startswith("-") else []), typed)
    assert done.code == 2
    assert why in done.err
    assert fake_api.calls == []
    assert not set("\x1b\u202e") & set(done.err)


def test_broad(run_irons: Runner, own: FakeApi) -> None:
    """`--broad` takes a wildcard over a private suffix; over a public one nothing does."""
    run_irons("egress", "allow", "*.github.io", "--broad").ok()
    assert own.calls[-1].body["broad"] is True
    assert run_irons("egress", "allow", "*.co.uk", "--broad").code == 2


def test_adding_a_rule_says_what_it_covers(run_irons: Runner, own: FakeApi) -> None:
    """The line of an added rule says what it covers; one that was there already says that."""
    line = "example.com:22 is allowed for all sandboxes (1 follows it). example.com alone, and no name below it, on port 22.\n"
    assert run_irons("egress", "allow", "example.com:22").ok().out == line
    assert run_irons("egress", "allow", "example.com:22").ok().out == line.replace("is ", "is already ", 1)


def test_a_note_and_a_private_address(run_irons: Runner, own: FakeApi) -> None:
    """`--private` and `--note` travel with the rule, and `egress list` shows them."""
    run_irons(
        "egress",
        "allow",
        "db.example:5432",
        "--private",
        "10.0.0.5",
        "--private",
        "192.168.0.0/16",
        "--note",
        "the db",
    ).ok()
    assert own.rules == [
        {
            "pattern": "db.example:5432",
            "list": "allow",
            "private": ["10.0.0.5", "192.168.0.0/16"],
            "note": "the db",
        }
    ]
    assert (
        run_irons("egress", "list").ok().out == "allow\tdb.example:5432\t10.0.0.5, 192.168.0.0/16\tthe db\t\n"
    )


def test_a_rule_for_a_while(run_irons: Runner, own: FakeApi) -> None:
    """`--for` and `--until` travel with the rule, the answer says for how long, and `egress list` shows its end."""
    done = run_irons("egress", "allow", "a.example", "--sandbox", "one", "--for", "1h30m").ok()
    assert done.out == (
        "a.example is allowed for one, for 1 h 30 min. a.example alone, and no name below it, on ports 443 and 80.\n"
    )
    assert own.calls[-1].body == {"domain": "a.example", "for": 5400}
    done = run_irons("egress", "deny", "b.example", "--sandbox", "one", "--until", "stop").ok()
    assert done.out.startswith("b.example is denied for one, until it stops. ")
    (first, second) = run_irons("egress", "list", "--sandbox", "one", "-o", "json").ok().json()
    assert (first["until"][:4].isdigit(), second["until"]) == (True, "stop")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--for", "1h", "--until", "stop"), "--for and --until are two ends of one rule; give one"),
        (("--for", "0"), "--for takes 1s to 366d"),
        (("--for", "400d"), "--for takes 1s to 366d"),
        (("--until", "stop"), "--until stop is for one sandbox, not for all"),
        (("--until", "tomorrow"), "'tomorrow' is neither an RFC 3339 time"),
    ],
)
def test_an_end_that_cannot_be(run_irons: Runner, own: FakeApi, words: tuple[str, ...], why: str) -> None:
    """Is refused with the reason, before any request."""
    done = run_irons("egress", "allow", "a.example", "--all", *words)
    assert (done.code, why in done.err) == (2, True), done.err
    assert own.calls == []


@pytest.mark.parametrize(
    ("word", "end"),
    [
        ("stop", "stop"),
        ("2026-11-28T08:00:00+02:00", "2026-11-28T06:00:00Z"),
        ("2026-11-28 08:00", "2026-11-28T07:00:00Z"),
        ("2026-11-28T08:00:30", "2026-11-28T07:00:30Z"),
        ("18:00", "2026-10-24T16:00:00Z"),
        # Now, and the night on which the clock is set back.
        ("12:00", "2026-10-25T11:00:00Z"),
        ("11:59", "2026-10-25T10:59:00Z"),
    ],
)
def test_an_end_as_people_type_it(monkeypatch: pytest.MonkeyPatch, word: str, end: str) -> None:
    """A time without an offset is this machine's; one without a day is the next."""
    now = datetime(2026, 10, 24, 10, tzinfo=UTC)
    with monkeypatch.context() as zone:
        zone.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        found = read_until(word, now).text
    time.tzset()
    assert found == end


@pytest.mark.parametrize("word", ["", "25:00", "8:00", "2026-11-28", "2026-02-30 08:00", "18:00:00", "now"])
def test_what_is_no_end_as_people_type_it(word: str) -> None:
    """A day alone says neither when it begins nor when it ends."""
    with pytest.raises(ValueError, match=r"RFC 3339|does not exist"):
        read_until(word, datetime(2026, 10, 24, 10, tzinfo=UTC))


def test_an_end_is_shown_as_a_local_time(run_irons: Runner, own: FakeApi) -> None:
    """The answer says which moment was meant, and the rule has it."""
    done = run_irons("egress", "allow", "a.example", "--all", "--until", "2099-01-01T00:00:00Z").ok()
    assert f", until {local_time(datetime(2099, 1, 1, tzinfo=UTC))}. " in done.out
    assert own.rules[0]["until"] == "2099-01-01T00:00:00Z"


def test_a_server_whose_rules_cannot_end(run_irons: Runner, fake_api: FakeApi) -> None:
    """A server that would store the rule for good is not asked."""
    done = run_irons("egress", "allow", "a.example", "--for", "1h")
    assert (done.code, fake_api.rules) == (1, []), done.err


def test_policy_files_leave_out_what_ends(run_irons: Runner, own: FakeApi, tmp_path: Path) -> None:
    """`export` prints it where asked, `diff` and `apply` leave it alone, and `lock` keeps its end."""
    run_irons("egress", "allow", "stays.example").ok()
    run_irons("egress", "allow", "ends.example", "--for", "1h").ok()
    kept = next(rule for rule in own.rules if rule["pattern"] == "ends.example")
    plain = run_irons("egress", "export").ok().out
    assert "ends.example" not in plain
    whole = run_irons("egress", "export", "--temporary").ok().out
    assert f'"ends.example" = {{ until = "{read_end(kept["until"]).text}" }}' in whole
    file = tmp_path / "policy.toml"
    file.write_text(plain)
    assert run_irons("egress", "diff", str(file)).code == 0
    file.write_text(plain.replace("[deny]", '"new.example" = ""\n[deny]'))
    assert run_irons("egress", "apply", str(file)).ok().out == "+ allow new.example\n"
    assert {rule["pattern"] for rule in own.rules} == {"stays.example", "ends.example", "new.example"}
    assert next(rule for rule in own.rules if rule["pattern"] == "ends.example")["until"]
    file.write_text(plain.replace("[deny]", '"ends.example" = ""\n[deny]'))
    assert "(now until" in run_irons("egress", "diff", str(file)).out


@pytest.mark.parametrize("command", ["diff", "apply"])
@pytest.mark.parametrize(
    ("until", "why"),
    [("2020-01-01T00:00:00Z", "that is over"), ("stop", "a rule until stop is for one sandbox, not for all")],
)
def test_a_file_whose_rule_cannot_end_so(
    run_irons: Runner, own: FakeApi, tmp_path: Path, command: str, until: str, why: str
) -> None:
    """A file of another day, or of one sandbox: `diff` shows no change that `apply` then refuses, and the rule is named."""
    file = tmp_path / "policy.toml"
    file.write_text(f'[allow]\n"ends.example" = {{ until = "{until}" }}\n')
    done = run_irons("egress", command, str(file), "--all")
    assert (done.code, f"{file}: 'ends.example': " in done.err, why in done.err) == (2, True, True), done.err
    assert own.calls == []


@pytest.mark.parametrize("address", ["example.com", "169.254.169.254", "127.0.0.0/8", "10.0.0.1/8", ""])
def test_a_private_address_that_cannot_be(run_irons: Runner, own: FakeApi, address: str) -> None:
    """What no rule opens is refused before any request."""
    assert run_irons("egress", "allow", "db.example:5432", "--private", address).code == 2
    assert own.calls == []


def test_private_at_a_plain_server(run_irons: Runner, fake_api: FakeApi) -> None:
    """A server that would drop the addresses without a word is not given the rule."""
    done = run_irons("egress", "allow", "db.example:5432", "--private", "10.0.0.5")
    assert done.code == 1
    assert patterns(fake_api) == []


def test_deny_in_warn_says_that_nothing_is_blocked(run_irons: Runner, fake_api: FakeApi) -> None:
    """In mode warn `egress deny` says that nothing is blocked; in deny it has nothing to say."""
    assert "which blocks nothing" in run_irons("egress", "deny", "a.example", "b.example").ok().err
    fake_api.mode = "deny"
    assert run_irons("egress", "deny", "c.example").ok().err == ""


def test_the_rules_of_one_sandbox(run_irons: Runner, own: FakeApi) -> None:
    """With --sandbox rules and mode are that sandbox's own."""
    run_irons("egress", "allow", "a.example", "--sandbox", "one").ok()
    run_irons("egress", "deny", "b.example", "--sandbox", "one").ok()
    assert own.rules == []
    assert (
        run_irons("egress", "list", "--sandbox", "one").ok().out
        == "allow\ta.example\t\t\t\ndeny\tb.example\t\t\t\n"
    )
    assert run_irons("egress", "mode", "--sandbox", "one").ok().out == "warn (account)\n"
    run_irons("egress", "mode", "deny", "--sandbox", "one").ok()
    assert run_irons("egress", "mode", "--sandbox", "one").ok().out == "deny (sandbox)\n"
    assert run_irons("egress", "mode").ok().out == "warn (but one: deny)\n"
    run_irons("egress", "remove", "a.example", "--sandbox", "one").ok()
    run_irons("egress", "mode", "account", "--sandbox", "one").ok()
    assert run_irons("egress", "mode", "--sandbox", "one").ok().out == "warn (account)\n"
    assert [rule["pattern"] for rule in own.sandboxes["one"].rules] == ["b.example"]


@pytest.mark.parametrize(
    "words",
    [
        ["allow", "a.example", "--sandbox", "one"],
        ["allow", "a.example", "--private", "10.0.0.5"],
        ["deny", "a.example", "--sandbox", "one"],
        ["list", "--sandbox", "one"],
        ["mode", "--sandbox", "one"],
        ["mode", "deny", "--sandbox", "one"],
        ["remove", "a.example", "--sandbox", "one"],
        ["check", "a.example", "--sandbox", "one"],
        ["suggest", "one"],
        ["export", "--sandbox", "one"],
        ["diff", "FILE", "--sandbox", "one"],
        ["apply", "FILE", "--sandbox", "one"],
        ["remove", "a.example"],
        ["check", "a.example"],
        ["lock", "one", "--yes"],
        ["apply", "FILE"],
    ],
    ids=" ".join,
)
def test_a_plain_server_can_not(
    run_irons: Runner, fake_api: FakeApi, words: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What a plain v0 server lacks is a clear error."""
    fake_api.add("one")
    file = tmp_path_factory.mktemp("policy") / "policy.toml"
    file.write_text('mode = "deny"\n')
    done = run_irons("egress", *(str(file) if word == "FILE" else word for word in words), "-o", "json")
    assert done.code == 1
    assert done.error()["code"] == "unsupported"
    assert "--api-url local" in done.error()["hint"]


def test_remove(run_irons: Runner, own: FakeApi) -> None:
    """`egress remove` takes a rule off its list, in any spelling; one that is not there is exit code 3."""
    own.rules = [{"pattern": "*.github.io", "list": "allow"}]
    assert run_irons("egress", "remove", "*.GitHub.io").ok().lines == [
        "the rule *.github.io is removed for all sandboxes (1 follows it)."
    ]
    assert own.rules == []
    assert run_irons("egress", "remove", "*.github.io").code == 3
    assert run_irons("egress", "remove", "a b").code == 2


@pytest.mark.parametrize(
    "words",
    [
        ["deny", "a.example"],
        ["deny", "a.example", "c.example", "--note", "why"],
        ["remove", "a.example"],
        ["remove", "a.example", "b.example"],
        ["mode", "deny"],
    ],
    ids=" ".join,
)
def test_what_is_cut_is_said_before(run_irons: Runner, own: FakeApi, words: list[str]) -> None:
    """Before a change that cuts live connections it says how many: a dry run of just the request that is then sent."""
    own.rules = [{"pattern": "a.example", "list": "allow"}, {"pattern": "b.example", "list": "deny"}]
    own.cut = 2
    done = run_irons("egress", *words).ok()
    assert done.err.splitlines()[0] == "this cuts 2 live connections"
    dry, real = [call for call in own.calls if call.method != "GET"]
    assert (dry.line, dry.body) == (real.line, real.body)
    assert dict(dry.query) == {**real.query, "dry_run": "true"}


@pytest.mark.parametrize("command", ["allow", "deny", "remove"])
def test_several_patterns_are_one_request(run_irons: Runner, own: FakeApi, command: str) -> None:
    """Several patterns are sent at once, each of them once; every one has its row, and the last one says what was cut."""
    own.rules = [{"pattern": name, "list": "allow"} for name in ("a.example", "b.example")]
    own.cut = 2
    rows = run_irons("egress", command, "b.example", "a.example", "B.example", "-o", "json").ok().json()
    assert [(row["pattern"], row["cut"]) for row in rows] == [("b.example", 0), ("a.example", 2)]
    sent = [call for call in own.calls if call.method != "GET" and "dry_run" not in call.query]
    assert [(call.line, call.body["domains"]) for call in sent] == [
        (f"POST /egress/{command}", ["b.example", "a.example"])
    ]


def test_several_patterns_are_removed_or_none(run_irons: Runner, own: FakeApi) -> None:
    """Where one of several rules is not there, no rule is removed."""
    own.rules = [{"pattern": "a.example", "list": "allow"}]
    assert run_irons("egress", "remove", "a.example", "b.example").code == 3
    assert patterns(own) == [("allow", "a.example")]


@pytest.mark.parametrize("in_use", [False, True])
def test_a_rule_of_all_sandboxes_is_not_removed_for_one(
    run_irons: Runner, own: FakeApi, in_use: bool
) -> None:
    """Where only all sandboxes have the rule, that is said, with the command that removes it there; nothing is removed."""
    own.rules = [{"pattern": each, "list": "allow"} for each in ("a.example", "*.b.example", "c.example")]
    run_irons("egress", "allow", "c.example", "d.example", "--sandbox", "one").ok()
    scope = [] if in_use else ["--sandbox", "one"]
    run_irons.env.update({"IRONS_SANDBOX": "one"} if in_use else {})
    done = run_irons("egress", "remove", "A.example", *scope)
    said = "the rule a.example is of all sandboxes; irons egress remove a.example --all removes it for all"
    assert (done.code, said in done.err) == (3, True), done.err
    done = run_irons("egress", "remove", "*.b.example", "a.example", "c.example", "d.example", *scope)
    said = "the rules *.b.example, a.example are of all sandboxes; irons egress remove '*.b.example' a.example --all removes them for all"
    assert (done.code, said in done.err) == (3, True), done.err
    done = run_irons("egress", "remove", "nope.example", *scope)
    assert (done.code, "of all sandboxes" in done.err) == (3, False), done.err
    assert [rule["pattern"] for rule in own.rules] == ["a.example", "*.b.example", "c.example"]
    done = run_irons("egress", "remove", "a.example", "--sandbox", "nope")
    assert (done.code, "of all sandboxes" in done.err) == (3, False), done.err


@pytest.mark.parametrize("command", ["allow", "deny"])
def test_a_plain_server_gets_one_request_for_each_pattern(
    run_irons: Runner, fake_api: FakeApi, command: str
) -> None:
    """A v0 server is sent what it knows: one domain a request, and never a dry run, which it would carry out."""
    run_irons("egress", command, "a.example", "b.example").ok()
    sent = [call for call in fake_api.calls if call.method == "POST"]
    assert [(call.body, dict(call.query)) for call in sent] == [
        ({"domain": "a.example"}, {}),
        ({"domain": "b.example"}, {}),
    ]
    assert patterns(fake_api) == [(command, "a.example"), (command, "b.example")]


def test_an_empty_list(run_irons: Runner, fake_api: FakeApi) -> None:
    """Without rules a person gets a line about it."""
    done = run_irons("egress", "list", tty=True).ok()
    assert (done.out, done.err) == ("", "There are no rules.\n")


def test_answers_that_are_no_rules_are_named_next_to_the_list(run_irons: Runner, own: FakeApi) -> None:
    """In mode `ask` a line each, of the sandbox that is listed; the rows are the rules alone, and a server that refuses it costs no row."""
    own.add("one", mode="ask")
    own.sandboxes["one"].rules.append({"pattern": "a.example", "list": "allow"})
    given = {"sandbox_name": "one", "pattern": "new.example:443", "answer": "no", "seconds": 240}
    own.answers = [
        given,
        {**given, "pattern": "next.example:443", "answer": "once", "seconds": 50},
        {**given, "sandbox_name": "two"},
    ]
    done = run_irons("egress", "list", "--sandbox", "one", "-o", "json").ok()
    assert [row["pattern"] for row in done.json()] == ["a.example"]
    assert done.err.splitlines() == [
        "new.example:443 of one: refused without a question, for 4 min more; it is the answer no, not a rule",
        "next.example:443 of one: the next connection passes, for 50 s more; it is the answer once, not a rule",
    ]
    all_of_them = run_irons("egress", "list", "--all").ok().err.splitlines()
    assert [line.split(":443 ")[0] for line in all_of_them] == ["new.example", "next.example", "new.example"]
    own.fail(faults.error(403), on="GET /questions")
    assert len(run_irons("egress", "list", "--sandbox", "one", "-o", "json").ok().json()) == 1
    own.sandboxes["one"].mode = "deny"
    assert run_irons("egress", "list", "--sandbox", "one").ok().err == ""


# mode and check


def test_mode(run_irons: Runner, fake_api: FakeApi) -> None:
    """Without a word the mode is shown, with one it is set and shown."""
    assert run_irons("egress", "mode").ok().out == "warn\n"
    done = run_irons("egress", "mode", "deny").ok()
    assert done.out == "the mode is deny for all sandboxes: what no rule allows is blocked\n"
    assert run_irons("egress", "mode").ok().out == "deny\n"
    assert fake_api.mode == "deny"
    assert run_irons("egress", "mode", "-o", "json").ok().json() == {
        "mode": "deny",
        "sandbox": None,
        "source": "account",
        "differs": {},
        "followers": None,
    }


def test_mode_ask(run_irons: Runner, own: FakeApi) -> None:
    """It is called `ask` in each answer, though the wire has it as `deny`; what it cuts is said before."""
    own.cut = 2
    done = run_irons("egress", "mode", "ask", "--sandbox", "one").ok()
    assert done.out.startswith("the mode is ask for one: what no rule allows waits for a person")
    assert "2 live connections" in done.err
    assert own.sandboxes["one"].mode == "ask"
    assert run_irons("egress", "mode", "--sandbox", "one").ok().out == "ask (sandbox)\n"
    own.mode = "deny"
    assert run_irons("egress", "mode").ok().out == "deny (but one: ask)\n"
    told = run_irons("egress", "check", "new.example", "--sandbox", "one", "-o", "json")
    assert (told.code, told.json()["mode"], told.json()["verdict"]) == (7, "ask", "blocked")


def test_a_policy_file_with_ask(run_irons: Runner, own: FakeApi, tmp_path: Path) -> None:
    """A file may have the mode; what is exported has it, and applied again it changes nothing."""
    file = tmp_path / "policy.toml"
    file.write_text('mode = "ask"\n', encoding="utf-8")
    run_irons("egress", "apply", str(file), "--sandbox", "one").ok()
    assert own.sandboxes["one"].mode == "ask"
    file.write_text(run_irons("egress", "export", "--sandbox", "one").ok().out, encoding="utf-8")
    assert 'mode = "ask"' in file.read_text(encoding="utf-8")
    assert run_irons("egress", "diff", str(file), "--sandbox", "one").ok().out == ""


@pytest.mark.parametrize("words", [["block"], ["denny"], ["account"], ["deny", "warn"]])
def test_modes_that_are_none(run_irons: Runner, fake_api: FakeApi, words: list[str]) -> None:
    """A mode that is not one is refused before any request, with a suggestion where one is near."""
    done = run_irons("egress", "mode", *words)
    assert done.code == 2
    assert fake_api.calls == []
    if words == ["denny"]:
        assert "did you mean deny?" in done.err


def test_check(run_irons: Runner, own: FakeApi) -> None:
    """`egress check` says verdict, mode and rule; it exits with 0 where allowed and 7 where denied."""
    own.mode = "deny"
    own.rules = [{"pattern": "a.example", "list": "allow"}]
    done = run_irons("egress", "check", "a.example", tty=True).ok()
    assert done.lines == [
        "host:    a.example",
        "port:    443",
        "verdict: allowed",
        "mode:    deny",
        "rule:    a.example",
        "scope:   all sandboxes",
        "reason:  rule a.example (all sandboxes) allows it",
    ]
    done = run_irons("egress", "check", "b.example:22", "-o", "json")
    assert done.code == 7
    assert (done.json()["verdict"], done.json()["port"], done.json()["rule"]) == ("blocked", 22, None)


def test_check_live(run_irons: Runner, own: FakeApi) -> None:
    """With `--live` it says where the host was reached and how long that took, with an exit code of its own where it was not."""
    own.mode = "deny"
    own.rules = [{"pattern": name, "list": "allow"} for name in ("a.example", "gone.invalid")]
    done = run_irons("egress", "check", "--live", "a.example:443", tty=True).ok()
    assert done.lines[-4:] == [
        "outcome:      reached",
        "address:      192.0.2.1",
        "resolved in:  3 ms",
        "connected in: 12 ms",
    ]
    done = run_irons("egress", "check", "--live", "gone.invalid", "-o", "json")
    assert done.code == 6
    assert done.json()["live"] == {"outcome": "unresolved", "error": "its name was not resolved"}
    done = run_irons("egress", "check", "--live", "b.example", "-o", "json")
    assert (done.code, done.json()["live"]) == (7, None)
    own.extensions = tuple(each for each in own.extensions if each != "live-check")
    assert "local" in run_irons("egress", "check", "--live", "a.example").err


def test_a_check_that_the_server_does_not_understand_is_a_usage_error(
    run_irons: Runner, own: FakeApi
) -> None:
    """What is not a port, or no name, is wrong in the words, as with a rule; other refusals keep their exit code."""
    own.fail(faults.error(400, "'99999' is not a port"), "GET /egress/check")
    done = run_irons("egress", "check", "a.example:99999")
    assert done.code == UsageError.exit_code
    assert "'99999' is not a port" in done.err
    own.fail(faults.error(418), "GET /egress/check")
    assert run_irons("egress", "check", "a.example").code == ApiError.exit_code


def test_check_in_warn(run_irons: Runner, own: FakeApi) -> None:
    """What only mode warn lets pass is would-deny, and passes."""
    done = run_irons("egress", "check", "b.example", tty=True).ok()
    assert "verdict: would-deny" in done.lines


def test_check_in_ask(run_irons: Runner, own: FakeApi) -> None:
    """What a person would be asked about is blocked, and a note says where the questions are answered; a deny rule has no note."""
    own.mode = "ask"
    own.rules = [{"pattern": "a.example", "list": "deny"}]
    done = run_irons("egress", "check", "b.example", tty=True)
    assert done.code == 7
    assert done.lines[-2:] == [
        "reason:  no rule allows b.example",
        "note:    in mode ask a person decides while irons ask, the prompt, irons audit watch or xonsh is open",
    ]
    assert "note" not in run_irons("egress", "check", "b.example", "-o", "json").json()
    assert "note" not in run_irons("egress", "check", "a.example").out


@pytest.mark.parametrize("host", ["a b", "a\nb", "a\x1b"])
def test_check_of_no_host(run_irons: Runner, own: FakeApi, host: str) -> None:
    """White space and control characters are refused before any request."""
    assert run_irons("egress", "check", host).code == 2
    assert own.calls == []


def test_hostile_rules_stay_text(run_irons: Runner, own: FakeApi) -> None:
    """What a server tells as rules, notes and reasons never reaches the terminal raw."""
    evil = "\x1b[2J\r\n\u202e"
    own.rules = [{"pattern": evil, "list": "allow", "note": evil, "private": [evil]}]
    for words in (["egress", "list"], ["egress", "export"], ["egress", "mode"]):
        for tty in (True, False):
            done = run_irons(*words, tty=tty)
            assert not set("\x1b\r\u202e") & set(done.out + done.err), words


def test_a_server_that_fails_in_the_middle(run_irons: Runner, fake_api: FakeApi) -> None:
    """What was done before a failure is shown, and the exit code is the failure's."""
    fake_api.fail(faults.error(400, "no more rules"), on="POST /egress/allow")
    assert run_irons("egress", "allow", "a.example").code == 1


@pytest.mark.parametrize(
    ("end", "shown"),
    [
        (None, ""),
        ("stop", "until it stops"),
        ("2000-01-01T00:00:00Z", "0 s left"),
        ("9000-01-01T00:00:00Z", " d "),
    ],
)
def test_what_is_left_of_a_rule(end: str | None, shown: str) -> None:
    """A person reads how long a rule stays, not when it ends."""
    row = ListedRule("allow", "a.example", until=end)._asdict()
    assert shown in left(row)
    assert bool(shown) == bool(left(row))


def test_what_is_left_is_what_the_server_says(run_irons: Runner, own: FakeApi) -> None:
    """A rule for an hour stays an hour at most, though the wall clock was set back by a day since it was made."""
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    own.rules.append({"pattern": "a.example", "list": "allow", "until": tomorrow, "left": 1800})
    done = run_irons("egress", "list", tty=True).ok()
    assert "30 min left" in done.lines[1]
    assert run_irons("egress", "list").ok().out == f"allow\ta.example\t\t\t{tomorrow}\n"
