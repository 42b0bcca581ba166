"""How a program in a sandbox ended: its exit code, the signal, and one true sentence about it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from irons.command import FAILED_ITSELF
from irons.errors import ApiError, Conflict, IronsError, NotFound
from irons.record import NamedTuple
from irons.text import clean, size_text
from irons_plugins.ssh.openssh.exit_codes import CONNECTION_LOST, OPENSSH_FAILED, OUT_OF_TIME, SESSION_KILLED
from irons_plugins.ssh.openssh.marks import ProgramEnd
from irons_plugins.ssh.openssh.subprocess import Signalled

if TYPE_CHECKING:
    from irons.context import Context
    from irons_plugins.ssh.connect.connect_info import Entrance
    from irons_plugins.ssh.ending.log import SshLog
    from irons_plugins.ssh.openssh.marks import Marks


_LAST_SIGNAL = 64
"""Linux has no signal after it (signal(7))."""

_AFTER_LOGIN = "client_loop: "
"""Begins what OpenSSH logs of a connection that breaks off once a session is asked for."""


class SshEnding(NamedTuple):
    """How it ended.

    Attributes:
        code: What `exec` exits with.
        signal: The signal that killed the program; None where none did, or the sandbox's shell can't tell.
        sentence: What to tell a person; empty where the exit code says all.
        error: Why irons failed, or the connection was lost; None where the program ended.
        timed_out: Its time ran out.
    """

    code: int
    signal: int | None = None
    sentence: str = ""
    error: IronsError | None = None
    timed_out: bool = False


class Aftermath(NamedTuple):
    """What the server reports about a sandbox after a program failed there.

    Attributes:
        out_of_memory: The control group counted a kill while it ran.
        gone: What became of the sandbox (`box was destroyed`); empty where it is the same and runs.
    """

    out_of_memory: bool = False
    gone: str = ""


class NotStarted(IronsError):
    """The sandbox's part ended before the program began. `said` is the reason that it wrote, where that is known: untrusted text."""

    exit_code = FAILED_ITSELF

    def __init__(self, said: str = "") -> None:
        """Take the reason, clean."""
        super().__init__("the program was not started" + (f": {said}" if said else ""))
        self.said = said


def aftermath(ctx: Context, way: Entrance) -> Aftermath:
    """Ask the server what became of the sandbox; where it can't tell, nothing did."""
    name = way.name
    try:
        now = ctx.api.ssh(name)
    except NotFound:
        return Aftermath(gone=f"{name} was destroyed")
    except Conflict:
        return Aftermath(gone=_state(ctx, name))
    except IronsError:
        return Aftermath()
    if now.cell != way.target.cell:
        return Aftermath(gone=f"{name} was destroyed; another sandbox has that name now")
    before = way.target.oom_kills
    return Aftermath(before is not None and (now.oom_kills or 0) > before)


def _state(ctx: Context, name: str) -> str:
    try:
        state = clean(ctx.api.status(name).status, limit=40)
    except ApiError:
        return f"{name} was destroyed"
    except IronsError:
        state = ""
    return f"{name} is {state}" if state else f"{name} does not run"


def out_of_time(seconds: float, *, ended: bool = True) -> SshEnding:
    """Return the ending of a program whose time ran out, and of what it started where that is known to have ended."""
    what = (
        "all that it started was ended"
        if ended
        else "the sandbox could not be reached to end what runs there"
    )
    sentence = f"timed out after {seconds:g} s: {what}"
    return SshEnding(OUT_OF_TIME, sentence=sentence, timed_out=True)


def interrupted(error: KeyboardInterrupt) -> SshEnding:
    """Return the ending of a call that Ctrl-C, TERM or HUP ended."""
    number = error.number if isinstance(error, Signalled) else int(signal.SIGINT)
    return SshEnding(
        128 + number, sentence="" if number == signal.SIGINT else f"ended by {signal_text(number)}"
    )


def was_lost(marks: Marks, code: int, log: SshLog) -> bool:
    """Tell whether the connection, or OpenSSH, ended before the session did, so that what the program wrote last may be missing.

    An exit code does not prove the contrary: servers send it before what is still in their pipes.
    """
    if code == CONNECTION_LOST or code < 0 or marks.closed:
        return True
    # The sandbox's part never exits with OpenSSH's own code.
    return code == OPENSSH_FAILED and (marks.end is not None or bool(log.lines()))


