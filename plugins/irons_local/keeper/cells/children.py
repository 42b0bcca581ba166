"""What the keeper's forked children do: make a cell, take one up again, connect in it.

The keeper is single-threaded and must not wait, and a process that has entered a user namespace cannot leave it;
so each piece of work is a child that reports on a link and ends. Nothing here runs in the keeper itself but `fork`.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn, Self

from irons_local.cell import sockets, veth
from irons_local.cell.layout import Namespaces, Ports, Veth
from irons_local.cell.network import configure, forget_translations, has_veth
from irons_local.cell.nft import apply_rules
from irons_local.ipc.framing import LinkError, RequestError
from irons_local.ipc.link import Link
from irons_local.linux import idmap, namespaces
from irons_local.linux.programs import program, search_path
from irons_local.linux.tcp import tcp_socket
from irons_local.problems import Problem

_PORT_TRIES = 50
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)


class Child(NamedTuple):
    """A forked child at work: its pid, a descriptor of it (pidfd), and the socket on which it reports."""

    pid: int
    pidfd: int
    sock: socket.socket


def fork(work: Callable[[Link], None]) -> Child:
    """Start a child that does `work` and ends; what it raises becomes an error on the link.

    Raises:
        OSError: no more processes can be made.
    """
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        pid = os.fork()
    except OSError:
        near.close()
        far.close()
        raise
    if pid == 0:
        near.close()
        _child(work, Link(far))
    far.close()
    # Before anybody can have waited for it: the pid is still its own.
    return Child(pid, os.pidfd_open(pid), near)


def _child(work: Callable[[Link], None], link: Link) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        work(link)
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 (the keeper must learn of every failure)
        with suppress(LinkError):
            link.send({"error": fault(error)})
        os._exit(1)


def fault(error: BaseException) -> dict[str, str]:
    """An exception as the error of an answer."""
    if isinstance(error, RequestError):
        return {"code": error.code, "message": error.message}
    if isinstance(error, Problem):
        return {"code": "missing", "message": str(error)}
    if isinstance(error, OSError) and error.errno:
        what = f"{error.filename}: " if error.filename else ""
        return {
            "code": errno.errorcode.get(error.errno, "failed"),
            "message": f"{what}{os.strerror(error.errno)}",
        }
    return {"code": "failed", "message": f"{type(error).__name__}: {error}"}


def make(link: Link, ports: Ports, outer: str = "") -> None:
    """Make a cell: reports `{"ports"}` with the three namespaces and the sockets, and `{"veth"}` where it has one.

    Args:
        link: where to report.
        ports: where the gateway will listen.
        outer: what the outer end of its veth is called; "" for a cell without one.

    This child stays outside, where it may write the maps; a child of its own goes inside.
    """
    maps = _maps()
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    inside = os.fork()
    if inside == 0:
        near.close()
        _child(lambda report: _inside(report, far, ports, outer), link)
    far.close()
    if near.recv(1) == b"u":
        try:
            _write_maps(inside, maps)
            if outer:
                veth.make(outer, inside)
        except BaseException:
            os.kill(inside, signal.SIGKILL)
            os.waitpid(inside, 0)
            raise
        near.send(b"m")
    os.waitpid(inside, 0)


def _inside(link: Link, outside: socket.socket, ports: Ports, outer: str) -> None:
    try:
        namespaces.unshare(namespaces.NEWUSER | namespaces.NEWNET | namespaces.NEWNS)
    except OSError as error:
        raise _forbidden(error) from error
    outside.send(b"u")
    if outside.recv(1) != b"m":
        raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
    _become_root()
    # Should the child outside be ended, this one is of no use.
    namespaces.prctl(namespaces.PR_SET_PDEATHSIG, signal.SIGKILL)
    # What the machine mounts and unmounts from now on is followed, so that nothing of it is pinned here.
    namespaces.mount("none", "/", flags=namespaces.MS_REC | namespaces.MS_SLAVE)
    configure(veth=bool(outer))
    apply_rules(ports, fresh=True, veth=bool(outer))
    made = sockets.make(ports)
    own = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in ("user", "net", "mnt")]
    # A keeper that is gone by now is an error here, and not the end.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    held = _hold(outer) if outer else None
    more = {} if held is None else {"veth": held._asdict()}
    try:
        link.send({"ok": {"ports": ports._asdict(), **more}}, [*own, *(sock.fileno() for sock in made)])
    except BaseException:
        if held is not None:
            # With it the cell ends, and the veth with the cell.
            veth.end_holder(held)
        raise


def _hold(outer: str) -> Veth:
    """Start a process that does nothing but keep the cell this one is in: the machine of a veth is in none of its namespaces."""
    sleep = program("sleep", "")
    os.chdir("/")
    nowhere = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
    words = veth.holder_words(outer).decode().rstrip("\0").split("\0")
    pid = os.posix_spawn(sleep, words, _clean(), file_actions=nowhere, setsid=True)
    return Veth(outer, pid, namespaces.started(pid) or 0)


def _forbidden(error: OSError) -> Exception:
    restricted = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    with suppress(OSError):
        if os.geteuid() != 0 and restricted.read_text("utf-8").strip() == "1":
            return Problem("AppArmor keeps ordinary users from making namespaces", "apparmor")
    return Problem(f"this machine does not let you make namespaces: {error.strerror}", "user-namespaces")


def _maps() -> idmap.IdMap:
    try:
        return idmap.outer_map()
    except idmap.IdMapError as error:
        raise Problem(str(error), "subordinate-ids") from error


def _write_maps(pid: int, maps: idmap.IdMap) -> None:
    for kind, extents in (("uid", maps.uids), ("gid", maps.gids)):
        if os.geteuid() == 0:
            try:
                Path(f"/proc/{pid}/{kind}_map").write_text(idmap.lines(extents), "utf-8")
            except OSError as error:
                why = f"this root has no ids to give to sandboxes: {error.strerror}"
                raise Problem(why, "subordinate-ids") from error
            continue
        tool = program(f"new{kind}map", "newuidmap")
        numbers = [str(number) for extent in extents for number in extent]
        with _Output() as output:
            child = os.posix_spawn(tool, [tool, str(pid), *numbers], _clean(), file_actions=output.actions)
            if os.waitpid(child, 0)[1]:
                raise Problem(f"new{kind}map refused: {output.first_line()}", "subordinate-ids")


class _Output:
    """Where a short program's words go, to be read afterwards."""

    def __enter__(self) -> Self:
        self._fd = os.memfd_create("output")
        self.actions = [(os.POSIX_SPAWN_DUP2, self._fd, 1), (os.POSIX_SPAWN_DUP2, self._fd, 2)]
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def first_line(self) -> str:
        lines = os.pread(self._fd, 2000, 0).decode("utf-8", "replace").strip().splitlines()
        return lines[0] if lines else "it reported no reason"


