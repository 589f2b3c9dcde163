"""Converts JSON text to plain values and back, and accepts what a strict decoder rejects. Not here: what it means."""

from __future__ import annotations

import json
import math
from typing import Any, Final

import msgspec

_MAX_DIGITS: Final = 600
"""The longest integer that is read as one. Python refuses to convert longer ones to text and back (4,300 digits by
default, 640 at the least), and no field of the protocol needs more than 20."""


def load(data: bytes) -> Any:
    """Decode a JSON value.

    NaN and infinities become `None`: they are not measurements, and would break computations. Absurdly long integers
    are cut off, so that none becomes a 0 or disappears.

    Raises:
        ValueError: the data is not JSON, or is nested deeper than Python's stack.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # The standard library accepts what some servers send: NaN in logprobs (vLLM), raw control characters, lone
        # surrogates, a byte order mark. Invalid UTF-8 becomes U+FFFD, as in the event-stream standard.
        return _load_leniently(data.decode("utf-8-sig", "replace"))
    except RecursionError as error:
        raise ValueError("JSON nested too deep") from error


def load_object(data: bytes) -> dict[str, Any]:
    """Decode a JSON object.

    Raises:
        ValueError: as `load`, or the value is not an object.
    """
    loaded = load(data)
    if not isinstance(loaded, dict):
        raise ValueError(f"expected a JSON object, not {type(loaded).__name__}")  # noqa: TRY004 - bad data, not a bad call
    return loaded


def is_whole_json(data: bytes) -> bool:
    """Return whether data is a whole JSON object or list, and not the beginning of one."""
    if not data.rstrip().endswith((b"}", b"]")):
        return False
    try:
        load(data)
    except (ValueError, RecursionError):
        return False
    return True


def dump(value: Any) -> str:
    """Return the JSON text of a loaded value."""
    try:
        return msgspec.json.encode(value).decode()
    except OverflowError:  # an integer beyond 64 bits, in some versions of msgspec
        return json.dumps(value, ensure_ascii=False)


def _load_leniently(text: str) -> Any:
    try:
        loaded = json.loads(
            text, strict=False, parse_constant=lambda _: None, parse_int=_bounded_int, parse_float=_finite_float
        )
        return _without_surrogates(loaded)
    except RecursionError as error:
        raise ValueError("JSON nested too deep") from error


def _bounded_int(text: str) -> int:
    return int(text[:_MAX_DIGITS])


def _finite_float(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _without_surrogates(value: Any) -> Any:
    """Replace lone surrogates, which UTF-8 cannot encode."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(item) for name, item in value.items()}
    return value
