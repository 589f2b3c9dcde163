"""Reads how long the body of an error asks to wait. Headers (`headers.py`) take precedence."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from chatscope.protocol.coerce import as_list
from chatscope.protocol.headers import duration

_AMOUNT: Final = (
    r"(\d{1,9}(?:\.\d{1,9})?)\s?"
    r"(milliseconds?|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)(?![a-z])"
)
_ONE: Final = re.compile(_AMOUNT, re.IGNORECASE)
_PHRASE: Final = re.compile(
    r"\b(?:try|trying|retry|retrying|wait|waiting|available|resets?)\b"
    r"(?:[\s:_-]+(?:your|the|this|request|again|later|after|in|for|at\s+least|about|approximately|another|is|it|and|time))*"
    r"[\s:]+~?"
    rf"({_AMOUNT}(?:\s?(?:,|and)?\s?{_AMOUNT})*)",
    re.IGNORECASE,
)
"""OpenAI: "Please try again in 6m0s." Azure: "Please retry after 26 seconds." Gemini: "Please retry in 36.6s." """

_CHINESE: Final = re.compile(
    r"(\d{1,9}(?:\.\d{1,9})?)\s?(\u6beb\u79d2|\u79d2|\u5206)\S{0,2}\u540e"
)  # in ... ms, s, min

_JSON_FIELD: Final = re.compile(
    r"""\b(retry[_-]?(?:delay|after)(?:[_-]?(?:ms|seconds))?)(?:\\?["'])?\s*[:=]\s*(?:\\?["'])?(\d{1,9}(?:\.\d{1,9})?)\s?(m?s)?(?![\w.])""",
    re.IGNORECASE,
)
"""A field or a header within a message: gateways quote the error of a provider (LiteLLM)."""

_FIELDS: Final = {
    "retryafterms": 1e-3,
    "retryafter": 1.0,
    "retryafterseconds": 1.0,
    "retrydelay": 1.0,  # google.rpc.RetryInfo, in error.details
    "resetafter": 1.0,
    "estimatedtime": 1.0,  # Hugging Face, while a model is being loaded
}
"""Names of fields that state a wait, in lower case and without separators, and their units in seconds."""

_DETAILS: Final = ("details", "metadata", "headers", "parameters", "extra")
"""Names of fields whose objects may contain such fields."""

_MAX_DEPTH: Final = 3


def wait_in(message: str, *places: Mapping[str, Any]) -> float | None:
    """Return how long an error asks to wait, in seconds: from one of its fields, or from its message.

    The message may be in words, or quote JSON with such a field.
    """
    for place in places:
        for fields in _with_details(place):
            named = {re.sub(r"[_-]", "", name.lower()): value for name, value in fields.items()}
            for name, factor in _FIELDS.items():
                if (seconds := _seconds(named.get(name))) is not None:
                    return seconds * factor
    phrase = _PHRASE.search(message)
    if phrase is None:
        return _quoted_wait(message) or _chinese_wait(message)
    return sum(float(number) * _unit(unit) for number, unit in _ONE.findall(phrase[1])) or None


def _quoted_wait(message: str) -> float | None:
    field = _JSON_FIELD.search(message)
    if field is None:
        return None
    name, number, unit = field.groups()
    is_ms = unit == "ms" or name.lower().endswith("ms")
    return float(number) * (1e-3 if is_ms else 1.0) or None


def _chinese_wait(message: str) -> float | None:
    found = _CHINESE.search(message)
    return float(found[1]) * {"\u6beb": 1e-3, "\u79d2": 1.0, "\u5206": 60.0}[found[2][0]] or None if found else None


def _with_details(place: Mapping[str, Any], depth: int = 0) -> Iterator[Mapping[str, Any]]:
    yield place
    for name in _DETAILS if depth < _MAX_DEPTH else ():
        for item in as_list(place.get(name)):
            if isinstance(item, dict):
                yield from _with_details(item, depth + 1)


def _seconds(value: object) -> float | None:
    if isinstance(value, dict):  # a google.protobuf.Duration as an object
        whole, nanos = _seconds(value.get("seconds")), _seconds(value.get("nanos"))
        return None if whole is None and nanos is None else (whole or 0.0) + (nanos or 0.0) * 1e-9
    if isinstance(value, str):
        seconds = duration(value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12:
        seconds = float(value)
    else:
        return None
    return seconds if seconds is not None and math.isfinite(seconds) and seconds > 0 else None


def _unit(text: str) -> float:
    text = text.lower()
    if text.startswith(("ms", "milli")):
        return 1e-3
    return {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[text[0]]
