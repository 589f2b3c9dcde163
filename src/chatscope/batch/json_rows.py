"""Decodes a line of JSON. What is wrong with a line that cannot be decoded is reported under its own id, if it has one.

Not here: what a row may contain (`requests`), and the lines of the output (`records`).
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

import msgspec

from chatscope.batch.errors import LineError

DEEPEST: Final = 500
"""Levels of lists and objects in a row: half of what Python can decode, and more than any server accepts."""

_NESTED: Final = frozenset({dict, list})

_decode: Final = msgspec.json.Decoder().decode


class _Named(msgspec.Struct, gc=False):
    """A row with an id. Its other values are skipped."""

    custom_id: Annotated[str, msgspec.Meta(min_length=1)]


_decode_id: Final = msgspec.json.Decoder(_Named).decode


def id_in_line(line: bytes) -> str | None:
    """Return the id of a line whose other values may be invalid; `None` if it has none, or is not JSON."""
    try:
        return _decode_id(line).custom_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def decode_row(line: bytes, id_name: str = "custom_id") -> dict[str, Any]:
    """Return the object of a line.

    Args:
        line: the line.
        id_name: which value is its id. The error has the id, so that the failure can be found under it.

    Raises:
        LineError: the line is not a JSON object, or is nested too deeply.
    """
    try:
        row = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _undecoded(line, id_name, error) from error
    if not isinstance(row, dict):
        raise LineError(f"a line must be a JSON object, not {type(row).__name__}")
    if len(line) > 2 * DEEPEST and _is_too_deep(line, row):
        raise LineError(f"nested deeper than {DEEPEST} levels", _id_in(row, id_name))
    return row


def _is_too_deep(line: bytes, row: dict[str, Any]) -> bool:
    if line.count(b"[") + line.count(b"{") <= DEEPEST:
        return False  # nearly every line; the rest is walked
    level: list[Any] = [row]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for item in level:
            inner.extend(one for one in (item.values() if isinstance(item, dict) else item) if type(one) in _NESTED)
        if not inner:
            return False
        level = inner
    return True


def _undecoded(line: bytes, id_name: str, error: Exception) -> LineError:
    """Return the error of a line that is not JSON.

    Files have such lines because Python's own decoder and encoder accept NaN, and text that was cut within an emoji
    (half of a surrogate pair). These lines still have an id. So do most lines that are not UTF-8.
    """
    message, row = f"not JSON: {error}", None
    try:
        row = json.loads(line.decode(errors="replace"))
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        message = "not valid Unicode text: it has half of a surrogate pair, as if it was cut within an emoji"
    except (ValueError, RecursionError):
        pass  # neither can Python's
    return LineError(message, _id_in(row, id_name))


def _id_in(row: object, id_name: str) -> str | None:
    """Return the id of a row that is refused; `None` if it has none that can be written."""
    given = row.get(id_name) if isinstance(row, dict) else None
    if type(given) is int:
        given = str(given)
    if not isinstance(given, str) or not given or "\N{REPLACEMENT CHARACTER}" in given or not is_unicode(given):
        return None
    return given


def is_unicode(text: str) -> bool:
    """Return whether a text can be written, which one with half of a surrogate pair cannot."""
    if text.isascii():  # which a text knows; encoding it takes longer
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
