"""Words into parameters, and words into values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons.cli.parsing import Parsed, parse, scan_globals, split_globals
from irons.cli.suggesting import commands_like
from irons.cli.values import check_sandbox_name, moment, read_value, seconds, size
from irons.command import GLOBAL_OPTIONS, Arg, Command, Flag, Opt
from irons.errors import UsageError
from irons.settings.scope import Scope
from irons.tree import Clash, Tree

COPY = Command(
    ("copy",),
    "Copy.",
    "x:y",
    (
        Arg("source", kind="sandbox"),
        Arg("paths", takes="*"),
        Arg("target"),
        Opt(("-m", "--mode"), choices=("fast", "slow"), default="fast"),
        Opt(("--tag",), many=True),
        Opt(("-n", "--count"), type="int", name="number"),
        Flag(("-f", "--force")),
        Flag(("-r", "--recursive")),
    ),
)
RUN = Command(("run",), "Run.", "x:y", (Arg("name", kind="sandbox"), Arg("argv", takes="--"), Flag(("-q",))))
WHY = Command(("why",), "Why.", "x:y", (Arg("name", kind="sandbox"), Arg("host", takes="?")))
KILL = Command(("kill",), "Kill.", "x:y", (Arg("names", kind="sandbox", takes="+", implied=False),))
WAIT = Command(("wait",), "Wait.", "x:y", (Arg("names", kind="sandbox", takes="+"),))


def read(command: Command, line: str, in_use: str | None = None) -> dict[str, object]:
    """The parameters that a line gives."""
    return parse(command, line.split(), lambda _: Scope(in_use, "IRONS_SANDBOX")).arguments


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("one out", {}),
        ("one a b out", {"paths": ("a", "b")}),
        ("one a --force b out", {"paths": ("a", "b"), "force": True}),
        ("one out --mode slow", {"mode": "slow"}),
        ("one out --mode=slow", {"mode": "slow"}),
        ("one out -mslow", {"mode": "slow"}),
        ("one out -m=slow", {"mode": "slow"}),
        ("one out -m fast -m slow", {"mode": "slow"}),
        ("one out --tag a --tag b", {"tag": ("a", "b")}),
        ("one out -n 3", {"number": 3}),
        ("one out -fr", {"force": True, "recursive": True}),
        ("one out -frn3", {"force": True, "recursive": True, "number": 3}),
        ("one -- --force out", {"paths": ("--force",)}),
        ("one - out", {"paths": ("-",)}),
    ],
)
def test_words_become_parameters(line: str, changed: dict[str, object]) -> None:
    """Options anywhere, values joined or apart, flags in a bundle, and what follows two dashes as it is."""
    usual = {
        "source": "one",
        "paths": (),
        "target": "out",
        "mode": "fast",
        "tag": (),
        "number": None,
        "force": False,
        "recursive": False,
    }
    assert read(COPY, line) == {**usual, **changed}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "irons copy needs SOURCE and TARGET"),
        ("one", "irons copy needs TARGET"),
        ("one out --mode", "--mode needs a value ({fast,slow})"),
        ("one out --mode --force", "--mode needs a value"),
        ("one out --mode medium", "--mode takes fast or slow, not 'medium'"),
        ("one out --force=yes", "--force takes no value"),
        ("one out -fx", "has no option '-fx'"),
        ("one out -n many", "--count takes a whole number, not 'many'"),
        ("one out -n 99999999999999999999", "--count takes a whole number"),
        ("one out -n \u0661", "--count takes a whole number"),
        ("one out -x", "irons copy has no option '-x'"),
    ],
)
def test_what_makes_no_sense_is_said(line: str, said: str) -> None:
    """Each mistake has a message of its own."""
    with pytest.raises(UsageError) as caught:
        read(COPY, line)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("words", "force"),
    [
        ("--force=true", True),
        ("--force=1", True),
        ("--force=T", True),
        ("-f=true", True),
        ("-f=True", True),
        ("--force=false", False),
        ("--force=0", False),
        ("-f=F", False),
        ("--force --force=false", False),
        ("--force=false -f", True),
        ("", False),
    ],
)
def test_flags_take_truth_values(words: str, force: bool) -> None:
    """A flag may have a value, as with the original client: what Go's ParseBool takes; the last one counts."""
    assert read(COPY, f"one out {words}")["force"] is force


