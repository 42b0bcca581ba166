"""What the gateway knows of one cell: its policy, its names, its caps, and what is under way."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from irons.files import write_whole
from irons_local import clocks
from irons_local.gateway.ask.allowance import RequestAllowance
from irons_local.gateway.ask.asking import Asking
from irons_local.gateway.budget.bucket import Bucket
from irons_local.gateway.budget.descriptors import Share
from irons_local.gateway.budget.undecided import Budget
from irons_local.gateway.budget.yielding import Pace, Slice
from irons_local.gateway.http2.budget import FrameBudget
from irons_local.gateway.shared.pools import Pools
from irons_local.gateway.shared.synthetic_names import SyntheticNames
from irons_local.ipc.messages import AboutSandbox, about_sandbox
from irons_policy.causes import Cause
from irons_policy.decide import Live
from irons_policy.policy import Policy


class Running(Protocol):
    """A connection under way, as its cell knows it.

    Attributes:
        live: what it was judged by, once something outside may be reached.
        mismatched: it goes on only because mode warn lets two names pass on one connection.
    """

    live: Live | None
    mismatched: bool

    def cut(self, ending: str, *, cause: Cause | None) -> None:
        """End it."""

    def spared(self, policy: Policy) -> bool:
        """True where it goes on under a policy that lacks only what a person let it do."""
        ...

    async def ended(self) -> None:
        """Wait until it has ended."""


@dataclass(frozen=True, slots=True)
class Caps:
    """What one cell may have at once; all of it refused beyond, in either mode.

    Attributes:
        connections: accepted and not ended; a sandbox may have a number of its own.
        inside: connections to `irons.internal`, beyond those.
        undecided: of these, the ones whose name or server is not settled yet.
        rate: new connections per second, on average; about what one gateway can do, so that only a flood meets it.
        burst: new connections in one go.
        roomy: connections for which the kernel may keep as much as their speed asks for, up to `WIDE` or so each;
            those beyond get little (`Wire.narrow`), since the kernel's memory for TCP is everyone's.
    """

    connections: int = 1024
    inside: int = 16
    undecided: int = 512
    rate: float = 2_500.0
    burst: float = 60_000.0
    roomy: int = 32


class Cell:
    """One cell.

    Args:
        name: the cell's, which is the sandbox's id.
        home: the directory with `policy` and `names`.
        caps: what it may have at once.
        turn: the turn that the loop is serving.
        pools: where its made-up addresses are taken from; None is the usual block.

    Attributes:
        policy: what connections are judged by; without the rules that have ended.
        freed: is called whenever there may be room for another connection.
        over: is called when rules of the policy have ended; live connections are its affair.
        asking: what a person is asked of it, in mode `ask`.
        allowance: what its agent may ask for without a connection.
    """

    def __init__(
        self, name: str, home: Path, caps: Caps, turn: Slice | None = None, pools: Pools | None = None
    ) -> None:
        self.name = name
        self.caps = caps
        self.sandbox: AboutSandbox = {}
        self.policy: Policy | None = None
        kept = home / "names" / name
        self.names = (
            SyntheticNames(kept)
            if pools is None
            else SyntheticNames(kept, pool=pools.of(kept), pooled=pools.hold)
        )
        self.asking = Asking()
        self.allowance = RequestAllowance()
        self.live: set[Running] = set()
        self.files = Share()
        self.undecided = 0
        self.inside = 0
        self.freed: Callable[[], None] = _nobody_waits
        self.over: Callable[[], None] = _nobody_waits
        self.opening = Budget()
        self.bucket = Bucket(caps.rate, caps.burst)
        self.http2 = FrameBudget()
        self.pace = Pace(turn or Slice())
        self._drops = home / "names" / f"{name}.drops"
        self._kept = home / "policy" / f"{name}.json"
        self._load()

    @property
    def full(self) -> str | None:
        """Why another connection has to wait; None where it does not."""
        own = self.sandbox.get("connections", 0)
        most = own if own > 0 else self.caps.connections
        if len(self.live) - self.inside - self.asking.held >= most:
            return f"this sandbox has {most} connections already"
        if self.undecided >= self.caps.undecided:
            return f"this sandbox has {self.caps.undecided} connections that have not got anywhere yet"
        return None

    @property
    def roomy(self) -> bool:
        """True while the kernel may keep much for another connection."""
        return len(self.live) <= self.caps.roomy

    @property
    def title(self) -> str:
        """The sandbox's name, for people; its id where none is known."""
        return self.sandbox.get("name", self.name)

    def put(self, sandbox: AboutSandbox, policy: Policy) -> None:
        """Keep a policy and put it active; live connections are the caller's affair.

        Raises:
            OSError: it could not be kept, and the one before stays active.
        """
        text = json.dumps({"sandbox": sandbox, "policy": policy.to_json()})
        self._kept.parent.mkdir(mode=0o750, exist_ok=True)
        write_whole(self._kept, text, parents=False)
        self.sandbox, self.policy = sandbox, policy.at(clocks.moment())
        self.asking.put(self.policy)

    def renew(self) -> None:
        """Take the rules that have ended out of the policy; what is out does not come back when a clock is set back."""
        before = self.policy
        if before is not None and before.is_timed:
            self.policy = before.at(clocks.moment())
            if self.policy is not before:
                self.over()

    def missing(self, drops: int) -> int:
        """How many more messages the kernel has dropped than were recorded, also by a gateway before this one.

        Args:
            drops: how many it has dropped since it made the socket.
        """
        try:
            recorded = int(self._drops.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            recorded = 0
        # A socket that has dropped fewer is another one.
        return drops - recorded if drops >= recorded else drops

    def recorded(self, drops: int) -> None:
        """Keep that so many have been recorded."""
        with contextlib.suppress(OSError):
            self._drops.write_text(str(drops), encoding="utf-8")

    def close(self) -> None:
        """Let go of files; what was kept stays for the next attach."""
        self.pace.close()
        self.names.close()

    def _load(self) -> None:
        # Without a policy everything is refused, which is what an unreadable one deserves.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(self._kept.read_text(encoding="utf-8"))
            policy = Policy.from_json(kept["policy"])
            self.sandbox, self.policy = about_sandbox(kept["sandbox"]), policy.at(clocks.moment())


def _nobody_waits() -> None:
    """Nothing waits for it."""


def forget(home: Path, name: str) -> None:
    """Remove what is kept of a cell that is not attached."""
    names = home / "names"
    for path in (
        home / "policy" / f"{name}.json",
        names / name,
        names / f"{name}.drops",
        names / f"{name}.pool",
    ):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
