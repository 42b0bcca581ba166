"""What the control plane answers when it does not do what it was asked."""

from __future__ import annotations

_ADMIN_CAN = "whoever has the server, or a key of the role admin, can do that"


class HttpError(Exception):
    """An answer with a status of 400 or above and `{"error": text}`, with `hint` where there is one.

    Attributes:
        status: the HTTP status.
        text: what happened, why, and where it helps what to do; for people.
        hint: what helps, such as a line to run, or an empty string.
    """

    def __init__(self, status: int, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.hint = hint


def bad(text: str) -> HttpError:
    """400: the request itself is wrong."""
    return HttpError(400, text)


def forbidden(text: str, hint: str = _ADMIN_CAN) -> HttpError:
    """403: the request is fine, but not with this API key. Without a hint it says who can."""
    return HttpError(403, text, hint)


def missing(text: str, hint: str = "") -> HttpError:
    """404: there is no such thing. Without a hint, clients point at the list of sandboxes."""
    return HttpError(404, text, hint)


def conflict(text: str, hint: str = "") -> HttpError:
    """409: it clashes with what is there, or the state does not allow it."""
    return HttpError(409, text, hint)


def unready(text: str, hint: str = "") -> HttpError:
    """503: a part of the backend, or of the machine, does not do its work right now."""
    return HttpError(503, text, hint)
