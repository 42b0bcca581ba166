"""`audit export --format otlp`: OTLP logs to a small collector on loopback, at least once, each with its id."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from irons.errors import UsageError
from irons.testing import EXTENSIONS, FakeApi, Runner
from irons_plugins.audit.export.otlp import CollectorExport, check_endpoint, cursor_to_go_on_from
from irons_plugins.audit.export.position import ExportCursor, Position
from irons_plugins.audit.export.records import ExportRecord
from irons_plugins.audit.export.storage import CursorFile

from .conftest import Irons, until

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra irons[otel] is missing")


@dataclass
class SmallCollector:
    """What a collector got.

    Attributes:
        url: where it listens.
        logs: the decoded log records.
        paths: the paths that were asked for.
        headers: the headers of each request.
        failing: so many requests are answered with 400, which no one sends again by itself.
    """

    url: str = ""
    logs: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    failing: int = 0


def decoded(body: bytes) -> Iterator[dict[str, Any]]:
    """The log records of a request, their attributes by name."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    request = ExportLogsServiceRequest()
    request.ParseFromString(body)
    for resource in request.resource_logs:
        service = {each.key: each.value.string_value for each in resource.resource.attributes}
        for scope in resource.scope_logs:
            for record in scope.log_records:
                attributes = {
                    each.key: getattr(each.value, str(each.value.WhichOneof("value")))
                    for each in record.attributes
                }
                yield {
                    "service": service["service.name"],
                    "scope": scope.scope.name,
                    "event": record.event_name,
                    "time": record.time_unix_nano,
                    "severity": record.severity_text,
                    "body": record.body.string_value,
                    **attributes,
                }


@contextmanager
def collector() -> Iterator[SmallCollector]:
    """A collector on loopback."""
    found = SmallCollector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.paths.append(self.path)
            found.headers.append(dict(self.headers.items()))
            status = 200
            if found.failing:
                found.failing -= 1
                status = 400
            else:
                found.logs += decoded(body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def test_events_and_changes_arrive_as_logs(
    run_irons: Runner, own: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each record has its id, its time, a body for people and its members; headers are those of the environment."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=secret")
    own.record("a.example", bytes_in=12)
    own.record("b.example", allowed=False, verdict="blocked", reason="no rule allows b.example\x1b", count=3)
    own.log_change("mode-set", before={"mode": "deny"}, after={"mode": "warn"})
    with collector() as found:
        done = run_irons("audit", "export", "--format", "otlp", "--endpoint", found.url).ok()
        assert "2 records sent" in done.err
        run_irons(
            "audit", "export", "--changes", "--format", "otlp", "--endpoint", f"{found.url}/custom"
        ).ok()
    assert found.paths == ["/v1/logs", "/custom"]
    assert found.headers[0]["x-token"] == "secret"
    first, second, change = found.logs
    assert (first["log.record.uid"], first["irons.id"], first["irons.bytes_in"]) == ("egress-1", 1, 12)
    assert (first["server.address"], first["server.port"], first["severity"]) == ("a.example", 443, "INFO")
    assert first["time"] == 1_771_544_546_000_000_000
    assert (first["service"], first["scope"], first["event"]) == ("irons", "irons.audit", "irons.egress")
    assert (second["severity"], second["irons.count"]) == ("WARN", 3)
    assert second["body"].startswith("one: denied b.example:443: no rule allows b.example")
    assert "\x1b" not in second["body"] + second["irons.reason"]
    assert json.loads(change["irons.after"]) == {"mode": "warn"}
    assert (change["log.record.uid"], change["irons.claimed_face"]) == ("change-1", "cli")
    assert change["body"] == "uid 1000: all sandboxes: mode warn (log only), was deny"


def test_a_cursor_goes_on_after_what_was_taken(run_irons: Runner, own: FakeApi, tmp_path: Path) -> None:
    """What the collector refused is sent again by the next run, and what it took is not."""
    cursor = str(tmp_path / "c")
    words = ["audit", "export", "--format", "otlp", "--cursor", cursor, "--endpoint"]
    own.record("a.example")
    with collector() as found:
        run_irons(*words, found.url).ok()
        own.record("b.example")
        found.failing = 1
        refused = run_irons(*words, found.url)
        assert refused.code != 0
        assert "the collector did not take 1 record" in refused.err
        run_irons(*words, found.url).ok()
        assert [log["irons.id"] for log in found.logs] == [1, 2]
        wrong = run_irons(
            "audit", "export", "--changes", "--format", "otlp", "--cursor", cursor, "--endpoint", found.url
        )
        assert wrong.code == 2


def test_a_follower_tries_again_until_the_collector_takes_it(irons_process: Irons, one: FakeApi) -> None:
    """With --follow a collector that refuses is asked again, with one warning."""
    one.extensions = EXTENSIONS
    one.record("a.example")
    with collector() as found:
        found.failing = 2
        process = irons_process.start(
            "audit", "export", "--follow", "--format", "otlp", "--endpoint", found.url
        )
        until(lambda: [log["irons.id"] for log in found.logs] == [1])
        one.record("b.example")
        until(lambda: [log["irons.id"] for log in found.logs] == [1, 2])
        process.terminate()
        _, said = process.communicate()
    assert said.decode().count("trying on") == 1


def test_what_does_not_fit_is_refused(run_irons: Runner, own: FakeApi) -> None:
    """A collector is named by a URL without a password, and only for OTLP."""
    for words in (
        ("--format", "otlp"),
        ("--format", "otlp", "--endpoint", "localhost:4318"),
        ("--format", "otlp", "--endpoint", "http://me:secret@localhost:4318"),
        ("--format", "otlp", "--endpoint", "http://localhost:4318", "--to", "x"),
        ("--endpoint", "http://localhost:4318"),
    ):
        done = run_irons("audit", "export", *words)
        assert done.code == 2, words
        assert "secret" not in done.err
    assert check_endpoint(None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}) is None
    assert check_endpoint("http://c:1/", {}) == "http://c:1/v1/logs"


