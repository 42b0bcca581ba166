"""What every face shows of open questions: their order, their line, and the wider patterns of an answer."""

from __future__ import annotations

from collections import UserDict
from collections.abc import ItemsView
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons.asking.answers import KeyAnswer
from irons.asking.question_line import question_line
from irons.asking.ranking import by_sandbox, in_turns
from irons.asking.screen import SETTLED, AskScreen
from irons.asking.title import QuestionTitle
from irons.asking.widening import wider_patterns
from irons.client.models.questions import OpenQuestion, QuestionPage

NOON = datetime(2026, 2, 19, 12, tzinfo=UTC)


def asked(sandbox: str, host: str, port: int = 443) -> OpenQuestion:
    """A question."""
    return OpenQuestion(f"q_{sandbox}_{host}", sandbox, f"{host}:{port}", "tls", 1, 1, None, host, port)


def flood(*more: OpenQuestion, left: int = 0) -> QuestionPage:
    """Many questions of one sandbox, with these after them."""
    many = tuple(asked("loud", f"h{number}.example") for number in range(32))
    return QuestionPage((*many, *more), {"loud": left} if left else {}, watched=True)


def see(screen: AskScreen, now: float) -> list[str]:
    """What is drawn of the questions at this moment."""
    lines = screen.lines(80, 24)
    screen.drawn(now)
    return lines


def read(screen: AskScreen, now: float) -> list[str]:
    """What is drawn of the questions at this moment, and looked at for long."""
    lines = see(screen, now)
    screen.settle(now + SETTLED)
    return lines


def test_sandboxes_take_turns() -> None:
    """The first question of each sandbox comes before the second of any; who tries the most comes last, the oldest first among equals."""
    page = flood(asked("calm", "x.example"), asked("mild", "y.example"), asked("calm", "z.example"))
    first = [(each.sandbox, each.host) for each in in_turns(page)][:4]
    assert first == [
        ("mild", "y.example"),
        ("calm", "x.example"),
        ("loud", "h0.example"),
        ("calm", "z.example"),
    ]
    assert sorted(in_turns(page)) == sorted(page.questions)
    later = QuestionPage((asked("b", "x.example"), asked("a", "y.example")))
    assert [each.sandbox for each in by_sandbox(later)] == ["b", "a"]
    assert [each.sandbox for each in by_sandbox(QuestionPage(others={"gone": 3}))] == ["gone"]


def test_a_flood_is_a_number() -> None:
    """The line has one question of each sandbox, and how many more there are."""
    assert question_line(QuestionPage(), 80) == ""
    # A list that would be empty has no key.
    assert question_line(QuestionPage((), {"loud": 8}), 80, "Alt-Q") == "? 8 hosts of loud: set a rule"
    assert question_line(QuestionPage((), {"loud": 1}), 20) == "? loud: 1 host"
    assert question_line(flood(left=381), 80, "Alt-Q") == "? loud: h0.example:443 and 412 more hosts [Alt-Q]"
    page = flood(asked("calm", "x.example"), left=381)
    assert question_line(page, 80) == "? calm: x.example:443; loud: h0.example:443 and 412 more hosts"
    assert question_line(page, 56) == "? calm: x.example:443; loud: h0.example:443 +412"
    assert question_line(page, 45) == "? calm: x.example:443; 1 more sandbox"
    assert question_line(page, 30) == "? calm: x.example:443; +1"


@given(
    st.lists(
        st.tuples(st.text("ab\x1b", min_size=1, max_size=70), st.text("ab.", min_size=1, max_size=90)),
        min_size=1,
    ),
    st.integers(30, 120),
)
def test_the_line_fits_and_keeps_the_owner_of_a_name(given: list[tuple[str, str]], width: int) -> None:
    """It is never wider, holds no control character, and a name is cut on its left."""
    page = QuestionPage(tuple(asked(sandbox, f"{host}.own") for sandbox, host in given))
    line = question_line(page, width, "F2")
    assert len(line) <= width
    assert "\x1b" not in line
    assert "own:443" in line
    assert line.endswith("[F2]")


@pytest.mark.parametrize(
    ("host", "wider"),
    [
        ("a.b.example.com", ("*.b.example.com:443", "*.example.com:443")),
        ("example.com", ()),
        ("me.github.io", ()),
        ("203.0.113.7", ()),
        ("2001:db8::1", ()),
        ("single", ()),
    ],
)
def test_wider_patterns_end_where_anyone_may_have_a_name(host: str, wider: tuple[str, ...]) -> None:
    """They go from the nearest domain up, never to a public suffix, and an address has none."""
    assert wider_patterns(asked("box", host)) == wider


