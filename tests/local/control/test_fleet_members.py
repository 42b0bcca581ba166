"""Members of a fleet at the server: who may connect as whom, and what is believed of them. The link is the real one, over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from functools import partial
from pathlib import Path

import pytest
from tests.local.control.fleet_site import CELL, OTHER, RUN, Site, lines, linked, nothing, refusal, site
from tests.local.control.lab import run, until

from irons_local.control.audit import events
from irons_local.control.audit.events import Query
from irons_local.control.audit.ingest import GatheredLogs, Ingest
from irons_local.control.store import members
from irons_local.errors import CellError
from irons_local.fleet import certificates
from irons_local.fleet.link import SERVER, MemberLink, joining_context, receive, send
from irons_local.fleet.messages import (
    CellStream,
    Join,
    LogPiece,
    MemberHello,
    Over,
    Runs,
    ToServer,
    body_of,
)
from irons_local.fleet.token import JoinTokenError, read_token
from irons_local.ipc.framing import Body, LinkError, Message, RequestError, answer_of
from irons_local.member.dialling import Dialler
from irons_local.member.identity import read_identity, write_identity
from irons_local.member.join import JoinError, join
from irons_local.member.policies import PolicyBook
from irons_local.member.shipping import Shipping


async def spoken(address: str, context: ssl.SSLContext, said: ToServer) -> Body:
    """What the server answers to the first message of a connection."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=SERVER)
    try:
        await send(writer, {"id": 1, **body_of(said)})
        return answer_of(Message(await receive(reader), [])).body
    finally:
        writer.transport.abort()


async def to_the_end(reader: asyncio.StreamReader) -> None:
    """Read messages until the link ends."""
    while True:
        await receive(reader)


def test_a_token_is_for_one_name_once(tmp_path: Path) -> None:
    """With it a machine joins and connects; neither it, nor one whose time is over, nor one for another name, opens anything again."""

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            token = await here.add("n2")
            assert await here.state("n2") == "invited"
            with pytest.raises(JoinError, match="token is not valid"):
                await join(token._replace(name="n3"), tmp_path / "n3")
            await join(read_token(f"  {token.text()}\n"), tmp_path / "n2")
            assert (tmp_path / "n2/identity/member.key").stat().st_mode & 0o077 == 0
            async with linked(read_identity(tmp_path / "n2")):
                await here.is_("n2", "connected")
            await here.is_("n2", "away")
            with pytest.raises(JoinError, match="token is not valid"):
                await join(token, tmp_path / "again")
            late = await here.add("n4")
            await here.store.write(
                lambda connection: connection.execute("UPDATE members SET token_until = 1")
            )
            with pytest.raises(JoinError, match="token is not valid"):
                await join(late, tmp_path / "n4")
            assert not (tmp_path / "n4/identity").exists()

    run(story())


def test_a_token_is_shown_to_its_server_alone(tmp_path: Path) -> None:
    """A server with another certificate than the token says hears nothing of it."""

    async def story() -> None:
        async with site(tmp_path / "site") as here, site(tmp_path / "other") as other:
            token = await here.add("n2")
            with pytest.raises(JoinError, match="is not the one that made this token"):
                await join(token._replace(address=other.address), tmp_path / "n2")
            await join(token, tmp_path / "n2")

    run(story())


@pytest.mark.parametrize(
    "text", ["", "secret", "irons-member-", "irons-member-c2VjcmV0", "irons-member-" + "A" * 5000]
)
def test_a_damaged_token_is_refused_without_being_shown(text: str) -> None:
    """The error has nothing of what was given."""
    with pytest.raises(JoinTokenError) as caught:
        read_token(text)
    assert "c2V" not in str(caught.value)


def test_a_certificate_is_for_the_name_of_its_token(tmp_path: Path) -> None:
    """Whatever name a machine asks for, the one of its token is in the certificate, and the member of that name is connected."""

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            await here.joined("n3")
            token, request = await here.add("n2"), certificates.ask("n3")
            answer = await spoken(
                here.address, joining_context(), Join("n2", token.secret, request.text, "1")
            )
            home = tmp_path / "mixed"
            write_identity(
                home, "n3", here.address, ca=answer["ca"], certificate=answer["certificate"], key=request.key
            )
            async with linked(read_identity(home)):
                await here.is_("n2", "connected")
                assert await here.state("n3") == "away"

    run(story())


def test_a_certificate_of_another_authority_opens_nothing(tmp_path: Path) -> None:
    """Nor does none."""

    async def story() -> None:
        async with site(tmp_path / "site") as here, site(tmp_path / "other") as other:
            mine, theirs = await here.joined("n2"), await other.joined("n2")
            forged = tmp_path / "forged"
            write_identity(
                forged,
                "n2",
                here.address,
                ca=mine.ca.read_text(),
                certificate=theirs.certificate.read_text(),
                key=theirs.key.read_text(),
            )
            with pytest.raises(LinkError):
                await Dialler(read_identity(forged)).greet({}, "")
            with pytest.raises(RequestError, match="certificate is needed"):
                await spoken(here.address, joining_context(), MemberHello("1", 1, {}))
            assert await here.state("n2") == "away"

    run(story())


