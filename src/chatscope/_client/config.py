"""The arguments of a client: stated and documented once, checked, and turned into one frozen value.

Here: the arguments that `ChatClient` and `AsyncChatGPTAdapter` share, their defaults, the environment variables that
replace missing ones, and every check. Not here: opening connections, sending and counting (`core`).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from inspect import signature
from os import PathLike
from typing import Any, Final, Literal, TypedDict

import httpx

from chatscope._client.parameters import hint_for
from chatscope._http.base import Sender
from chatscope._http.httpx2_client import HTTPClient, sender_through
from chatscope._limits.pacer import Pacer
from chatscope._limits.retry import RetryPolicy
from chatscope._limits.timeouts import Timeout, Timeouts
from chatscope._validation import check_count, check_headers, check_instance, check_rate
from chatscope.profiles import Profile, find_profile
from chatscope.protocol.endpoint import Endpoint, Secret
from chatscope.telemetry.guarded import GuardedObserver
from chatscope.telemetry.observer import Observer
from chatscope.transport.tls import client_context

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"


class ClientArguments(TypedDict, total=False):
    """Keyword arguments that `ChatClient` and `AsyncChatGPTAdapter` share."""

    profile: str | None
    """The server's name, if the base URL does not reveal it: `openai`, `azure`, `vllm`, `llama.cpp`, `ollama`,
    `openrouter`, `mistral`, `groq` or `deepseek`. Requests are then adapted to that server. A server that follows the
    endpoint's documentation needs no profile. See `chatscope.profiles`."""

    retry: RetryPolicy | int | None
    """How many attempts to make, and how long to wait in between. A number is the number of attempts: 1 means no retry.
    By default `RetryPolicy()`; a `ChatClient` then gives up at its third refused connection, after about 1.5 s."""

    organization: str | None
    """Default: `OPENAI_ORG_ID`."""

    project: str | None
    """Default: `OPENAI_PROJECT_ID`."""

    default_headers: Mapping[str, str] | None
    """Headers sent with every request."""

    transport: httpx.AsyncBaseTransport | None
    """Sends the requests instead of the default transport. It is closed with the client."""

    verify: ssl.SSLContext | str | PathLike[str] | bool
    """Which server certificates to trust: those of the system's trust store (`True`, the default; OpenSSL reads
    `SSL_CERT_FILE` and `SSL_CERT_DIR`), of a CA file or directory, or of an `ssl.SSLContext`; or any (`False`). Not
    with `transport` or `http_client`, which have their own."""

    cert: str | PathLike[str] | tuple[str | PathLike[str], str | PathLike[str]] | None
    """The client's own certificate for mutual TLS: a PEM file, or a pair of certificate and key."""

    http_client: HTTPClient | None
    """An `httpx.AsyncClient` or `httpx2.AsyncClient` that sends the requests, with its hooks, proxies and auth. The
    caller closes it."""

    max_concurrency: int | Literal["auto"] | None
    """How many requests (of an adapter: tasks) run at a time; the others wait, first in, first out. `None` sets no
    limit, and is the default of `ChatClient`; the adapter's is 100. `"auto"` adapts: the limit grows while the server
    accepts requests, and shrinks on 429."""

    max_pending: int | None
    """How many requests or tasks may wait for a slot. One more raises `QueueFullError`."""

    requests_per_minute: float | None
    """A budget for all requests."""

    tokens_per_minute: float | None
    """A budget for all tokens. They are estimated when a request is sent, and settled when its usage is reported."""

    pacer: Pacer | None
    """Decides how fast requests are sent, instead of the two budgets: such as a limit that several processes share."""

    backpressure: bool | None
    """Whether requests wait for the server: after a 429, for the limits in its `x-ratelimit-*` headers, and while it is
    down. By default `True`. A load generator must send a request when it is due, so it passes `False`."""

    telemetry: Observer | bool
    """Report calls to OpenTelemetry: `True`, or a `chatscope.telemetry.Telemetry` with settings of its own."""


