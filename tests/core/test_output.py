"""What a person and a program see: whole outputs, with and without a terminal."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from irons.command import Column, View
from irons.errors import EXIT_CODES, IronsError, NotFound
from irons.terminal.output import as_mapping, choose_format, show, show_error
from irons.terminal.streams import Streams
from irons.testing import FakeApi, Runner


@dataclass(frozen=True)
class Row:
    """A row as handlers return it."""

    name: str
    state: str = "ready"
    at: datetime | None = None
    tags: tuple[str, ...] = ()
    more: dict[str, str] = field(default_factory=dict)
    on: bool = False


@dataclass(frozen=True)
class Lone:
    """A row of one field."""

    name: str


class Pair(NamedTuple):
    """A row of another kind."""

    name: str
    state: str


WHEN = datetime(2026, 2, 19, 16, 42, 26, 5, tzinfo=UTC)
ROWS = (Row("one", at=WHEN, tags=("a", "b"), on=True), Row("two", "stopped"))
VIEW = View(
    (Column("name"), Column("state", "status"), Column("tags"), Column("on")), empty="There are none."
)


def shout(value: object) -> str:
    """A column's own text."""
    return str(value).upper()


def line(row: Row) -> str:
    """A row's own line."""
    return f"{row.name} is {row.state}"


def whole(row: Row) -> str:
    """A column made of the whole row."""
    return f"{row['name']}/{row['state']}"  # type: ignore[index]


def printed(data: object, view: View, form: str, *, tty: bool = False, **env: Any) -> tuple[str, str]:
    """What `show` writes to stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    streams = Streams(io.StringIO(), out, err, {"COLUMNS": "60", **env}, tty, tty, tty)
    show(data, view, choose_format(form or None, streams), streams)
    return out.getvalue(), err.getvalue()


def test_a_terminal_gets_a_table() -> None:
    """Columns under their titles, no colour codes where NO_COLOR is set."""
    assert printed(ROWS, VIEW, "", tty=True, NO_COLOR="1") == (
        "NAME  STATUS   TAGS  ON \none   ready    a, b  yes\ntwo   stopped        no \n",
        "",
    )


def test_a_pipe_gets_plain_lines() -> None:
    """Tab-separated fields, no header, no colour."""
    assert printed(ROWS, VIEW, "") == ("one\tready\ta, b\tyes\ntwo\tstopped\t\tno\n", "")


@pytest.mark.parametrize("tty", [True, False])
def test_json_is_the_same_everywhere(tty: bool) -> None:
    """One document with every field, times in UTC, terminal or not."""
    out, err = printed(ROWS, VIEW, "json", tty=tty)
    assert err == ""
    assert json.loads(out) == [
        {
            "name": "one",
            "state": "ready",
            "at": "2026-02-19T16:42:26.000005Z",
            "tags": ["a", "b"],
            "more": {},
            "on": True,
        },
        {"name": "two", "state": "stopped", "at": None, "tags": [], "more": {}, "on": False},
    ]


@pytest.mark.parametrize("tty", [True, False])
def test_jsonl_is_an_object_a_line(tty: bool) -> None:
    """One object a row, each on a line of its own."""
    out, _ = printed(ROWS, VIEW, "jsonl", tty=tty)
    assert [json.loads(one)["name"] for one in out.splitlines()] == ["one", "two"]


@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_colour_on_a_terminal(env: dict[str, Any], coloured: bool) -> None:
    """NO_COLOR is obeyed wherever it says anything; a dumb terminal gets none."""
    assert ("\x1b[" in printed(ROWS, VIEW, "table", tty=True, **env)[0]) is coloured


@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"CLICOLOR_FORCE": "1"}, True),
        ({"CLICOLOR_FORCE": "0"}, False),
    ],
)
def test_colour_in_a_pipe(env: dict[str, Any], coloured: bool) -> None:
    """A table asked for in a pipe has colour only where it is forced."""
    assert ("\x1b[" in printed(ROWS, VIEW, "table", **env)[0]) is coloured


@pytest.mark.parametrize(
    ("form", "out"), [("", ""), ("plain", ""), ("table", ""), ("json", "[]\n"), ("jsonl", "")]
)
def test_no_rows(form: str, out: str) -> None:
    """Nothing is an empty answer on stdout; a table says so on stderr."""
    told = "There are none.\n" if form == "table" else ""
    assert printed((), VIEW, form) == (out, told)


RECORD = View((Column("name"), Column("state"), Column("at", "created"), Column("more")), record=True)


def test_a_record_is_titled_lines() -> None:
    """One row is shown as titles and values; what is empty is left out; a mapping brings its own titles."""
    row = Row("one", at=None, more={"engine": "namespace"})
    assert printed(row, RECORD, "table")[0] == "name:   one\nstate:  ready\nengine: namespace\n"
    assert printed(row, RECORD, "plain")[0] == "name\tone\nstate\tready\nengine\tnamespace\n"
    assert json.loads(printed(row, RECORD, "json")[0])["more"] == {"engine": "namespace"}


def test_one_row_without_a_record_is_a_table_of_one() -> None:
    """A single row goes where rows go."""
    assert printed(Pair("one", "ready"), View((Column("name"), Column("state"))), "table", NO_COLOR="1")[
        0
    ] == ("NAME  STATE\none   ready\n")
    assert printed(Pair("one", "ready"), View(), "")[0] == "one\tready\n"
    assert json.loads(printed({"name": "one"}, View(), "jsonl")[0]) == {"name": "one"}


def test_columns_and_lines_of_ones_own() -> None:
    """A column's text, a column of the whole row, and a line's own shape are functions named as strings."""
    here = "tests.core.test_output"
    view = View((Column("name", text=f"{here}:shout"), Column("", "both", text=f"{here}:whole")))
    assert printed(ROWS, view, "plain")[0] == "ONE\tone/ready\nTWO\ttwo/stopped\n"
    assert (
        printed(ROWS, View((Column("name"),), line=f"{here}:line"), "plain")[0]
        == "one is ready\ntwo is stopped\n"
    )


def red_if_stopped(row: Any) -> str:
    """A column's colour."""
    return "red" if row["state"] == "stopped" else ""


