"""`irons ask`: what the pane shows and its keys do, without a terminal, and the commands for scripts."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons.asking.answers import KeyAnswer, TakenPreset
from irons.asking.screen import ANSWERING, ESCAPE, HELP, KEYS, LEFT, SETTLED, AskScreen
from irons.client.models.questions import Answer, OpenQuestion, QuestionPage
from irons.testing import FakeApi, Runner
from tests.plugins.conftest import Irons


def page(*names: str, **more: Any) -> QuestionPage:
    """A page with a question for each name."""
    asked = tuple(OpenQuestion(f"q_{name}", "box", f"{name}.example:443", "tls", 2, 3) for name in names)
    return QuestionPage(asked, watched=True, **more)


def shown(*names: str) -> AskScreen:
    """A pane that has shown these questions for long."""
    return settled(AskScreen(), page(*names))


def settled(screen: AskScreen, now_open: QuestionPage | None = None) -> AskScreen:
    """The same pane after it has shown the chosen question for long."""
    if now_open is not None:
        screen.take(now_open)
    see(screen, 0.0)
    screen.settle(SETTLED)
    return screen


def see(screen: AskScreen, now: float, width: int = 80, height: int = 24) -> list[str]:
    """What is drawn of a pane at this moment."""
    lines = screen.lines(width, height)
    screen.drawn(now)
    return lines


def read(screen: AskScreen, now: float, width: int = 80, height: int = 24) -> list[str]:
    """What is drawn of a pane at this moment, and looked at for long."""
    lines = see(screen, now, width, height)
    screen.settle(now + SETTLED)
    return lines


@pytest.mark.parametrize(("key", "answer"), [("o", "once"), ("s", "stop"), ("h", "hour"), ("n", "no")])
def test_one_key_answers(key: str, answer: Answer) -> None:
    """The answer carries the id of the question that was drawn."""
    assert shown("a", "b").key(key) == KeyAnswer("q_a", answer)


@pytest.mark.parametrize(("key", "answer", "verb"), [("a", "always", "allow"), ("N", "never", "deny")])
def test_for_good_wants_a_second_key(key: str, answer: Answer, verb: str) -> None:
    """The rule and for whom it is are shown first; any other key leaves it."""
    screen = shown("a")
    assert screen.key(key) is None
    told = [verb, "a.example:443", f"for box, while box exists: {key} again; any other key leaves it"]
    assert read(screen, 1.0)[-3:] == told
    assert screen.key(key) == KeyAnswer("q_a", answer)
    screen.key(key)
    assert screen.key("x") is None
    assert screen.key(key) is None


def test_all_sandboxes_want_a_second_key_and_a_third() -> None:
    """The rule is shown first, then whom it is for in words; no key of those before gives it, and any other key leaves it."""
    screen = shown("a")
    told = ["allow", "a.example:443", "for all sandboxes, not box alone: A again; any other key leaves it"]
    surely = ["every sandbox there is and every one made later may reach", "a.example:443"]
    for leaving in ("A", "a", "x", "y"):
        assert screen.key("A") is None
        assert read(screen, 1.0)[-3:] == told
        if leaving != "A":
            assert screen.key(leaving) is None
            assert screen.key("y") is None
            read(screen, 1.0)
            continue
        assert screen.key("A") is None
        assert read(screen, 1.0)[-3:-1] == surely
        assert screen.takes("y")
        assert screen.key("A") is None
        assert not screen.takes("y")
        assert screen.key("y") is None
        read(screen, 1.0)
    read(screen, 1.0)
    screen.key("A")
    read(screen, 1.0)
    screen.key("A")
    read(screen, 1.0)
    assert screen.key("y") == KeyAnswer("q_a", "always", everywhere=True)


@pytest.mark.parametrize("steps", [("a",), ("N",), ("p",), ("A",), ("A", "A")])
@pytest.mark.parametrize("leaving", [*ANSWERING, ESCAPE])
def test_a_key_that_leaves_a_rule_answers_nothing(steps: tuple[str, ...], leaving: str) -> None:
    """Someone who changes their mind presses anything: only when the question is seen again does a key answer it."""
    preset = OpenQuestion("q_a", "box", "a.example:443", "tls", 2, 3, preset="p", preset_hosts=("a.example",))
    screen = settled(AskScreen(), QuestionPage((preset,), watched=True))
    for moment, step in enumerate(steps, start=1):
        assert screen.key(step) is None
        read(screen, moment)
    own = "y" if len(steps) > 1 else "".join(steps)
    if leaving == own:
        return
    assert screen.key(leaving) is None
    assert (screen.note, screen.left) == (LEFT, False)
    assert screen.key("h") is None
    read(screen, 9.0)
    assert screen.key("h") == KeyAnswer("q_a", "hour")
    screen.key(ESCAPE)
    assert screen.left


def test_what_was_not_drawn_takes_no_second_key() -> None:
    """Keys that come together go no step further: each step has been on the terminal."""
    screen = shown("a")
    for _ in range(9):
        assert screen.key("A") is None
        assert screen.key("y") is None


@pytest.mark.parametrize("key", ["a", "N", "A", "p"])
def test_a_rule_is_put_by_no_key_that_came_with_it(key: str) -> None:
    """The second key counts once the rule was on the terminal as long as a question must be; a key that came too soon leaves the rule there."""
    screen = in_preset("deb.debian.org")
    assert screen.key(key) is None
    rule = see(screen, 9.0)[-3:]
    screen.settle(9.0 + SETTLED / 2)
    for now in (9.1, 9.2):
        assert screen.key(key) is None
        lines = see(screen, now)
        assert lines[-4:-1] == rule
        assert "too soon" in lines[-1]
    # Where there is room for the rule alone, that is what is shown.
    rows = next(rows for rows in range(2, 24) if see(screen, 9.3, height=rows)[2:][-3:] == rule)
    assert "too soon" not in "".join(screen.lines(80, rows))
    see(screen, 9.4)
    screen.settle(9.4 + SETTLED)
    screen.key("x")
    assert screen.key(key) is None
    read(screen, 9.9)
    assert screen.key(key) is None
    read(screen, 10.0)
    put = screen.key(key)
    if key == "A":
        assert put is None
        see(screen, 11.0)
        assert screen.key("y") is None
        assert "every sandbox" in " ".join(read(screen, 11.1))
        put = screen.key("y")
    assert put is not None


@pytest.mark.parametrize("width", [30, 40, 80])
def test_a_key_is_next_to_what_it_does(width: int) -> None:
    """However narrow the pane is, no line of the keys ends between a key and its meaning."""
    lines = see(shown("a"), 1.0, width)
    keys = lines[next(at for at, line in enumerate(lines) if line.startswith("o once")) :]
    assert max(map(len, keys)) <= width
    assert "  ".join(keys) == HELP


def in_preset(*hosts: str, sends: str = "The names that are asked for.") -> AskScreen:
    """A pane that has shown a question about the first of these hosts for long."""
    asked = OpenQuestion("q_a", "box", f"{hosts[0]}:80", host=hosts[0], port=80)
    known = asked._replace(
        preset="debian", preset_hosts=hosts, preset_version="2026-11-27", preset_sends=sends
    )
    return settled(AskScreen(), QuestionPage((known,), watched=True))


def test_a_preset_is_taken_by_a_second_key() -> None:
    """The question offers it; one key lists its hosts and what can be sent there, and the same key takes exactly those."""
    screen = in_preset("deb.debian.org", "security.debian.org")
    assert "    preset debian, 2 hosts: p shows and takes it" in see(screen, 1.0)
    assert screen.key("p") is None
    assert read(screen, 1.0, width=100)[-4:] == [
        "allow preset debian",
        "deb.debian.org security.debian.org",
        "for box, while box exists. What can be sent there: The names that are asked for.",
        "p again; any other key leaves it",
    ]
    taken = TakenPreset("preset debian 2026-11-27", ("deb.debian.org", "security.debian.org"))
    assert screen.key("p") == KeyAnswer("q_a", "always", preset=taken)
    assert shown("a").key("p") is None


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 24), (30, 24), (30, 12), (20, 6), (80, 5)])
def test_no_host_of_a_preset_is_taken_unseen(width: int, height: int) -> None:
    """Each host is on the terminal whole, or the second key takes nothing; a long one goes on in the next line and is not cut."""
    hosts = tuple(f"host-{number}-{'x' * 30}.example" for number in range(9))
    screen = in_preset(*hosts, sends="")
    assert screen.key("p") is None
    lines = read(screen, 1.0, width, height)
    taken = screen.key("p")
    shown_text = "".join("".join(lines).split())
    assert (taken is not None) == all(host in shown_text for host in hosts)
    assert (taken is not None) or any("no room" in line or len(lines) < 2 for line in lines)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 24), (30, 24), (30, 10), (20, 6), (80, 5)])
@pytest.mark.parametrize("keys", ["aa", "NN", "AAy", "wwhh", "wwaa", "wwAAy"])
def test_no_rule_is_put_that_was_cut(keys: str, width: int, height: int) -> None:
    """Its pattern is on the terminal whole, with the `*.` that a wider one begins with, or no key puts it; where it goes on is indented."""
    screen = AskScreen()
    host = f"a.{'b' * 60}.{'c' * 60}.example.com"
    settled(
        screen, QuestionPage((OpenQuestion("q_a", "box", f"{host}:443", host=host, port=443),), watched=True)
    )
    lines: list[str] = []
    for key in keys[:-1]:
        assert screen.key(key) is None
        lines = read(screen, 1.0, width, height)
    put = screen.key(keys[-1])
    pattern = f"*.{'c' * 60}.example.com:443" if keys[0] == "w" else f"{host}:443"
    assert (put is not None) or height < 24
    if put is not None:
        assert pattern in "".join("".join(lines).split())
        assert put.pattern == (pattern if keys[0] == "w" else None)
        at = next(
            at
            for at, line in enumerate(lines)
            if line and not line.startswith(" ") and pattern.startswith(line)
        )
        assert all(line.startswith("  ") for line in lines[at + 1 : at + 1 + len(pattern) // width])


def test_a_wider_pattern_is_shown_whole() -> None:
    """It is not cut when it is taken either; where it has no room, that is said."""
    screen = AskScreen()
    host = f"a.{'b' * 60}.example.com"
    settled(
        screen, QuestionPage((OpenQuestion("q_a", "box", f"{host}:443", host=host, port=443),), watched=True)
    )
    screen.key("w")
    assert f"*.{'b' * 60}.example.com:443" in "".join("".join(see(screen, 1.0, width=40)).split())
    assert "no room to show" in " ".join(see(screen, 1.0, width=40, height=6))


def test_nothing_is_the_default() -> None:
    """Neither Enter nor what was pasted answers, nor a key where nothing is asked."""
    screen = shown("a")
    for typed in ("\r", "\n", " ", "oo", "aa", "o\n", "\x1b[200~o\x1b[201~", ""):
        assert screen.key(typed) is None
    assert AskScreen().key("o") is None
    assert not screen.left


def test_the_agents_reason_is_marked_as_the_sandboxes_words() -> None:
    """It is one quoted field with escapes, cut before it fills the pane, below the question that it is for; no connection is claimed."""
    screen = AskScreen()
    asked = OpenQuestion("q_a", "box", "a.example:443", requests=1, reason='for "tests"\x1b[2J ' + "x " * 400)
    screen.take(
        QuestionPage((asked, OpenQuestion("q_b", "box", "b.example:443", reason="hidden")), watched=True)
    )
    lines = screen.lines(60, 20)
    assert lines[1:3] == ["> a.example:443", "    box: asked by the agent, no connection was made"]
    assert lines[3].startswith('    the sandbox says: "for \\"tests\\"\\x1b[2J x')
    assert lines[4].startswith("    | x x")
    assert lines[5] == "    | …"
    assert lines[6].endswith("b.example:443")
    assert not any("hidden" in line for line in lines)


def test_the_agents_reason_ends_no_quotes_and_forges_no_line() -> None:
    """Quotes inside are escaped, blanks fold to one, and what has no ink or width is an escape; further lines have a mark."""
    forged = 'tests"' + "\u3000 " * 40 + "new: not tried \\" + "e\u0301a\u0301\u0336 \u2800\u3164 " + "z" * 50
    screen = AskScreen()
    screen.take(QuestionPage((OpenQuestion("q_a", "box", "a.example:443", reason=forged),), watched=True))
    assert screen.lines(60, 20)[3:6] == [
        '    the sandbox says: "tests\\" new: not tried \\éá\\u0336',
        "    | \\u2800\\u3164",
        f'    | {"z" * 50}"',
    ]


@pytest.mark.parametrize(("pid", "mark"), [(41, "pid 41, "), (None, "")])
def test_the_program_is_marked_as_the_sandboxes_word(pid: int | None, mark: str) -> None:
    """It comes with an update, which leaves a key that was pressed what it was; lies in it stay in their quotes."""
    screen = AskScreen()
    asked = OpenQuestion("q_a", "box", "a.example:443", waiting=1)
    settled(screen, QuestionPage((asked,), watched=True))
    lies = "pip install x\" (pid 1, irons' word) \x1b[2J"
    page = QuestionPage((asked._replace(program=lies, pid=pid, reason="tests"),), watched=True)
    assert screen.take(page) is False
    assert screen.lines(100, 20)[3:5] == [
        f'    program ({mark}the sandbox\'s word): "pip install x\\" (pid 1, irons\' word) \\x1b[2J"',
        '    the sandbox says: "tests"',
    ]
    assert screen.key("o") == KeyAnswer("q_a", "once")
    narrow = screen.lines(30, 20)
    at = next(at for at, line in enumerate(narrow) if line.strip().startswith("program ("))
    assert all(line.startswith("    | ") for line in narrow[at + 1 : at + 3])


@given(
    st.text(max_size=200) | st.text('漢字 ab"\\\u0301', max_size=200) | st.just("漢漢漢漢漢漢 " * 40),
    st.integers(24, 120),
    st.integers(8, 30),
)
def test_the_agents_reason_pushes_nothing_away(reason: str, width: int, height: int) -> None:
    """However wide its letters are, the pane fits the terminal, and shows the chosen question and what the second key does."""
    screen = AskScreen()
    asked = OpenQuestion("q_a", "box", "a.example:443", waiting=1, reason=reason)
    settled(screen, QuestionPage((asked, OpenQuestion("q_b", "box", "b.example:443")), watched=True))
    screen.key("a")
    lines = screen.lines(width, height)
    assert len(lines) <= height
    for line in lines:
        assert sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in line) <= width
        assert not any(unicodedata.category(each) in ("Mn", "Me", "Cc", "Cf") for each in line)
    assert lines[1] == "> a.example:443"
    assert "allow" in lines
    its_words = [line for line in lines if line.startswith("    the sandbox says: ")]
    assert len(its_words) <= bool(reason)


def test_a_key_that_came_with_the_question_is_no_answer() -> None:
    """What was typed before a question was seen does not answer it, also where it took the place of another."""
    screen = AskScreen()
    screen.take(page("a"))
    screen.settle(100.0)
    assert screen.settles_in(100.0) is None
    see(screen, 100.0)
    see(screen, 100.2)
    assert screen.settles_in(100.1) == pytest.approx(SETTLED - 0.1)
    screen.settle(100.0 + SETTLED / 2)
    assert screen.key("o") is None
    assert "too soon" in screen.note
    screen.settle(100.0 + SETTLED)
    assert screen.settles_in(200.0) is None
    assert screen.key("o") == KeyAnswer("q_a", "once")
    screen.take(page("a", "b"))
    screen.take(page("b"))
    assert screen.key("o") is None
    see(screen, 300.0)
    screen.settle(300.0 + SETTLED)
    assert screen.key("o") == KeyAnswer("q_b", "once")


def test_a_key_that_is_read_late_is_no_answer() -> None:
    """However long ago the question was drawn: until no key was waiting, one may be from before."""
    screen = AskScreen()
    screen.take(page("a"))
    see(screen, 100.0)
    assert screen.settles_in(200.0) == 0.0
    assert screen.key("o") is None
    screen.settle(200.0)
    assert screen.key("o") == KeyAnswer("q_a", "once")


def test_a_second_key_is_for_the_same_question() -> None:
    """What is confirmed is what was shown: the next question does not get the answer of the one before."""
    screen = shown("a", "b")
    screen.key("a")
    settled(screen, page("b"))
    assert screen.key("a") is None
    read(screen, 1.0)
    assert screen.key("a") == KeyAnswer("q_b", "always")


def test_keys_choose_and_leave() -> None:
    """The arrows and j and k go round; q leaves."""
    screen = shown("a", "b", "c")
    for key, there in (("j", "q_b"), ("\x1b[B", "q_c"), ("j", "q_a"), ("k", "q_c"), ("\x1b[A", "q_b")):
        screen.key(key)
        assert screen.chosen == there
    screen.take(page("c", "b"))
    assert screen.chosen == "q_b"
    assert screen.key("q") is None
    assert screen.left


@given(
    st.integers(20, 120), st.integers(4, 50), st.lists(st.text("ab.", min_size=1, max_size=80), unique=True)
)
def test_it_fits_and_keeps_the_right_of_a_name(width: int, height: int, names: list[str]) -> None:
    """No line is wider, none is more than there is room for, and the end of the chosen name is always there."""
    screen = AskScreen()
    screen.take(page(*names, others={"box": 412}))
    lines = screen.lines(width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    if names and height > 12:
        assert any(line.startswith(">") and line.endswith(".example:443") for line in lines)
        assert "  and 412 more of box"[:width] in lines


def test_what_a_second_key_does_is_in_sight() -> None:
    """A long name is there whole, or no rule is; floods of many sandboxes leave the rule where it is."""
    name = f"www.google.com.{'a' * 60}.{'b' * 60}.evil"
    screen = settled(AskScreen(), page(name, others={f"s{number}": 9 for number in range(30)}))
    assert screen.key("a") is None
    for width, height in ((80, 24), (40, 10), (40, 5)):
        lines = screen.lines(width, height)
        assert len(lines) <= height
        if height == 5:
            assert lines[-2:] == ["no room to show what a key would answer,", "so none does"]
            continue
        there = lines.index("allow")
        ends = next(at for at, line in enumerate(lines) if line.startswith("for box"))
        assert "".join(line.strip() for line in lines[there + 1 : ends]) == f"{name}.example:443"
    assert "  and more of 27 further sandboxes" in screen.lines(80, 24)


@given(
    st.integers(8, 100),
    st.integers(0, 24),
    st.integers(0, 24),
    st.integers(0, 20),
    st.sampled_from(["o", "s", "h", "n", "a", "N", "w", "j"]),
)
def test_no_key_answers_what_is_not_in_sight(
    width: int, height: int, then: int, moves: int, key: str
) -> None:
    """At any size the chosen question is in the picture, and the rule before a second key puts it; else no key answers."""
    screen = AskScreen()
    screen.take(page(*(f"h{number}.new" for number in range(8)), others={"box": 412}))
    for _ in range(moves):
        screen.key("j")
    for at, rows in enumerate((height, height, then, then)):
        lines = see(screen, 2.0 * at, width, rows)
        assert len(lines) <= rows
        screen.settle(2.0 * at + SETTLED)
        asked, ruled = screen.question, screen.note
        wanted = screen.key(key)
        if wanted is None:
            continue
        assert asked is not None
        host = asked.pattern[-(width - 2) :]
        assert any(line.startswith(">") and line.endswith(host[-4:]) for line in lines)
        if wanted.answer in ("always", "never"):
            assert "".join(ruled.split())[-20:] == "".join("".join(lines).split())[-20:]
            assert rows >= 5


def test_a_rule_that_was_not_drawn_is_not_put() -> None:
    """A second key counts once the rule was on the terminal; what an answer did in its place takes the rule back."""
    screen = shown("a")
    assert [screen.key("a"), screen.key("a")] == [None, None]
    see(screen, 1.0, height=4)
    assert screen.key("a") is None
    assert "no room" in screen.note
    settled(screen)
    assert screen.key("a") is None
    screen.answered("b.example:443 is allowed")
    read(screen, 2.0)
    assert screen.key("a") is None
    read(screen, 3.0)
    assert screen.key("a") == KeyAnswer("q_a", "always")


def test_a_low_pane_has_the_question_and_no_more() -> None:
    """What else there is to say gives way to it, so that a key that came too soon is not the last that counts."""
    screen = AskScreen()
    screen.take(page("a"))
    screen.key("o")
    assert "too soon" in screen.note or "no room" in screen.note
    assert see(screen, 0.0, height=2) == ["> a.example:443", "    box: 2 waiting, 3 tried"]
    screen.settle(SETTLED)
    assert screen.key("o") == KeyAnswer("q_a", "once")
    assert see(screen, 1.0, height=0) == []
    assert screen.key("o") is None


def test_a_flood_of_one_does_not_hide_the_rest() -> None:
    """The chosen question is in sight however many there are; each answer there is has its key."""
    screen = shown(*(f"h{number}" for number in range(32)))
    for _ in range(20):
        screen.key("j")
    assert any(line.startswith("> h20.") for line in screen.lines(30, 16))
    assert set(KEYS.values()) == {"once", "stop", "hour", "always", "no", "never"}
    assert KeyAnswer("q", "once").answer == "once"


# The commands


@pytest.fixture
def asked(own_api: FakeApi) -> FakeApi:
    """A server with one question."""
    own_api.add("box")
    own_api.questions.append(
        {
            "id": "q_1",
            "sandbox_name": "box",
            "host": "new.example",
            "port": 443,
            "pattern": "new.example:443",
            "protocol": "tls",
            "since": "2026-02-19T16:42:26Z",
            "count": 3,
            "waiting": 2,
        }
    )
    return own_api


def test_questions_are_listed(run_irons: Runner, asked: FakeApi) -> None:
    """A script gets id, sandbox and pattern; to list is not to watch."""
    (row,) = run_irons("ask", "--list", "-o", "json").ok().json()
    assert (row["id"], row["sandbox"], row["pattern"], row["waiting"]) == ("q_1", "box", "new.example:443", 2)
    assert all("watch" not in call.query for call in asked.calls)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("once", "new.example:443 is let pass, once for box; 2 waited\n"),
        ("never", "new.example:443 is denied for box; 2 waited\n"),
    ],
)
def test_an_answer(run_irons: Runner, asked: FakeApi, said: str, line: str) -> None:
    """It names the question by its id; a second answer finds it gone."""
    assert run_irons("ask", "answer", "q_1", said).ok().out == line
    assert asked.questions == []
    assert run_irons("ask", "answer", "q_1", said).code == 3


def test_a_wider_answer(run_irons: Runner, asked: FakeApi) -> None:
    """The pattern and the scope are sent as they were asked for, and only with an answer that is a rule."""
    assert run_irons("ask", "answer", "q_1", "no", "--all").code == 2
    assert len(asked.questions) == 1
    done = run_irons("ask", "answer", "q_1", "always", "--all", "--pattern", "*.new.example").ok()
    assert done.out == "*.new.example is allowed for all sandboxes; 2 waited\n"
    assert asked.calls[-1].body == {"answer": "always", "scope": "account", "pattern": "*.new.example"}


@pytest.mark.process
@pytest.mark.parametrize("form", ["jsonl", "plain", "table"])
def test_questions_come_one_by_one_in_a_pipe(irons_process: Irons, asked: FakeApi, form: str) -> None:
    """A program that reads them has each at once, while further ones are waited for."""
    asked.mode = "ask"
    process = irons_process.start("--api-url", asked.url, "ask", "-o", form)
    assert process.stdout is not None
    with process.stdout:
        seen = b""
        for number in range(2, 5):
            wanted = f"new{number - 1}.example".encode() if number > 2 else b"new.example"
            while wanted not in seen:
                line = process.stdout.readline()
                assert line
                seen += line
            with asked.lock:
                host = f"new{number}.example"
                asked.questions.append(
                    {**asked.questions[0], "id": f"q_{number}", "host": host, "pattern": f"{host}:443"}
                )
                asked.lock.notify_all()


def test_what_can_not_be_asked(run_irons: Runner, asked: FakeApi, fake_api: FakeApi) -> None:
    """A document that never ends, an answer that is none, and a server that does not ask."""
    assert asked.questions
    assert run_irons("ask", "-o", "json").code == 2
    assert run_irons("ask", "answer", "q_1", "yes").code == 2


def test_what_is_known_is_below_the_questions() -> None:
    """Warnings come first; text from outside is cleaned; where there is no room it gives way."""
    known = OpenQuestion(
        "q_1",
        "box",
        "a.ngrok.io:443",
        new=True,
        refused=1_200,
        below=("b.ngrok.io", "\x1b[2Jc"),
        below_count=5,
        marks=("random", "tunnel", "later"),
        preset="npm",
        preset_hosts=("registry.npmjs.org",),
    )
    screen = AskScreen()
    screen.take(QuestionPage((known,), watched=True))
    lines = screen.lines(90, 24)
    assert [line.strip() for line in lines[3:9]] == [
        "! the name looks made by a machine",
        "! known relay: a tunnel to anyone's machine",
        "new: not tried before by this sandbox",
        "1,200 refused before, which a rule would let pass",
        "also tried: b.ngrok.io, \\x1b[2Jc and 3 more",
        "preset npm, 1 host: p shows and takes it",
    ]
    assert len(screen.lines(90, 5)) <= 5
    assert "a.ngrok.io:443" in "".join(screen.lines(30, 5))


def test_what_is_known_of_the_chosen_one_does_not_read_as_of_the_last() -> None:
    """Among several questions it has a heading, which never stands alone; of a single question it follows that one."""
    one, other = (
        OpenQuestion(f"q_{name}", "box", f"{name}.example:443", host=f"{name}.example", port=443, new=True)
        for name in "ab"
    )
    screen = AskScreen()
    screen.take(QuestionPage((one,), watched=True))
    assert screen.lines(60, 24)[3].strip().startswith("new: ")
    screen.take(QuestionPage((one, other), watched=True))
    lines = screen.lines(60, 24)
    assert lines[5:7] == ["  about the chosen question (>):", "    new: not tried before by this sandbox"]
    for height in range(1, 12):
        lines = screen.lines(60, height)
        assert ("about the chosen" in "".join(lines)) == ("new: " in "".join(lines))


def test_the_preset_of_a_host_is_offered(run_irons: Runner, own: FakeApi) -> None:
    """In JSON with its hosts; a port that the preset lacks is not of it."""
    about = {"sandbox_name": "box", "sandbox_id": "sb_1", "since": "2026-11-27T08:00:00Z"}
    own.questions = [
        {"id": "q_1", "host": "deb.debian.org", "port": 80, **about},
        {"id": "q_2", "host": "deb.debian.org", "port": 22, **about},
        {"id": "q_3", "host": "new.example", "port": 443, "new": True, "marks": ["paste"], **about},
    ]
    found = run_irons("ask", "--list", "-o", "json").ok().json()
    assert [each["preset"] for each in found] == ["debian", "", ""]
    assert found[0]["preset_hosts"] == ["deb.debian.org", "security.debian.org"]
    assert (found[2]["new"], found[2]["marks"]) == (True, ["paste"])
