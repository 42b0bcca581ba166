"""The engines there are, made for one control plane."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module

from irons_local.engines.protocol import Engine, EngineMaker, Kit

_log = logging.getLogger(__name__)

NAMESPACE, VM, INCUS = "namespace", "vm", "incus"

BUILT_IN: Mapping[str, str] = {
    # First: it alone removes what its sandboxes have outside of their directories, and passes over those of others.
    INCUS: "irons_local.engines.incus.offer:IncusEngine",
    NAMESPACE: "irons_local.engines.namespace.engine:NamespaceEngine",
    VM: "irons_local.engines.vm.engine:VmEngine",
}
"""Name, and where the maker is."""


def make_engines(kit: Kit, more: Mapping[str, EngineMaker]) -> dict[str, Engine]:
    """Every engine that can be made here, by name; one that cannot costs a line in the log.

    Args:
        kit: what engines work with.
        more: makers that plugins bring; a built-in name stays built-in.
    """
    makers: dict[str, EngineMaker] = dict(more)
    for name, where in BUILT_IN.items():
        module, _, attribute = where.partition(":")
        try:
            makers[name] = getattr(import_module(module), attribute)
        except ImportError as error:
            _log.error("engine %s cannot be loaded: %s", name, error)
    engines: dict[str, Engine] = {}
    for name, maker in makers.items():
        try:
            engines[name] = maker(kit)
        except Exception:  # noqa: BLE001 (a plugin may raise anything)
            # A plugin's engine must not keep the others' sandboxes from being served.
            _log.exception("engine %s cannot be made", name)
    return engines
