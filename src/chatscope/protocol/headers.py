"""Reads response headers: whether and when to retry, the remaining limits, and the id to quote to support.

Sources: the endpoint's documentation of its rate-limit headers; RFC 9110, section 10.2.3, for Retry-After.
`ResponseHeaders` keeps names in lower case, which is how they are looked up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar, overload

_T = TypeVar("_T")

_UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|[dhms])")
_RATE_LIMIT_LINE: Final = re.compile(r"\n(x-ratelimit-(?:limit|remaining)-[^:\r]+): ?([^\r]*)")
_LIMITS_IN_ORDER: Final = re.compile(
    r"\nx-ratelimit-limit-requests: (\d{1,18})\r\nx-ratelimit-limit-tokens: (\d{1,18})\r"
    r"\nx-ratelimit-remaining-requests: (\d{1,18})\r\nx-ratelimit-remaining-tokens: (\d{1,18})\r"
    r"(?:\nx-ratelimit-reset-[^\r]*\r)*",
    re.ASCII,
)
"""The limits as OpenAI and Groq send them, sorted by name."""
_LIMITS: Final = (
    ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-limit-req-minute"),
    ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-limit-tokens-minute"),
)


@dataclass(frozen=True, slots=True)
class RateLimitHeaders:
    """The values of a response's `x-ratelimit-*` headers. Resets are in seconds from the response. `None`: unknown."""

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens: float | None = None


_NOTHING: Final = RateLimitHeaders()


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the id that the server gave the request; `None` if it gave none."""
    return headers.get("x-request-id") or headers.get("request-id") or headers.get("apim-request-id") or None


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return the order in `x-should-retry`; `None` if there is none."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return how long the server asks to wait, in seconds; `None` if it does not ask for a wait.

    `retry-after-ms` takes precedence over `retry-after`, which may be seconds, fractions or an HTTP date. LiteLLM's
    proxy passes on its provider's header under another name.

    Args:
        headers: the response's headers.
        now: seconds since the epoch, for dates.
    """
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        seconds /= 1000
    else:
        text = headers.get("retry-after") or headers.get("llm_provider-retry-after")
        seconds = _number(text)
        if seconds is None and text:
            try:
                date = parsedate_to_datetime(text)
                # A date without a zone is UTC: RFC 9110, section 5.6.7, has such a form.
                seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
            except (ValueError, OverflowError):
                return None
    return seconds if seconds is not None and seconds > 0 else None


def rate_limits(headers: Mapping[str, str]) -> RateLimitHeaders | None:
    """Return the values of the rate-limit headers, or `None` if there are none.

    Reads the endpoint's own names and Mistral's (`x-ratelimit-limit-tokens-minute`,
    `x-ratelimit-remaining-req-minute`). Azure sends meaningless limits of -1 or 0, which are ignored.
    """
    found = RateLimitHeaders(
        limit_requests=_count(headers, "limit-requests", "limit-req-minute", least=1),
        remaining_requests=_count(headers, "remaining-requests", "remaining-req-minute"),
        reset_requests=duration(headers.get("x-ratelimit-reset-requests")),
        limit_tokens=_count(headers, "limit-tokens", "limit-tokens-minute", least=1),
        remaining_tokens=_count(headers, "remaining-tokens", "remaining-tokens-minute"),
        reset_tokens=duration(headers.get("x-ratelimit-reset-tokens")),
    )
    return None if found == _NOTHING else found


def has_plenty(headers: Mapping[str, str]) -> bool:
    """Return whether more than half of each limit is left, or there are no limits in the headers."""
    if isinstance(headers, ResponseHeaders):
        if (usual := headers.limits_in_order()) is not None:
            requests, tokens, requests_left, tokens_left = usual
            return 2 * int(requests_left) > int(requests) and 2 * int(tokens_left) > int(tokens)
        headers = headers.limit_values()
    if not headers:
        return True
    for limited, remaining, elsewhere in _LIMITS:
        if (limit := headers.get(limited)) is None or (left := headers.get(remaining)) is None:
            if elsewhere in headers:
                return False  # Mistral's names: let them be read in full
            continue
        if not (left.isdecimal() and limit.isdecimal()) or 2 * float(left) <= float(limit):  # int refuses 4301 digits
            return False
    return True


