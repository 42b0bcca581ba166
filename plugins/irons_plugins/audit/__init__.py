"""The built-in plugin `audit`: what sandboxes tried to reach, and what became of it.

The commands as data are here; handlers follow the log through the client, and explain verdicts.
Nothing here decides a verdict or imports the backend.
"""

from __future__ import annotations

from irons.command import ALL_SANDBOXES, Arg, Column, Command, Flag, Opt, View
from irons.hookspecs import hookimpl
from irons.terminal.words import SPELLINGS, VERDICTS
from irons_plugins.audit.tables import CHANGES, SHORT

_HERE = "irons_plugins.audit"

_VERDICT = Opt(
    ("--verdict",),
    "Only these; would-deny passed only because of mode warn.",
    choices=tuple(VERDICTS.values()),
    kind="choice",
    synonyms=SPELLINGS,
)

_OPTIONS = (
    Arg("name", "The sandbox; else the one in use, else all.", kind="sandbox", takes="?"),
    ALL_SANDBOXES,
    Flag(("-f", "--follow"), "Print each event as it happens, and again as it ends.", pace="waiting"),
    Opt(
        ("--since",), "Only events since then: RFC 3339, or 10m for 10 minutes ago.", metavar="T", type="time"
    ),
    Opt(("--until",), "Up to then.", metavar="T", type="time"),
    _VERDICT,
    Opt(
        ("--outcome",),
        "Only attempts with this outcome.",
        choices=("reached", "refused", "unresolved", "unreached", "abandoned", "interrupted"),
        kind="choice",
    ),
    Opt(("--host",), "Only hosts like this, such as *.example.com.", metavar="PATTERN"),
    Opt(("--limit",), "Only the newest N.", metavar="N", type="int"),
    Flag(("--wide",), "Show all columns, uncut, with exact times."),
)


