"""Everything that can go wrong, as one tree; an error knows its message, its hint and its exit code.

IronsError                 1    something failed
├── UsageError             2    a word or option is not understood
│   └── ConfigError        2    the configuration is invalid
├── ApiError               1    the server refused
│   ├── NotFound           3    … there is no such thing
│   ├── AuthError          4    … not with this key
│   ├── Conflict           5    … not in this state
│   └── Unsupported        1    … it has no such route
├── Unreachable            6    the server did not answer
├── TimedOut               6    it did not come to pass in time
├── Denied                 7    a check refused
├── PluginError            1    a plugin is at fault
├── LocalError             1    the local backend can't run, or something in it broke
└── Interrupted            130  Ctrl-C
"""

from __future__ import annotations

EXIT_CODES: dict[int, str] = {
    0: "It worked.",
    1: "It failed: the server or this machine refused.",
    2: "Usage: a word or option is not understood, or the configuration is invalid.",
    3: "Not found: no such sandbox, rule, image or profile.",
    4: "Authentication: the key is missing, wrong or not allowed.",
    5: "Conflict, or the wrong state for it.",
    6: "Unreachable, or it took too long.",
    7: "Denied (`egress check`).",
    124: "`exec --timeout` or `run --timeout` ran out.",
    125: "`ssh`, `exec`, `run`, `forward` and `fork --try`: irons itself failed; other codes are the remote command's.",
    130: "Interrupted by Ctrl-C.",
}
"""Every exit code of `irons` and what it means."""


def as_irons_error(error: Exception) -> IronsError:
    """Return any exception as an error of irons, with the exception as its cause; an `IronsError` as it is."""
    if isinstance(error, IronsError):
        return error
    if isinstance(error, OSError):
        what = f"{error.filename}: " if isinstance(error.filename, str) else ""
        told = IronsError(f"{what}{error.strerror or error}")
    else:
        broken = f"something broke inside irons: {type(error).__name__}: {error}"
        told = IronsError(broken, hint="run it again with --debug for the traceback")
    told.__cause__ = error
    return told


class IronsError(Exception):
    """Something failed. `message` says what and why; `hint` what to do next."""

    code = "failed"
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Take one line that says what happened and why, and one with what to do next."""
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(IronsError):
    """A word or option is not understood."""

    code = "usage"
    exit_code = 2


class ConfigError(UsageError):
    """The configuration is invalid."""

    code = "config"


class ApiError(IronsError):
    """The server refused. `status` is the HTTP status of its answer."""

    code = "api"

    def __init__(self, message: str, *, hint: str = "", status: int = 0) -> None:
        """Take the server's text, cleaned and cut, and its HTTP status."""
        super().__init__(message, hint=hint)
        self.status = status


class NotFound(ApiError):
    """There is no such thing."""

    code = "not-found"
    exit_code = 3


class AuthError(ApiError):
    """The key is missing, wrong, or does not open this."""

    code = "authentication"
    exit_code = 4


class Conflict(ApiError):
    """It exists already, or is in the wrong state."""

    code = "conflict"
    exit_code = 5


class Unsupported(ApiError):
    """The server has no such route."""

    code = "unsupported"


class Unreachable(IronsError):
    """The server did not answer."""

    code = "unreachable"
    exit_code = 6


class TimedOut(IronsError):
    """It did not come to pass in time."""

    code = "timed-out"
    exit_code = 6


class Denied(IronsError):
    """A check refused."""

    code = "denied"
    exit_code = 7


class PluginError(IronsError):
    """A plugin is at fault."""

    code = "plugin"


class LocalError(IronsError):
    """The local backend can't run here, or something in it broke."""

    code = "local"


class Interrupted(IronsError):
    """Ctrl-C."""

    code = "interrupted"
    exit_code = 130