def test_a_wider_pattern_is_for_the_question_that_was_shown() -> None:
    """`w` goes through them and back; each rule wants a second key; the next question begins with its own host."""
    screen = AskScreen()
    screen.take(QuestionPage((asked("box", "a.b.example.com"), asked("box", "other.example.com"))))
    see(screen, 0.0)
    screen.settle(SETTLED)
    assert screen.key("w") is None
    assert screen.key("h") is None
    assert read(screen, 1.0)[-3:] == [
        "allow",
        "*.b.example.com:443",
        "for box, for an hour: h again; any other key leaves it",
    ]
    assert screen.key("s") is None
    read(screen, 1.0)
    assert screen.key("h") is None
    read(screen, 1.0)
    assert screen.key("h") == KeyAnswer("q_box_a.b.example.com", "hour", "*.b.example.com:443")
    assert screen.key("o") == KeyAnswer("q_box_a.b.example.com", "once")
    screen.key("w")
    screen.key("w")
    assert screen.key("h") == KeyAnswer("q_box_a.b.example.com", "hour")
    screen.key("w")
    screen.take(QuestionPage((asked("box", "other.example.com"),)))
    see(screen, 1.0)
    screen.settle(1.0 + SETTLED)
    assert screen.key("h") == KeyAnswer("q_box_other.example.com", "hour")


def test_a_question_that_ends_says_so() -> None:
    """Unless its answer was given here, which says more."""
    screen = AskScreen()
    screen.take(QuestionPage((asked("box", "a.example"), asked("box", "b.example"))))
    screen.take(QuestionPage((asked("box", "b.example"),)))
    assert screen.note == "a.example:443 of box is not asked any more"
    before = screen.page
    screen.take(QuestionPage(), "no answer")
    assert screen.note == "b.example:443 of box can't be answered now: no answer"
    screen.take(before)
    see(screen, 0.0)
    screen.settle(SETTLED)
    assert screen.key("o") is not None
    screen.answered("done")
    screen.take(QuestionPage())
    assert screen.note == "done"
    assert screen.question is None


def test_what_was_hidden_is_answered_only_once_it_was_seen_again() -> None:
    """A key typed while the picture was off the terminal answers nothing."""
    screen = AskScreen()
    screen.take(QuestionPage((asked("box", "a.example"),)))
    see(screen, 0.0)
    screen.settle(SETTLED)
    screen.hidden()
    assert screen.key("o") is None
    see(screen, 9.0)
    screen.settle(9.0 + SETTLED)
    assert screen.key("o") is not None


class Counted(UserDict[str, int]):
    """What sandboxes try beyond their questions; counts how often that is gone through."""

    looks = 0

    def items(self) -> ItemsView[str, int]:
        """Go through it."""
        self.looks += 1
        return super().items()


def test_a_picture_without_news_costs_its_title_nothing() -> None:
    """The questions are put in order again only where there are others; what was before comes back, and they after it."""
    written: list[str] = []
    title, others = QuestionTitle(written.append, on=True), Counted(loud=9)
    page = QuestionPage(flood().questions, others)
    for _ in range(9):
        title.show(page)
    assert (others.looks, len(written)) == (1, 1)
    title.restore()
    title.show(page)
    assert len(written) == 3
    assert written[0] == written[2]


ALIKE = [
    ("a-team-with-a-long-name-build-linux-amd64", "a-team-with-a-long-name-build-linux-arm64"),
    ("alpha-team-with-a-long-name-and-a-long-job", "omega-team-with-a-long-name-and-a-long-job"),
    (f"{'a' * 30}-1-{'b' * 30}", f"{'a' * 30}-2-{'b' * 30}"),
]
"""Names that are longer than a line, and alike but for their end, their beginning, or what is between."""


