"""How many connections may be held without a valid key, and which of them makes place."""

from __future__ import annotations

from irons_local.control.http.gate import Gate


class Someone:
    """A connection that only notes that it was dismissed."""

    def __init__(self, *, waits: bool = True) -> None:
        self.waits = waits
        self.dismissed = False

    def dismiss(self) -> None:
        self.dismissed = True


def enter(gate: Gate, peer: object, count: int, *, waits: bool = True) -> list[Someone]:
    """Let so many connections of a peer in, one a turn."""
    made = [Someone(waits=waits) for _ in range(count)]
    for each in made:
        gate.turn()
        assert gate.has_room(peer)
        gate.enter(each, peer)
    return made


def turns(gate: Gate, count: int = 10) -> None:
    """Let the event loop come round."""
    for _ in range(count):
        gate.turn()


def test_the_oldest_that_waits_for_its_peer_makes_place() -> None:
    """At its limit a peer loses its oldest silent connection; others lose none."""
    gate = Gate(of_one_peer=3, of_all=100)
    busy, first, second = enter(gate, "a", 3)
    other = enter(gate, "b", 1)[0]
    busy.waits = False
    turns(gate)
    assert gate.has_room("a")
    assert [busy.dismissed, first.dismissed, second.dismissed, other.dismissed] == [False, True, False, False]


def test_those_who_have_shown_a_key_do_not_count() -> None:
    """A recognised connection takes no place, is never dismissed, and counts again once its key is worthless."""
    gate = Gate(of_one_peer=2, of_all=100)
    keyed: list[Someone] = []
    for _ in range(50):
        guest = Someone()
        turns(gate)
        assert gate.has_room("a")
        gate.enter(guest, "a")
        gate.recognise(guest, valid=True)
        keyed.append(guest)
    assert not any(guest.dismissed for guest in keyed)
    gate.recognise(keyed[0], valid=False)
    gate.recognise(keyed[0], valid=False)
    before = gate.strangers
    gate.leave(keyed[0])
    gate.leave(keyed[0])
    assert gate.strangers == before - 1


def test_what_has_not_been_read_yet_is_left_alone() -> None:
    """A connection that has just come, and one that is being served, is not dismissed: there is no room then."""
    gate = Gate(of_one_peer=2, of_all=100)
    fresh = enter(gate, "a", 2)
    assert not gate.has_room("a")
    turns(gate)
    for each in fresh:
        each.waits = False
    assert not gate.has_room("a")
    fresh[1].waits = True
    assert gate.has_room("a")
    assert [each.dismissed for each in fresh] == [False, True]


def test_beyond_the_limit_of_all_the_largest_crowd_gives_way() -> None:
    """With many peers the one that holds the most loses a connection to one that comes again."""
    gate = Gate(of_one_peer=10, of_all=12)
    crowd, few = enter(gate, "a", 9), enter(gate, "b", 3)
    turns(gate)
    assert gate.has_room("c")
    assert [each.dismissed for each in crowd] == [True] + [False] * 8
    assert not any(each.dismissed for each in few)
    assert gate.strangers == 11


def keyed(gate: Gate, key: str | None, count: int) -> list[Someone]:
    """Let so many connections in that show a key."""
    made = []
    for _ in range(count):
        made += enter(gate, "a", 1)
        assert gate.recognise(made[-1], valid=True, key=key)
    return made


def test_a_key_that_counts_has_so_many_connections() -> None:
    """Beyond that its oldest idle connection makes place; those of other keys do not, nor those whose key does not count."""
    gate = Gate(of_one_key=3)
    admin, other = keyed(gate, None, 9), keyed(gate, "key_2", 3)
    busy, idle, last = keyed(gate, "key_1", 3)
    busy.waits = False
    turns(gate)
    keyed(gate, "key_1", 1)
    assert [busy.dismissed, idle.dismissed, last.dismissed] == [False, True, False]
    assert not any(each.dismissed for each in (*admin, *other))
    assert gate.strangers == 0


def test_a_key_whose_connections_are_all_served_gets_no_further_one() -> None:
    """The further one stays a stranger's, until another has ended; one that is there already goes on."""
    gate = Gate(of_one_key=2)
    held = keyed(gate, "key_1", 2)
    for each in held:
        each.waits = False
    turns(gate)
    (more,) = enter(gate, "a", 1)
    assert not gate.recognise(more, valid=True, key="key_1")
    assert gate.strangers == 1
    assert gate.recognise(held[0], valid=True, key="key_1")
    gate.leave(held[1])
    assert gate.recognise(more, valid=True, key="key_1")
    assert gate.strangers == 0
    assert not any(each.dismissed for each in (*held, more))


def test_a_connection_that_shows_another_key_counts_for_that() -> None:
    """It makes room at the first, and at the second once it shows one that does not count, or an invalid one."""
    gate = Gate(of_one_key=1)
    (guest,) = keyed(gate, "key_1", 1)
    guest.waits = False
    turns(gate)
    assert gate.recognise(guest, valid=True, key="key_2")
    keyed(gate, "key_1", 1)
    assert gate.recognise(guest, valid=True)
    (second,) = keyed(gate, "key_2", 1)
    second.waits = False
    assert not gate.recognise(second, valid=False, key="key_2")
    assert gate.strangers == 1
    keyed(gate, "key_2", 1)
    assert not second.dismissed
