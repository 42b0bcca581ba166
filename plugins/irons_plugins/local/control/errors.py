"""What the control plane answers when it does not do what it was asked."""

from __future__ import annotations


class ApiError(Exception):
    """An answer with a status of 400 or above and `{"error": text}`.

    Attributes:
        status: the HTTP status.
        text: what happened, why, and where it helps what to do; for people.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def bad(text: str) -> ApiError:
    """400: the request itself is wrong."""
    return ApiError(400, text)


def missing(text: str) -> ApiError:
    """404: there is no such thing."""
    return ApiError(404, text)


def conflict(text: str) -> ApiError:
    """409: it clashes with what is there, or the state is a wrong one for it."""
    return ApiError(409, text)


def unready(text: str) -> ApiError:
    """503: a part of the backend does not answer right now."""
    return ApiError(503, text)
