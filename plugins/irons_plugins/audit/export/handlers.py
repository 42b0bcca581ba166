"""Handler of `audit export`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from irons.command import Result, View
from irons.errors import UsageError
from irons_plugins.audit.export.formats import Csv, JsonLines
from irons_plugins.audit.export.output import check_length, resume
from irons_plugins.audit.export.position import ExportCursor, Position
from irons_plugins.audit.export.sources import Batch, ChangeSource, EventSource, batches
from irons_plugins.audit.export.storage import CursorFile, FileStorage, open_output
from irons_plugins.audit.following import LONG_POLL, PIPED_POLL

if TYPE_CHECKING:
    from irons.context import Context
    from irons.settings.scope import Scope
    from irons_plugins.audit.export.formats import Encoder

SETTLES_WITHIN = 20.0
"""Seconds that an export with a cursor waits at its end for counts to become final."""

FOLLOWED = 1.0
"""Seconds that a request is held while a log is followed into a file: events that may still change are looked at in between."""


def export(
    ctx: Context,
    *,
    scope: Scope,
    format: str,  # noqa: A002 (the option's name)
    changes: bool,
    follow: bool,
    cursor: str | None,
    to: str | None,
    endpoint: str | None,
) -> Result | None:
    """Write a log to a file, stdout or a collector."""
    _check(ctx, format=format, cursor=cursor, to=to, endpoint=endpoint)
    log = "changes" if changes else "events"
    ctx.api.need("change-log" if changes else "audit-export", "a server that keeps this log for exports")
    if format == "otlp":
        sent = _to_collector(ctx, scope.sandbox, log, endpoint, cursor, follow=follow)
        ctx.progress(f"irons: {sent:,} record{'s' if sent != 1 else ''} sent")
        return None
    encoder = encoder_of(format, log)
    if to is None:
        found = _stream(ctx, scope.sandbox, log, follow=follow, final=follow)
        return Result(_lines(found, encoder), view=View(line="irons_plugins.audit.export.handlers:as_it_is"))
    target = Path(to).absolute()
    if cursor is None:
        written = _to_new_file(_stream(ctx, scope.sandbox, log, follow=follow, final=follow), target, encoder)
    else:
        written = _to_file(
            ctx, scope.sandbox, log, format, target, Path(cursor).absolute(), encoder, follow=follow
        )
    ctx.progress(f"irons: {written:,} record{'s' if written != 1 else ''} written to {to}")
    return None


def encoder_of(format: str, log: str) -> Encoder:  # noqa: A002 (the option's name)
    """Return what makes bytes of the records of a log."""
    if format == "jsonl":
        return JsonLines()
    if log == "changes":
        from irons.client.models.changes import ChangeRecord

        return Csv(ChangeRecord._fields)
    from irons_policy.event import Event

    return Csv(Event._fields)


def source_of(
    ctx: Context, sandbox: str | None, log: str, position: Position, *, follow: bool, final: bool
) -> EventSource | ChangeSource:
    """Return the log to read."""
    if log == "changes":
        return ChangeSource(ctx, sandbox, position, patient=follow)
    return EventSource(ctx, sandbox, position, patient=follow, final=final)


def as_it_is(line: str) -> str:
    """Return a line of an export, which is ready."""
    return line


def _check(
    ctx: Context,
    *,
    format: str,  # noqa: A002 (the option's name)
    cursor: str | None,
    to: str | None,
    endpoint: str | None,
) -> None:
    if ctx.settings["output"] not in (None, "plain", "table"):
        raise UsageError("the form of an export is that of --format", hint=f"-o plain, and --format {format}")
    if format == "otlp":
        if to is not None:
            raise UsageError("--format otlp sends to a collector: name it by --endpoint, not by --to")
        return
    if endpoint is not None:
        raise UsageError("--endpoint is for --format otlp")
    if cursor is not None and to is None:
        raise UsageError("--cursor remembers the place in a file: name that by --to FILE")
    if cursor is not None and to is not None and Path(cursor).absolute() == Path(to).absolute():
        raise UsageError("--cursor and --to name the same file")


def _stream(ctx: Context, sandbox: str | None, log: str, *, follow: bool, final: bool) -> Iterator[Batch]:
    source = source_of(ctx, sandbox, log, Position(), follow=follow, final=final)
    wait = LONG_POLL if ctx.streams.stdout_is_tty and log == "changes" else PIPED_POLL
    for batch in batches(source, follow=follow, wait=min(wait, FOLLOWED) if final else wait, settle=0.0):
        yield batch
        if follow and ctx.streams.is_unread:
            return


def _lines(found: Iterator[Batch], encoder: Encoder) -> Iterator[str]:
    head = encoder.head()
    for batch in found:
        for record in batch.records:
            if head:
                yield head.decode().rstrip("\n")
                head = b""
            yield encoder.encode([record]).decode().rstrip("\n")


def _to_new_file(found: Iterator[Batch], to: Path, encoder: Encoder) -> int:
    """Write to a file that is not there yet, or is empty: without a cursor nothing can be added to one."""
    written = 0
    with open(open_output(to), "ab") as file:  # noqa: PTH123 (a descriptor)
        if os.fstat(file.fileno()).st_size:
            raise UsageError(
                f"{to} has data", hint="--cursor FILE keeps a place in it, so that an export can go on"
            )
        file.write(encoder.head())
        for batch in found:
            file.write(encoder.encode(batch.records))
            file.flush()
            written += len(batch.records)
        os.fsync(file.fileno())
    return written


def _to_file(
    ctx: Context,
    sandbox: str | None,
    log: str,
    format: str,  # noqa: A002 (the option's name)
    to: Path,
    cursor: Path,
    encoder: Encoder,
    *,
    follow: bool,
) -> int:
    begin = ExportCursor(log, format, str(to), 0, Position())
    written = 0
    with closing(FileStorage(to, cursor)) as storage:
        file = resume(storage, begin, encoder, str(cursor), lambda found: _finish(found, cursor))
        source = source_of(ctx, sandbox, log, file.cursor.position, follow=follow, final=True)
        for batch in batches(source, follow=follow, wait=FOLLOWED, settle=SETTLES_WITHIN):
            file.put(batch.records, batch.position)
            written += len(batch.records)
    return written


def _finish(found: ExportCursor, cursor: Path) -> None:
    """Cut the file that a cursor was for before the export goes on in another one."""
    former = Path(found.to)
    if not former.exists():
        # It was moved away by whoever rotates files; what it had beyond the cursor would be in the next one, too.
        raise UsageError(
            f"{former} is missing, which the cursor {cursor} belongs to",
            hint="run the export with another --to before the old file is moved",
        )
    with closing(FileStorage(former, cursor)) as storage:
        check_length(storage, found)
        storage.truncate(found.length)


def _to_collector(
    ctx: Context, sandbox: str | None, log: str, endpoint: str | None, cursor: str | None, *, follow: bool
) -> int:
    from irons_plugins.audit.export.otlp import (
        CollectorExport,
        OtlpCollector,
        check_endpoint,
        cursor_to_go_on_from,
    )

    url = check_endpoint(endpoint, ctx.settings.env)
    file = None if cursor is None else CursorFile(Path(cursor).absolute())
    begin = cursor_to_go_on_from(file, log, cursor or "")
    sent = 0
    with closing(OtlpCollector(url)) as collector:
        out = CollectorExport(collector, file, begin, patient=follow, say=ctx.progress)
        final = follow or cursor is not None
        source = source_of(ctx, sandbox, log, begin.position, follow=follow, final=final)
        for batch in batches(source, follow=follow, wait=FOLLOWED, settle=SETTLES_WITHIN):
            out.put(batch.records, batch.position)
            sent += len(batch.records)
    return sent
