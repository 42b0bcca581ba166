"""What makes a machine: the protocol that every engine follows, the built-in `namespace` one included.

An engine is driven by the control plane, in its process and event loop, and keeps what it needs in one directory
per sandbox. It knows nothing of rules, names on the wire or the audit log; its network is a *cell*, which the
keeper makes with the gateway's sockets in it before the machine's first process exists. `conformance` in this
package is the test suite that any engine runs against.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

from irons_local.cell import layout
from irons_local.cell.layout import Namespaces, Veth
from irons_local.progress import Progress, unheard
from irons_local.spec import SSH_PORT, USERNAME, Spec

if TYPE_CHECKING:
    from irons_local.engines.namespace.starter import Starter

__all__ = [
    "CELL_ADDRESS",
    "CELL_DNS",
    "SSH_PORT",
    "USERNAME",
    "Activity",
    "Admits",
    "Announces",
    "Booter",
    "Cells",
    "Copies",
    "Engine",
    "EngineMaker",
    "KeptFiles",
    "Kit",
    "Listens",
    "Look",
    "Made",
    "Members",
    "Namespaces",
    "Observer",
    "OnKept",
    "Progress",
    "Spec",
    "Spread",
    "Veth",
    "unheard",
]

CELL_DNS = layout.GATEWAY4
CELL_ADDRESS = layout.SANDBOX4


@dataclass(frozen=True, slots=True)
class Made:
    """What is known of a sandbox once it is made, and does not change.

    Attributes:
        username: who to be by SSH.
        host_keys: public host keys in OpenSSH form, for strict checking.
        image: what it was made from, as people know it.
    """

    username: str
    host_keys: tuple[str, ...]
    image: str


@dataclass(frozen=True, slots=True)
class Look:
    """How a sandbox is at this moment.

    Attributes:
        state: `absent` no such sandbox; `stopped`; `running`; `broken` half made or half removed, can only be destroyed.
        reason: why it is broken, or why it stopped by itself; else an empty string.
        facts: texts for `status`: engine, image, addresses, limits (and whether each is enforced), what is used.
    """

    state: Literal["absent", "stopped", "running", "broken"]
    reason: str = ""
    facts: Mapping[str, str] | None = None


class Cells(Protocol):
    """The keeper, as an engine sees it. Each method raises `CellError` where it fails."""

    async def make(self, cell: str) -> None:
        """Make a cell: its namespaces, with the gateway's sockets in place, and no process.

        A cell of that name must not exist.
        """
        ...

    async def make_with_veth(self, cell: str) -> Veth:
        """Make a cell whose machine has a network of its own and one way out of it, the outer end of a veth; as root.

        That end is down, without an address, in the keeper's network namespace, and what came from it there would be dropped.
        The cell goes on without keeper and gateway for as long as the process does that the answer names: `adopt` by it.
        """
        ...

    async def namespaces(self, cell: str) -> Namespaces:
        """Descriptors of the cell's user, network and mount namespaces."""
        ...

    async def connect(self, cell: str, address: str, port: int, *, within: float) -> socket.socket:
        """A TCP connection made inside the cell, non-blocking, `within` so many seconds.

        Raises:
            OSError: the error of connect(2) inside, such as `ConnectionRefusedError`, or `TimeoutError`.
        """
        ...

    async def adopt(self, cell: str, pid: int, started: int) -> None:
        """Find a cell again through a process in it, given with its start time (clock ticks since boot).

        A cell that is held already stays as it is.
        """
        ...

    async def drop(self, cell: str) -> None:
        """Let go of a cell and detach it from the gateway; one that is gone already is passed over.

        A veth is removed with its cell, also where an instance has the outer end.
        """
        ...


class Members(Protocol):
    """Other machines on which cells can be made, by the name that the engine's cluster has for each."""

    def cells_of(self, member: str) -> Cells:
        """The cells of a member, of which `drop` also ends what holds a cell and removes its veth.

        Raises:
            CellError: its agent is not connected.
        """
        ...

    def connected(self) -> frozenset[str]:
        """The members whose agents are connected at this moment."""
        ...


class Engine(Protocol):
    """What makes, runs and removes machines. Every method may be called again after a crash in the middle of it.

    Calls for different sandboxes may overlap; calls for one sandbox come one after the other. A cancelled call
    leaves nothing running that `look` does not show. All raise `EngineError`.
    """

    @property
    def name(self) -> str:
        """What `--engine` calls it."""
        ...

    async def recover(self) -> Sequence[str]:
        """Take up again, after a restart of the control plane, what runs; gives the ids of the running sandboxes."""
        ...

    async def create(self, spec: Spec, progress: Progress = unheard) -> Made:
        """Lay out a stopped sandbox on disk, making the default image first where there is none.

        A create that fails, is cancelled or dies leaves a sandbox that is `absent` or `broken`.
        """
        ...

    async def start(self, sandbox: str, *, boot: bool = True) -> None:
        """Make the cell, start the machine in it, and come back when its SSH server has answered.

        Starting a running sandbox changes nothing. Without `boot` nothing in it starts by itself.
        """
        ...

    async def stop(self, sandbox: str, *, grace: float = 5.0) -> None:
        """Ask every process to end, end it after `grace` seconds, and drop the cell. Stopped already is not an error."""
        ...

    async def destroy(self, sandbox: str) -> None:
        """Stop the sandbox if need be and remove all that it is. One that is absent is not an error."""
        ...

    async def look(self, sandbox: str) -> Look:
        """How the sandbox is, asked of the machine itself and not of what was recorded."""
        ...

    async def connect(self, sandbox: str, *, port: int = SSH_PORT, within: float = 10.0) -> socket.socket:
        """A connection to a TCP port of the machine's own loopback address, non-blocking."""
        ...

    async def wait(self, sandbox: str) -> None:
        """Come back when the machine has stopped, whoever stopped it; at once if it does not run."""
        ...