def parts(row: Row, columns: int | None) -> list[tuple[str, str]]:
    """A followed line."""
    return [("red", row.name), ("", f" {columns}")]


def test_a_table_shows_ages() -> None:
    """A time is an age in a table, and exact in a pipe; a column may say otherwise."""
    here = "tests.core.test_output"
    rows = [Row("one", at=datetime.now(UTC) - timedelta(hours=5, minutes=3)), Row("two")]
    out = printed(rows, View((Column("name"), Column("at"))), "table", NO_COLOR="1")[0]
    assert [line.split() for line in out.splitlines()] == [["NAME", "AT"], ["one", "5h", "ago"], ["two"]]
    assert "ago" not in printed(rows, View((Column("name"), Column("at"))), "plain")[0]
    assert "ago" not in printed(rows, View((Column("at", table=f"{here}:shout"),)), "table")[0]


def test_a_record_shows_times_with_their_ages() -> None:
    """A person gets the exact time and its age, of a long past one no age; a pipe gets the time alone."""
    view = View((Column("name", table="tests.core.test_output:shout"), Column("at")), record=True)
    row = Row("one", at=datetime.now(UTC) - timedelta(hours=5, minutes=3))
    name, at = printed(row, view, "table")[0].splitlines()
    assert name == "name: ONE"
    assert re.fullmatch(r"at:   \S+T\S+ \(5h ago\)", at)
    assert printed(row, view, "plain")[0].splitlines()[0] == "name\tone"
    assert "ago" not in printed(row, view, "plain")[0]
    past = datetime.now(UTC) - timedelta(days=61)
    assert "(" not in printed(Row("one", at=past), view, "table")[0]


@pytest.mark.parametrize(
    ("width", "name", "why"),
    [
        (60, "www.host.of.some.example:443", "because it is so"),
        (44, "www.host.of.some.example:443", "because…"),
        (30, "…e.example:443", "because…"),
        (22, "…ome.example:443", ""),
    ],
)
def test_a_table_is_cut_to_the_terminal(width: int, name: str, why: str) -> None:
    """Prose is cut at its end, then names at their beginning; prose goes where too little of it is left."""
    rows = [{"id": "1", "name": "www.host.of.some.example:443", "why": "because it is so"}]
    view = View((Column("id"), Column("name", cut="start"), Column("why", cut="end")))
    lines = printed(rows, view, "table", tty=True, NO_COLOR="1", COLUMNS=str(width))[0].splitlines()
    assert len(lines) == 2
    assert [part for part in (name, why) if part] == lines[1].split(maxsplit=2)[1:]
    assert max(map(len, lines)) <= width


