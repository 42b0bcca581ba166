"""`irons` and `python -m irons`: one command, one exit code."""

from __future__ import annotations

import gc
import sys

YOUNG = 100_000
"""Objects that a command makes before the collector looks through them: what is imported stays, and would be looked through often."""


def main() -> int:
    """Run the command in `sys.argv` and return its exit code."""
    words = sys.argv[1:]
    if words in (["--version"], ["-V"]) and sys.stdout is not None:
        from irons.version import __version__

        sys.stdout.write(f"irons {__version__}\n")
        return 0
    gc.set_threshold(YOUNG)
    try:
        if words not in (["--help"], ["-h"]):  # which wait for nothing
            _take_interrupts()
        from irons.cli.main import main as run

        code = run(words)
        # The interpreter would look through everything once more on its way out, to free what ends with the process.
        gc.freeze()
    except KeyboardInterrupt:
        code = 130
    if words not in (["--help"], ["-h"]):
        _ignore_interrupts()
    return code


def _take_interrupts() -> None:
    """Let SIGINT end this call also where a shell started it in the background, which ignores SIGINT, as Python then does.

    What waits or follows could be ended by nothing but SIGTERM otherwise, and so could the programs that it starts.
    """
    import signal

    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _ignore_interrupts() -> None:
    """Let SIGINT do nothing any more: the exit code is decided, and the interpreter on its way out would end by the signal instead.

    A shell may pass on a Ctrl-C that the terminal has sent too.
    """
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
