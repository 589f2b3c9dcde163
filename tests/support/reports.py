"""What workers of pytest-xdist send to the process that prints."""

from __future__ import annotations

from typing import Any


def encodable(data: Any) -> Any:
    """Return a report's data with every lone surrogate escaped: some tests print them, and UTF-8 has none."""
    if isinstance(data, str):
        return data.encode("utf-8", "backslashreplace").decode()
    if isinstance(data, dict):
        return {name: encodable(value) for name, value in data.items()}
    if isinstance(data, list):
        return [encodable(item) for item in data]
    if isinstance(data, tuple):
        return tuple(encodable(item) for item in data)
    return data
