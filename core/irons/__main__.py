"""`irons` and `python -m irons`: one command, one exit code."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command in `sys.argv` and return its exit code."""
    words = sys.argv[1:]
    if words in (["--version"], ["-V"]) and sys.stdout is not None:
        from irons.version import __version__

        sys.stdout.write(f"irons {__version__}\n")
        return 0
    try:
        from irons.cli import main as run

        return run(words)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
