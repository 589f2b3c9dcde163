"""BaseClient: what a client of one endpoint holds, and the requests that it makes ready. It asks nothing itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from types import TracebackType
from typing import Any, Final, Literal, Self

import anyio
import httpx

from chatscope._client.request import Exchange, Learned
from chatscope._http.base import Sender
from chatscope._http.builtin import OwnTransport, UsersTransport
from chatscope._http.httpx2_client import HTTPClient, sender_through
from chatscope._limits.limiter import Limiter, Statistics
from chatscope._limits.retry import Retrier, RetryPolicy
from chatscope._limits.timeouts import CLOSE_GRACE, CallDeadlines, Timeouts
from chatscope._validation import check_count, check_headers, check_rate
from chatscope.profiles import find_profile
from chatscope.protocol.endpoint import Endpoint, Secret, shown_url
from chatscope.protocol.messages import Message
from chatscope.protocol.request import encode_body
from chatscope.telemetry.guarded import GuardedObserver
from chatscope.telemetry.observer import ObservedCall, Observer
from chatscope.transport import HTTPTransport
from chatscope.transport.request_head import PostTemplate

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"


class BaseClient:
    """A block that is open or not, and what every request of a client shares. `ChatClient` documents its arguments."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        profile: str | None = None,
        timeout: float | Timeouts | None = 60.0,
        retry: RetryPolicy | None = None,
        organization: str | None = None,
        project: str | None = None,
        default_headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        http_client: HTTPClient | None = None,
        max_concurrency: int | Literal["auto"] | None = None,
        max_pending: int | None = None,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        telemetry: Observer | bool = False,
    ) -> None:
        if api_key is not None and not isinstance(api_key, str):
            raise ValueError(f"api_key must be a text, not {type(api_key).__name__}")
        self.has_key = api_key is not None or bool(os.environ.get("OPENAI_API_KEY"))
        # From here on no frame of this package holds the key as plain text.
        api_key = Secret(os.environ.get("OPENAI_API_KEY", "") if api_key is None else api_key)
        if transport is not None and http_client is not None:
            raise ValueError("transport and http_client exclude each other: the client has a transport of its own")
        if transport is not None and not isinstance(transport, httpx.AsyncBaseTransport):
            raise ValueError(f"transport must be an httpx.AsyncBaseTransport, not {type(transport).__name__}")
        if default_headers is not None:
            check_headers(default_headers, "default_headers")
        if max_concurrency is not None and max_concurrency != "auto":
            check_count(max_concurrency, "max_concurrency")
        if max_pending is not None:
            check_count(max_pending, "max_pending")
        check_rate(requests_per_minute, "requests_per_minute")
        check_rate(tokens_per_minute, "tokens_per_minute")
        self.timeouts = Timeouts.of(timeout)
        self.timeouts_of_tasks = replace(self.timeouts, total=None)  # a task's own scope bounds all of it
        self.retry = RetryPolicy.of(retry)
        self._observer = _observer(telemetry)
        if base_url is None:
            base_url = os.environ.get("OPENAI_BASE_URL") or None
        endpoint = Endpoint(
            DEFAULT_BASE_URL if base_url is None else base_url,
            api_key,
            organization or os.environ.get("OPENAI_ORG_ID") or None,
            project or os.environ.get("OPENAI_PROJECT_ID") or None,
            dict(default_headers or {}),
        )
        self.profile = find_profile(profile, endpoint.base_url)
        if profile not in (None, "openai") and base_url is None:
            # Somebody else's key would go to OpenAI.
            raise ValueError(f"profile {profile!r} says how a server is asked, not where it is: give its base_url")
        address = self.profile.address(endpoint.base_url, os.environ.get("OPENAI_API_VERSION"))
        self._endpoint = replace(endpoint, base_url=address, key_header=self.profile.key_header)
        self._request = self._prepared()
        self._learned = Learned()
        self._transport = transport
        self._users_client = None if http_client is None else sender_through(http_client)
        self._sender: Sender | None = None
        self.limiter = Limiter(
            self._request.url.host,
            max_concurrency=max_concurrency,
            max_pending=max_pending,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
        )

    def __repr__(self) -> str:
        # Also while __init__ refuses a bad argument: debuggers show frames.
        return f"<ChatClient {shown_url(getattr(getattr(self, '_endpoint', None), 'base_url', ''))}>"

    def statistics(self) -> Statistics:
        """Return the counts of this client as they are now."""
        return self.limiter.statistics()

    @property
    def base_url(self) -> str:
        """The endpoint's address."""
        return self._endpoint.base_url

    async def __aenter__(self) -> Self:
        """Open the client.

        Raises:
            ValueError: no key was given and `OPENAI_API_KEY` is not set.
            RuntimeError: it is open already.
        """
        if not self.has_key:
            raise ValueError("no API key: pass api_key= or set OPENAI_API_KEY (api_key='' sends none)")
        if self._sender is not None:
            raise RuntimeError("this client is open already")
        if self._users_client is not None:
            self._sender = self._users_client
        elif self._transport is not None:
            self._sender = UsersTransport(self._transport)
        else:
            self._sender = OwnTransport(HTTPTransport())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the client's connections, within `CLOSE_GRACE` seconds even when cancelled."""
        sender, self._sender = self._sender, None
        if isinstance(sender, OwnTransport | UsersTransport):
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + CLOSE_GRACE):
                await sender.transport.aclose()

    def exchange(
        self,
        model: str,
        messages: Sequence[Message],
        parameters: Mapping[str, Any],
        *,
        stream: bool,
        timeouts: Timeouts | None = None,
        retrier: Retrier | None = None,
        deadlines: CallDeadlines | None = None,
    ) -> tuple[Exchange, CallDeadlines]:
        """Prepare a request, everything checked, nothing sent: what `complete`, `stream` and the adapter share.

        One that goes on from another shares the other's `deadlines`, and so its deadline.

        Raises:
            ValueError: an argument can never be right; the error names it.
            RuntimeError: the client is not open.
        """
        if self._sender is None:
            raise RuntimeError(f"{self!r} is not open: use 'async with' around what sends requests")
        body = dict(parameters)
        extra_body = body.pop("extra_body", None)
        extra_headers = body.pop("extra_headers", None)
        extra_query = body.pop("extra_query", None)
        if "timeout" in body:
            timeouts = Timeouts.of(body.pop("timeout"))
        deadlines = deadlines or CallDeadlines(timeouts or self.timeouts)
        body = self.profile.adapt(body)
        policy = RetryPolicy.of(body.pop("retry", None), self.retry)
        # Encoded at once: bad input is refused here and now, and what the caller changes later is not sent.
        bare = encode_body(model, messages, body, stream=stream, extra=extra_body)
        says_nothing_of_usage = "stream_options" not in body and "stream_options" not in (extra_body or ())
        adds_usage = stream and self.profile.asks_for_usage and says_nothing_of_usage
        retrier = retrier or Retrier(policy, limit=deadlines.total)
        if self._observer is not None and retrier.observed is None:
            retrier.observed = self._observed_call(self._observer, model, messages, body, stream=stream)
        return Exchange(
            self._sender,
            self._request
            if extra_query is extra_headers is None and not self._endpoint.names_model
            else self._prepared(extra_query, extra_headers, model),
            bare,
            adds_usage=adds_usage,
            timeouts=deadlines.timeouts,
            secret=self._endpoint.api_key,
            learned=self._learned,
            retrier=retrier,
            limiter=self.limiter,
            max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        ), deadlines

    def _observed_call(
        self,
        observer: GuardedObserver,
        model: str,
        messages: Sequence[Message],
        body: Mapping[str, Any],
        *,
        stream: bool,
    ) -> ObservedCall | None:
        url = self._request.url
        port = url.port or (443 if url.scheme == "https" else 80)
        return observer.call(model, messages, body, stream=stream, address=url.host, port=port)

    def _prepared(
        self,
        extra_query: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        model: str = "",
    ) -> PostTemplate:
        """Return all of a request but its body."""
        try:
            url = httpx.URL(self._endpoint.url(extra_query, model))
        except httpx.InvalidURL:
            # From None, as httpx's own words may quote a password.
            raise ValueError(f"base_url is no URL: {shown_url(self._endpoint.base_url)!r}") from None
        return PostTemplate(url, httpx.Headers(self._endpoint.request_headers(extra_headers)))


def _observer(telemetry: Observer | bool) -> GuardedObserver | None:
    """Return what `telemetry=` means.

    Raises:
        ValueError: it cannot observe.
        ImportError: OpenTelemetry is not installed.
    """
    if not telemetry:
        return None
    if not isinstance(telemetry, bool):
        if not callable(getattr(telemetry, "call", None)):
            raise ValueError(f"telemetry must be a bool or a chatscope.telemetry.Telemetry, not {telemetry!r}")  # noqa: TRY004 - bad input is a ValueError throughout
        return GuardedObserver(telemetry)
    # Not imported above: whoever asks for no telemetry needs none installed.
    observer: Observer = import_module("chatscope.telemetry").Telemetry()
    return GuardedObserver(observer)
