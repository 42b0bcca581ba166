"""Runs the hooks `irons_event`, `irons_lifecycle` and `irons_ask`: `python -m irons_local.hooks`, with messages on stdin.

It is the one process of the backend that loads plugins of a single file. As root it becomes the user of root's gateway before any of their
code runs, keeps of root's rights only the one to read files while they are imported, and gives up that too before it reads a message.
It has no descriptor of the daemon: stdin brings messages, stdout takes the ids of events that were begun and answers to questions, stderr goes to the log.
"""

from __future__ import annotations

import codecs
import json
import os
import sys

from irons.hook_runner import HookRunner
from irons.host import PluginHost
from irons.settings.settings import load
from irons_local.forkserver.confine import CODECS, GATEWAY_ID, become, confine


def main() -> int:
    """Load plugins, confine this process, and call their hooks until stdin ends."""
    answers = os.dup(1)
    # What a plugin prints belongs in the log.
    os.dup2(2, 1)

    def answer(told: dict[str, object]) -> None:
        os.write(answers, json.dumps(told).encode() + b"\n")

    owner = os.geteuid()
    if owner == 0:
        become(GATEWAY_ID)
    for name in CODECS:
        codecs.lookup(name)
    host = PluginHost(os.environ, _say, built_in=(), owner=owner)
    runner = HookRunner(
        host,
        load({}, os.environ, strict=False),
        lambda event: answer({"event": event}),
        answered=lambda question, by, said: answer({"question": question, "by": by, "answer": said}),
    )
    runner.prepare()
    confine()
    answer({"hooks": runner.hooks})
    if runner.hooks:
        runner.run(sys.stdin.buffer)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
