"""What goes out: the endpoint's parameters, their check, the JSON body and the headers.

Only what can never be right is refused here, before anything is sent. What only the server can judge goes out as given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import msgspec

from chatscope.protocol.messages import Message
from chatscope.version import __version__

_NUMBERS: Final = frozenset(
    {"frequency_penalty", "max_completion_tokens", "max_tokens", "n", "presence_penalty", "seed", "temperature"}
    | {"top_logprobs", "top_p"}
)

_REJECTS_MAX_TOKENS: Final = re.compile(r"(?:.*/)?(?:[^:]*:)?(?:o\d|gpt-(?:[5-9]|\d\d))")
"""o1, o3-mini, gpt-5, ... also behind a router's or a fine-tune's prefix: they take max_completion_tokens instead."""

_BASE_URL: Final = re.compile(r"https?://[^/?#\s]+[^\s\x00-\x1f\x7f]*", re.IGNORECASE)
_UP_TO_THE_HOST: Final = re.compile(r"^([a-z][a-z0-9+.-]*://)?.*@", re.IGNORECASE | re.DOTALL)
"""To the last @ wherever it stands: a password that should have been quoted is one nevertheless."""
_FORBIDDEN: Final = re.compile(r"[\r\n\0]")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_USER_AGENT: Final = f"chatscope/{__version__}"


def max_tokens_name(model: str) -> str:
    """Return the name under which a model takes its token limit."""
    return "max_completion_tokens" if _REJECTS_MAX_TOKENS.match(model) else "max_tokens"


def encode_body(
    model: str,
    messages: Sequence[Message],
    parameters: Mapping[str, Any],
    *,
    stream: bool,
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the JSON body of a request.

    Raises:
        ValueError: an argument can never be right, or is no JSON; the error names it.
    """
    check_messages(model, messages)
    for name, value in parameters.items():
        if name in _NUMBERS and value is not None:
            check_number(value, name)
    body = {"model": model, "messages": messages, **parameters}
    if stream:
        body["stream"] = True
    if extra is not None:
        if not isinstance(extra, Mapping):
            raise ValueError(f"extra_body must be a mapping, not {type(extra).__name__}")
        body.update(extra)
    try:
        encoded = msgspec.json.encode(body, enc_hook=_plain)
    except (TypeError, ValueError, RecursionError):
        for name, value in body.items():
            try:
                msgspec.json.encode(value, enc_hook=_plain)
            except (TypeError, ValueError, RecursionError) as error:
                raise ValueError(f"{name} cannot be sent as JSON: {error}") from error
        raise
    # Afterwards: nothing is endless that could be encoded.
    if "logit_bias" in parameters:
        _check_finite(parameters["logit_bias"], "logit_bias")
    if extra:
        _check_finite(extra, "extra_body")
    return encoded


def _check_finite(value: object, name: str) -> None:
    """Refuse numbers that JSON does not have, which would be sent as null."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            waiting += item.values()
        elif isinstance(item, list | tuple):
            waiting += item
        elif isinstance(item, float) and not math.isfinite(item):
            raise ValueError(f"{name} must hold finite numbers, not {item!r}")


def _plain(value: object) -> object:
    """Return what msgspec can encode for the mappings and sequences that are no dict and no list."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def conversation(
    prompt: str, messages: Sequence[Message] | None = None, context: Mapping[str, Any] | None = None
) -> Sequence[Message]:
    """Return the messages that a prompt, or a conversation, and a context make.

    Raises:
        ValueError: neither or both of prompt and messages, or one of a wrong type; the error names it.
    """
    if messages is not None and prompt:
        raise ValueError("prompt and messages exclude each other")
    if messages is None and (not prompt or not isinstance(prompt, str)):
        raise ValueError("prompt must be a text that is not empty, where there are no messages")
    spoken = [{"role": "user", "content": prompt}] if messages is None else messages
    if not context:
        return spoken
    if not isinstance(context, Mapping):
        raise ValueError(f"context must be a mapping, not {type(context).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout
    lines = "\n".join(f"{key}: {value}" for key, value in context.items())
    return [{"role": "system", "content": f"Context:\n{lines}"}, *spoken]


def check_messages(model: object, messages: object) -> None:
    """Refuse what is no model or no conversation.

    Raises:
        ValueError: naming `model` or `messages`.
    """
    check_model(model)
    # Built-in types first: to ask the abstract classes alone costs several times as much
    # (python -m timeit -s "from collections.abc import Mapping; m = {}" "isinstance(m, Mapping)").
    if isinstance(messages, str | bytes) or not isinstance(messages, list | Sequence) or not messages:
        raise ValueError("messages must be a list with at least one message")
    for message in messages:
        if type(message) is not dict and not isinstance(message, Mapping):
            raise ValueError(f"messages must hold mappings with a role and content, not {type(message).__name__}")


def check_model(model: object) -> None:
    """Refuse what is no model's name.

    Raises:
        ValueError: as said.
    """
    if not isinstance(model, str) or not model:
        raise ValueError(f"model must be a name, not {model!r}")


def check_number(value: object, name: str) -> None:
    """Refuse what is no finite number.

    Raises:
        ValueError: naming the parameter.
    """
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))):
        raise ValueError(f"{name} must be a number, not {value!r}")


