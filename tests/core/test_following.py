"""How every face follows the open questions: how fast, how loud, and what is heard after a rest, without presets and beside a look that hangs."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any, cast

import pytest

from irons.asking.following import AT_ONCE, PAUSE, LookPace, QuestionFollower, QuestionsHeard
from irons.asking.ringing import QUIET, Ringing
from irons.client.models.questions import OpenQuestion, QuestionPage
from irons.presets.known_sets import OURS
from irons.presets.offers import PresetOffers


def asked(sandbox: str, host: str) -> OpenQuestion:
    """A question."""
    return OpenQuestion(f"q_{sandbox}_{host}", sandbox, f"{host}:443", "tls", 1, 1, None, host, 443)


def test_a_flood_is_followed_with_pauses() -> None:
    """However fast the questions change, only the first few looks have no pause between them."""
    looks: list[float] = []
    enough = threading.Event()

    class Flood:
        """A server where each look finds something new."""

        def questions(self, *_: object, **__: object) -> QuestionPage:
            """Answer at once."""
            looks.append(time.monotonic())
            if len(looks) > AT_ONCE + 3:
                enough.set()
            return QuestionPage((asked("loud", f"h{len(looks)}.example"),), token=len(looks))

    follower = QuestionFollower(lambda: cast("Any", Flood()), lambda _: None)
    follower.want()
    assert enough.wait(60)
    assert follower.stop(60)
    # After one that began late the next may come sooner, but there are never more since the first than there was time for.
    assert all(at - looks[0] >= (number - AT_ONCE) * PAUSE - 0.01 for number, at in enumerate(looks))


def test_a_few_looks_in_a_row_have_no_pause() -> None:
    """A question right after an answer waits for nothing; a flood waits after the first looks, and no longer once it was calm."""
    pace = LookPace()
    assert [pace.pause(0.0) for _ in range(AT_ONCE)] == [0.0] * AT_ONCE
    assert [pace.pause(0.0) for _ in range(2)] == pytest.approx([PAUSE, 2 * PAUSE])
    assert pace.pause(100.0) == 0.0


def test_a_flood_rings_once_in_a_while_and_drowns_no_bell() -> None:
    """One sandbox rings at most once in some seconds, however many places it tries; another one's question rings at once."""
    now = [0.0]
    ringing = Ringing(lambda: now[0])
    rung = [ringing.rings(QuestionPage((asked("loud", f"h{number}.example"),))) for number in range(100)]
    assert rung == [True, *[False] * 99]
    assert ringing.rings(QuestionPage((asked("loud", "new.example"), asked("calm", "x.example"))))
    now[0] = QUIET
    # The bell of what came in the quiet time was held back, and is not lost.
    assert ringing.rings(QuestionPage((asked("loud", "new.example"), asked("calm", "x.example"))))
    assert not ringing.rings(QuestionPage((asked("loud", "new.example"), asked("calm", "x.example"))))
    now[0] = 2 * QUIET
    assert ringing.rings(QuestionPage((asked("loud", "newer.example"),)))


class Quiet:
    """A server where nothing changes: each look of it waits for the test, and gives the same questions."""

    def __init__(self, *hosts: str) -> None:
        self.page = QuestionPage(tuple(asked("loud", host) for host in hosts), token=1)
        self.began: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.may_end = threading.Semaphore(0)

    def questions(self, token: int | None = None, **_: object) -> QuestionPage:
        """Answer once the test lets it."""
        self.began.put(token)
        assert self.may_end.acquire(timeout=120)
        return self.page


def test_a_bell_that_was_held_back_is_heard_without_other_news() -> None:
    """Its time is over at a look that finds nothing new, and what was heard before is heard again, with the bell."""
    now = [0.0]
    server, heard = Quiet("a.example"), queue.SimpleQueue[QuestionsHeard]()
    follower = QuestionFollower(lambda: cast("Any", server), heard.put, ringing=Ringing(lambda: now[0]))
    follower.want()
    server.may_end.release()
    assert heard.get(timeout=60).rings
    server.page = QuestionPage((*server.page.questions, asked("loud", "b.example")), token=2)
    server.may_end.release()
    news = heard.get(timeout=60)
    assert (len(news.page.questions), news.rings) == (2, False)
    now[0] = QUIET
    server.may_end.release()
    assert heard.get(timeout=60) == news._replace(rings=True)
    follower.stop()
    server.may_end.release(9)
    assert follower.stop(60)
    assert heard.empty()


def test_what_was_heard_before_a_rest_is_looked_at_again() -> None:
    """The first look that ends after it is heard though nothing has changed, and the next one to begin asks for everything."""
    server, heard = Quiet("a.example"), queue.SimpleQueue[QuestionsHeard]()
    follower = QuestionFollower(lambda: cast("Any", server), heard.put)
    follower.want()
    assert server.began.get(timeout=60) is None
    server.may_end.release()
    news = heard.get(timeout=60)
    assert server.began.get(timeout=60) == 1
    follower.rest(resting=True)
    server.may_end.release()
    follower.rest(resting=False)
    server.may_end.release(9)
    assert heard.get(timeout=60) == news._replace(rings=False)
    assert server.began.get(timeout=60) is None
    assert follower.stop(60)


def test_looks_next_to_one_that_hangs_are_one_look_after_it() -> None:
    """However many prompts come while a server stands still, they start one thread, and what it finds last is of after the last of them."""
    server, before = Quiet("a.example"), set(threading.enumerate())
    follower = QuestionFollower(lambda: cast("Any", server), lambda _: None)
    follower.look()
    assert server.began.get(timeout=60) is None
    for _ in range(3):
        follower.look()
    (thread,) = set(threading.enumerate()) - before
    assert server.began.empty()
    server.may_end.release(9)
    thread.join(60)
    assert not thread.is_alive()
    assert server.began.get(timeout=60) is None
    assert server.began.empty()
    follower.look()
    assert server.began.get(timeout=60) is None


def test_presets_that_fail_cost_no_question() -> None:
    """What is asked is heard without them."""

    def fail() -> PresetOffers:
        raise RecursionError

    server, heard = Quiet("a.example"), queue.SimpleQueue[QuestionsHeard]()
    follower = QuestionFollower(lambda: cast("Any", server), heard.put, offers=fail)
    follower.want()
    server.may_end.release(9)
    assert heard.get(timeout=60).page == server.page
    assert follower.stop(60)


def test_no_question_waits_for_its_preset() -> None:
    """A plugin may be long about its presets: what is asked is heard without them, and with them once they are there."""
    may_end = threading.Event()

    def slow() -> PresetOffers:
        assert may_end.wait(120)
        return PresetOffers(OURS)

    server, heard = Quiet("deb.debian.org"), queue.SimpleQueue[QuestionsHeard]()
    follower = QuestionFollower(lambda: cast("Any", server), heard.put, offers=slow)
    follower.want()
    server.may_end.release()
    try:
        assert heard.get(timeout=60).page == server.page
    finally:
        may_end.set()
    assert [each.preset for each in heard.get(timeout=60).page.questions] == ["debian"]
    follower.stop()
    server.may_end.release(9)
    assert follower.stop(60)