_NAMES: Final = frozenset(ClientArguments.__annotations__)

_HABITS: Final = {
    "azure_endpoint": "pass it as base_url=",
    "default_query": "put the query into base_url=",
    "max_retries": "use retry=, the number of attempts: one more than the retries",
    "model": "name the model in each request",
    "proxy": "set HTTPS_PROXY, or pass an http_client=",
}
"""Arguments of other libraries' clients, and their equivalents here."""


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """All arguments of a client, checked and complete. The repr shows no key.

    Attributes:
        endpoint: where requests go, and the identity of the sender.
        has_key: whether a key was given, even an empty one, or found in the environment.
        profile: the form of requests that the server expects.
        timeouts, retry: the defaults for requests without their own.
        transport: the user's; `None` for the default one.
        verify: for the default transport.
        sender: sends through the user's HTTP client, if there is one.
        observer: observes the calls.
        limits: the limiter's arguments, by name.
    """

    endpoint: Endpoint
    has_key: bool
    profile: Profile
    timeouts: Timeouts
    retry: RetryPolicy
    transport: httpx.AsyncBaseTransport | None
    verify: ssl.SSLContext | bool
    sender: Sender | None
    observer: GuardedObserver | None
    limits: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        owner: type,
        api_key: str | None,
        base_url: str | None,
        timeout: Timeout,
        arguments: ClientArguments,
        retry: RetryPolicy | None = None,
    ) -> ClientOptions:
        """Check the arguments, and fill in missing ones from the environment.

        Args:
            owner: the class that the user called, for errors.
            api_key: default `OPENAI_API_KEY`; `""` sends no key.
            base_url: default `OPENAI_BASE_URL`, else OpenAI's own address.
            timeout: seconds, or `Timeouts`.
            arguments: all other arguments.
            retry: the policy if `arguments` has none.

        Raises:
            TypeError: an argument is unknown.
            ValueError: an argument is invalid; the error names it and shows no key.
            ImportError: `telemetry=True`, and the extra `otel` is not installed.
        """
        for name in arguments:
            if name not in _NAMES:
                hint = hint_for(name, {*_NAMES, *signature(owner).parameters} - {"others", "arguments"}, _HABITS)
                raise TypeError(f"{owner.__name__}() got an unexpected keyword argument {name!r}{hint and f': {hint}'}")
        if api_key is not None and not isinstance(api_key, str):
            raise ValueError(f"api_key must be a text, not {type(api_key).__name__}")
        # From here on no frame of this package holds the key as plain text.
        api_key = None if api_key is None else Secret(api_key)
        http_client = arguments.get("http_client")
        endpoint, profile = _endpoint(base_url, api_key, arguments)
        return cls(
            endpoint=endpoint,
            has_key=api_key is not None or bool(endpoint.api_key),
            profile=profile,
            timeouts=Timeouts.of(timeout),
            retry=RetryPolicy.of(arguments.get("retry"), retry),
            transport=_transport(arguments),
            verify=_verify(arguments),
            sender=None if http_client is None else sender_through(http_client),
            observer=_observer(arguments.get("telemetry", False)),
            limits=_limits(arguments),
        )


def in_order(first: str | None, others: tuple[str | None, ...], base_url: str | None) -> tuple[str | None, str | None]:
    """Return the key and the address of a call that passes both by position, address first.

    That order is unambiguous, because no key contains `://`. The reverse order is rejected, because a key could be sent
    as an address.

    Raises:
        TypeError: they are in another order, or there are more.
    """
    if len(others) == 1 and base_url is None and isinstance(first, str) and "://" in first:
        return others[0], str(first)
    raise TypeError("ChatClient() takes the key first and all else by keyword: ChatClient(api_key, base_url=...)")


