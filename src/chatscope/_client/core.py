"""ClientCore: the resources of an open client, and the requests that it prepares. It sends nothing itself.

`ChatClient` and `AsyncChatGPTAdapter` each hold one, which keeps its parts out of their public interfaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from types import MappingProxyType
from typing import Any, Final

import anyio
import httpx

from chatscope._client.config import ClientOptions
from chatscope._client.request import ClientRequest
from chatscope._client.server import PreparedRequest, Server
from chatscope._http.base import Sender
from chatscope._http.builtin import BuiltinSender, TransportSender, sender_by
from chatscope._limits.limiter import Limiter
from chatscope._limits.retry import Retrier, RetryPolicy
from chatscope._limits.timeouts import CLOSE_GRACE, CallDeadlines, Timeouts
from chatscope.protocol.endpoint import shown_url
from chatscope.protocol.messages import SentMessage
from chatscope.protocol.request import encode_body
from chatscope.telemetry.observer import ObservedCall
from chatscope.transport import HTTPTransport
from chatscope.transport.request_head import PostTemplate

_OWN: Final = frozenset({"extra_body", "extra_headers", "extra_query", "retry", "timeout"})
"""Parameters that concern one request and are not part of its body."""

_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


class ClientCore:
    """A client's options, sender and limiter. It is open between `open` and `aclose`.

    Attributes:
        options: the client's arguments.
        limiter: shared by all requests: slots, rate limits, retry budget and circuit breaker.
    """

    __slots__ = ("_adapts", "_original", "_post", "_server", "_shares_post", "limiter", "options")

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self._post = self._prepared_post()
        self._shares_post = not options.endpoint.names_model
        profile = options.profile
        self._adapts = bool(profile.renamed or profile.dropped or profile.dropped_from_messages)
        self.limiter = Limiter(self._post.url.host, **options.limits)
        self._server: Server | None = None
        self._original: ClientCore | None = None

    def with_options(self, options: ClientOptions) -> ClientCore:
        """Return a core with other options that shares this one's connections and limits."""
        copied = copy(self)
        copied.options = options
        copied._original = self._original or self
        copied._server = None
        return copied

    def __repr__(self) -> str:
        return f"<ChatClient {shown_url(self.base_url)}>"

    @property
    def base_url(self) -> str:
        """The endpoint's address."""
        return self.options.endpoint.base_url

    def open(self) -> None:
        """Prepare to send.

        Raises:
            ValueError: there is no key.
            RuntimeError: it is open already.
        """
        options = self.options
        if self._original is not None:
            raise RuntimeError("a copy of a client needs no block of its own: it is open while the client is")
        if not options.has_key:
            raise ValueError("no API key: pass api_key= or set OPENAI_API_KEY (api_key='' sends none)")
        if self._server is not None:
            raise RuntimeError("this client is open already")
        sender = options.sender
        if sender is None:
            sender = sender_by(options.transport or HTTPTransport(verify=options.verify))
        self.limiter.clock.start()
        self._server = Server(sender, options.endpoint.api_key, self.limiter)

    @property
    def sender(self) -> Sender | None:
        """The sender of all requests; `None` while the client is not open."""
        server = (self._original or self)._server
        return None if server is None else server.sender

    async def aclose(self) -> None:
        """Close the connections. Takes at most `CLOSE_GRACE` seconds, even if cancelled."""
        server, self._server = self._server, None
        if server is not None:
            self.limiter.clock.stop()
        if server is not None and isinstance(server.sender, BuiltinSender | TransportSender):
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_GRACE):
                await server.sender.transport.aclose()

    def prepare(
        self, model: str, messages: Sequence[SentMessage], parameters: Mapping[str, Any], *, stream: bool
    ) -> PreparedRequest:
        """Check and encode a request. Nothing is sent. `timeout` and `retry` among the parameters are ignored.

        Raises:
            ValueError: an argument is invalid; the error names it.
            RuntimeError: the client is not open.
        """
        self._open_server()
        own, body = _split(parameters)
        if self._adapts:
            messages, body = self._adapted(messages, body)
        return self._prepare(model, messages, body, own, stream=stream)

    def start(
        self,
        prepared: PreparedRequest,
        retrier: Retrier,
        deadlines: CallDeadlines,
        observed: ObservedCall | None,
        priority: float,
    ) -> ClientRequest:
        """Return a request that can be sent.

        Raises:
            RuntimeError: the client is not open.
        """
        return ClientRequest(self._open_server(), prepared, retrier, deadlines, observed, priority)

    def observe(
        self, model: str, messages: Sequence[SentMessage], parameters: Mapping[str, Any], *, stream: bool
    ) -> ObservedCall | None:
        """Return the telemetry of a call; `None` if the client has no observer."""
        if self.options.observer is None:
            return None
        _, body = _split(parameters)
        messages, body = self._adapted(messages, body)
        return self._observed_call(model, messages, body, stream=stream)

    def _adapted(
        self, messages: Sequence[SentMessage], body: Mapping[str, Any]
    ) -> tuple[Sequence[SentMessage], Mapping[str, Any]]:
        profile = self.options.profile
        return profile.adapt_messages(messages), profile.adapt(body)

    def _open_server(self) -> Server:
        server = (self._original or self)._server
        if server is None:
            raise RuntimeError(f"{self!r} is not open: use 'async with' around the code that sends requests")
        return server

    def request(
        self,
        model: str,
        messages: Sequence[SentMessage],
        parameters: Mapping[str, Any],
        *,
        stream: bool,
        retrier: Retrier | None = None,
        deadlines: CallDeadlines | None = None,
        observed: ObservedCall | None = None,
    ) -> ClientRequest:
        """Check and encode a request. Nothing is sent.

        Args:
            model: the model's name.
            messages: the conversation.
            parameters: the endpoint's parameters, `extra_body`, `extra_headers`, `extra_query`, `timeout` and `retry`.
            stream: whether to request a streamed response.
            retrier: runs the attempts; by default a new one.
            deadlines: the deadlines of the call that this request continues; by default new ones.
            observed: the telemetry of that call; by default a new one, if there is an observer.

        Raises:
            ValueError: an argument is invalid; the error names it.
            RuntimeError: the client is not open.
        """
        server = self._open_server()
        options = self.options
        own, body = _split(parameters)
        timeouts, policy = options.timeouts, options.retry
        if own:
            if "timeout" in own:
                timeouts = Timeouts.of(own["timeout"])
            policy = RetryPolicy.of(own.get("retry"), policy)
        if deadlines is None:
            deadlines = CallDeadlines(timeouts)
        if self._adapts:
            messages, body = self._adapted(messages, body)
        if retrier is None:
            retrier = Retrier(policy, deadline=deadlines.total)
        prepared = self._prepare(model, messages, body, own, stream=stream)
        if options.observer is not None and observed is None:
            observed = self._observed_call(model, messages, body, stream=stream)
        return ClientRequest(server, prepared, retrier, deadlines, observed=observed)

    def _prepare(
        self,
        model: str,
        messages: Sequence[SentMessage],
        body: Mapping[str, Any],
        own: Mapping[str, Any],
        *,
        stream: bool,
    ) -> PreparedRequest:
        post, extra_body = self._post, None
        if own or not self._shares_post:
            extra_headers, extra_query = own.get("extra_headers"), own.get("extra_query")
            extra_body = own.get("extra_body")
            if not self._shares_post or extra_headers is not None or extra_query is not None:
                post = self._prepared_post(extra_query, extra_headers, model)
        # Encoded at once, so that bad input is refused now, and later changes by the caller are not sent.
        encoded = encode_body(model, messages, body, stream=stream, extra=extra_body)
        adds_usage = (
            stream
            and self.options.profile.asks_for_usage
            and "stream_options" not in body
            and "stream_options" not in (extra_body or ())
        )
        max_tokens = body.get("max_completion_tokens") or body.get("max_tokens")
        return PreparedRequest(post, encoded, adds_usage, model, max_tokens, body.get("n") or 1)

    def _observed_call(
        self, model: str, messages: Sequence[SentMessage], body: Mapping[str, Any], *, stream: bool
    ) -> ObservedCall | None:
        observer, url = self.options.observer, self._post.url
        if observer is None:
            return None
        port = url.port or (443 if url.scheme == "https" else 80)
        return observer.call(model, messages, body, stream=stream, address=url.host, port=port)

    def _prepared_post(
        self,
        extra_query: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        model: str = "",
    ) -> PostTemplate:
        """Return a request's template: everything but its body."""
        endpoint = self.options.endpoint
        try:
            url = httpx.URL(endpoint.url(extra_query, model))
        except httpx.InvalidURL:
            # From None, because httpx's message may quote a password.
            raise ValueError("base_url is not a URL: its host or port cannot be read") from None
        return PostTemplate(url, httpx.Headers(endpoint.request_headers(extra_headers)))


def _split(parameters: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the parameters that concern one request alone, and those of the body."""
    if _OWN.isdisjoint(parameters):
        return _NONE, parameters
    body = dict(parameters)
    return {name: body.pop(name) for name in _OWN & body.keys()}, body
