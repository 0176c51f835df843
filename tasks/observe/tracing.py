"""Traces by OpenTelemetry, where its own variables ask for them.

A command that asks for a job is the root; under it is the publishing, and under that each attempt at a unit of work,
by whichever process of whichever host. What joins them is the `traceparent` in the job's record. Messages could not
carry it: the reconciler writes them anew, and workers write those of a training's segments.

Without the variables nothing is imported, and each function here does nothing.
"""

import contextlib
import functools
import logging
import os
import socket
import threading
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import lhcq
from lhcq.extras import command_for

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
"""What a process waits at its end for a collector that does not answer."""
_SEND_EVERY_MILLISECONDS = 200
"""Spans wait so long for others to be sent with, and are lost with a process that is killed meanwhile."""
_EXPORTERS = "OTEL_TRACES_EXPORTER"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def traces_wanted() -> bool:
    """Whether the environment asks for traces by OTLP, by the rules of OpenTelemetry's specification."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if exporters := os.environ.get(_EXPORTERS):
        return "otlp" in [exporter.strip() for exporter in exporters.split(",")]
    return any(os.environ.get(name) for name in _ENDPOINTS)


def public_variables() -> dict[str, str]:
    """What the environment says of where traces go, as far as anyone may read it: no headers, no logins."""
    said = {name: os.environ.get(name, "") for name in (_EXPORTERS, *_ENDPOINTS)}
    return {name: value for name, value in said.items() if value and "@" not in value}


@contextlib.contextmanager
def span(name: str, **attributes: Any) -> Iterator[None]:
    """The body is a span: under the current one, or the root of a trace. An error that leaves it is told."""
    provider = _provider()
    if provider is None:
        yield
        return
    tracer = provider.get_tracer("lhcq", lhcq.__version__)
    # Ours are told by `note_error`, without passwords.
    with tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False):
        note_span(**attributes)
        try:
            yield
        except BaseException as error:
            note_error(error)
            raise


@contextlib.contextmanager
def span_under(parent: str | None, name: str, **attributes: Any) -> Iterator[None]:
    """The body is a span under a `traceparent`; without one it is none, since nobody traces what it belongs to."""
    if parent is None or _provider() is None:
        yield
        return
    from opentelemetry.context import Context, attach, detach
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    token = attach(TraceContextTextMapPropagator().extract({"traceparent": parent}, Context()))
    try:
        with span(name, **attributes):
            yield
    finally:
        detach(token)


def current_traceparent() -> str | None:
    """The current span as W3C's `traceparent`; None where there is none."""
    if _provider() is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def note_span(**attributes: str | int | None) -> None:
    """Tell more of the current span, if there is one: `lhcq.part` by `part`; None tells nothing."""
    if _provider() is None:
        return
    from opentelemetry.trace import get_current_span

    told = {f"lhcq.{name}": value for name, value in attributes.items() if value is not None}
    get_current_span().set_attributes(told)


def note_failure(said: str) -> None:
    """Tell that the current span, if there is one, is of something that went wrong."""
    if _provider() is None:
        return
    from opentelemetry.trace import StatusCode, get_current_span

    get_current_span().set_status(StatusCode.ERROR, said)


def note_error(error: BaseException) -> None:
    """Tell what went wrong in the current span, if there is one, without the passwords of addresses."""
    if _provider() is None:
        return
    from opentelemetry.trace import get_current_span

    from tasks.jobs.store import message_of
    from tasks.observe.logging import masked

    lines = "".join(traceback.format_exception(error))
    note_failure(masked(message_of(error)))
    get_current_span().record_exception(
        error, {"exception.message": masked(str(error)), "exception.stacktrace": masked(lines)}
    )


def flush() -> None:
    """Send what this process has not sent yet; wait at most `FLUSH_SECONDS`."""
    if not _provider.cache_info().currsize:
        return  # it has made no span, and needs nothing to say so
    if provider := _provider():
        # The SDK's own limit is not kept: https://github.com/open-telemetry/opentelemetry-python/issues/4568
        sending = threading.Thread(target=provider.force_flush, name="trace-flush", daemon=True)
        sending.start()
        sending.join(FLUSH_SECONDS)
        if sending.is_alive():
            log.warning("the collector of traces did not answer within %.0f s: spans are lost", FLUSH_SECONDS)


@functools.cache
def _provider() -> "TracerProvider | None":
    """What makes and sends this process's spans; None where no traces are wanted or can be made.

    It is made with the first span, so in the process that works: a worker's main process has none, and its children
    neither inherit a sending thread that is not theirs nor share a connection.
    """
    if not traces_wanted():
        return None
    try:
        return _new_provider()
    except ImportError:
        log.warning(f"traces are asked for, and none are made: `{command_for('trace')}` has what they need.")
    except Exception as error:  # a variable that makes no sense to the SDK; a trace is no reason to fail
        log.warning("traces are asked for, and none are made: %s: %s", type(error).__name__, error)
    return None


def _new_provider() -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # else it warns of every retry
    process: dict[str, str | int] = {
        "service.name": os.environ.get("OTEL_SERVICE_NAME") or "lhcq",
        "service.version": lhcq.__version__,
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
    }
    # Without its handler at exit, which would wait for the collector as long as the SDK likes.
    provider = TracerProvider(resource=Resource.create(process), shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=_SEND_EVERY_MILLISECONDS)
    )
    return provider
