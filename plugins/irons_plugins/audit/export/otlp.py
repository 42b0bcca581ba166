"""Records as OTLP logs over HTTP to a collector, at least once, by the packages of OpenTelemetry (the extra `irons[otel]`)."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from irons.errors import Unreachable, UsageError
from irons.text import clean, rfc3339
from irons_plugins.audit.export.position import ExportCursor, Position
from irons_plugins.audit.export.records import CHANGE_TYPE, EVENT_TYPE, ExportRecord
from irons_plugins.audit.following import FIRST_BACK_OFF, LONGEST_BACK_OFF

if TYPE_CHECKING:
    from irons_plugins.audit.export.storage import CursorFile

MOST = 500
"""Records of one request: collectors refuse what is too large."""

LOGS_PATH = "/v1/logs"


class Collector(Protocol):
    """Takes records."""

    def send(self, records: Sequence[ExportRecord]) -> None:
        """Send records; returns once the collector has them.

        Raises:
            Unreachable: It did not take them.
        """
        ...


def check_endpoint(endpoint: str | None, env: Mapping[str, str]) -> str | None:
    """Return the URL to send to; None where the environment names it.

    Raises:
        UsageError: There is none, it is invalid, or it has a password, which every user could read on the command line.
    """
    if endpoint is None:
        if not (env.get("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT") or env.get("OTEL_EXPORTER_OTLP_ENDPOINT")):
            raise UsageError(
                "there is no collector to send to",
                hint="name it by --endpoint URL or OTEL_EXPORTER_OTLP_ENDPOINT",
            )
        return None
    try:
        parts = urlsplit(endpoint)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and endpoint.isprintable()
        _ = parts.port
    except ValueError:
        parts, valid = urlsplit(""), False
    if not valid:
        raise UsageError(
            f"{clean(endpoint, limit=100)!r} is not the URL of a collector"
            if "@" not in endpoint
            else "the URL of the collector is invalid",
            hint="such as http://localhost:4318",
        )
    if "@" in parts.netloc:
        raise UsageError(
            "the URL of a collector has no user and password: other users see command lines",
            hint="OTEL_EXPORTER_OTLP_HEADERS takes what the collector asks for",
        )
    return endpoint if parts.path.strip("/") else f"{endpoint.rstrip('/')}{LOGS_PATH}"


class OtlpCollector:
    """A collector that speaks OTLP over HTTP. Headers, certificates and timeouts are those of the `OTEL_` variables.

    Args:
        endpoint: The URL of its logs; None is that of the `OTEL_` variables.

    Raises:
        UsageError: The packages of the extra are missing.
    """

    def __init__(self, endpoint: str | None) -> None:
        try:
            from opentelemetry._logs import LogRecord, SeverityNumber
            from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
            from opentelemetry.sdk._logs import ReadableLogRecord
            from opentelemetry.sdk._logs.export import LogRecordExportResult
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        except ImportError:
            raise UsageError(
                f"--format otlp needs the extra irons[otel]: {sys.executable} -m pip install 'irons[otel]'"
            ) from None
        from irons.version import __version__

        self._complaints = _Complaints()
        library = logging.getLogger("opentelemetry")
        library.addHandler(self._complaints)
        # What it logs is in our own message.
        library.propagate = False
        # Not all of it has types.
        self._exporter: Any = OTLPLogExporter(endpoint=endpoint)
        resource = Resource.create({"service.name": "irons"})
        scope = InstrumentationScope("irons.audit", __version__)

        def made(record: ExportRecord) -> Any:
            return ReadableLogRecord(
                LogRecord(
                    timestamp=_nanoseconds(record.fields.get("time")),
                    observed_timestamp=time.time_ns(),
                    severity_number=SeverityNumber.WARN if is_against(record) else SeverityNumber.INFO,
                    severity_text="WARN" if is_against(record) else "INFO",
                    body=body_of(record),
                    attributes=attributes_of(record),
                    event_name=f"irons.{record.type}",
                ),
                resource,
                scope,
            )

        self._made: Callable[[ExportRecord], Any] = made
        self._taken: object = LogRecordExportResult.SUCCESS

    def send(self, records: Sequence[ExportRecord]) -> None:
        """Send records; returns once the collector has them.

        Raises:
            Unreachable: It did not take them.
        """
        self._complaints.last = ""
        if self._exporter.export([self._made(each) for each in records]) != self._taken:
            why = clean(self._complaints.last, limit=200)
            raise Unreachable(
                f"the collector did not take {len(records):,} records{f': {why}' if why else ''}"
            )

    def close(self) -> None:
        """Close the connections."""
        self._exporter.shutdown()
        logging.getLogger("opentelemetry").removeHandler(self._complaints)


class _Complaints(logging.Handler):
    """Remembers the last line that the exporter logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


