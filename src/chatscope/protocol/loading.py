"""JSON text to plain objects, forgiving what a strict decoder refuses. What the objects mean is not decided here."""

from __future__ import annotations

import json
from typing import Any

import msgspec


def load_object(data: bytes) -> dict[str, Any]:
    """Decode a JSON object.

    Raises:
        ValueError: it is no JSON, no object, or nested deeper than Python's stack.
    """
    try:
        loaded = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # NaN in logprobs (vLLM), raw control characters, half of a surrogate pair, a byte order mark: the standard
        # library takes them. Bytes that are no UTF-8 become U+FFFD, as the event-stream standard has it.
        loaded = _load_anyhow(data.decode("utf-8-sig", "replace"))
    except RecursionError as error:
        raise ValueError("JSON nested too deep") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"a JSON object was expected, not {type(loaded).__name__}")  # noqa: TRY004 - bad data, not a bad call
    return loaded


def _load_anyhow(text: str) -> Any:
    try:
        return _whole(json.loads(text, strict=False, parse_constant=lambda _: None))
    except RecursionError as error:
        raise ValueError("JSON nested too deep") from error


def _whole(value: Any) -> Any:
    """Replace halves of surrogate pairs, which no UTF-8 text can hold."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_whole(name): _whole(item) for name, item in value.items()}
    return value