class ResponseHeaders(Mapping[str, str]):
    """The headers of a response, names in lower case. If one occurs twice, the last one counts.

    They are parsed only when they are first read. Nearly all of them are never read, and parsing would be most of the
    work.

    Args:
        head: the status line, and each header on a separate line.
        lower: the same in lower case, if the caller has it.
    """

    __slots__ = ("_lower", "_text")

    def __init__(self, head: bytes, lower: bytes | None = None) -> None:
        self._text = head.decode("latin-1")
        self._lower = self._text.lower() if lower is None else lower.decode("latin-1")

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> ResponseHeaders:
        """Return headers that have been parsed already."""
        return cls(b"".join([b"\r\n%b: %b" % header for header in headers]))

    @property
    def head(self) -> bytes:
        """The argument from which equal headers can be made."""
        return self._text.encode("latin-1")

    def shrink(self) -> None:
        """Take half the memory until a header is read: headers are kept by the thousand, with results."""
        self._lower = ""

    def _lowered(self) -> str:
        self._lower = self._text.lower()
        return self._lower

    def __getitem__(self, name: str) -> str:
        """Return a value."""
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str | _T) -> str | _T: ...
    def get(self, name: str, /, default: object = None) -> object:
        """Return a value, or the default."""
        lower = self._lower or self._lowered()
        line = lower.rfind(f"\n{name}:")
        if line < 0:
            return default
        value = line + len(name) + 2
        end = self._text.find("\r", value)
        return self._text[value : end if end >= 0 else None].strip(" \t")

    def limits_in_order(self) -> tuple[str | Any, ...] | None:
        """Return the limits of requests and tokens, and what remains of each, if all are sent once and in this order.

        This is the usual case, and costs a third of `limit_values`.
        """
        lower = self._lower or self._lowered()
        start = lower.find("\nx-ratelimit-")
        found = _LIMITS_IN_ORDER.match(lower, start) if start >= 0 else None
        return None if found is None or lower.find("\nx-ratelimit-", found.end()) >= 0 else found.groups()

    def limit_values(self) -> dict[str, str]:
        """Return the limits and what remains of them, as the server wrote them, found in one search."""
        return dict(_RATE_LIMIT_LINE.findall(self._lower or self._lowered()))

    def listed(self, name: str) -> str | None:
        """Return all values of a header that is a list, in one line (RFC 9110, section 5.3)."""
        lower = self._lower or self._lowered()
        if lower.find(f"\n{name}:") < 0:
            return None
        lines = zip(lower.split("\r\n"), self._text.split("\r\n"), strict=False)
        return ", ".join([line.partition(":")[2].strip(" \t") for low, line in lines if low.startswith(f"{name}:")])

    def __contains__(self, name: object) -> bool:
        """Return whether there is a header with this name."""
        return (self._lower or self._lowered()).rfind(f"\n{name}:") >= 0

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        lower = self._lower or self._lowered()
        return iter(dict.fromkeys([line.partition(":")[0] for line in lower.split("\r\n")[1:]]))

    def __len__(self) -> int:
        """Return the number of headers."""
        return sum(1 for _ in self)


NO_HEADERS: Final = ResponseHeaders(b"")
"""The headers before a response."""


def duration(text: str | None) -> float | None:
    """Return a duration in seconds: `12ms`, `6m0s`, `1h2m3.5s`, or plain seconds."""
    if not text:
        return None
    if (seconds := _number(text)) is not None:
        return seconds if seconds >= 0 else None
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(map("".join, parts)) != text.strip():
        return None
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return seconds if math.isfinite(seconds) else None


def _count(headers: Mapping[str, str], *names: str, least: int = 0) -> int | None:
    for name in names:
        number = _number(headers.get(f"x-ratelimit-{name}"))
        if number is not None and number >= least:
            return int(number)
    return None


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