def _clean() -> dict[str, str]:
    return {"PATH": search_path(), "LC_ALL": "C"}


def _become_root() -> None:
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def renew(link: Link, user: int, net: int, held: Ports | None) -> None:
    """Take up a cell whose mount namespace, and perhaps whose sockets, died with their holders.

    Reports `{"ports", "fresh"}`, and `"plugged"` where it has a veth, with the three namespaces, and new sockets where `held` is None. A process inside
    may sit on the gateway's ports by now: then others are taken and the rules follow. It gains nothing in between:
    only a transparent socket is handed connections, and making one takes rights that nothing inside has.
    """
    namespaces.setns(user, namespaces.NEWUSER)
    namespaces.unshare(namespaces.NEWNS)
    namespaces.setns(net, namespaces.NEWNET)
    _become_root()
    namespaces.mount("none", "/", flags=namespaces.MS_REC | namespaces.MS_SLAVE)
    made: list[socket.socket] = []
    ports = held
    with_veth = has_veth()
    if ports is None:
        ports, made = _anywhere()
        apply_rules(ports, veth=with_veth)
        forget_translations()
    mount = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    fds = [user, net, mount, *(sock.fileno() for sock in made)]
    report = {"ports": ports._asdict(), "fresh": bool(made), **({"plugged": True} if with_veth else {})}
    link.send({"ok": report}, fds)


def unplug(link: Link, net: int, outer: str) -> None:
    """Remove a cell's veth, whoever has its outer end, and end what holds the cell: reports `{}`.

    Args:
        link: where to report.
        net: the cell's network namespace.
        outer: what the outer end is called.
    """
    inode = os.fstat(net).st_ino
    veth.remove(outer, net)
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and (entry / "ns/net").stat().st_ino == inode:
                os.kill(int(entry.name), signal.SIGKILL)
    link.send({"ok": {}})


def _anywhere() -> tuple[Ports, list[socket.socket]]:
    """The sockets on the usual ports, or else on the first ones that are free."""
    ports = Ports()
    for _ in range(_PORT_TRIES):
        try:
            return ports, sockets.make(ports)
        except OSError as error:
            if not sockets.in_use(error):
                raise
        ports = Ports(_some_port(), _some_port())
    raise OSError(errno.EADDRINUSE, "processes of the sandbox use every port that was tried")


def _some_port() -> int:
    """One that no one can foresee, below those the kernel gives to connections."""
    return 1024 + int.from_bytes(os.urandom(2), "big") % (32768 - 1024)


def connect(link: Link, cell: Namespaces, address: str, port: int, timeout: float) -> None:
    """Connect by TCP inside a cell: reports `{}` with the connected socket.

    Args:
        link: where to report.
        cell: where to connect.
        address: an IPv4 or IPv6 address; a name is not looked up.
        port: TCP port.
        timeout: seconds.
    """
    namespaces.setns(cell.user, namespaces.NEWUSER)
    namespaces.setns(cell.net, namespaces.NEWNET)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with tcp_socket(family) as sock:
        packed = socket.inet_ntop(family, socket.inet_pton(family, address))
        sock.settimeout(timeout)
        try:
            sock.connect((packed, port))
        except TimeoutError as error:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from error
        sock.settimeout(None)
        link.send({"ok": {}}, [sock.fileno()])
