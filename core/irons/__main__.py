"""`irons` and `python -m irons`: one command, one exit code."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Run the command in `sys.argv` and return its exit code."""
    words = sys.argv[1:]
    if words in (["--version"], ["-V"]) and sys.stdout is not None:
        from irons.version import __version__

        sys.stdout.write(f"irons {__version__}\n")
        return 0
    try:
        if words not in (["--help"], ["-h"]):  # which wait for nothing
            _take_interrupts()
        from irons.cli.main import main as run

        code = run(words)
        # The interpreter would look through everything once more on its way out, to free what ends with the process.
        gc.freeze()
    except KeyboardInterrupt:
        return 130
    return code


def _take_interrupts() -> None:
    """Let SIGINT end this call also where a shell started it in the background, which ignores SIGINT, as Python then does.

    What waits or follows could be ended by nothing but SIGTERM otherwise, and so could the programs that it starts.
    """
    import signal

    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(main())
