"""The block of addresses that stand for names: a setting, kept by each sandbox for its life."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address
from pathlib import Path

import pytest
from tests.local.gateway.stand import CELL, Stand, policy

from irons_local.config.synthetic_pool import POOL, PoolError, read_pool
from irons_local.gateway.shared.pools import Pools
from irons_local.gateway.shared.synthetic_names import SyntheticNames

WEB = "web.example.test"
GET = "GET / HTTP/1.1\nHost: {}\nConnection: close\n\n"
FRESH = "25.0.0.0/15"


@pytest.mark.parametrize(
    "text",
    ["", "x", "25.0.0.0/17", "25.0.0.0/7", "25.0.0.1/15", "2001:db8::/16", "127.0.0.0/8", "100.64.0.0/16"],
)
def test_a_block_that_cannot_be_used_is_refused(text: str) -> None:
    """Too small for a sandbox's names, another family, or of another use inside."""
    with pytest.raises(PoolError):
        read_pool(text)


def test_every_name_of_a_sandbox_fits_into_the_smallest_block(tmp_path: Path) -> None:
    """The capacity, with what is kept for names that a rule covers, is below a /16."""
    from irons_local.gateway.shared.synthetic_names import CAPACITY, KEPT

    assert read_pool("25.0.0.0/16").num_addresses > CAPACITY + KEPT + 1
    names = SyntheticNames(tmp_path / "box", pool=IPv4Network(FRESH))
    assert str(names.address("a.test")) == "25.0.0.1"
    assert names.name(ip_address("25.0.0.1")) == "a.test"
    assert names.name(ip_address("198.18.0.1")) is None
    assert names.synthetic(ip_address("198.18.0.1"))
    names.close()


def test_blocks_outlast_the_process(tmp_path: Path) -> None:
    """One that was ever set is known for good, and closed; a sandbox has the one of its first day."""
    closed: list[tuple[IPv4Network, ...]] = []
    pools = Pools(tmp_path / "pools", closed.append)
    old, new = tmp_path / "names" / "old", tmp_path / "names" / "new"
    assert pools.of(old) == POOL
    old.parent.mkdir()
    old.touch()
    pools.put(FRESH)
    assert (pools.of(old), pools.of(new)) == (POOL, IPv4Network(FRESH))
    pools.put("26.0.0.0/16")
    pools.put(None)
    again = Pools(tmp_path / "pools", closed.append)
    assert again.known == (POOL, IPv4Network(FRESH), IPv4Network("26.0.0.0/16")) == closed[-1]
    assert (again.of(old), again.of(new)) == (POOL, IPv4Network(FRESH))
    with pytest.raises(PoolError):
        again.put("nonsense")
    (tmp_path / "pools").write_bytes(b"\xff\nnonsense\n" + FRESH.encode() + b"\n")
    assert Pools(tmp_path / "pools", closed.append).known == (POOL, IPv4Network(FRESH))


def test_a_sandbox_keeps_its_block_and_earlier_ones_mean_nothing(stand: Stand) -> None:
    """A new sandbox has the new block, an old one its own; an address that was not given out there is never a literal."""
    stand.policy("warn")
    before = stand.resolve(WEB)
    assert ip_address(before) in POOL
    stand.ask("listeners", listeners=[], pool=FRESH)
    assert stand.resolve(WEB) == before
    stand.ask("forget", cell=CELL)
    stand.ask("policy", cell=CELL, sandbox={"id": CELL, "name": "box"}, policy=policy("warn"))
    stand.attach()
    after = stand.resolve(WEB)
    assert ip_address(after) in IPv4Network(FRESH)
    assert stand.http(WEB, GET.format(WEB)).startswith(b"HTTP/1.1 200")
    for unknown in ("25.0.9.9", before, "198.18.200.1"):
        with stand.connect(unknown, 443) as program:
            assert program.send(b"x").rest() == b"RESET"
        assert "no name was ever given" in stand.event(host=unknown)["reason"]
    stand.kill()
    stand.start()
    assert stand.resolve(WEB) == after
    # A name that leads there is beneath the floor.
    stand.policy("warn", hosts={"odd.test": ["25.0.0.77"]})
    assert stand.http("odd.test", GET.format("odd.test")).startswith(b"HTTP/1.1 403")
    assert stand.event(host="odd.test")["cause"] == "floor"