def test_without_the_extra_one_sentence_names_it(
    run_irons: Runner, own: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the packages are missing the message says which extra brings them."""
    for name in ("opentelemetry", "opentelemetry._logs"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    done = run_irons("audit", "export", "--format", "otlp", "--endpoint", "http://localhost:4318")
    assert done.code == 2
    assert done.err == (
        f"irons: --format otlp needs the extra irons[otel]: {sys.executable} -m pip install 'irons[otel]'\n"
    )


class Flaky:
    """A collector that takes some batches, or ends the process after it took one."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.ends_after = 0

    def send(self, records: Any) -> None:
        self.taken += [each.fields["id"] for each in records]
        self.ends_after -= 1
        if not self.ends_after:
            raise KeyboardInterrupt


def test_what_was_taken_before_the_cursor_was_stored_is_sent_again(tmp_path: Path) -> None:
    """At least once: an end between the answer and the cursor repeats a batch, and loses none; ids tell them apart."""
    file = CursorFile(tmp_path / "c")
    flaky = Flaky()
    batch = [ExportRecord("egress", {"id": number}) for number in range(1, 1201)]
    for ends_after in (2, 0):
        flaky.ends_after = ends_after
        begin = cursor_to_go_on_from(file, "events", "c")
        out = CollectorExport(flaky, file, begin, patient=False, say=lambda _: None)
        try:
            out.put(batch[begin.position.token :], Position(1200))
        except KeyboardInterrupt:
            continue
    assert sorted(set(flaky.taken)) == list(range(1, 1201))
    assert len(flaky.taken) == 2200
    assert ExportCursor.decode(file.load_cursor() or b"", "c").position.token == 1200
    with pytest.raises(UsageError):
        cursor_to_go_on_from(file, "changes", "c")