def test_a_removed_member_is_cut_off_at_once(tmp_path: Path) -> None:
    """Its link and its streams end, and its certificate opens nothing, also where the name has joined again."""

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            first = await here.joined("n2")
            ends, _ = await Dialler(first).greet({}, "")
            await here.is_("n2", "connected")
            await here.fleet.remove("n2")
            with pytest.raises(LinkError):
                await to_the_end(ends[0])
            assert not here.fleet.members.connected()
            with pytest.raises(CellError, match="not connected"):
                here.fleet.members.cells_of("n2")
            second = await here.joined("n2b")
            await join(await here.add("n2"), tmp_path / "second")
            with pytest.raises(RequestError, match="removed"):
                await Dialler(first).greet({}, "")
            assert second.name == "n2b"

    run(story())


def test_a_member_of_another_protocol_is_told_so(tmp_path: Path) -> None:
    """The answer names both versions."""

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            from irons_local.fleet.link import member_context

            who = await here.joined("n2")
            context = member_context(who.ca, who.certificate, who.key)
            with pytest.raises(RequestError, match=r"irons 0\.0 of the member .* do not work together"):
                await spoken(here.address, context, MemberHello("0.0", 99, {}))

    run(story())


def test_a_stream_is_brought_by_who_was_asked(tmp_path: Path) -> None:
    """Another member that knows its name gets nothing, and neither does one that was not asked."""

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            from irons_local.fleet.link import member_context

            asked, other = await here.joined("n2"), await here.joined("n3")
            with here.fleet.members.streams.awaited("n2") as stream:
                for who, name in ((other, stream.name), (asked, "made-up")):
                    context = member_context(who.ca, who.certificate, who.key)
                    with pytest.raises(RequestError, match="no such stream"):
                        await spoken(here.address, context, CellStream(name))
                with pytest.raises(CellError):
                    stream.take()

    run(story())


class Log:
    """The server's log."""

    def __init__(self, here: Site) -> None:
        self._here = here
        self._gathering = GatheredLogs(Ingest(here.home / "own"), here.home / "fleet" / "logs")

    def hosts(self) -> list[str]:
        """The hosts of all events, oldest first, once everything is taken in."""
        store = self._here.store
        while store.write_now(self._gathering.take).more:
            pass
        store.write_now(self._gathering.sweep)
        found = store.write_now(lambda connection: events.page(connection, Query())).events
        return [str(event["host"]) for event in found]


def test_a_member_writes_of_its_own_cells(tmp_path: Path) -> None:
    """What it says of a cell that was never on it is not in the log; the same run of another member is another one."""

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            log = Log(here)
            for name, cell in (("n2", CELL), ("n3", OTHER)):
                await here.store.write(partial(members.place, cell=cell, member=name))
                async with linked(await here.joined(name)) as link:
                    for of in (CELL, OTHER):
                        run_of = RUN if of == cell else RUN.replace("-0", "-1")
                        data = lines(refusal(1, f"{name}.test"), cell=of)
                        assert (await link.request(LogPiece(run_of, 0, data)))["at"] == len(data)
            assert sorted(log.hosts()) == ["n2.test", "n3.test"]

    run(story())


def test_what_one_member_has_more_of_is_taken_in_though_another_has_nothing(tmp_path: Path) -> None:
    """A look at the logs goes on until each member's are taken in, whoever's turn was last."""

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            log = Log(here)
            for name, cell in (("n2", CELL), ("n3", OTHER)):
                await here.store.write(partial(members.place, cell=cell, member=name))
            async with linked(await here.joined("n3")) as link:
                await link.request(LogPiece(RUN, 0, lines(refusal(1, "n3.test"), cell=OTHER)))
            assert log.hosts() == ["n3.test"]
            async with linked(await here.joined("n2")) as link:
                for number in range(9):
                    piece = lines(refusal(1, f"h{number}.test"))
                    await link.request(LogPiece(RUN.removesuffix("0") + str(number), 0, piece))
            assert sorted(log.hosts()) == [*(f"h{number}.test" for number in range(9)), "n3.test"]

    run(story())