@pytest.mark.parametrize("word", ["--force=", "--force=yes", "--force=TRuE", "-f=2", "-f="])
def test_other_values_of_a_flag_are_refused(word: str) -> None:
    """A value that is neither true nor false is a slip, and the flag is named."""
    with pytest.raises(UsageError, match="takes no value but true or false"):
        read(COPY, f"one out {word}")


@pytest.mark.parametrize("words", ["-n3", "-n=3", "-n 3", "--count=3", "--count 3"])
def test_options_take_their_value_in_every_form(words: str) -> None:
    """A value follows its option, in the same word or the next one."""
    assert read(COPY, f"one out {words}")["number"] == 3


def test_another_programs_words_are_untouched() -> None:
    """Behind two dashes nothing is read, not even what looks like our own options."""
    assert read(RUN, "one -q -- ls --help -q -- x") == {
        "name": "one",
        "argv": ("ls", "--help", "-q", "--", "x"),
        "q": True,
    }
    assert read(RUN, "one --") == {"name": "one", "argv": (), "q": False}


@pytest.mark.parametrize(
    ("command", "line", "in_use", "found"),
    [
        (WHY, "", "used", {"name": "used", "host": None}),
        (WHY, "one", "used", {"name": "one", "host": None}),
        (WHY, "one example.com", "used", {"name": "one", "host": "example.com"}),
        (RUN, "-- ls", "used", {"name": "used", "argv": ("ls",), "q": False}),
        (WAIT, "", "used", {"names": ("used",)}),
        (WAIT, "one two", "used", {"names": ("one", "two")}),
    ],
)
def test_the_sandbox_in_use_is_meant_where_none_is_named(
    command: Command, line: str, in_use: str, found: dict[str, object]
) -> None:
    """A sandbox that no word names is the one in use."""
    assert read(command, line, in_use) == found


@pytest.mark.parametrize(("command", "in_use"), [(WHY, None), (KILL, "used"), (WAIT, None)])
def test_a_name_is_needed_all_the_same(command: Command, in_use: str | None) -> None:
    """Without one in use, or for what can't be undone, a name is asked for."""
    with pytest.raises(UsageError, match=r"needs NAMES?$"):
        read(command, "", in_use)


def test_a_bad_name_in_use_is_refused() -> None:
    """The sandbox in use is held to the same as a typed one."""
    with pytest.raises(UsageError, match="has no '/'"):
        read(WHY, "", "a/b")


def test_global_options_stand_anywhere() -> None:
    """Before the command or after it, they are the same."""
    before = split_globals(["-o", "json", "--debug", "--api-url=x", "list", "--no-input"])
    assert before.values == {"output": "json", "debug": True, "api_url": "x"}
    assert before.words == ["list", "--no-input"]
    behind = parse(WHY, ["one", "-ojson", "--debug", "--api-url", "x"])
    assert behind.globals == before.values
    assert parse(WHY, ["one", "-h"]) == Parsed({}, {}, help=True)
    assert parse(WHY, ["-V"]).version
    assert split_globals(["--help", "list"]).help
    assert split_globals(["-V"]).version
    assert split_globals(["--", "--list"]).words == ["--list"]


def test_an_option_of_the_commands_own_goes_before_a_global_one() -> None:
    """A command may have `-o` for itself; then the words of both stay apart."""
    own = Command(("x",), "X.", "x:y", (Opt(("-o", "--out")),))
    parsed = parse(own, ["-o", "file"])
    assert parsed.arguments == {"out": "file"}
    assert parsed.globals == {}


def test_globals_among_words_that_are_still_typed() -> None:
    """What makes sense is taken wherever it stands, the rest is passed over."""
    words = [
        "--profile",
        "work",
        "status",
        "--api-url=local",
        "--bogus",
        "-o",
        "xml",
        "--debug",
        "--",
        "--api-key",
        "k",
    ]
    assert scan_globals(words).anywhere == {
        "profile": "work",
        "api_url": "local",
        # A plugin may have that format; whether one does is known where the command is run.
        "output": "xml",
        "debug": True,
    }
    assert scan_globals(["--api-url"]).anywhere == {}


