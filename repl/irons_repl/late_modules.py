"""Modules whose code runs only once something of them is needed.

A late module is in `sys.modules` like any other, with its spec and path, and the first attribute that it lacks runs its code in it.
Whoever imports it, such as a plugin, gets what it would have got without.

`importlib.util.LazyLoader` does not do: it runs the code where anything of it is read or set, such as the `__path__` that an import asks of the package
around a module, and its older versions let a second thread see a module that is half made.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from threading import RLock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def put_off(name: str, needs: str | None = None) -> ModuleType | None:
    """Put a late module in the place of one that was not imported yet.

    Args:
        name: The module, or the package. Whoever imports it does not import the packages around it, but gets it from them by `join`.
        needs: A module without which its code fails.

    Returns:
        The module; None where it was imported already, or can't be found, or what it needs can't: whoever imports it hears that at once.
    """
    is_whole = needs is None or find_spec(needs) is not None
    spec = _spec_of(name) if is_whole and name not in sys.modules else None
    if spec is None or spec.loader is None:
        return None
    loader = spec.loader
    module = module_from_spec(spec)
    lock = RLock()
    has_begun = is_running = False

    def missing(attribute: str) -> object:
        """Run the code, once, whichever thread is first; another one waits for its end."""
        nonlocal has_begun, is_running
        with lock:
            # The import statement asks of each module whether it is a package.
            if is_running or attribute == "__path__":
                raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
            if not has_begun:
                has_begun = is_running = True
                try:
                    loader.exec_module(module)
                except BaseException:
                    has_begun = False
                    raise
                finally:
                    is_running = False
            if vars(module).get("__getattr__") is missing:
                del vars(module)["__getattr__"]
        return getattr(module, attribute)

    vars(module)["__getattr__"] = missing
    sys.modules[name] = module
    return module


def join(names: Iterable[str]) -> None:
    """Make late modules attributes of the packages around them, as far as these are imported."""
    for name in names:
        package, _, last = name.rpartition(".")
        if package in sys.modules:
            setattr(sys.modules[package], last, sys.modules[name])


def _spec_of(name: str) -> ModuleSpec | None:
    """Return where a module is, without importing the package around it."""
    package = name.rpartition(".")[0]
    return PathFinder.find_spec(name, _path_of(package)) if package else find_spec(name)


def _path_of(package: str) -> Sequence[str]:
    if package in sys.modules:
        return list(vars(sys.modules[package]).get("__path__", ()))
    spec = _spec_of(package)
    return [] if spec is None else spec.submodule_search_locations or []