class Activity(NamedTuple):
    """How busy a running sandbox is.

    Attributes:
        sessions: established SSH connections that came from outside.
        processor: microseconds of processor time that it has used; only ever grows while it runs.
    """

    sessions: int
    processor: int


@runtime_checkable
class Observer(Protocol):
    """What an engine may have besides: without it, no sandbox of its own can be stopped for idleness."""

    async def activity(self, sandbox: str) -> Activity | None:
        """How busy a sandbox is, measured from outside; None where it does not run, or that is not known."""
        ...


@runtime_checkable
class Admits(Protocol):
    """What an engine also has that can change who enters a sandbox which exists."""

    async def admit(self, sandbox: str, public_keys: str, gone: Sequence[str] = ()) -> None:
        """Let exactly these keys open the sandbox, at once where it runs.

        Args:
            sandbox: the sandbox.
            public_keys: text of an OpenSSH public key file.
            gone: ids (`sshd.key_id`) of keys that opened it before; their sessions end.
        """
        ...


@runtime_checkable
class Announces(Protocol):
    """What an engine may have besides: it writes to the terminals of open sessions."""

    async def announce(self, sandbox: str, line: str) -> None:
        """Write a line to the terminal of each SSH session of a sandbox; nothing where it does not run."""
        ...


@runtime_checkable
class Spread(Protocol):
    """What an engine may have besides: sandboxes on other members of a fleet."""

    def member_of(self, sandbox: str) -> str:
        """The other machine that the cell of a running sandbox is on; "" where it is this one, or there is no cell."""
        ...


@runtime_checkable
class Listens(Protocol):
    """What an engine may have besides: something by which machines are made listens on the network."""

    def listening(self) -> Sequence[tuple[str, int]]:
        """Its addresses, literal, and ports, as they are known now: no rule opens those to a sandbox."""
        ...


@runtime_checkable
class Booter(Protocol):
    """What an engine may have besides: it keeps what a sandbox prints while it boots."""

    async def boot_output(self, sandbox: str) -> bytes:
        """The last 64 KiB of it, of this run or, in a stopped sandbox, of the last one. Text of the sandbox's own."""
        ...


class KeptFiles(NamedTuple):
    """What capturing a sandbox took.

    Attributes:
        pause: seconds in which the sandbox's processes did not run; 0 where it was stopped.
        layer: id of the layer that the snapshot adds to those of the sandbox; "" where nothing had changed.
    """

    pause: float
    layer: str = ""


OnKept = Callable[[KeptFiles], Awaitable[None]]
"""Records that files are kept; until it returns nothing may take their place."""


@runtime_checkable
class Copies(Protocol):
    """What an engine may have besides: snapshots of its sandboxes, and sandboxes that start from one (`Spec.snapshot`).

    A sandbox that starts from a snapshot is a new machine: it has a host key, a machine-id and a host name of its own, and
    the variables of its `Spec`. A call that fails, is cancelled or dies leaves a whole snapshot or none.
    """

    async def capture(
        self, sandbox: str, snapshot: str, name: str, progress: Progress = unheard
    ) -> KeptFiles:
        """Keep a sandbox's files as they are now; one that runs is paused for as short as can be, and goes on.

        Args:
            sandbox: the sandbox.
            snapshot: the new snapshot's id.
            name: what people call it; "" for one that is removed when its copies are made.
            progress: called with the progress.
        """
        ...

    async def restore(self, sandbox: str, snapshot: str, kept: str, name: str, made: OnKept) -> None:
        """Put the files of a snapshot of this sandbox in place of its own, and keep these as the snapshot `kept`.

        The sandbox does not run. Its host key, its authorized keys and its limits stay.

        Args:
            sandbox: the sandbox.
            snapshot: id of the snapshot.
            kept: id of the one that is made before.
            name: what people call that.
            made: awaited once `kept` is whole, and before the sandbox has other files; where it raises they stay.
        """
        ...

    async def discard(self, snapshot: str) -> None:
        """Remove a snapshot; sandboxes that were made from it stay whole. One that is absent is not an error."""
        ...


@dataclass(frozen=True, slots=True)
class Kit:
    """What an engine is given to work with.

    Attributes:
        cells: the keeper.
        images: directory of the images.
        sandboxes: directory in which the engine has one directory per sandbox.
        default_image: how to get the image that is made on first use; a path of an archive, or "" to build one.
        shown: gives, at each start, text of further files to show in the settings directory, by name.
        starter: a warm process for starts, shared by all engines; None starts one for each start.
        members: the other machines of a fleet; None where there are none.
    """

    cells: Cells
    images: Path
    sandboxes: Path
    default_image: str = ""
    shown: Callable[[], Mapping[str, str]] = dict
    starter: Starter | None = None
    members: Members | None = None


EngineMaker = Callable[[Kit], Engine]
"""What the hook `irons_engines` gives for each engine name."""
