"""Telemetry: the spans and metrics of calls in OpenTelemetry, by its conventions for generative AI.

The conventions have the status "development" (June 2026), so names may change:
https://github.com/open-telemetry/semantic-conventions-genai. A call is a CLIENT span `chat {model}`. Its children are a
span `queue`, which lasts until the call may be sent, and a span `attempt` for each attempt. The context of `attempt` is
sent with the request.
Not here: the attributes (`attributes`), and the content of messages (`content`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, Final

from opentelemetry import metrics, propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from chatscope.errors import APIStatusError
from chatscope.protocol.messages import SentMessage
from chatscope.protocol.response import Completion
from chatscope.protocol.usage import Usage
from chatscope.telemetry.attributes import (
    error_type,
    request_attributes,
    response_attributes,
    usage_attributes,
)
from chatscope.telemetry.content import input_messages, output_messages
from chatscope.version import __version__

PROVIDER: Final = "openai"
"""The conventions' name for the protocol. The server that speaks it is in `server.address`."""

TOKEN_BUCKETS: Final = tuple(4**power for power in range(14))
SECOND_BUCKETS: Final = tuple(0.01 * 2**power for power in range(14))
"""The bucket bounds of the conventions: 1 to 67108864 tokens, 0.01 to 81.92 s."""


class Telemetry:
    """Reports calls to OpenTelemetry. One object may serve any number of clients and adapters.

    Args:
        tracer_provider, meter_provider: where to report; by default the global providers.
        capture_content: also record the messages that are sent and received. They contain whatever users wrote.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        capture_content: bool = False,
    ) -> None:
        self.capture_content = capture_content
        self.tracer = trace.get_tracer("chatscope", __version__, tracer_provider)
        meter = metrics.get_meter("chatscope", __version__, meter_provider)
        self.tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        )
        self.duration, self.first_chunk, self.output_chunk = (
            meter.create_histogram(
                f"gen_ai.client.operation.{name}", "s", says, explicit_bucket_boundaries_advisory=SECOND_BUCKETS
            )
            for name, says in (
                ("duration", "GenAI operation duration."),
                ("time_to_first_chunk", "Time from sending the request to the first chunk of the response."),
                ("time_per_output_chunk", "Time from one chunk of the response to the next."),
            )
        )

    def call(
        self,
        model: str,
        messages: Sequence[SentMessage],
        parameters: Mapping[str, Any],
        *,
        stream: bool,
        address: str,
        port: int,
    ) -> CallSpan:
        """Prepare the span of a call. Nothing is reported before the call's `start`."""
        return CallSpan(self, model, messages, parameters, stream=stream, address=address, port=port)