class Secret(str):
    """Text that no repr shows: whoever prints a traceback with the values of variables prints a mask."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go and who sends them. The repr shows the address as `shown_url` does, and nothing else.

    Args:
        base_url: up to and without `/chat/completions`; a query string is kept. `{model}` stands for the model.
        api_key: an empty one is not sent.
        organization, project: sent as the endpoint's headers of that name.
        headers: further headers for every request.
        key_header: what the key goes in; any other than `authorization` takes it as it is.

    Raises:
        ValueError: an argument can never be right; the error names it and shows no key.
    """

    base_url: str
    api_key: str = ""
    organization: str | None = None
    project: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    key_header: str = "authorization"

    def __post_init__(self) -> None:
        if not isinstance(self.base_url, str) or not _BASE_URL.fullmatch(self.base_url):
            given = shown_url(self.base_url) if isinstance(self.base_url, str) else self.base_url
            raise ValueError(f"base_url must begin with http:// or https:// and name a host, not {given!r}")
        try:
            _ = urlsplit(self.base_url).port  # which is looked at only when it is asked for
        except ValueError:
            # From None, as Python's own words may quote a password.
            raise ValueError(f"base_url is no URL: {shown_url(self.base_url)!r}") from None
        for name in ("api_key", "organization", "project"):
            if (value := getattr(self, name)) is not None:
                _check_value(value, name)
        check_headers({self.key_header: ""}, "key_header")
        check_headers(self.headers, "default_headers")

    def __repr__(self) -> str:
        # Also while __post_init__ refuses a bad argument: debuggers show frames.
        return f"Endpoint({shown_url(str(self.base_url))!r})"

    @property
    def names_model(self) -> bool:
        """Whether the address depends on the model."""
        return "{model}" in self.base_url

    def url(self, query: Mapping[str, Any] | None = None, model: str = "") -> str:
        """Return the address of the chat endpoint, with more query parameters if there are any."""
        if query is not None and not isinstance(query, Mapping):
            raise ValueError(f"extra_query must be a mapping, not {type(query).__name__}")
        scheme, host, path, own_query, _ = urlsplit(self.base_url)
        whole_query = "&".join(part for part in (own_query, urlencode(query or {}, doseq=True)) if part)
        path = path.rstrip("/").replace("{model}", quote(model, safe=""))
        return urlunsplit((scheme, host, f"{path}/chat/completions", whole_query, ""))

    def request_headers(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return a request's headers, names in lower case; what the caller adds replaces what is there.

        Raises:
            ValueError: a header that cannot be sent; the error names it.
        """
        headers = {"accept": "application/json", "content-type": "application/json", "user-agent": _USER_AGENT}
        key_header = self.key_header.lower()
        if self.api_key:
            headers[key_header] = Secret(f"Bearer {self.api_key}" if key_header == "authorization" else self.api_key)
        if self.organization:
            headers["openai-organization"] = self.organization
        if self.project:
            headers["openai-project"] = self.project
        headers.update((name.lower(), value) for name, value in self.headers.items())
        if extra:
            check_headers(extra, "extra_headers")
            headers.update((name.lower(), value) for name, value in extra.items())
        return headers


def shown_url(url: str) -> str:
    """Return a URL as it may be shown: without user, password and query."""
    address, mark, _ = _UP_TO_THE_HOST.sub(r"\1***@", url).partition("?")
    return f"{address}?***" if mark else address


def check_headers(headers: Mapping[str, str], name: str) -> None:
    """Refuse headers that cannot be sent: a line break in one would begin another (RFC 9110, section 5.5).

    Raises:
        ValueError: naming the argument and the header, not the value.
    """
    if not isinstance(headers, Mapping):
        raise ValueError(f"{name} must be a mapping, not {type(headers).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout
    for header, value in headers.items():
        if not isinstance(header, str) or not _TOKEN.fullmatch(header):
            raise ValueError(f"{name} has a header whose name is not allowed: {header!r}")
        _check_value(value, f"{name}[{header!r}]")


def _check_value(value: object, name: str) -> None:
    if not isinstance(value, str) or _FORBIDDEN.search(value) or not value.isascii():
        raise ValueError(f"{name} must be text without line breaks, in ASCII, to go into a header")
