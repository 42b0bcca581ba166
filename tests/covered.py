"""Coverage of all processes of the tests: `python tests/covered.py install`, run the tests, `combine DIRECTORY`, `remove`.

`install` has each interpreter of this virtual environment trace what it runs, where its environment says so (see
`tests/process_tracer.py`). `combine` makes one file of coverage, at COVERAGE_FILE, of the pieces in a directory. Tests
kill processes at any moment, also while one writes its piece; such a piece is left out.
"""

from __future__ import annotations

import marshal
import py_compile
import shutil
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterable
from importlib.util import cache_from_source
from pathlib import Path

import coverage

ROOT = Path(__file__).resolve().parents[1]
SOURCES = tuple(f"{ROOT / name}/" for name in ("core", "plugins", "repl"))
_NAME = "irons_process_tracer"


def install(packages: Path, sources: tuple[str, ...] = SOURCES) -> None:
    """Have the interpreters that use a directory of packages trace themselves where COVERAGE_PIECES is set."""
    import coverage.tracer

    module = packages / f"{_NAME}.py"
    shutil.copyfile(ROOT / "tests" / "process_tracer.py", module)
    py_compile.compile(str(module), doraise=True)
    start = f"__import__({_NAME!r}).start({coverage.tracer.__file__!r}, {sources!r})"
    # A directory of packages can be on the path twice.
    asked = f"os.environ.get('COVERAGE_PIECES') and {_NAME!r} not in sys.modules"
    (packages / f"{_NAME}.pth").write_text(f"import os, sys; {asked} and {start}\n")


def remove(packages: Path) -> None:
    """Undo `install`."""
    module = packages / f"{_NAME}.py"
    for path in (module.with_suffix(".pth"), module, Path(cache_from_source(str(module)))):
        path.unlink(missing_ok=True)


def union(pieces: Iterable[Path]) -> tuple[dict[str, set[int]], int]:
    """Bring together which pairs of lines ran in which file; and count the pieces that are cut short."""
    ran: defaultdict[str, set[int]] = defaultdict(set)
    cut = 0
    for path in pieces:
        try:
            piece = marshal.loads(path.read_bytes())
        except (EOFError, ValueError, TypeError):
            cut += 1
            continue
        for name, pairs in piece.items():
            ran[name].update(pairs)
    return ran, cut


def pair(packed: int) -> tuple[int, int]:
    """Read two line numbers as coverage's C tracer packs them: 28 bits and a sign each."""
    first, second = packed & 0xFFFFFFF, packed >> 28 & 0xFFFFFFF
    return (-first if packed >> 56 & 1 else first), (-second if packed >> 57 & 1 else second)


def combine(place: Path) -> None:
    """Write the file of coverage: what all pieces say, and every source, also one that no process ran."""
    pieces = list(place.iterdir())
    ran, cut = union(pieces)
    measured = coverage.Coverage(config_file=str(ROOT / "pyproject.toml"))
    # It looks for the sources when it has measured something.
    measured.start()
    measured.stop()
    data = measured.get_data()
    data.add_arcs({name: [pair(packed) for packed in pairs] for name, pairs in ran.items()})
    measured.save()
    print(f"Coverage of {len(pieces) - cut} processes; {cut} more were killed while they wrote theirs.")


def main(words: list[str]) -> None:
    """Do one of the three."""
    packages = Path(sysconfig.get_path("platlib"))
    match words:
        case ["install"]:
            install(packages)
        case ["remove"]:
            remove(packages)
        case ["combine", place]:
            combine(Path(place))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
