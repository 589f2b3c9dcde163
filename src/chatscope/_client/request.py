"""One request and its reply over httpx's interface: sending, reading, closing, and nothing about chunks.

This is the one edge at which httpx's exceptions become this package's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Never

import httpx

from chatscope._http.base import Reply, Sender
from chatscope._limits.limiter import Limiter, Permit
from chatscope._limits.retry import Retrier
from chatscope._limits.timeouts import Timeouts, transport_timeout
from chatscope.errors import (
    APIConnectionError,
    APIStatusError,
    BadRequestError,
    ChatError,
    InvalidResponseError,
    Phase,
    UnprocessableEntityError,
)
from chatscope.protocol.error_body import BODY_LIMIT, redact, status_error
from chatscope.protocol.headers import request_id
from chatscope.protocol.usage import Usage
from chatscope.telemetry.observer import ObservedAttempt
from chatscope.transport.base import TimedStream
from chatscope.transport.request_head import PostTemplate


@dataclass(slots=True)
class Learned:
    """What one server turned out not to accept; found out once, then left out from the start."""

    rejects_include_usage: bool = False


class Exchange:
    """One call's request, sent as often as it takes, and its latest reply.

    Args:
        sender: what sends it.
        request: where it goes, and its headers.
        body: the JSON body.
        adds_usage: whether `stream_options.include_usage` is added to it, as long as the server takes it.
        timeouts: what the transport is told.
        secret: the key, blotted out of errors.
        learned: shared by all calls to this server.
        retrier: keeps account of the requests.
        limiter: what it shares with the other calls.
        max_tokens: the request's own limit on the reply, for estimates.

    Attributes:
        reply: the one that is being read.
        headers: the latest reply's, names in lower case.
        status, request_id: the latest reply's. Of two exchanges that share a retrier, each has its own.
        sent_ns, headers_ns, read_ns: when the latest request was begun, when its reply's headers came, and when the
            bytes that `receive` returned last were read.
    """

    __slots__ = (
        "_adds_usage",
        "_attempt",
        "_bare_body",
        "_learned",
        "_max_tokens",
        "_permit",
        "_request",
        "_sender",
        "_timeouts",
        "headers",
        "headers_ns",
        "read_ns",
        "reply",
        "request_id",
        "retrier",
        "secret",
        "sent_ns",
        "status",
    )

    def __init__(
        self,
        sender: Sender,
        request: PostTemplate,
        body: bytes,
        *,
        adds_usage: bool,
        timeouts: Timeouts,
        secret: str,
        learned: Learned,
        retrier: Retrier,
        limiter: Limiter,
        max_tokens: int | None,
    ) -> None:
        self._sender = sender
        self._request = request
        self._bare_body = body
        self._adds_usage = adds_usage
        self._timeouts = timeouts
        self._learned = learned
        self._max_tokens = max_tokens
        self._permit = Permit(limiter, retrier.label)
        self._attempt: ObservedAttempt | None = None
        self.retrier = retrier
        self.secret = secret
        self.reply: Reply | None = None
        self.headers: Mapping[str, str] = {}
        self.status: int | None = None
        self.request_id: str | None = None
        self.sent_ns: int | None = None
        self.headers_ns: int | None = None
        self.read_ns = 0  # 0 is never

    async def acquire(self, *, beside: bool = False) -> None:
        """Wait for leave to make an attempt. Cancelled, nothing is used up.

        Args:
            beside: another attempt is under way, so that this one takes a retry out of the store.

        Raises:
            APIConnectionError: the server was down for longer than anybody waits.
        """
        retrier = self.retrier
        await self._permit.acquire(
            self._bare_body,
            self._max_tokens,
            retry=beside or bool(retrier.attempts),
            patient=retrier.limit is not None,
        )
        if retrier.observed is not None:
            retrier.observed.permit_acquired()

    async def send(self) -> None:
        """Send the request; afterwards there is a reply, a success whose body is still to be read.

        Cancelled, nothing of it stays open.

        Raises:
            APIStatusError, APIConnectionError, APITimeoutError: no success.
        """
        retrier = self.retrier
        if retrier.observed is None:
            await self._send(self._request)
            return
        attempt = self._attempt = retrier.observed.attempt(len(retrier.attempts))
        with attempt.current():
            reply = await self._send(self._request.with_headers(attempt.headers))
        attempt.on_response(reply.status, self.request_id)

    async def _send(self, request: PostTemplate) -> Reply:
        self.sent_ns = time.perf_counter_ns()
        self.headers_ns = self.status = self.request_id = None
        leaves_out = self._leaves_out_usage
        while True:
            self.retrier.requests += 1
            try:
                reply = await self._sender.send(request, self._body(leaves_out), self._timeouts)
            except httpx.RequestError as error:
                self._raise(error, "headers")
            self.headers_ns = time.perf_counter_ns()
            self.reply = reply
            self.headers = reply.headers
            self.status = self.retrier.status = reply.status
            named = request_id(reply.headers)
            self.request_id = self.retrier.request_id = redact(named, self.secret) if named else None
            self._permit.on_headers(reply.headers)
            if 200 <= reply.status < 300:
                if leaves_out:  # not before it has helped: the refusal may only have quoted the request
                    self._learned.rejects_include_usage = True
                return reply
            refusal = await self._refusal(reply)
            if leaves_out or not self._adds_usage or not _names_include_usage(refusal):
                raise refusal
            leaves_out = True

    async def receive(self, phase: Phase = "first_token") -> bytes:
        """Return the next bytes of the body, `b""` at its end. `phase` is what silence is called.

        Cancelled, the rest of the body is lost.

        Raises:
            APITimeoutError: silence.
            APIConnectionError: the connection broke off.
            InvalidResponseError: the body's encoding is wrong.
        """
        stream = self.stream
        try:
            while not (data := await stream.__anext__()):
                pass  # an empty piece is not the end
        except StopAsyncIteration:
            data = b""
        except (httpx.RequestError, httpx.StreamError) as error:
            self._raise(error, phase)
        self.read_ns = stream.read_ns
        return data

    async def pump(self, take: Callable[[bytes], bool]) -> bool:
        """Hand over the body as it is read, up to its end or until `take` says that it is enough.

        `take` may be called outside of any task; `stream.read_ns` says when its bytes were read. Returns whether it was
        enough. Cancelled, the rest of the body is lost. Raises as `receive` does.
        """
        stream = self.stream
        try:
            is_enough = await stream.pump(take)
        except (httpx.RequestError, httpx.StreamError) as error:
            self._raise(error, "idle")
        self.read_ns = stream.read_ns
        return is_enough

    async def read(self, limit: int) -> bytes:
        """Return the whole body. Cancelled, it is lost.

        Raises:
            InvalidResponseError: it is longer than `limit` bytes.
            APITimeoutError, APIConnectionError: as `receive`.
        """
        data = await self.receive()
        if self.stream.is_over and len(data) <= limit:
            return data  # in one piece, as nearly all are
        parts = []
        size = 0
        while data:
            parts.append(data)
            size += len(data)
            if size > limit:
                raise InvalidResponseError(f"the reply is larger than {limit} bytes")
            data = await self.receive()
        return b"".join(parts)

    async def close(self, *, complete: bool = False) -> None:
        """Close the reply, whatever is left of it. It takes `CLOSE_GRACE` seconds at most, also when cancelled.

        Args:
            complete: as for `Reply.close`.
        """
        self._permit.release()
        self._end_attempt(None)
        reply, self.reply = self.reply, None
        if reply is not None:
            await reply.close(complete=complete)

    def on_first_output(self) -> None:
        """Take note that the model answers."""
        self._permit.on_first_output()

    def on_failure(self, error: BaseException) -> None:
        """Take note that the attempt failed, or was cancelled."""
        self._end_attempt(error)
        if isinstance(error, ChatError):
            self.annotate(error)
            self._permit.on_failure(error)

    def annotate(self, error: ChatError) -> None:
        """Let an error say what is known of the request that it is about."""
        error.attempts = self.retrier.requests
        error.request_id = error.request_id or self.request_id
        if isinstance(error, InvalidResponseError):
            error.status = error.status or self.status

    def _end_attempt(self, error: BaseException | None) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.end(error)

    def on_usage(self, usage: Usage | None) -> None:
        """Take note of what the attempt used."""
        self._permit.on_usage(usage)

    def _body(self, leaves_out_usage: bool) -> bytes:
        if leaves_out_usage or not self._adds_usage:
            return self._bare_body
        return self._bare_body[:-1] + b',"stream_options":{"include_usage":true}}'

    @property
    def _leaves_out_usage(self) -> bool:
        return self._adds_usage and self._learned.rejects_include_usage

    @property
    def stream(self) -> TimedStream:
        """The body of the reply that is being read."""
        assert self.reply is not None  # noqa: S101 - there is one between `send` and `close`
        return self.reply.stream

    async def _refusal(self, reply: Reply) -> APIStatusError:
        """Read the body of an error reply, as far as it comes, and return the error."""
        body = b""
        try:
            while len(body) < BODY_LIMIT and (data := await self.receive()):
                body += data
        except (APIConnectionError, InvalidResponseError):
            pass  # the status is worth more than the reason why its explanation is cut
        finally:
            self.reply = None
            await reply.close(complete=False)
        return status_error(reply.status, reply.headers, body[:BODY_LIMIT], now=time.time(), secret=self.secret)

    def _raise(self, error: httpx.RequestError | httpx.StreamError, phase: Phase) -> Never:
        """Raise this package's error for one of httpx's."""
        if isinstance(error, httpx.TimeoutException):
            if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
                phase = "connect"
            raise transport_timeout(self._timeouts, phase) from error
        says = str(error) or type(error).__name__
        if self.secret:
            says = says.replace(self.secret, "***")
        if isinstance(error, httpx.DecodingError):
            raise InvalidResponseError(f"the reply cannot be decoded: {says}") from error
        raise APIConnectionError(
            f"no connection to {self._request.url.host}: {says}" if self.headers_ns is None else says
        ) from error


def _names_include_usage(refusal: ChatError) -> bool:
    if not isinstance(refusal, BadRequestError | UnprocessableEntityError):
        return False
    says = f"{refusal.message} {refusal.param} {refusal.body}"
    return "include_usage" in says or "stream_options" in says
