"""How deep a row may be nested. Python's JSON has a limit that depends on what calls it, so rows have a lower one."""

from __future__ import annotations

from typing import Any, Final

DEEPEST: Final = 500
"""Levels of lists and objects in a row: half of what Python can decode, and more than any server accepts."""


def is_too_deep(line: bytes, decoded: dict[str, Any]) -> bool:
    """Return whether a line of JSON is nested deeper than `DEEPEST`."""
    if len(line) <= 2 * DEEPEST or line.count(b"[") + line.count(b"{") <= DEEPEST:
        return False  # nearly every line; the rest is walked
    level: list[Any] = [decoded]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for item in level:
            inner.extend(one for one in (item.values() if isinstance(item, dict) else item) if type(one) in _NESTED)
        if not inner:
            return False
        level = inner
    return True


_NESTED: Final = frozenset({dict, list})
