"""`irons.sandbox` and what it gives, with `async`: `async with irons.aio.sandbox("x") as box: await box.exec(["make"])`.

The names load when they are first touched, as those of `irons` do; what they lead to is in `irons_plugins.box.aio`.
No other module belongs here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from irons_plugins.box.aio import AsyncBox, AsyncFile, AsyncProcess, in_thread, sandbox

__all__ = ["AsyncBox", "AsyncFile", "AsyncProcess", "in_thread", "sandbox"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("irons_plugins.box.aio"), name)
    message = f"module 'irons.aio' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted(__all__)
