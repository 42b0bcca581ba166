"""What the keeper is asked, by the command line, the control plane and a warm process; the table is in `messages`."""

# Annotations are read as data by `messages`, so they are not postponed.
from typing import Annotated, NamedTuple

from irons_local.ipc import fields

_New = Annotated[str, fields.sandbox_id]
_Named = Annotated[str, fields.cell]


class MakeCell(NamedTuple):
    """Make a cell that is not there; answered with its `ports`, and with `veth` (`layout.Veth`) where it has one.

    Attributes:
        cell: the name of the cell.
        veth: give it a veth, whose outer end is for an instance; only root's keeper can.
    """

    cell: _New
    veth: Annotated[bool, fields.flag] | None = None


class AdoptCell(NamedTuple):
    """Hold the cell in which a process runs; answered with its `ports`, and with `fresh` False where it was held.

    Attributes:
        cell: the name of the cell.
        pid: a process in it.
        started: when that process was started, in clock ticks since the machine was.
    """

    cell: _New
    pid: Annotated[int, fields.number]
    started: Annotated[int, fields.number] = 0


class DropCell(NamedTuple):
    """Serve a cell no more and let go of it, where it is held."""

    cell: _Named


class CellNamespaces(NamedTuple):
    """Answer with descriptors of a cell's namespaces."""

    cell: _Named


class ConnectCell(NamedTuple):
    """Answer with the descriptor of a connection that was made inside a cell.

    Attributes:
        cell: the cell.
        address: where to, as a literal; the loopback of a cell with a veth is the machine at its other end.
        port: its TCP port.
        timeout: how many seconds it may take.
    """

    cell: _Named
    address: Annotated[str, fields.text]
    port: Annotated[int, fields.port]
    timeout: Annotated[float, fields.seconds] = 5.0


class FindProgram(NamedTuple):
    """Answer with the program that holds a connection of a cell: `program`, its words, and `pid`, its number inside; neither where it is not known.

    Attributes:
        cell: the cell.
        address: the program's own address, as a literal.
        port: its own port.
        peer: the address that it connected to.
        peer_port: the port that it connected to.
    """

    cell: _Named
    address: Annotated[str, fields.text]
    port: Annotated[int, fields.port]
    peer: Annotated[str, fields.text]
    peer_port: Annotated[int, fields.port]


class PlaceCell(NamedTuple):
    """Answer with the worker that serves a cell; one is chosen where there is none."""

    cell: _New


class CellServed(NamedTuple):
    """Answer with `served`, every worker that served a cell."""

    cell: _Named


class Greet(NamedTuple):
    """As `TellStatus`, with the version of irons that asks.

    Attributes:
        version: that version; empty where there is none.
    """

    version: Annotated[str, fields.text] = ""


class TellStatus(NamedTuple):
    """Answer with how the backend's processes are."""


class Ready(NamedTuple):
    """Answer once the API answers. As a notice of the control plane: it does."""


class Restart(NamedTuple):
    """Start processes again.

    Attributes:
        name: `gateway` or `server`; None for both.
        worker: one worker of the gateway; None for all.
    """

    name: Annotated[str | None, fields.text] = None
    worker: Annotated[int | None, fields.number] = None


class Retire(NamedTuple):
    """End, and leave all else to the next keeper."""


class Down(NamedTuple):
    """End the backend's processes; answered when they have ended."""
