"""A collector of traces: takes spans by OTLP over HTTP and keeps them."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Span(NamedTuple):
    """One span as it came."""

    name: str
    trace: str
    id: str
    parent: str
    """Empty for the root."""
    told: dict[str, Any]
    """Its attributes, and those of the process that made it."""
    error: str | None
    """What went wrong, if anything did."""
    exceptions: list[dict[str, Any]]


class Collector:
    """What came, and whether it answers."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        self.answers = threading.Event()
        self.answers.set()
        self.environment: dict[str, str] = {}
        """What sends the spans of a process here."""

    def take(self, body: bytes) -> None:
        """Keep what stands in one request."""
        self.bodies.append(body)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            process = _values(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans += [_read(span, process) for span in scope.spans]

    def under(self, parent: Span) -> list[Span]:
        """The spans right under another."""
        return [span for span in self.spans if (span.trace, span.parent) == (parent.trace, parent.id)]


def _read(span: Any, process: dict[str, Any]) -> Span:
    return Span(
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        told={**process, **_values(span.attributes)},
        error=span.status.message if span.status.code == span.status.STATUS_CODE_ERROR else None,
        exceptions=[_values(event.attributes) for event in span.events if event.name == "exception"],
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on loopback."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.answers.wait()
            collector.take(body)
            with contextlib.suppress(OSError):  # who sent it may be gone
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        serving.start()
        collector.environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "no_proxy": "127.0.0.1",
        }
        yield collector
        collector.answers.set()
        server.shutdown()
        serving.join()