@given(
    st.lists(st.tuples(st.text(max_size=60), st.text(max_size=200)), min_size=1, max_size=4),
    st.integers(40, 120),
)
def test_any_text_is_cut_to_fit(rows: list[tuple[str, str]], width: int) -> None:
    """With any text in the cells, wide characters included, each row of a table that cuts is one line within the width."""
    view = View((Column("name", cut="start"), Column("why", cut="end")))
    out = printed(
        [{"name": name, "why": why} for name, why in rows],
        view,
        "table",
        tty=True,
        COLUMNS=str(width),
        NO_COLOR="1",
    )
    lines = out[0].split("\n")
    assert len(lines) == len(rows) + 2
    assert all(cell_len(line.rstrip()) <= width for line in lines)


def test_a_terminal_too_narrow_for_the_columns_gets_titled_lines() -> None:
    """Where not even the narrow columns fit, each row is titled lines after an empty one, with its empty values left out."""
    keys = ("process", "version", "memory", "listens")
    rows = [
        dict(zip(keys, ("keeper", "0.3.0", "9.6 MiB", ""), strict=True)),
        dict(zip(keys, ("server", "0.3.0", "34.4 MiB", "unix:///run/irons/api.sock"), strict=True)),
    ]
    view = View(tuple(Column(key) for key in keys))
    assert printed(rows, view, "table", tty=True, NO_COLOR="1", COLUMNS="34")[0] == (
        "process: keeper\nversion: 0.3.0\nmemory:  9.6 MiB\n\n"
        "process: server\nversion: 0.3.0\nmemory:  34.4 MiB\nlistens: unix:///run/irons/api.sock\n"
    )


def test_the_last_prose_gets_what_is_left() -> None:
    """Where a column goes, its room is for names, then for the last column, which says what a row is about."""
    view = View(
        (Column("id"), Column("claims", cut="end"), Column("place", cut="end"), Column("change", cut="end"))
    )
    rows = [
        {"id": "root", "claims": "library", "place": "agent-93f5cb58", "change": "added allow evil.example"}
    ]
    lines = printed(rows, view, "table", tty=True, NO_COLOR="1", COLUMNS="32")[0].splitlines()
    assert lines[1].rstrip() == "root  agent-9…  added allow e…"


def test_titles_are_never_cut() -> None:
    """A column that gives way keeps room for its title, or goes."""
    view = View((Column("host"), Column("size", "out / in bytes", cut="end")))
    rows = [{"host": "www.host.of.some.example", "size": "0 / 0 and more that is long"}]
    for width in range(28, 60):
        lines = printed(rows, view, "table", tty=True, NO_COLOR="1", COLUMNS=str(width))[0].splitlines()
        assert " ".join(lines[0].split()) == ("HOST" if width < 42 else "HOST OUT / IN BYTES")


def test_columns_that_say_nothing_are_left_out() -> None:
    """A column is hidden where all its cells are empty, or the same, as it asks; never in other forms."""
    rows = [{"name": "a", "note": "", "kind": "x"}, {"name": "b", "note": "", "kind": "x"}]
    view = View((Column("name"), Column("note", hide="empty"), Column("kind", hide="same")))
    assert printed(rows, view, "table", NO_COLOR="1")[0].split() == ["NAME", "a", "b"]
    assert printed(rows, view, "plain")[0] == "a\t\tx\nb\t\tx\n"
    rows[1] |= {"note": "n", "kind": "y"}
    assert printed(rows, view, "table", NO_COLOR="1")[0].split()[:3] == ["NAME", "NOTE", "KIND"]


def test_cells_and_followed_lines_have_colours() -> None:
    """A column's function gives the colour of a cell, a view's the parts of a followed line; without colour there is none."""
    here = "tests.core.test_output"
    view = View((Column("name", style=f"{here}:red_if_stopped"),), live=f"{here}:parts")
    assert "\x1b[31mtwo" in printed(ROWS, view, "table", tty=True, TERM="xterm")[0]
    assert "\x1b[31mone" not in printed(ROWS, view, "table", tty=True, TERM="xterm")[0]
    for env, text in (({"TERM": "xterm"}, "\x1b[31mone\x1b[0m 60\n"), ({"NO_COLOR": "1"}, "one 60\n")):
        out = io.StringIO()
        streams = Streams(io.StringIO(), out, io.StringIO(), {"COLUMNS": "60", **env}, True, True, True)
        show(iter(ROWS[:1]), view, "table", streams, follow=True)
        assert out.getvalue() == text