@hookimpl
def irons_commands() -> list[Command]:
    """Bring the audit commands."""
    return [
        Command(
            ("audit",),
            "Show outbound connections, the oldest first.",
            f"{_HERE}.handlers:audit",
            _OPTIONS,
            view=SHORT,
            about="A terminal gets a table of what matters, a pipe tab-separated lines: time, sandbox, verdict, host, port, count, "
            "cause, reason. With --follow what ended or was repeated comes again, as it is then.",
            examples=(
                "irons audit my-sandbox",
                "irons audit my-sandbox --follow",
                "irons audit --since 1h --verdict denied -o jsonl",
            ),
            exits=(3, 4, 6),
            leads=True,
            scope="name",
        ),
        Command(
            ("audit", "egress"),
            "Show the same as irons audit, in a pipe as v0 lines.",
            f"{_HERE}.handlers:egress",
            _OPTIONS,
            view=SHORT,
            about="The lines in a pipe are those of the original irons: TIMESTAMP  VERDICT  HOST  (mode: MODE).",
            examples=("irons audit egress my-sandbox", "irons audit egress my-sandbox --follow"),
            exits=(3, 4, 6),
            scope="name",
        ),
        Command(
            ("audit", "hosts"),
            "Show what a sandbox tried by host, the last at the end.",
            f"{_HERE}.handlers:hosts",
            (
                Arg("name", "The sandbox.", kind="sandbox"),
                _VERDICT,
                Opt(("--host",), "Only hosts like this, such as *.example.com.", metavar="PATTERN"),
                Opt(("--limit",), "Only the N tried last.", metavar="N", type="int"),
            ),
            view=View(
                (
                    Column("last"),
                    Column("", "verdict", f"{_HERE}.views:verdict", style=f"{_HERE}.views:colour"),
                    Column("host", cut="start"),
                    Column("port"),
                    Column("count"),
                    Column("reached"),
                    Column("", "out / in bytes", f"{_HERE}.views:size", cut="end"),
                    Column("first", cut="end"),
                ),
                empty="It tried nothing.",
            ),
            about="These counts stay when events are rotated out. A row of *.DOMAIN counts all hosts of a domain, "
            "(other hosts) those for which there was no room; refused attempts are the first to be counted that way.",
            examples=(
                "irons audit hosts my-sandbox",
                "irons audit hosts my-sandbox --verdict would-deny -o json",
            ),
            exits=(3, 4, 6),
        ),
        Command(
            ("audit", "changes"),
            "Show who changed rules, modes, keys and sandboxes.",
            f"{_HERE}.changes:changes",
            (
                Arg("name", "The sandbox; else the one in use, else all.", kind="sandbox", takes="?"),
                ALL_SANDBOXES,
                Flag(("-f", "--follow"), "Print each change as it is made.", pace="waiting"),
                Opt(
                    ("--since",),
                    "Only changes since then: RFC 3339, or 10m for 10 minutes.",
                    metavar="T",
                    type="time",
                ),
                Opt(("--until",), "Up to then.", metavar="T", type="time"),
                Opt(("--limit",), "Only the newest N.", metavar="N", type="int"),
                Flag(("--wide",), "Show all columns, uncut, with exact times."),
            ),
            view=CHANGES,
            about="WHO is the user that the server's kernel names, the API key, or irons for what the server did by itself. CLAIMS "
            "is what the client claims to be; nothing checks it. A pipe gets tab-separated lines: time, who, claimed face, "
            "request, sandbox, what, subject, before, after, reason.",
            examples=(
                "irons audit changes my-sandbox",
                "irons audit changes --since 1d --all",
                "irons audit changes --follow -o jsonl",
            ),
            exits=(3, 4, 6),
            scope="name",
        ),
        Command(
            ("audit", "export"),
            "Export the events, or the changes, to files or a collector.",
            f"{_HERE}.export.handlers:export",
            (
                Arg("name", "The sandbox; else the one in use, else all.", kind="sandbox", takes="?"),
                ALL_SANDBOXES,
                Opt(
                    ("--format",),
                    "The form of the records.",
                    choices=("jsonl", "csv", "otlp"),
                    kind="choice",
                    default="jsonl",
                ),
                Flag(("--changes",), "Export the change log in place of the events."),
                Flag(("-f", "--follow"), "Go on with each record as it comes.", pace="waiting"),
                Opt(("--to",), "The file to write; else stdout.", metavar="FILE", kind="file"),
                Opt(
                    ("--cursor",),
                    "Remember the place in this file, and go on from it.",
                    metavar="FILE",
                    kind="file",
                ),
                Opt(("--endpoint",), "The collector that otlp sends to.", metavar="URL"),
            ),
            about="With --cursor a record is in the file exactly once, even if the command was killed. An event is written once it no "
            "longer changes: a refusal 10 seconds after it, with its final count, and a connection when it has ended. What retention "
            "took before it was exported is one record of the type rotated. With another --to the export goes on in that file. "
            "otlp sends logs over HTTP at least once, each with its id, and needs the extra irons[otel]; headers and certificates are "
            "those of the OTEL_EXPORTER_OTLP_ variables.",
            examples=(
                "irons audit export --format csv > events.csv",
                "irons audit export --all --follow --cursor events.cursor --to events.jsonl",
                "irons audit export --changes --cursor changes.cursor --to changes.jsonl",
                "irons audit export --all --follow --format otlp --endpoint http://localhost:4318 --cursor otlp.cursor",
            ),
            exits=(3, 4, 6),
            pace="waiting",
            scope="name",
        ),
        Command(
            ("audit", "why"),
            "Show a sandbox's last refusal or failure, and what helps.",
            f"{_HERE}.why:why",
            (
                Arg("name", "The sandbox.", kind="sandbox"),
                Arg("host", "The host, such as example.com or *.example.com.", kind="domain", takes="?"),
            ),
            view=View(
                (
                    Column("time"),
                    Column("sandbox"),
                    Column("host"),
                    Column("port"),
                    Column("protocol"),
                    Column("", "verdict", f"{_HERE}.views:verdict"),
                    Column("mode", "", "irons.terminal.words:mode_word"),
                    Column("rule"),
                    Column("reason"),
                    Column("cause"),
                    Column("outcome"),
                    Column("count"),
                    Column("note"),
                    Column("now", "", f"{_HERE}.views:by_now"),
                    Column("fix", "to allow it"),
                ),
                record=True,
            ),
            about="A connection that was let through and not reached counts as well. Without either, the last attempt that "
            'only mode warn let pass is shown. "by now" is what the rules say where they have changed since.',
            examples=("irons audit why my-sandbox", "irons audit why my-sandbox example.com"),
            exits=(3, 4, 6),
        ),
    ]
