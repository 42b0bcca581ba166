"""Log lines of the backend's processes: their format, their budget, and how they are read."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_local.keeper.supervise.supervisor import say
from irons_local.log import budget, files, setup
from irons_local.log.context import CONNECTION, REQUEST, request_id
from irons_local.log.line import LONGEST, Line, level_of, parse

MINUTE = 60
FLOODED = 10 << 20
"""Bytes that a flood of one minute may add to the logs."""


class Clock:
    """Seconds that go on when a test says it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def record(text: str, sandbox: str = "", level: int = logging.INFO) -> logging.LogRecord:
    """A record as `logging` makes it."""
    made = logging.LogRecord("irons_local.test", level, __file__, 1, text, (), None)
    made.sandbox = sandbox
    return made


@given(st.text())
def test_a_line_is_one_line_whatever_its_text_is(text: str) -> None:
    """Text of a sandbox ends no line, begins none, and names no other request."""
    line = Line(text, request="1f", sandbox="sb_1", connection="r.7")
    (shown,) = line.render(1.5).splitlines()
    found = parse(shown)
    assert found is not None
    assert found._replace(time="", text="") == line._replace(text="")
    assert len(found.text) <= LONGEST


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
def test_what_is_rendered_can_be_parsed(level: str) -> None:
    """Every field comes back, and those that are empty are left out."""
    for line in (
        Line("a: b", level),
        Line("", level, sandbox="sb_1"),
        Line("x", level, request="r", connection="c"),
    ):
        found = parse(line.render(1_700_000_000.25))
        assert found is not None
        assert found.time.endswith(".250")
        assert found._replace(time="") == line


def test_a_forged_line_is_text() -> None:
    """A newline and a second line in what is logged stay within the first line."""
    text = "x\n2026-01-01 00:00:00.000 INFO request=aa: forged \x1b[31m"
    shown = Line(text).render(0)
    assert shown.count("\n") == 1
    assert "\x1b" not in shown
    found = parse(shown)
    assert found is not None
    assert found.request == ""


@pytest.mark.parametrize("value", [None, 7, "", "a b", "a\nb", "x" * 41, "\u00e4", "a=b"])
def test_what_is_not_the_id_of_a_request_is_not_logged(value: object) -> None:
    """It comes from clients: only a short text of letters, digits, hyphens and underscores is one."""
    assert request_id(value) == ""


def test_a_flood_of_one_sandbox_is_bounded_by_bytes() -> None:
    """However many lines it causes, however long: what is written in a minute is bounded, and it is counted what is left out."""
    clock, written = Clock(), list[str]()
    lines = setup.Lines(written.append, clock)
    for _ in range(MINUTE):
        for number in range(100):
            lines.emit(record(f"{number} " + "x" * 5000, "sb_1"))
        clock.now += 1
    size = sum(len(each) for each in written)
    assert size <= budget.BURST + MINUTE * budget.RATE + 2 * LONGEST
    # More than one process may have a flood in its log.
    assert 8 * size <= FLOODED
    assert any("lines were left out" in each for each in written)


def test_a_flood_of_all_sandboxes_and_of_the_process_is_bounded_too() -> None:
    """Many sandboxes together, and what belongs to none, have a bound of their own."""
    clock, written = Clock(), list[str]()
    lines = setup.Lines(written.append, clock)
    for _ in range(MINUTE):
        for number in range(400):
            lines.emit(record("x" * 5000, f"sb_{number % 100}" if number % 2 else ""))
        clock.now += 1
    assert sum(len(each) for each in written) <= FLOODED


def test_a_flood_hides_no_line_of_others() -> None:
    """While one sandbox floods the log, each line of another one and of the process is there."""
    clock, written = Clock(), list[str]()
    lines = setup.Lines(written.append, clock)
    for number in range(20):
        for _ in range(200):
            lines.emit(record("x" * 900, "sb_1"))
        lines.emit(record(f"other {number}", "sb_2"))
        lines.emit(record(f"own {number}"))
    text = "".join(written)
    assert all(f"other {number}\n" in text and f"own {number}\n" in text for number in range(20))


def test_a_traceback_is_indented_and_cut() -> None:
    """None of its lines can be taken for a line of the log, and a long one does not fill it."""
    written: list[str] = []
    try:
        raise ValueError("2026-01-01 00:00:00.000 INFO request=aa: forged\n" * 10_000)
    except ValueError:
        failed = record("failed")
        failed.exc_info = sys.exc_info()
    setup.Lines(written.append).emit(failed)
    first, *rest = "".join(written).splitlines()
    assert parse(first) is not None
    assert rest
    assert all(each.startswith("  ") and parse(each) is None for each in rest)
    assert sum(map(len, written)) < 20_000


