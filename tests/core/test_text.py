"""Text from outside, made fit for a terminal."""

from __future__ import annotations

import re
import time
import unicodedata
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons.text import age, clean, in_quotes, local_time, rfc3339, size_text


@given(st.text())
def test_nothing_hostile_is_left(text: str) -> None:
    """No matter what comes in, what comes out has no control, format or surrogate character but the harmless soft ones."""
    for character in clean(text):
        assert unicodedata.category(character) not in ("Cc", "Cs")
        assert unicodedata.bidirectional(character) not in (
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        )


def test_every_character_that_steers_is_an_escape() -> None:
    """No control, format or line-separating character there is, and no lone surrogate, comes through."""
    steering = [
        character
        for character in map(chr, range(0x110000))
        if not character.isprintable() and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    ]
    assert len(steering) > 2000
    assert [f"{ord(one):x}" for one in steering if one in clean(one)] == []


def test_escapes_are_shown() -> None:
    """Control, bidi and astral format characters are shown as the escapes that Python would write."""
    assert clean("a\x1b[31m\n\u202e\U000e0041") == "a\\x1b[31m\\n\\u202e\\U000e0041"


@given(st.text(alphabet='ab\\"n', max_size=12))
def test_nothing_ends_the_quotes_early(text: str) -> None:
    """Each quote inside has an odd number of backslashes before it, the last one an even number, and the text can be read back."""
    quoted = in_quotes(text)
    *inside, end = (len(each) - len(each.rstrip("\\")) for each in quoted[1:-1].split('"'))
    assert quoted[0] == quoted[-1] == '"'
    assert all(run % 2 for run in inside)
    assert not end % 2
    read = re.sub(r'(\\+)("|$)', lambda found: found[1][: len(found[1]) // 2] + found[2], quoted[1:-1])
    assert read == text


def test_escapes_read_the_same_in_quotes() -> None:
    """What `clean` wrote is not escaped again; a quote is, and so is a backslash before it or at the end."""
    assert in_quotes(clean("x\ny \x1b[31m")) == '"x\\ny \\x1b[31m"'
    assert in_quotes('a"b\\"c\\') == '"a\\"b\\\\\\"c\\\\"'


@given(st.text(max_size=300), st.integers(1, 50))
def test_a_limit_cuts(text: str, limit: int) -> None:
    """A limit is never exceeded, and a cut text is marked as cut."""
    cut = clean(text, limit=limit)
    assert len(cut) <= limit
    assert cut == clean(text) or cut.endswith("…")
    assert clean(text, limit=max(1, len(clean(text)))) == clean(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (512 << 20, "512 MiB"),
        ((1 << 30) - 1, "1 GiB"),
        (186_076_381, "177 MiB"),
        (1 << 70, "1024 EiB"),
    ],
)
def test_sizes_are_read_at_a_glance(size: int, text: str) -> None:
    """A size has at most three digits that matter, or four before the next unit, and the unit it is in."""
    assert size_text(size) == text


def test_times_are_utc_with_z() -> None:
    """RFC 3339 in UTC, with microseconds where there are any."""
    assert rfc3339(datetime(2026, 2, 19, 16, 42, 26, tzinfo=UTC)) == "2026-02-19T16:42:26Z"
    assert rfc3339(datetime(2026, 2, 19, 16, 42, 26, 5, tzinfo=UTC)) == "2026-02-19T16:42:26.000005Z"


OFFSETS = st.integers(-23 * 3600, 23 * 3600).map(lambda seconds: timezone(timedelta(seconds=seconds)))


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["UTC", "MST7MDT", "Asia/Kolkata", "Africa/Monrovia", "Europe/Amsterdam"])
def test_local_times_are_what_the_zone_says(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Independent of earlier calls: across a minute, a change of summer time, zones that differed by seconds, and another zone."""

    @given(
        st.datetimes(datetime(1850, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC) | OFFSETS),  # noqa: DTZ001
        st.integers(0, 120),
    )
    def check(first: datetime, seconds: int) -> None:
        for at in (first, first + timedelta(seconds=seconds), first.astimezone(UTC)):
            text = at.astimezone().isoformat(timespec="seconds")
            assert local_time(at) == (f"{text[:-6]}Z" if text.endswith("+00:00") else text)

    with monkeypatch.context() as patched:
        patched.setenv("TZ", zone)
        time.tzset()
        check()
    time.tzset()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "now"),
        (0.9, "now"),
        (1, "1s ago"),
        (59.9, "59s ago"),
        (60, "1m ago"),
        (3599, "59m ago"),
        (3600, "1h ago"),
        (86_399, "23h ago"),
        (86_400, "1d ago"),
        (59 * 86_400, "59d ago"),
        (-200, "in 3m"),
        (-90_000, "in 1d"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    """An age has one unit, the largest that it fills, before or after now."""
    now = datetime(2026, 2, 19, 12, tzinfo=UTC)
    assert age(now - timedelta(seconds=seconds), now) == text


def test_what_is_old_has_a_date() -> None:
    """From sixty days on a date says more than a number of days."""
    now = datetime(2026, 2, 19, 12, tzinfo=UTC)
    assert age(now - timedelta(days=100), now) == "2025-11-11"
