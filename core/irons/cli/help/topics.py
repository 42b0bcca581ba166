"""The topics of `irons help`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from itertools import groupby

from irons.errors import EXIT_CODES
from irons.settings.keys import KEYS


def _exit_codes() -> str:
    return "".join(f"{code:>4}  {meaning}\n" for code, meaning in EXIT_CODES.items())


def _environment() -> str:
    lines = [f"{key.env:<24}  {key.help}\n" for key in KEYS.values() if key.env]
    lines += [
        f"{'IRONS_PROFILE':<24}  The profile of the configuration file to use.\n",
        f"{'IRONS_CONFIG':<24}  The configuration file itself.\n",
        f"{'IRONS_NO_INPUT':<24}  Never ask.\n",
        f"{'IRONS_NO_START':<24}  Never start the local backend; where it is down, fail.\n",
        f"{'IRONS_PLUGINS':<24}  The third-party plugins to load, by name; empty: none.\n",
        f"{'IRONS_TRACE_PLUGINS':<24}  Print hook calls to stderr.\n",
        f"{'NO_COLOR, FORCE_COLOR':<24}  No colour at all; colour also where there is no terminal.\n",
    ]
    return "".join(lines)


def _output() -> str:
    return """stdout is data; stderr is narration, progress and errors.

  -o table   for a person: the default on a terminal
  -o plain   one line a row, fields separated by tabs, no header, no colour: the default in a pipe
  -o json    one JSON document; an error is {"error": {"code", "message", "hint", "exit"}} on stderr
  -o jsonl   one JSON object a line, as they come

Times are RFC 3339: UTC in JSON, local in text. Keys and columns are only ever added.
Control and bidirectional characters from outside are shown as escapes.
"""


def _egress() -> str:
    return """example.com         that name alone, on ports 443 and 80
example.com:22      … on port 22 alone; :* is every port
*.example.com       any depth below it, not example.com itself
*                   everything
203.0.113.0/24      addresses: an allow rule is met by connections to literal addresses,
                    a deny rule also by the address finally dialled

A pattern is in one list at most: the later of allow and deny wins. Account and sandbox lists
are unions, and any deny wins. Mode `deny` blocks what no allow rule matches; mode `warn`, the
default, lets it pass and logs it; mode `ask` asks a person who runs irons ask, and else
blocks it. Loopback, private, metadata and link-local addresses stay closed in every mode;
`--private` opens exactly one host to one address.
"""


def _prompt() -> str:
    return """At the irons> prompt every command works as at the shell, without the word irons.

  a ; b              b runs, no matter how a ended
  a && b    a || b   b runs if a ended with 0; if it did not
  a | less           the output goes through a pipeline of the system's shell
  a > file  >> file  the output goes into a file; >> appends to it
  NAME: command      runs in the sandbox NAME, whose shell reads the words; | and one last > are this machine's
  NAME: 'a && b'     one quoted word is a line for the sandbox's shell
  r                  after an egress allow: run again what egress had refused
  !command           the rest of the line is the system shell's
  use NAME           commands that name no sandbox mean this one; use --none clears it
  watch              connections as they happen; a and d allow or deny the chosen host, ? shows the keys
  cd DIR             the directory of files in commands and of !programs; cd - goes back
  export NAME=VALUE  set a variable for commands and programs; without a value it is asked for; unset NAME removes it
  history            lines typed before: history 20 the last ones, history TEXT those with a text
  help, ?            help; clear clears the screen; exit, quit, Ctrl-D leave

Quotes and backslashes are those of a POSIX shell; after an open quote or a last backslash the line continues on
the next line. There are no variables and no wildcards; ~ is the home directory. What follows # is a
comment. Lines with what looks like a secret, and those that begin with a space, are not remembered, nor are
--force and --yes. While a change of egress rules is typed, the line below says what it would change. Answers longer
than the screen go through $PAGER, else less; the setting pager changes that.

  Tab, Down          complete; right arrow takes the grey suggestion
  Up                 the last line that begins like this one
  Ctrl-R             search the lines typed before
  Ctrl-X Ctrl-E      edit the line in $VISUAL or $EDITOR
  Ctrl-C             clear the line; end the command that runs ($? is then 130)
  Alt-Q, F2          open the questions of mode ask; one letter answers
  Ctrl-Z, F4         suspend; change between emacs and vi keys (editing_mode in the configuration)

irons shell -c LINES and irons < FILE run lines without a prompt, up to the first that fails.
"""


def _agents() -> str:
    return """You work in a sandbox made by irons. Its outbound connections are judged by host and port, outside the sandbox, and logged.
A refusal is a decision, not a fault of the network. Do not look for a way round it: there is none, and each try is in the log.

What you may reach, and what was refused lately:

  curl -s http://irons.internal/

An HTTP refusal is a 403 with `X-Irons-Denied: 1`; it names the command with which a person allows the host. TLS ends in an alert
(access denied), other TCP in a reset. Names resolve to made-up addresses, ping and UDP never pass: both are no sign of a fault.

Where "mode" is "deny" and "ask" is true in that answer, you can ask a person for a host, with your reason, before you try it:

  curl -s http://irons.internal/ask -H 'Content-Type: application/json' \\
    -d '{"host": "pypi.org", "port": 443, "reason": "install requests for the tests", "wait": 60}'

The answer has "state": "allowed" (try now), "refused" (do without it, and say so in your report), or "open" (no answer yet: go on
with other work, and try again later). Only a person grants, or a program that a person has set for that; your request does not. Ask
once for a host, with one true sentence: there are 60 requests an hour, and 10 open questions.

If you cannot ask, or were refused, end with the list of the hosts that you need and what each is for.
"""


_ENTRY = re.compile(r" *\S.*? {2,}(?=\S)| +")
"""The beginning of a line of two columns, up to its second one, or an indentation."""


def topic_text(name: str, width: int | None) -> str:
    """Return a topic's text, broken at spaces where the terminal is narrower than its lines; a width of None breaks nothing."""
    text = TOPICS[name]()
    if width is None or max(map(len, text.splitlines())) <= width:
        return text
    lines: list[str] = []
    for is_prose, group in groupby(text.splitlines(), lambda line: bool(line) and not _ENTRY.match(line)):
        if is_prose:
            lines += textwrap.wrap(" ".join(group), width, break_on_hyphens=False)
        else:
            for line in group:
                lines += _broken(line, width)
    return "".join(f"{line}\n" for line in lines)


def _broken(line: str, width: int) -> list[str]:
    """Break a line of two columns within the second, or, where that is too narrow, below the first."""
    if len(line) <= width:
        return [line]
    entry = _ENTRY.match(line)
    left = entry.end() if entry else 0
    if left <= width // 2:
        beside = " " * left
        return textwrap.wrap(
            line[left:], width, initial_indent=line[:left], subsequent_indent=beside, break_on_hyphens=False
        )
    return [
        line[:left].rstrip(),
        *textwrap.wrap(
            line[left:], width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
        ),
    ]


TOPICS: dict[str, Callable[[], str]] = {
    "exit-codes": _exit_codes,
    "environment": _environment,
    "output": _output,
    "egress": _egress,
    "prompt": _prompt,
    "agents": _agents,
}
"""Each topic's text, made when asked for."""