def test_one_scan_serves_every_face() -> None:
    """The same scan gives the words of the command, the option that waits for its value, and the first fault."""
    found = scan_globals(
        ["--debug", "-o", "json", "status", "box", "-o", "plain", "--bogus", "--", "--no-input"]
    )
    assert found.words == ["status", "box", "-o", "plain", "--bogus", "--", "--no-input"]
    assert found.values == {"debug": True, "output": "json"}
    assert found.anywhere == {"debug": True, "output": "plain"}
    assert (found.fault, found.waiting) == (None, None)
    typing = scan_globals(["--debug", "-o"])
    assert (typing.waiting and typing.waiting.dest, typing.words) == ("output", [])
    assert "needs a value" in str(typing.fault)
    faulty = scan_globals(["--bogus", "-o", "json", "--output=xml", "status"])
    assert "'--bogus'" in str(faulty.fault)
    assert (faulty.words, faulty.waiting) == (["status"], None)
    assert scan_globals(["-o", "xml", "-o", "json"]).fault is None


@given(st.lists(st.text(max_size=10), max_size=6))
def test_no_words_break_the_scanner(words: list[str]) -> None:
    """No matter what the words, there is an answer or a `UsageError`."""
    scan_globals(words)
    try:
        found = split_globals(words)
    except UsageError:
        return
    assert set(found.values) <= {option.dest for option in GLOBAL_OPTIONS}


# Values


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("90", 90.0),
        ("1.5s", 1.5),
        ("10m", 600.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("250ms", 0.25),
        ("1w", 604800.0),
        ("5m20s", 320.0),
        ("1h30m", 5400.0),
        ("1d2h3m4.5s", 93784.5),
    ],
)
def test_durations(word: str, value: float) -> None:
    """A number with a unit, seconds where there is none; or several, each unit smaller than the last."""
    assert seconds(word) == value


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1024", 1024),
        ("1k", 1024),
        ("512M", 512 << 20),
        ("2G", 2 << 30),
        ("1.5GiB", 3 << 29),
        ("1TB", 1 << 40),
    ],
)
def test_sizes(word: str, value: int) -> None:
    """A number with a unit in powers of 1024, bytes where there is none."""
    assert size(word) == value


@pytest.mark.parametrize(
    "word", ["", "m", "-1", "1x", "1 m", "1e3", "٣", "1.", "9" * 20, "\n1", "1\n", "20s5m", "5m20"]
)
def test_what_is_no_duration_or_size(word: str) -> None:
    """Anything else is refused with an example."""
    with pytest.raises(UsageError, match="such as"):
        seconds(word)
    with pytest.raises(UsageError, match="such as"):
        size(word)


def test_times() -> None:
    """RFC 3339, or how long ago; without a zone it is this machine's."""
    assert moment("2026-02-19T16:42:26Z") == datetime(2026, 2, 19, 16, 42, 26, tzinfo=UTC)
    assert moment("2026-02-19T16:42:26+02:00").utcoffset() == timedelta(hours=2)
    assert moment("2026-02-19T16:42:26").tzinfo is not None
    assert timedelta(minutes=9) < datetime.now(UTC) - moment("10m") < timedelta(minutes=11)


@pytest.mark.parametrize(
    "word",
    [
        "",
        "yesterday",
        "2026-13-01",
        "999999999999w",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
    ],
)
def test_what_is_no_time(word: str) -> None:
    """Anything else is refused with an example."""
    with pytest.raises(UsageError, match="RFC 3339"):
        moment(word, "--since")


def test_numbers_and_text() -> None:
    """Numbers are numbers, and text is left alone."""
    assert read_value("int", "7", "-n") == 7
    assert read_value("float", "1.5", "-n") == 1.5
    assert read_value("text", " x ", "-n") == " x "
    assert read_value("seconds", "1m", "-n") == 60.0
    assert read_value("size", "1k", "-n") == 1024
    assert isinstance(read_value("time", "1m", "-n"), datetime)
    for kind in ("int", "float"):
        with pytest.raises(UsageError, match=r"-n takes a (whole )?number"):
            read_value(kind, "x", "-n")


@given(st.text(alphabet="abcxyz0123456789-_.", min_size=1, max_size=128))
def test_plain_names_are_taken(name: str) -> None:
    """Letters, digits, hyphens, dots and underscores make a name, unless it is `.`, `..` or looks like an option."""
    if name in (".", "..") or name.startswith("-"):
        return
    assert check_sandbox_name(name) == name


@given(st.text(max_size=200))
def test_a_name_that_is_taken_is_harmless(name: str) -> None:
    """What passes is one path segment, one word, printable, and no option."""
    try:
        check_sandbox_name(name)
    except UsageError:
        return
    assert name.isprintable()
    assert not set(name) & set("/\\: \t\n")
    assert not name.startswith("-")
    assert 0 < len(name) <= 128


