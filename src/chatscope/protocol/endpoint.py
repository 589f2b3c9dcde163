"""Endpoint: where requests go and the headers that identify the sender. Keys are held in `Secret`, which hides them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from chatscope._validation import check_header_value, check_headers, check_key
from chatscope.version import __version__

_BASE_URL: Final = re.compile(r"https?://[^/?#\s]+[^\s\x00-\x1f\x7f]*", re.IGNORECASE)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,15}", re.IGNORECASE)
_KEY_LIKE: Final = re.compile(r"(sk|gsk|xai|pk)[-_][^/]*|[^./:]{16,}", re.IGNORECASE | re.DOTALL)
"""Text that looks like a key. An address would have a dot, a colon or a slash."""
_UP_TO_THE_HOST: Final = re.compile(r"^([a-z][a-z0-9+.-]*://)?.*@", re.IGNORECASE | re.DOTALL)
"""Everything up to the last @, because a password may contain characters that should have been quoted."""
_USER_AGENT: Final = f"chatscope/{__version__}"


class Secret(str):
    """Text whose repr is a mask, so that tracebacks that show the values of variables do not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go and who sends them. The repr shows the address as `shown_url` does, and nothing else.

    Args:
        base_url: the address without `/chat/completions`; a query string is kept. `{model}` stands for the model.
        api_key: the key; an empty one is not sent.
        organization, project: sent in the endpoint's headers of these names.
        headers: further headers for every request.
        key_header: the header for the key: as a bearer token in `authorization`, unchanged in any other.

    Raises:
        ValueError: an argument is invalid; the error names it and shows no key.
    """

    base_url: str
    api_key: str = ""
    organization: str | None = None
    project: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    key_header: str = "authorization"

    def __post_init__(self) -> None:
        if not isinstance(self.base_url, str) or not _BASE_URL.fullmatch(self.base_url):
            raise ValueError(f"base_url must begin with http:// or https:// and name a host{_why_not(self.base_url)}")
        try:
            _ = urlsplit(self.base_url).port  # parsed only on access
        except ValueError:
            # From None, because Python's message may quote a password.
            raise ValueError("base_url is not a URL: its host or port cannot be read") from None
        check_key(self.api_key)
        for name in ("organization", "project"):
            if (value := getattr(self, name)) is not None:
                check_header_value(value, name)
        check_headers({self.key_header: ""}, "key_header")
        check_headers(self.headers, "default_headers")

    def __repr__(self) -> str:
        # Must also work before __post_init__ has checked the arguments: debuggers show frames.
        return f"Endpoint({shown_url(str(self.base_url))!r})"

    @property
    def names_model(self) -> bool:
        """Whether the address depends on the model."""
        return "{model}" in self.base_url

    def url(self, query: Mapping[str, Any] | None = None, model: str = "") -> str:
        """Return the address of the chat endpoint, with further query parameters if any are given."""
        if query is not None and not isinstance(query, Mapping):
            raise ValueError(f"extra_query must be a mapping, not {type(query).__name__}")
        scheme, host, path, own_query, _ = urlsplit(self.base_url)
        whole_query = "&".join(part for part in (own_query, urlencode(query or {}, doseq=True)) if part)
        path = path.rstrip("/").replace("{model}", quote(model, safe=""))
        return urlunsplit((scheme, host, f"{path}/chat/completions", whole_query, ""))

    def request_headers(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return a request's headers, names in lower case. `extra` replaces headers of the same names.

        Raises:
            ValueError: a header cannot be sent; the error names it.
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


def _why_not(base_url: object) -> str:
    """Return what is wrong with an address, without quoting it, since it may be or contain a key."""
    if not isinstance(base_url, str):
        return f", not be of type {type(base_url).__name__}"
    scheme, mark, _ = base_url.partition("://")
    if mark and _SCHEME.fullmatch(scheme):
        return "" if scheme.lower() in {"http", "https"} else f", not with {scheme}://"
    if _KEY_LIKE.fullmatch(base_url):
        return "; what was given looks like a key, which goes into api_key"
    return "; is http:// or https:// missing?" if base_url else "; it is empty"


def shown_url(url: str) -> str:
    """Return a URL in the form that may be shown: without user, password and query."""
    address, mark, _ = _UP_TO_THE_HOST.sub(r"\1***@", url).partition("?")
    return f"{address}?***" if mark else address
