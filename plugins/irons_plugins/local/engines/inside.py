"""Old name of `irons_local.linux.userns_main`, kept for one release: a control plane from before the move starts it.

It also names the function to run as it was called then.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from irons_local.linux import userns_main

_OLD = "irons_plugins.local."
_INSIDE = "irons_local.images.inside."
MOVED: Mapping[str, str] = {
    _OLD + "engines.removal": "irons_local.linux.remove_tree",
    _OLD + "images.cloning": _INSIDE + "cloning",
    _OLD + "images.counting": _INSIDE + "counting",
    _OLD + "images.kit": "irons_local.images.kit.collect",
    _OLD + "images.mask": _INSIDE + "mask",
    _OLD + "images.pack": _INSIDE + "pack",
    _OLD + "images.saving": "irons_local.images.saving",
    _OLD + "images.unpack": _INSIDE + "unpack",
    _OLD + "trial": "irons_local.doctor.probe",
}


def main() -> None:
    """Run the function that the command line names, by its old name or its new one."""
    level, target = sys.argv[1:]
    module, colon, function = target.partition(":")
    userns_main.main([level, MOVED.get(module, module) + colon + function])


if __name__ == "__main__":
    main()