class CallSpan:
    """The spans and metrics of one call; an `ObservedCall`."""

    __slots__ = (
        "_began_ns",
        "_common",
        "_is_open",
        "_queue",
        "_request",
        "_span",
        "_telemetry",
    )

    def __init__(
        self,
        telemetry: Telemetry,
        model: str,
        messages: Sequence[SentMessage],
        parameters: Mapping[str, Any],
        *,
        stream: bool,
        address: str,
        port: int,
    ) -> None:
        self._telemetry = telemetry
        self._common: dict[str, Any] = {  # for both the span and the metrics
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": model,
            "server.address": address,
            "server.port": port,
        }
        self._request = request_attributes(parameters)
        if stream:
            self._request["gen_ai.request.stream"] = True
        if telemetry.capture_content:
            self._request["gen_ai.input.messages"] = input_messages(messages)
        self._began_ns = 0
        self._is_open = False
        self._span: Span = trace.INVALID_SPAN
        self._queue: Span = trace.INVALID_SPAN

    def start(self) -> None:
        """Start the span, as a child of the current one, and the span `queue`."""
        self._began_ns = time.perf_counter_ns()
        self._span = self._telemetry.tracer.start_span(
            f"chat {self._common['gen_ai.request.model']}",
            kind=SpanKind.CLIENT,
            attributes=self._common | self._request,
        )
        self._queue = self._child("queue")
        self._is_open = True

    def current(self) -> AbstractContextManager[object]:
        """Return a block in which the call's span is current."""
        return _current(self._span)

    def permit_acquired(self) -> None:
        """End the span `queue`. Further calls do nothing."""
        queue, self._queue = self._queue, trace.INVALID_SPAN
        queue.end()

    def attempt(self, failed: int) -> AttemptSpan:
        """Start the span of an attempt."""
        attributes = {"http.request.resend_count": failed} if failed else {}
        return AttemptSpan(self._child("attempt", attributes))

    def end(
        self,
        error: BaseException | None,
        completion: Completion | None,
        *,
        usage: Usage | None = None,
        sent_ns: int | None = None,
        token_ns: Sequence[int] = (),
    ) -> None:
        """End the span with the outcome of the call, and record its metrics. Further calls do nothing."""
        if not self._is_open:
            return
        self._is_open = False
        span = self._span
        seconds = (time.perf_counter_ns() - self._began_ns) / 1e9
        telemetry, common = self._telemetry, self._common
        _end(self._queue, error)
        if completion is not None:
            usage = usage or completion.usage
            span.set_attributes(response_attributes(completion))
            if completion.model:
                common["gen_ai.response.model"] = completion.model
            if telemetry.capture_content and completion.choices:
                span.set_attribute("gen_ai.output.messages", output_messages(completion))
        if usage == Usage():
            usage = None  # servers that do not count tokens send zeros
        if usage is not None:
            span.set_attributes(usage_attributes(usage))
        _end(span, error)
        context = trace.set_span_in_context(span)  # so that the metrics' exemplars name the span
        failure = {"error.type": error_type(error)} if error is not None else {}
        telemetry.duration.record(seconds, common | failure, context)
        if usage is not None:
            for kind, count in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
                telemetry.tokens.record(count, common | {"gen_ai.token.type": kind}, context)
        if token_ns and sent_ns is not None:
            telemetry.first_chunk.record((token_ns[0] - sent_ns) / 1e9, common, context)
            for earlier, later in pairwise(token_ns):
                telemetry.output_chunk.record((later - earlier) / 1e9, common, context)

    def _child(self, name: str, attributes: Mapping[str, Any] | None = None) -> Span:
        return self._telemetry.tracer.start_span(name, trace.set_span_in_context(self._span), attributes=attributes)


class AttemptSpan:
    """The span of one attempt; an `ObservedAttempt`.

    Attributes:
        headers: the span's context, to be sent to the server.
    """

    __slots__ = ("_has_response", "_span", "headers")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._has_response = False
        self.headers: dict[str, str] = {}
        propagate.inject(self.headers, trace.set_span_in_context(span))

    def current(self) -> AbstractContextManager[object]:
        """Return a block in which the attempt's span is current."""
        return _current(self._span)

    def on_response(self, status: int, request_id: str | None) -> None:
        """Record the HTTP status, and the id that the server gave the request."""
        self._has_response = True
        self._span.set_attribute("http.response.status_code", status)
        if request_id is not None:
            self._span.set_attribute("http.response.header.x-request-id", [request_id])

    def end(self, error: BaseException | None) -> None:
        """End the span."""
        if isinstance(error, APIStatusError) and error.status is not None and not self._has_response:
            self.on_response(error.status, error.request_id)
        _end(self._span, error)


def _end(span: Span, error: BaseException | None) -> None:
    if error is not None:
        kind = error_type(error)
        span.set_attribute("error.type", kind)
        span.set_status(Status(StatusCode.ERROR, kind if kind == "cancelled" else str(error)))
    span.end()


def _current(span: Span) -> AbstractContextManager[object]:
    return trace.use_span(span, record_exception=False, set_status_on_exception=False)