# The tree


def test_a_tree_of_many_commands_is_built_in_linear_time() -> None:
    """A command is compared with the words on its own path alone, however many others there are."""
    compared = 0

    class Word(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    many = [Command((Word(f"g{at // 10}"), Word(f"c{at}")), "C.", "x:y") for at in range(1000)]
    tree = Tree().with_commands(many)
    assert [command.path for command in tree] == [command.path for command in many]
    assert compared < 20_000


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map(tuple), max_size=8))
def test_the_tree_answers_as_its_paths_say(paths: list[tuple[str, ...]]) -> None:
    """Paths clash where one begins with another; else each is found, and the groups are what lies above them."""
    commands = [Command(path, "C.", "x:y") for path in paths]
    pairs = [(one, two) for at, one in enumerate(paths) for two in paths[at + 1 :]]
    if any(one[: len(two)] == two or two[: len(one)] == one for one, two in pairs):
        with pytest.raises(Clash):
            Tree().with_commands(commands)
        return
    tree = Tree().with_commands(commands)
    assert tree.depth == max(map(len, paths), default=0)
    for path in paths:
        found = tree.find([*path, "x"])
        assert found is not None
        assert (found.command.path, found.rest) == (path, ["x"])
        for length in range(len(path)):
            group = path[:length]
            assert tree.is_group(group)
            assert set(tree.below(group)) == {each[length] for each in paths if each[:length] == group}


def test_a_command_may_lead_to_others() -> None:
    """Other commands lie below one that leads, in any order; what names none of them is its argument."""
    lead = Command(("a",), "A.", "x:y", (Arg("name", takes="?"),), leads=True)
    below = Command(("a", "b"), "B.", "x:y")
    for commands in ([lead, below], [below, lead]):
        tree = Tree().with_commands(commands)
        found = [tree.find(words) for words in (["a"], ["a", "b", "x"], ["a", "x", "b"], ["a", "-f", "b"])]
        assert [(each.command.path, each.rest) for each in found if each is not None] == [
            (("a",), []),
            (("a", "b"), ["x"]),
            (("a",), ["x", "b"]),
            (("a",), ["-f", "b"]),
        ]
        assert tree.below() == {"a": "A."}
        assert tree.below(("a",)) == {"b": "B."}
    with pytest.raises(Clash):
        Tree().with_commands([lead, lead])


def test_the_longest_path_wins() -> None:
    """A command is found by its path or an alias, and the words after are left over."""
    tree = Tree().with_commands(
        [Command(("a", "b"), "B.", "x:y"), Command(("a", "c"), "C.", "x:y", aliases=(("see",),))]
    )
    match = tree.find(["a", "c", "d"])
    assert match is not None
    assert (match.command.path, match.rest) == (("a", "c"), ["d"])
    found = tree.find(["see", "x"])
    assert found is not None
    assert found.command.path == ("a", "c")
    assert tree.find(["a"]) is None
    assert tree.find([]) is None
    assert len(tree) == 2
    assert tree.below() == {"a": "b, c", "see": "C."}
    assert commands_like(tree, ["a", "d"]) == ()
    assert commands_like(tree, ["sea"]) == ("see",)
    assert commands_like(tree, ["a", "b"]) == ()
    assert commands_like(tree, ["c"]) == ("a c",)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["preset", "list"], ("egress preset",)),
        (["presets"], ("egress preset",)),
        (["egress", "presets"], ("egress preset",)),
        (["images"], ("image", "local image")),
        (["clone"], ("fork",)),
        (["whitelist"], ("egress allow",)),
        (["ruler"], ()),
    ],
)
def test_groups_are_meant_too(words: list[str], meant: tuple[str, ...]) -> None:
    """A group below another is found as a command is, also by its plural."""
    paths = (
        ("egress", "allow"),
        ("egress", "preset", "list"),
        ("image", "list"),
        ("local", "image", "list"),
        ("fork",),
    )
    tree = Tree().with_commands([Command(path, "It.", "x:y") for path in paths])
    assert commands_like(tree, words) == meant


def test_a_clash_changes_nothing() -> None:
    """Commands come all together or not at all."""
    tree = Tree().with_commands([Command(("a",), "A.", "x:y")])
    with pytest.raises(Clash):
        tree.with_commands([Command(("b",), "B.", "x:y"), Command(("a",), "A.", "x:y")])
    assert len(tree) == 1