class CollectorExport:
    """Sends records, and then stores the position after them: at least once.

    Args:
        collector: Takes records.
        cursor: Where the position is kept; None keeps none.
        begin: The cursor to go on from.
        patient: Try again for as long as it takes, instead of failing.
        say: Tells the person a line.
    """

    def __init__(
        self,
        collector: Collector,
        cursor: CursorFile | None,
        begin: ExportCursor,
        *,
        patient: bool,
        say: Callable[[str], None],
    ) -> None:
        self._collector = collector
        self._cursor = cursor
        self._at = begin
        self._patient = patient
        self._say = say

    def put(self, records: Sequence[ExportRecord], position: Position) -> None:
        """Send a batch, and store the position after it.

        Raises:
            Unreachable: The collector did not take it.
        """
        for part in _parts(records):
            self._send(part)
        if self._cursor is not None and (records or position != self._at.position):
            self._at = self._at._replace(position=position)
            self._cursor.store_cursor(self._at.encode())

    def _send(self, records: Sequence[ExportRecord]) -> None:
        pause, warned = FIRST_BACK_OFF, False
        while True:
            try:
                self._collector.send(records)
            except Unreachable as error:
                if not self._patient:
                    raise
                if not warned:
                    self._say(f"irons: {error.message}; trying on")
                warned = True
                time.sleep(pause)
                pause = min(pause * 2, LONGEST_BACK_OFF)
            else:
                if warned:
                    self._say("irons: the collector takes records again")
                return


def cursor_to_go_on_from(file: CursorFile | None, log: str, name: str) -> ExportCursor:
    """Return the stored cursor of an export to a collector, or that of one which begins.

    Raises:
        UsageError: The cursor is of another export.
    """
    begin = ExportCursor(log, "otlp", "", 0, Position())
    found = file.load_cursor() if file is not None else None
    if found is None:
        return begin
    cursor = ExportCursor.decode(found, name)
    if (cursor.log, cursor.format) != (begin.log, begin.format):
        raise UsageError(f"{name} is the cursor of an export of {cursor.log} as {cursor.format}")
    return cursor


def is_against(record: ExportRecord) -> bool:
    """Tell whether a record matters more than others: something was refused, only let through by mode warn, lost, or failed."""
    if record.type == EVENT_TYPE:
        return record.fields.get("verdict") != "allowed"
    return record.type != CHANGE_TYPE or record.fields.get("what") == "sandbox-failed"


def body_of(record: ExportRecord) -> str:
    """Return a record in a line for people."""
    fields = record.fields
    if record.type == EVENT_TYPE:
        from irons.terminal.words import verdict_word

        port = "" if fields.get("port") is None else f":{fields['port']}"
        word = verdict_word(str(fields.get("verdict", "")))
        why = f": {fields['reason']}" if fields.get("reason") else ""
        return clean(f"{fields.get('sandbox', '')}: {word} {fields.get('host', '')}{port}{why}")
    if record.type == CHANGE_TYPE:
        from irons_plugins.audit.change_views import scope, told, who

        where = scope(fields)
        return clean(f"{who(fields)}: {f'{where}: ' if where else ''}{told(fields)}")
    return clean(str(fields.get("reason", "")))


def attributes_of(record: ExportRecord) -> dict[str, str | int | float | bool]:
    """Return the members of a record as attributes: `irons.NAME`, and those that OpenTelemetry has names for."""
    fields = record.fields
    found: dict[str, str | int | float | bool] = {"irons.type": record.type}
    for name, value in fields.items():
        if name == "time" or value in (None, "", {}):
            continue
        found[f"irons.{name}"] = _value(value)
    if fields.get("id") is not None:
        # By which a receiver drops what it gets twice.
        found["log.record.uid"] = f"{record.type}-{fields['id']}"
    if record.type == EVENT_TYPE:
        found["server.address"] = clean(str(fields.get("host", "")))
        if fields.get("port") is not None:
            found["server.port"] = int(fields["port"])
    return found


def _value(value: object) -> str | int | float | bool:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Mapping):
        return json.dumps(value, default=str)
    return clean(str(value))


def _nanoseconds(time: object) -> int | None:
    """Return a time since 1970, exact to the microsecond that it has."""
    if not isinstance(time, datetime):
        return None
    return int(time.timestamp()) * 1_000_000_000 + time.microsecond * 1_000


def _parts(records: Sequence[ExportRecord]) -> Iterator[Sequence[ExportRecord]]:
    for begin in range(0, len(records), MOST):
        yield records[begin : begin + MOST]