def test_each_record_is_taken_in_once(tmp_path: Path) -> None:
    """Pieces that come twice, or from elsewhere than the copy ends, or after it was taken in and removed, change nothing."""

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            await here.store.write(lambda connection: members.place(connection, CELL, "n2"))
            log, who = Log(here), await here.joined("n2")
            data = lines(*(refusal(conn, f"h{conn}.test") for conn in range(1, 6)), {"kind": "end"})
            middle = data.index(b"\n", 300) + 10
            async with linked(who) as link:
                assert await link.request(Runs([RUN])) == {"at": {RUN: 0}, "over": []}
                for _ in range(2):
                    assert (await link.request(LogPiece(RUN, 0, data[:middle])))["at"] == middle
                assert (await link.request(LogPiece(RUN, middle + 5, data[middle + 5 :])))["at"] == middle
                with pytest.raises(RequestError, match=f"has {middle} of"):
                    await link.request(Over(RUN, len(data)))
            seen = len(log.hosts())
            assert 0 < seen < 5
            async with linked(who) as link:
                assert await link.request(Runs([RUN])) == {"at": {RUN: middle}, "over": []}
                await link.request(LogPiece(RUN, middle, data[middle:]))
                for _ in range(2):
                    await link.request(Over(RUN, len(data)))
            whole = [f"h{conn}.test" for conn in range(1, 6)]
            assert log.hosts() == whole
            copies = here.home / "fleet/logs/n2"
            assert [path.name for path in copies.iterdir()] == [f"{RUN}.over"]
            async with linked(who) as link:
                # The answer to `Over` was lost on the way: the member has it still.
                assert await link.request(Runs([RUN])) == {"at": {}, "over": [RUN]}
                with pytest.raises(RequestError, match="whole already"):
                    await link.request(LogPiece(RUN, 0, data))
                assert await link.request(Runs([])) == {"at": {}, "over": []}
            assert log.hosts() == whole
            assert list(copies.iterdir()) == []

    run(story())


def test_logs_are_shipped_and_kept_until_then(tmp_path: Path) -> None:
    """A dead worker's log is removed once the server has it, the counts before its end; a living one's stays."""

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            import fcntl

            await here.store.write(lambda connection: members.place(connection, CELL, "n2"))
            log, who = Log(here), await here.joined("n2")
            audit = tmp_path / "audit"
            audit.mkdir()
            living = RUN.replace("-0", "-1")
            with (audit / f"{living}.jsonl").open("wb") as writer:
                fcntl.flock(writer, fcntl.LOCK_EX)
                writer.write(lines(refusal(1, "living.test")) + b'{"half')
                writer.flush()
                (audit / f"{RUN}.jsonl").write_bytes(lines(refusal(1, "dead.test")))
                (audit / f"{RUN}.counts").write_bytes((1).to_bytes(8, "little") + (7).to_bytes(8, "little"))
                shipping = Shipping(audit)
                assert shipping.backlog() > 0
                async with linked(who) as link:
                    working = asyncio.ensure_future(shipping.run(link))

                    async def shipped() -> bool:
                        return not (audit / f"{RUN}.jsonl").exists() and shipping.backlog() == len(b'{"half')

                    await until(shipped)
                    working.cancel()
                    await asyncio.gather(working, return_exceptions=True)
                assert sorted(path.name for path in audit.iterdir()) == [f"{living}.jsonl"]
            assert sorted(log.hosts()) == ["dead.test", "living.test"]
            found = here.store.write_now(lambda connection: events.page(connection, Query())).events
            assert {event["host"]: event["count"] for event in found} == {"dead.test": 7, "living.test": 1}

    run(story())


def test_a_policy_is_kept_and_no_older_one_taken(tmp_path: Path) -> None:
    """The last one is there after a restart; an end is by the member's own clock; another join begins again."""
    policy = {"mode": "deny", "rules": [{"pattern": "a.test", "until_up": 5}, {"pattern": "b.test"}]}
    book = PolicyBook(tmp_path)
    kept = book.made("epoch", 7, {"name": "box"}, policy, [60_000_000, None])
    book.put(CELL, kept)
    assert kept.policy["rules"][0]["until_up"] > 60_000_000
    assert "until_up" not in kept.policy["rules"][1]
    for revision in (6, 1):
        with pytest.raises(RequestError, match="is older than 7"):
            book.put(CELL, book.made("epoch", revision, {}, {"mode": "warn"}, []))
    again = PolicyBook(tmp_path)
    assert again.get(CELL) == kept
    assert again.revisions("epoch") == {CELL: 7}
    assert again.revisions("other") == {}
    again.put(CELL, again.made("other", 1, {}, {"mode": "deny"}, []))
    assert again.revisions("other") == {CELL: 1}
    again.forget(CELL)
    assert PolicyBook(tmp_path).cells() == []


def test_a_server_with_an_old_database_pushes_nothing(tmp_path: Path) -> None:
    """A member that has later policies than the server knows is `ahead`, and keeps them."""

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            from irons_local.control.schema.errors import HttpError
            from irons_local.ipc.messages import PutPolicy

            who = await here.joined("n2")
            stored = here.store.write_now(lambda connection: members.get(connection, "n2"))
            assert stored is not None
            ends, _ = await Dialler(who).greet({CELL: 5}, stored.epoch)
            with contextlib.closing(MemberLink(*ends, nothing)) as link:
                running = asyncio.ensure_future(link.run())
                await here.is_("n2", "ahead")
                await here.store.write(lambda connection: members.place(connection, CELL, "n2"))
                await here.fleet.members.load()
                ask = here.fleet.members.elsewhere(CELL)
                assert ask is not None
                with pytest.raises(HttpError, match="later policies"):
                    await ask(PutPolicy(CELL, {"mode": "warn", "rules": []}))
                link.close()
                await asyncio.gather(running, return_exceptions=True)

    run(story())
