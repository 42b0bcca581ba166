"""Whose turn it is: no cell takes more of the loop than its share, however many of its connections are busy."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.e2e.lab import eventually
from tests.local.gateway.stand import CELL, CellNet, Program, Stand

from irons_local.gateway.budget import fairness
from irons_local.gateway.budget.fairness import ALONE, CROWDED, SETTLING, FairSelector

BUSY, OTHER = "sb_00000000000000aa", "sb_00000000000000bb"
ONE = 0.001
"""Seconds that serving one socket costs here."""


class Desk:
    """A selector whose time passes as its test says, and sockets that are always ready."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0
        self.selector = FairSelector(spent=self._spent, clock=lambda: self.now)
        self._held = contextlib.ExitStack()

    def _spent(self) -> float:
        self.asked += 1
        return self.now

    def ready(self, owner: str | None, count: int) -> list[socket.socket]:
        """Watch so many sockets that are ready; their data names the cell."""
        made = []
        for _ in range(count):
            near, far = (self._held.enter_context(each) for each in socket.socketpair())
            far.send(b"x")
            if owner is None:
                self.selector.register(near, selectors.EVENT_READ, owner)
            else:
                fairness.of(owner).run(self.selector.register, near, selectors.EVENT_READ, owner)
            made.append(near)
        return made

    def turn(self, cost: float = ONE) -> list[selectors.SelectorKey]:
        """One turn, each of whose sockets costs as much."""
        found = [key for key, _ in self.selector.select()]
        self.now += cost * len(found)
        return found

    def close(self) -> None:
        """Close everything."""
        self.selector.close()
        self._held.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A selector and its clock."""
    desk = Desk()
    yield desk
    desk.close()


def test_cells_get_the_same_however_many_sockets_they_have(desk: Desk) -> None:
    """A cell with a hundred ready sockets and one with four are served for as long as one another."""
    desk.ready(BUSY, 100)
    desk.ready(OTHER, 4)
    served = Counter(key.data for _ in range(500) for key in desk.turn())
    assert abs(served[BUSY] - served[OTHER]) <= ALONE
    assert sum(served.values()) > 1000


def test_what_is_dear_is_had_less_often(desk: Desk) -> None:
    """A cell each of whose events takes ten times as long gets fewer of them, not more time."""
    desk.ready(BUSY, 50)
    desk.ready(OTHER, 50)
    used: Counter[str] = Counter()
    for _ in range(2000):
        found = [key for key, _ in desk.selector.select()]
        cost = len(found) * (10 if found[0].data == BUSY else 1)
        desk.now += cost * ONE
        used[str(found[0].data)] += cost
    assert abs(used[BUSY] - used[OTHER]) <= 10 * ALONE


def test_a_cell_that_wakes_is_next_and_has_saved_nothing_up(desk: Desk) -> None:
    """After a long time in which it had nothing to do, a cell waits for one turn at most, and then takes turns."""
    desk.ready(BUSY, 100)
    for _ in range(1000):
        desk.turn()
    desk.ready(OTHER, 100)
    order = [desk.turn()[0].data for _ in range(40)]
    assert OTHER in order[:2]
    assert 15 <= order.count(BUSY) <= 25


def test_what_a_cell_has_computed_is_asked_only_beside_another(desk: Desk) -> None:
    """Alone it costs no system call; while two are at work each turn is measured."""
    desk.ready(BUSY, 4)
    for _ in range(10):
        desk.turn()
    assert not desk.asked
    desk.ready(OTHER, 4)
    for _ in range(10):
        desk.turn()
    assert desk.asked >= 18


def test_a_cell_alone_does_not_pay_for_what_else_the_machine_did(desk: Desk) -> None:
    """A long stop of the whole process in its turn gives no reason to serve others for as long when they wake."""
    desk.ready(BUSY, 1)
    desk.turn()
    desk.turn(cost=10.0)
    desk.ready(OTHER, 1)
    order = [desk.turn()[0].data for _ in range(40)]
    assert 15 <= order.count(BUSY) <= 20


def test_a_turn_is_short_where_others_are_at_work(desk: Desk) -> None:
    """Alone a cell is served many sockets at once; while two are at work only a few."""
    desk.ready(BUSY, 100)
    assert len(desk.turn()) == ALONE
    desk.now += 1
    assert len(desk.turn()) == ALONE
    desk.ready(OTHER, 100)
    assert {len(desk.turn(ONE / 10)) for _ in range(20)} <= {CROWDED, ALONE}
    assert len(desk.turn(ONE / 10)) == CROWDED


def test_all_sockets_of_a_cell_have_their_turn(desk: Desk) -> None:
    """None of many busy sockets is served twice before every other has been served."""
    desk.ready(BUSY, 2 * ALONE)
    first, second = ({key.fd for key in desk.turn()} for _ in range(2))
    assert not first & second
    assert len(first | second) == 2 * ALONE


def test_what_a_turn_has_set_off_comes_before_the_next(desk: Desk) -> None:
    """While the loop has something to do nothing new is handed out, but not for ever."""
    desk.ready(BUSY, 1)
    assert desk.turn()
    assert [desk.selector.select(0) for _ in range(SETTLING)] == [[]] * SETTLING
    assert desk.selector.select(0)


def test_what_is_nobodys_never_waits(desk: Desk) -> None:
    """The links to the keeper and the control plane are heard in every turn."""
    desk.ready(BUSY, 100)
    desk.ready(OTHER, 100)
    (link,) = desk.ready(None, 1)
    for _ in range(20):
        assert link.fileno() in {key.fd for key in desk.turn()}


def test_a_socket_is_watched_as_asked_and_no_longer(desk: Desk) -> None:
    """What is registered can be changed and forgotten, also once it was closed; a cell without sockets is forgotten."""
    (sock,) = desk.ready(BUSY, 1)
    with pytest.raises(KeyError):
        desk.selector.register(sock, selectors.EVENT_READ)
    desk.selector.modify(sock, selectors.EVENT_WRITE, "w")
    assert [(key.data, events) for key, events in desk.selector.select()] == [("w", selectors.EVENT_WRITE)]
    desk.selector.modify(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, "rw")
    assert [events for _, events in desk.selector.select()] == [selectors.EVENT_READ | selectors.EVENT_WRITE]
    fd = sock.fileno()
    sock.close()
    desk.selector.unregister(fd)
    assert desk.selector.select(0.001) == []
    with pytest.raises(KeyError):
        desk.selector.get_key(fd)
    (again,) = desk.ready(BUSY, 1)
    assert [key.fd for key in desk.turn()] == [again.fileno()]


def test_what_is_watched_is_found_by_socket_and_by_number(desk: Desk) -> None:
    """The map of what is watched answers for a socket as for its descriptor, as the event loop of Python 3.13 asks it."""
    (one,) = desk.ready(BUSY, 1)
    watched = desk.selector.get_map()
    assert watched.get(one) == watched[one.fileno()] == desk.selector.get_key(one)
    assert (list(watched), len(watched)) == ([one.fileno()], 1)
    desk.selector.unregister(one)
    assert watched.get(one) is None


def test_a_crowd_in_one_cell_does_not_come_before_another_cell(patient: Stand) -> None:
    """Of two cells whose words all wait, three hundred connections of one and one of the other, neither is heard last."""
    stand = patient
    crowd = 300
    second = CellNet()
    try:
        stand.attach(OTHER, second)
        # On the port of TLS a client may take its time to begin, and must then speak TLS.
        stand.policy("deny", ["web.example.test"])
        stand.policy("deny", ["203.0.113.66"], cell=OTHER)
        address = stand.resolve("web.example.test")
        with contextlib.ExitStack() as held:
            hostile = [held.enter_context(stand.connect(address, 443)) for _ in range(crowd)]
            quiet = held.enter_context(Program(second.socket(), "203.0.113.66", 443))
            eventually(lambda: stand.ask("stats")["undecided"] == crowd + 1)
            with stand.still():
                for program in (*hostile, quiet):
                    program.send(b"\0\n")
            assert quiet.rest() == b"RESET"
            assert all(program.rest() == b"RESET" for program in hostile)
        told = [each["cell"] for each in stand.records() if each["kind"] in {"event", "fold"}]
        assert told.count(CELL) >= crowd
        assert told.index(OTHER) <= 2 * ALONE
    finally:
        second.close()