HOSTILE = "a\x1b[2J\tb\r\nc\u202ed\x00\x9b\ud800"


@pytest.mark.parametrize("form", ["table", "plain", "json", "jsonl", "record"])
def test_hostile_text_never_reaches_a_terminal_raw(form: str) -> None:
    """Control, bidi and surrogate characters from outside are escapes in every form."""
    row = Row(HOSTILE, HOSTILE, tags=(HOSTILE,), more={HOSTILE: HOSTILE})
    view = RECORD if form == "record" else VIEW
    out, _ = printed(
        row if form == "record" else (row,), view, "plain" if form == "record" else form, NO_COLOR="1"
    )
    for one in out.split("\n"):
        assert one.replace("\t", "").isprintable()
    if form == "plain":
        assert out.count("\n") == 1


@pytest.mark.parametrize("form", ["plain", "table", "json", "jsonl"])
def test_hostile_answers_of_a_server(run_irons: Runner, fake_api: FakeApi, form: str) -> None:
    """A server's whole answer is hostile text, and still one clean line a sandbox."""
    fake_api.add("one", HOSTILE.replace("\ud800", ""), metadata={"x": HOSTILE.replace("\ud800", "")})
    for words in (("status", "one"), ("list",)):
        out = run_irons(*words, "-o", form, tty=form == "table").ok().out
        assert all(one.replace("\t", "").isprintable() for one in out.split("\n"))


def test_text_is_written_as_it_is() -> None:
    """A handler's string is its own business, but for what would touch the terminal; for programs it is an object."""
    assert printed("two\nlines", VIEW, "plain")[0] == "two\nlines\n"
    assert printed("a\tb\x1b[2J\n", VIEW, "table")[0] == "a\tb\\x1b[2J\n"
    assert json.loads(printed("x\ny", VIEW, "json")[0]) == {"text": "x\ny"}


def test_nothing_is_nothing_and_valid_json() -> None:
    """A command without an answer prints nothing; for a program that is `null`."""
    assert (
        printed(None, VIEW, "plain")[0]
        == printed(None, VIEW, "table")[0]
        == printed(None, VIEW, "jsonl")[0]
        == ""
    )
    assert json.loads(printed(None, VIEW, "json")[0]) is None


def test_rows_of_text() -> None:
    """Rows may be plain texts."""
    assert printed(("one", "t\two"), View(), "plain")[0] == "one\nt\\two\n"
    assert json.loads(printed(("one", "two"), View(), "json")[0]) == ["one", "two"]
    assert [json.loads(one) for one in printed(iter(("one", "two")), View(), "jsonl")[0].splitlines()] == [
        "one",
        "two",
    ]


def _fails_midway() -> Iterator[Row]:
    yield Row("one")
    raise NotFound("gone")


def test_json_is_whole_or_nothing() -> None:
    """An answer that fails midway leaves no half document on stdout."""
    out = io.StringIO()
    with pytest.raises(NotFound):
        show(_fails_midway(), VIEW, "json", Streams(io.StringIO(), out, io.StringIO(), {}))
    assert out.getvalue() == ""


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("before", [0, 1, 511, 512, 513, 1025])
def test_lines_before_a_failure_are_written(before: int, tty: bool) -> None:
    """However many lines a long answer had, each of them is on stdout when it fails, in a pipe as on a terminal."""
    out = io.StringIO()

    def rows() -> Iterator[str]:
        yield from map(str, range(before))
        raise NotFound("gone")

    with pytest.raises(NotFound):
        show(rows(), View(), "plain", Streams(io.StringIO(), out, io.StringIO(), {}, tty, tty, tty))
    assert out.getvalue().splitlines() == [str(number) for number in range(before)]