@pytest.mark.parametrize("names", ALIKE)
@pytest.mark.parametrize(("width", "height"), [(40, 24), (40, 12), (30, 24), (24, 24), (80, 24)])
def test_no_two_sandboxes_look_alike(names: tuple[str, str], width: int, height: int) -> None:
    """However long their names are, what is shown of them differs, is cut with a mark, and the facts are there."""
    pages = [QuestionPage((asked(name, "a.example")._replace(since=NOON),), watched=True) for name in names]
    both = QuestionPage(tuple(each.questions[0] for each in pages), watched=True)
    shown: list[str] = []
    for name in names:
        screen = AskScreen()
        screen.take(both)
        while screen.question is not None and screen.question.sandbox != name:
            screen.key("j")
        lines = screen.lines(width, height)
        at = next(at for at, line in enumerate(lines) if line.startswith(">"))
        end = next((to for to in range(at + 1, len(lines)) if not lines[to].startswith("    ")), len(lines))
        assert all(len(line) <= width for line in lines)
        told = "".join("".join(line.split()) for line in lines[at + 1 : end])
        assert f"1waiting,1tried,since{NOON.astimezone():%H:%M:%S}" in told
        who = told.partition(":")[0]
        assert who == name or "…" in who
        assert (who[:3], who[-3:]) == (name[:3], name[-3:])
        shown.append(who)
        # What a key is for is on the terminal, name and all.
        assert who in "".join("".join(line.split()) for line in screen.needed)
    assert shown[0] != shown[1]


def test_a_name_that_goes_on_is_seen_whole_or_no_key_answers() -> None:
    """Where two names differ only in what would be cut, the rest of the chosen one must have room too."""
    page = QuestionPage(tuple(asked(name, "a.example") for name in ALIKE[2]), watched=True)
    for height in range(1, 16):
        screen = AskScreen()
        screen.take(page)
        lines = screen.lines(40, height)
        screen.drawn(0.0)
        screen.settle(SETTLED)
        assert (screen.key("o") is not None) == (ALIKE[2][0] in "".join("".join(lines).split()))


def test_what_is_more_of_a_long_name_is_cut_with_a_mark() -> None:
    """The number of further questions is of a sandbox that can be told from others."""
    for name in ALIKE[0]:
        screen = AskScreen()
        screen.take(QuestionPage(others={name: 412}))
        lines = screen.lines(40, 24)
        assert any(
            line.startswith("  and 412 more of a-team-wit…") and line.endswith(name[-5:]) for line in lines
        )


@pytest.mark.parametrize("width", [40, 60, 120])
def test_the_line_tells_long_names_apart(width: int) -> None:
    """A sandbox's name is cut in its middle there too."""
    lines = [question_line(QuestionPage((asked(name, "a.example"),)), width, "!") for name in ALIKE[0]]
    assert lines[0] != lines[1]
    assert all("…" in line and line.endswith(": a.example:443 [!]") for line in lines)


def test_a_long_name_hides_no_other_question() -> None:
    """Each question takes the lines that it needs and no more: all that fit are there, wherever the chosen one is."""
    hosts = [f"h{number}.example" for number in range(4)]
    questions = (
        *(asked(name, host) for name, host in zip(ALIKE[2], hosts, strict=False)),
        *(asked("box", host) for host in hosts[2:]),
    )
    for moves in range(4):
        screen = AskScreen()
        screen.take(QuestionPage(questions, watched=True))
        for _ in range(moves):
            screen.key("j")
        text = "\n".join(screen.lines(24, 30))
        assert all(f"{host}:443" in text for host in hosts)


@pytest.mark.parametrize("height", range(8, 14))
def test_the_words_of_a_sandbox_push_no_other_question_off(height: int) -> None:
    """A long program and a long reason have the rows that the others leave, or one each that is marked as cut."""

    def shown(program: str = "", reason: str = "") -> tuple[int, str]:
        screen = AskScreen()
        loud = asked("loud", "a.example")._replace(program=program, reason=reason)
        screen.take(
            QuestionPage((loud, asked("beta", "b.example"), asked("gamma", "c.example")), watched=True)
        )
        text = "\n".join(screen.lines(50, height))
        return sum(f"{host}.example:443" in text for host in "abc"), text

    plain, _ = shown()
    spoken, text = shown(program="curl " * 30, reason="please " * 30)
    assert "the sandbox's word): \"curl" in text
    assert spoken >= plain - 1
    if height > 10:
        assert 'the sandbox says: "please' in text
        assert spoken == 3 if height > 11 else spoken >= 2


@pytest.mark.parametrize("moves", [0, 1, 9, 31, 33])
def test_a_flood_around_the_chosen_question_hides_no_other_sandbox(moves: int) -> None:
    """Wherever the chosen one is among many of a sandbox, the first question of each other one is there."""
    screen = AskScreen()
    screen.take(flood(asked("beta", "b.example"), asked("gamma", "c.example"), left=400))
    for _ in range(moves):
        screen.key("j")
    lines = see(screen, 0)
    assert len(lines) <= 24
    assert {"b.example:443", "c.example:443"} <= {line.split()[-1] for line in lines if line.strip()}
    assert sum(line.startswith("> ") for line in lines) == 1