def ending(
    way: Entrance, marks: Marks, code: int, log: SshLog, after: Aftermath, limit: float, unwritten: str = ""
) -> SshEnding:
    """Return how a program ended.

    Args:
        way: Where it ran.
        marks: What the sandbox's part reported.
        code: OpenSSH's exit code; -n where signal n killed it on this machine; or one of those that stand in place of a code.
        log: What OpenSSH logged as errors; it has ended.
        after: What the server reports.
        limit: Seconds that the program had.
        unwritten: Why the program's stdout could not be written here; empty where it was, or no one reads it any more.
    """
    lost = was_lost(marks, code, log)
    bound = way.target.memory
    memory = "out of memory" + (f": the sandbox's limit is {size_text(bound)}" if bound else "")
    end = marks.end or (None if lost else _unreported(marks, code, limit))
    if end is not None and unwritten:
        told = (
            f"what the program wrote can't be written to stdout ({unwritten}); it ended with code {end.code}"
        )
        return SshEnding(FAILED_ITSELF, error=_failed(told))
    if end is None:
        if after.out_of_memory:
            return SshEnding(128 + signal.SIGKILL, int(signal.SIGKILL), memory)
        return SshEnding(FAILED_ITSELF, error=_failure(way, marks, code, log.lines(), after, lost=lost))
    if end.killed == "time":
        return out_of_time(limit)
    number = end.code - 128
    if lost and end.killed != "yes":
        why = _lost(way, code, after)
        told = f"{why}; the program ended with code {end.code}, and the end of its output may be missing"
        return SshEnding(FAILED_ITSELF, error=_failed(told))
    if end.killed == "yes":
        if after.out_of_memory and number == signal.SIGKILL:
            return SshEnding(end.code, number, memory)
        return SshEnding(
            end.code, number, f"killed by {signal_text(number)}" + (f": {after.gone}" if after.gone else "")
        )
    if end.code and after.out_of_memory:
        return SshEnding(end.code, sentence=f"a process was ended, {memory}")
    if end.killed == "maybe":
        told = f"exit code {end.code}: killed by {signal_text(number)}, or the program's own code"
        return SshEnding(end.code, sentence=told)
    return SshEnding(end.code)


def _unreported(marks: Marks, code: int, limit: float) -> ProgramEnd | None:
    """How a program ended of whose end only OpenSSH's exit code tells; None where it does not.

    OpenSSH passes nothing more on, no mark either, once it cannot write the program's stdout. The sandbox's shell exits with
    the program's code.
    """
    if marks.began is None or marks.killed or not 0 <= code < OPENSSH_FAILED:
        return None
    if limit and code == OUT_OF_TIME:
        return ProgramEnd(code, "time")
    # A closed pipe is what killed it then, and shells print nothing for that. 254 is not a signal's: it may stand for 255.
    is_signal = 128 < code <= 128 + _LAST_SIGNAL and code != 128 + signal.SIGPIPE
    return ProgramEnd(code, "maybe" if is_signal else "no")


def _failure(
    way: Entrance, marks: Marks, code: int, log: list[str], after: Aftermath, *, lost: bool
) -> IronsError:
    name = way.name
    if marks.failed:
        return NotStarted()
    if code < 0:
        return _failed(_lost(way, code, after))
    if marks.began is None and not lost and code not in (OPENSSH_FAILED, SESSION_KILLED):
        return _failed(
            f"the shell of {name} can't run programs: it ended with code {code}",
            hint=f"irons ssh {name} may show why",
        )
    if marks.killed or (marks.began is not None and not (lost or after.gone)):
        sure = marks.killed or code == SESSION_KILLED
        # Of a connection that breaks off OpenSSH does not always say a word.
        unsure = f"the connection to {name} was lost, or the shell that ran the program there was killed"
        return _failed(f"the shell that ran the program in {name} was killed" if sure else unsure)
    if marks.began is None and log and not after.gone and not log[-1].startswith(_AFTER_LOGIN):
        return _failed(f"SSH to {name} failed: {log[-1].rstrip('.')}", hint=f"irons ssh {name} may show why")
    return _failed(_lost(way, code, after))


def _lost(way: Entrance, code: int, after: Aftermath) -> str:
    if code < 0:
        return f"ssh was killed on this machine by {signal_text(-code)}"
    return f"the connection to {way.name} was lost" + (f": {after.gone}" if after.gone else "")


def _failed(message: str, *, hint: str = "") -> IronsError:
    error = IronsError(message, hint=hint)
    error.exit_code = FAILED_ITSELF
    return error


def signal_text(number: int) -> str:
    """Return a signal as people know it: `signal 9 (KILL)`."""
    try:
        name = signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        first = int(signal.SIGRTMIN)
        name = f"RTMIN+{number - first}" if first < number <= signal.SIGRTMAX else ""
    return f"signal {number}" + (f" ({name})" if name else "")