def _endpoint(base_url: str | None, api_key: str | None, arguments: ClientArguments) -> tuple[Endpoint, Profile]:
    """Return the endpoint, and the profile of its server."""
    headers = arguments.get("default_headers")
    if headers is not None:
        check_headers(headers, "default_headers")
    if base_url is None:
        base_url = os.environ.get("OPENAI_BASE_URL") or None
    endpoint = Endpoint(
        DEFAULT_BASE_URL if base_url is None else base_url,
        Secret(os.environ.get("OPENAI_API_KEY", "")) if api_key is None else api_key,
        arguments.get("organization") or os.environ.get("OPENAI_ORG_ID") or None,
        arguments.get("project") or os.environ.get("OPENAI_PROJECT_ID") or None,
        dict(headers or {}),
    )
    name = arguments.get("profile")
    profile = find_profile(name, endpoint.base_url)
    if name not in (None, "openai") and base_url is None:
        # Another server's key would go to OpenAI.
        raise ValueError(f"profile {name!r} says how to ask a server, not where it is: give its base_url")
    address = profile.address(endpoint.base_url, os.environ.get("OPENAI_API_VERSION"))
    return replace(endpoint, base_url=address, key_header=profile.key_header), profile


def _transport(arguments: ClientArguments) -> httpx.AsyncBaseTransport | None:
    transport = arguments.get("transport")
    if transport is None:
        return None
    if arguments.get("http_client") is not None:
        raise ValueError("transport and http_client exclude each other: the client has a transport of its own")
    if not isinstance(transport, httpx.AsyncBaseTransport):
        raise ValueError(f"transport must be an httpx.AsyncBaseTransport, not {type(transport).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout
    return transport


def _verify(arguments: ClientArguments) -> ssl.SSLContext | bool:
    """Return the `verify` argument of the default transport."""
    verify, cert = arguments.get("verify", True), arguments.get("cert")
    if (verify is None or verify is True) and cert is None:
        return True
    for name in ("transport", "http_client"):
        if arguments.get(name) is not None:
            raise ValueError(f"verify and cert are for the default transport: {name} has its own")
    return client_context(verify, cert)


def _limits(arguments: ClientArguments) -> Mapping[str, Any]:
    """Return the limiter's arguments, checked."""
    limits = {
        name: arguments.get(name)
        for name in ("max_concurrency", "max_pending", "requests_per_minute", "tokens_per_minute", "pacer")
    }
    if limits["max_concurrency"] is not None and limits["max_concurrency"] != "auto":
        check_count(limits["max_concurrency"], "max_concurrency")
    if limits["max_pending"] is not None:
        check_count(limits["max_pending"], "max_pending")
    backpressure = arguments.get("backpressure")
    limits["backpressure"] = True if backpressure is None else backpressure
    check_instance(limits["backpressure"], bool, "backpressure")
    check_rate(limits["requests_per_minute"], "requests_per_minute")
    check_rate(limits["tokens_per_minute"], "tokens_per_minute")
    if limits["pacer"] is not None:
        check_instance(limits["pacer"], Pacer, "pacer")
        if limits["requests_per_minute"] is not None or limits["tokens_per_minute"] is not None:
            raise ValueError("pacer excludes requests_per_minute and tokens_per_minute: give it the budgets")
    return limits


def _observer(telemetry: Observer | bool) -> GuardedObserver | None:
    """Return the observer for the argument `telemetry=`."""
    if not telemetry:
        return None
    if not isinstance(telemetry, bool):
        if not callable(getattr(telemetry, "call", None)):
            raise ValueError(f"telemetry must be a bool or a chatscope.telemetry.Telemetry, not {telemetry!r}")  # noqa: TRY004 - bad input is a ValueError throughout
        return GuardedObserver(telemetry)
    # Not imported at the top: OpenTelemetry is an extra, needed only with `telemetry=True`.
    observer: Observer = import_module("chatscope.telemetry").Telemetry()
    return GuardedObserver(observer)