def test_a_long_answer_to_a_pipe_is_written_in_pieces() -> None:
    """Lines come out in their order, so many at once; a terminal gets each as it comes."""
    out = _Tracked()
    show(map(str, range(2_000)), View(), "plain", Streams(io.StringIO(), out, io.StringIO(), {}))
    assert out.getvalue() == "".join(f"{number}\n" for number in range(2_000))
    assert out.flushed == 5
    seen: list[str] = []
    out = _Tracked()

    def rows() -> Iterator[str]:
        for number in range(3):
            seen.append(out.getvalue())
            yield str(number)

    show(rows(), View(), "plain", Streams(io.StringIO(), out, io.StringIO(), {}, True, True, True))
    assert seen == ["", "0\n", "0\n1\n"]


def test_a_long_array_waits_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """An array longer than what is kept in memory comes out whole and in order, no matter what the length."""
    monkeypatch.setattr("irons.terminal.output.KEPT", 3)
    for length in range(8):
        out, _ = printed((Pair(str(n), "x") for n in range(length)), View(), "json")
        assert [row["name"] for row in json.loads(out)] == [str(n) for n in range(length)]


class _Tracked(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.flushed = 0

    def flush(self) -> None:
        self.flushed += 1


@pytest.mark.parametrize("form", ["plain", "jsonl", "table"])
def test_what_is_followed_is_flushed_line_by_line(form: Any) -> None:
    """Rows that come as they happen are seen at once, a table's as plain lines."""
    out = _Tracked()
    show(iter(ROWS), VIEW, form, Streams(io.StringIO(), out, io.StringIO(), {}), follow=True)
    assert out.flushed >= 2
    assert len(out.getvalue().splitlines()) == 2


@pytest.mark.parametrize("form", [None, "table", "plain"])
def test_an_error_is_one_to_three_lines(form: str | None) -> None:
    """A person reads what happened and what to do next, cleaned."""
    err = io.StringIO()
    show_error(NotFound("no \x1b such\nthing", hint="look\u202e"), form, Streams(stderr=err))
    assert err.getvalue() == "irons: no \\x1b such\\nthing\n  look\\u202e\n"


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_an_error_is_one_object(form: str) -> None:
    """A program gets code, message, hint and exit code."""
    err = io.StringIO()
    show_error(NotFound("no such\nthing"), form, Streams(stderr=err))
    assert json.loads(err.getvalue()) == {
        "error": {"code": "not-found", "message": "no such\\nthing", "hint": "", "exit": 3}
    }
    assert err.getvalue().count("\n") == 1


def _tree(kind: type[IronsError]) -> Iterator[type[IronsError]]:
    yield kind
    for one in kind.__subclasses__():
        if one.__module__ == "irons.errors":
            yield from _tree(one)


def test_the_error_tree_is_drawn_as_it_is() -> None:
    """The docstring of irons.errors draws every error with its parent's depth and its exit code."""
    import irons.errors

    drawn = [
        (len(text) - len(text.lstrip("│├└─ ")), text.lstrip("│├└─ ").split()[:2])
        for text in (irons.errors.__doc__ or "").splitlines()
        if text.lstrip("│├└─ ").split("  ")[0].isidentifier()
    ]
    real = [(4 * (len(kind.__mro__) - 4), [kind.__name__, str(kind.exit_code)]) for kind in _tree(IronsError)]
    assert drawn == real


def test_every_exit_code_of_an_error_is_known() -> None:
    """Each error's exit code is in the table, and each has a code word of its own."""
    kinds = list(_tree(IronsError))
    assert {kind.exit_code for kind in kinds} <= set(EXIT_CODES)
    assert len({kind.code for kind in kinds}) == len(kinds)


def test_streams_without_a_terminal_have_none() -> None:
    """What is not a terminal, closed, or no file at all gets a line about it."""
    closed = io.StringIO()
    closed.close()
    streams = Streams(closed, io.StringIO(), closed, {"COLUMNS": "wide"})
    assert not streams.stdin_is_tty
    assert not streams.stdout_is_tty
    assert not streams.stderr_is_tty
    assert streams.columns is None
    assert Streams(stdout=io.StringIO(), env={"COLUMNS": "33"}).columns == 33


def test_rows_of_every_kind_are_mappings() -> None:
    """Dataclasses, of one field too, named tuples and mappings are rows, by the names of their fields."""
    assert as_mapping(Lone("one")) == {"name": "one"}
    assert as_mapping(Pair("one", "ready")) == {"name": "one", "state": "ready"}
    assert as_mapping({"name": "one"}) == {"name": "one"}
    assert list(as_mapping(Row("one"))) == ["name", "state", "at", "tags", "more", "on"]