@pytest.fixture
def loggers() -> Iterator[None]:
    """Logging is afterwards as it was."""
    root = logging.getLogger()
    names = ("irons", "irons_local", "irons_plugins", "__main__")
    before = root.level, root.handlers[:], {name: logging.getLogger(name).level for name in names}
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for name, level in before[2].items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.usefixtures("loggers")
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("debug", ["debug", "info", "warning"]),
        ("", ["info", "warning"]),
        ("nonsense", ["info", "warning"]),
        ("Warning", ["warning"]),
    ],
)
def test_the_environment_sets_the_level(
    value: str, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """`IRONS_LOG` sets it for what irons logs; other libraries may log what they send, and get no debug lines."""
    setup.begin({"IRONS_LOG": value})
    for name in ("debug", "info", "warning"):
        getattr(logging.getLogger("irons_local.some"), name)(name)
    logging.getLogger("httpcore").debug("Authorization: secret")
    said = capsys.readouterr().err
    assert [line.rpartition(" ")[2] for line in said.splitlines()] == shown


def test_a_line_names_what_the_code_works_for() -> None:
    """Request, sandbox and connection come from the context; what comes with the record goes before it."""

    class Known:
        sandbox = "sb_9"
        connection = "run.4"

    written: list[str] = []
    lines = setup.Lines(written.append)

    def work() -> None:
        REQUEST.set("aa")
        CONNECTION.set(Known())
        lines.emit(record("one"))
        lines.emit(record("two", "sb_2"))

    copy_context().run(work)
    assert "INFO request=aa sandbox=sb_9 connection=run.4: one\n" in written[0]
    assert "INFO request=aa sandbox=sb_2 connection=run.4: two\n" in written[1]


def test_the_lines_of_a_request_are_found_in_all_logs_in_their_order(tmp_path: Path) -> None:
    """Those of others are left out; a traceback goes with its line, and what a log was cut at is read too."""

    def write(name: str, *lines: tuple[float, Line]) -> None:
        (tmp_path / name).write_text("".join(line.render(at) for at, line in lines))

    write("server.log.1", (1, Line("first", request="aa")))
    write("server.log", (4, Line("fourth", "ERROR", request="aa")), (5, Line("other", request="ab")))
    write("keeper.log", (2, Line("second", request="aa", sandbox="sb_1")))
    write("gateway-0.log", (3, Line("third of sb_1")), (3, Line("not")))
    with (tmp_path / "server.log").open("a") as file:
        file.write("  of another\n")
    text = (tmp_path / "server.log").read_text()
    (tmp_path / "server.log").write_text(text.replace("fourth\n", "fourth\n  Traceback\n"))
    every = ("keeper", "server", "gateway")
    found = files.of_request(tmp_path, every, "aa", 50)
    assert [(each.process, each.text.rpartition(": ")[2]) for each in found] == [
        ("server", "first"),
        ("keeper", "second"),
        ("server", "fourth"),
        ("server", "  Traceback"),
    ]
    assert files.of_request(tmp_path, every, "aa", 1) == found[-1:]
    about = files.of_sandbox(tmp_path, every, "sb_1", 50)
    assert [each.process for each in about] == ["keeper", "gateway-0"]


def test_a_follower_gives_each_whole_line_once(tmp_path: Path) -> None:
    """From its start on, also of logs that begin later and of one that was cut; half a line waits for its end."""
    log = tmp_path / "keeper.log"
    log.write_text("old\n")
    follower = files.Follower(tmp_path)
    assert list(follower.added()) == []
    with log.open("a") as file:
        file.write("one\nha")
    (tmp_path / "server.log").write_text("two\n")
    assert list(follower.added()) == [("keeper", "one"), ("server", "two")]
    with log.open("a") as file:
        file.write("lf\n")
    assert list(follower.added()) == [("keeper", "half")]
    log.write_text("3\n")
    assert list(follower.added()) == [("keeper", "3")]


def test_a_keeper_whose_log_is_on_a_full_disk_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sandboxes can be stopped then, which it is asked for and logs."""
    with Path("/dev/full").open("w") as full, Path(os.devnull).open("w") as null:
        monkeypatch.setattr(sys, "stderr", full)
        say("something")
        monkeypatch.undo()
        # What it holds can be written nowhere, and must not be tried at its end.
        os.dup2(null.fileno(), full.fileno())


def test_a_level_has_a_number_of_logging() -> None:
    """So that one variable sets it for processes with and without `logging`."""
    for name in ("debug", "info", "warning", "error"):
        assert level_of(name) == getattr(logging, name.upper())
