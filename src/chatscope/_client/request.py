"""ClientRequest: one request, sent as often as the retry policy says, and its latest response.

Here: its permits, sending, reading and closing. Not here: waiting for a slot (`call`), what the bytes of a response
mean (`completion`, `stream_state`), which error a failure becomes (`request_errors`), and whether to try again
(`_limits.retry`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from math import inf
from typing import NoReturn

from chatscope._client.request_errors import locate_error, raise_from, status_error_of, translated_for
from chatscope._client.server import PreparedRequest, Server, refuses_include_usage
from chatscope._http.base import HTTPResponse
from chatscope._limits.attempts import NOT_SENT, AttemptRecord
from chatscope._limits.concurrency import Slot
from chatscope._limits.permit import Permit
from chatscope._limits.retry import Retrier
from chatscope._limits.timeouts import CallDeadlines
from chatscope.errors import APIStatusError, ChatError, InvalidResponseError, Phase
from chatscope.protocol.headers import NO_HEADERS, request_id
from chatscope.protocol.redaction import redact
from chatscope.protocol.usage import Usage
from chatscope.telemetry.observer import ObservedAttempt, ObservedCall
from chatscope.transport.base import TimedStream
from chatscope.transport.request_head import PostTemplate


class ClientRequest:
    """One request and its latest response.

    Args:
        server: where it is sent.
        prepared: what is sent.
        retrier: runs the attempts; requests are recorded in its log.
        deadlines: those of the call.
        observed: the call's telemetry, if there is any.
        priority: requests with a higher priority go first where they wait for limits.

    Attributes:
        server, prepared, retrier, deadlines, observed: as given.
        slot: the slot of its call, if a client runs it.
        response: the response that is being read, between `send` and `close`.
        secret: the key that is sent.
        headers: the latest response's, names in lower case.
        body: the latest response's, if it can be decoded again to the same completion.
        record: the record of the latest attempt. Requests that share a retrier have their own.
        read_ns: when the bytes last returned by `receive` were read.
    """

    __slots__ = (
        "_attempt",
        "_is_hedged",
        "_permit",
        "body",
        "deadlines",
        "headers",
        "observed",
        "prepared",
        "read_ns",
        "record",
        "response",
        "retrier",
        "secret",
        "server",
        "slot",
    )

    def __init__(
        self,
        server: Server,
        prepared: PreparedRequest,
        retrier: Retrier,
        deadlines: CallDeadlines,
        observed: ObservedCall | None = None,
        priority: float = 0.0,
    ) -> None:  # by position: arguments with names cost a call of a class a dict
        self.server = server
        self.slot: Slot | None = None
        self._permit = Permit(server.limiter, retrier.label, prepared.model, priority)
        self._attempt: ObservedAttempt | None = None
        self._is_hedged = False
        self.secret = server.secret
        self.prepared = prepared
        self.observed = observed
        self.retrier = retrier
        self.deadlines = deadlines
        self.response: HTTPResponse | None = None
        self.headers = NO_HEADERS
        self.body: bytes | None = None
        self.record: AttemptRecord = NOT_SENT
        self.read_ns = 0  # 0 means never

    def last_failure(self) -> Exception | None:
        """Return the last attempt's error; if there is none, the error for which the server counts as down."""
        return self.retrier.last_failure or self.server.limiter.outage

    def release_slot(self) -> None:
        """Release the call's slot, if it has one. Releasing it twice does nothing."""
        if self.slot is not None:
            self.slot.release()

    def acquire_permit(self, *, hedged: bool = False) -> Awaitable[None] | None:
        """Acquire a permit for one attempt. If cancelled, no permit is consumed.

        Args:
            hedged: another attempt is running, so this one takes a token from the retry budget.

        Returns:
            What to await, or `None` if the permit has been acquired, which is the usual case.

        Raises:
            APIConnectionError: the server has been down, or has refused requests, for too long.
        """
        retrier, prepared, observed = self.retrier, self.prepared, self.observed
        self._is_hedged = hedged
        is_retry = hedged or bool(retrier.failed)
        if not is_retry and self._permit.try_acquire(prepared.body, prepared.max_tokens):
            if observed is not None:
                observed.permit_acquired()
            return None
        acquiring = self._permit.acquire(
            prepared.body,
            prepared.max_tokens,
            retry=is_retry,
            patience=retrier.patience(self.server.limiter.outage),
            most_refusals=retrier.policy.attempts if retrier.deadline is None else inf,
        )
        return acquiring if observed is None else _then(acquiring, observed.permit_acquired)

    def release_permit(self) -> None:
        """Release the permit, as `close` also does. Releasing it twice does nothing."""
        self._permit.release()

    def send(self) -> Awaitable[HTTPResponse]:
        """Send the request and return `response`, which is a success whose body has not been read yet.

        If cancelled, nothing stays open. A plain function, since each coroutine in the chain would cost some time.

        Raises:
            APIStatusError, APIConnectionError, APITimeoutError: the request failed.
        """
        return self._send(self.prepared.post) if self.observed is None else self._send_observed(self.observed)

    async def _send_observed(self, observed: ObservedCall) -> HTTPResponse:
        attempt = self._attempt = observed.attempt(self.retrier.failed)
        with attempt.current():
            response = await self._send(self.prepared.post.with_headers(attempt.headers))
        attempt.on_response(response.status, self.record.request_id)
        return response

    async def _send(self, post: PostTemplate) -> HTTPResponse:
        server, prepared = self.server, self.prepared
        adds_usage = prepared.adds_usage and not server.rejects_include_usage
        while True:
            self._on_send()
            body = prepared.body_with_usage() if adds_usage else prepared.body
            try:
                response = await server.sender.send(post, body, self.deadlines.timeouts, self._on_lost, self._on_sent)
            except Exception as error:  # noqa: BLE001 - raised again
                raise_from(self._translated(error, "headers"), error)
            self._on_headers(response)
            if 200 <= response.status < 300:
                if prepared.adds_usage and not adds_usage:
                    # Only now that leaving it out has helped: the refusal may merely have quoted the request.
                    server.rejects_include_usage = True
                return response
            refusal = await self._status_error(response)
            self.record.finish(refusal)
            if not adds_usage or not refuses_include_usage(refusal):
                raise refusal
            adds_usage = False

    def _on_send(self) -> None:
        self.body = None
        record = self.record = self.retrier.log.start()
        self._permit.on_send(record.sent_ns or 0)

    def _on_sent(self, connect_ns: int | None) -> None:
        self.record.written_ns, self.record.connect_ns = time.perf_counter_ns(), connect_ns

    def _on_lost(self, error: Exception) -> bool:
        """Return whether to send the request again on a fresh connection, which counts as an attempt."""
        lost = self._translated(error, "headers")
        if self._is_hedged or not self.retrier.on_lost(lost):
            return False
        self.record.finish(lost)
        self._on_send()
        return True

    def _on_headers(self, response: HTTPResponse) -> None:
        record, headers = self.record, response.headers
        record.headers_ns = time.perf_counter_ns()
        self.response, self.headers, record.status = response, headers, response.status
        if (given := request_id(headers)) is not None:
            record.request_id = redact(given, self.secret)
        self._permit.on_headers(headers)

    async def receive(self, phase: Phase = "first_token") -> bytes:
        """Return the next bytes of the body, `b""` at its end. If cancelled, the rest of the body is lost.

        Args:
            phase: the phase that a timeout is reported for.

        Raises:
            APITimeoutError: the server fell silent.
            APIConnectionError: the connection broke.
            InvalidResponseError: the body's content coding is broken.
        """
        stream = self.stream
        try:
            while not (data := await stream.__anext__()):
                pass  # an empty read is not the end
        except StopAsyncIteration:
            data = b""
        except Exception as error:  # noqa: BLE001 - raised again
            self.raise_translated(error, phase)
        self.read_ns = stream.read_ns
        return data

    def raise_translated(self, error: Exception, phase: Phase) -> NoReturn:
        """Raise this package's error for one that the HTTP library raised while the body was read."""
        raise_from(self._translated(error, phase), error)

    async def pump(self, take: Callable[[bytes], bool]) -> bool:
        """Pass the body to `take` as it is read, until the body ends or `take` returns true; return whether it did.

        `take` may be called outside of any task; `stream.read_ns` is when its bytes were read. If cancelled, the rest
        of the body is lost.

        Raises:
            APITimeoutError, APIConnectionError, InvalidResponseError: as `receive`.
        """
        stream = self.stream
        try:
            is_enough = await stream.pump(take)
        except Exception as error:  # noqa: BLE001 - raised again
            self.raise_translated(error, "idle")
        self.read_ns = stream.read_ns
        return is_enough

    async def close(self, *, complete: bool = False) -> None:
        """Close the response, read or not. Takes at most `CLOSE_GRACE` seconds, even if cancelled.

        Args:
            complete: as for `HTTPResponse.close`.
        """
        if (response := self.release()) is not None:
            await response.close(complete=complete)

    def release(self) -> HTTPResponse | None:
        """End the attempt and release its permit; return the response if it still has to be closed."""
        self._permit.release()
        self._end_attempt(None)
        response, self.response = self.response, None
        return None if response is None or response.stream.is_over else response

    @property
    def stream(self) -> TimedStream:
        """The body of the response that is being read."""
        assert self.response is not None  # noqa: S101 - there is one between `send` and `close`
        return self.response.stream

    def on_first_output(self) -> None:
        """Record the first output of the model."""
        self._permit.on_first_output()

    def on_usage(self, usage: Usage | None) -> None:
        """Record what the attempt used."""
        self._permit.on_usage(usage)

    def on_whole(self, usage: Usage | None) -> None:
        """Record that a whole response arrived, and what the attempt used."""
        permit = self._permit
        permit.on_first_output()
        permit.on_usage(usage)

    def on_failure(self, error: BaseException) -> None:
        """Record that the attempt failed or was cancelled."""
        self._end_attempt(error)
        if isinstance(error, ChatError):
            # Not in `annotate`: a user's tool may have raised that error, and it may concern another server.
            locate_error(error, self.prepared.post.url, self.headers if self.record.status is not None else {})
            self.annotate(error)
            self._permit.on_failure(error)

    def annotate(self, error: ChatError) -> None:
        """Add the request's data to an error."""
        error.attempts = len(self.retrier.log)
        error.request_id = error.request_id or self.record.request_id
        if isinstance(error, InvalidResponseError):
            error.status = error.status or self.record.status

    def _end_attempt(self, error: BaseException | None) -> None:
        self.record.finish(error)
        if self._attempt is not None:
            attempt, self._attempt = self._attempt, None
            attempt.end(error)

    async def _status_error(self, response: HTTPResponse) -> APIStatusError:
        """Read the body of an error response, and return the error."""
        try:
            return await status_error_of(response, self.receive, self.secret)
        finally:
            self.response = None
            await response.close(complete=False)

    def _translated(self, error: Exception, phase: Phase) -> Exception:
        """Return this package's error for one of an HTTP library's, and any other exception as it is."""
        has_response = self.record.headers_ns is not None
        return translated_for(self.prepared.post.url, error, phase, self.deadlines.timeouts, self.secret, has_response)


async def _then(awaitable: Awaitable[None], call: Callable[[], None]) -> None:
    await awaitable
    call()
