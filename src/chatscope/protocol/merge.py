"""Merges JSON values that arrive in parts, in time linear in the number of parts."""

from __future__ import annotations

from typing import Any, Final

_REPLACED: Final = frozenset({"id", "type", "index", "format", "signature"})
"""Fields that are repeated whole instead of being continued."""

_SIGNATURES: Final = ("signature", "Signature")
"""The ends of names of other such fields: opaque tokens, as Gemini's `thought_signature`."""

_RUNS: Final = ("thinking", "reasoning.text", "reasoning.summary")  # not a set: a type may be anything
"""Types of items that are continued by the next item of the same type if the server sends no index."""

_MAX_DEPTH: Final = 50
"""How deep values are merged. Below that, the last part replaces the ones before it."""


def is_sent_whole(name: str) -> bool:
    """Return whether a field is sent whole, again and again, by its name: an id, a type, a signature."""
    return name in _REPLACED or name.endswith(_SIGNATURES)


class GrowingValue:
    """A JSON value that grows.

    Texts and lists are continued, objects are merged field by field. An item of a list that has an `index` is merged
    with the last item before it if that has the same index and type, and so is a part of reasoning without an index.
    Any other value is replaced. Null changes nothing.
    """

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value: Any = None  # _TextParts, _Fields, _Items, or a plain value

    def add(self, new: Any) -> None:
        """Merge a new part into the value."""
        self._value = _merged(self._value, new, 0)

    def value(self) -> Any:
        """Return the value so far, as a copy."""
        return _plain(self._value)


class _TextParts(list[str]):
    """A text in parts."""


class _Fields(dict[str, Any]):
    """The fields of an object, each of them growing."""


class _Items(list[Any]):
    """The items of a list, the last of them growing."""


def _merged(value: Any, new: Any, depth: int) -> Any:
    """Return a growing value with one more part. The types are compared by identity: this runs for every chunk."""
    kind = type(new)
    if new is None:
        return value
    if kind is str and depth <= _MAX_DEPTH:
        if type(value) is not _TextParts:
            return _TextParts((new,))
        value.append(new)
        return value
    if kind is dict and depth <= _MAX_DEPTH:
        fields = value if type(value) is _Fields else _Fields()
        for name, field in new.items():
            if name not in _REPLACED and not name.endswith(_SIGNATURES):
                fields[name] = _merged(fields.get(name), field, depth + 1)
            elif type(field) is str or type(field) is int:
                fields[name] = field
            elif field is not None or name not in fields:
                fields[name] = _merged(None, field, depth + 1)
        return fields
    if kind is list and depth <= _MAX_DEPTH:
        items = value if type(value) is _Items else _Items()
        for item in new:
            if items and _continues(items[-1], item):
                items[-1] = _merged(items[-1], item, depth + 1)
            else:
                items.append(_merged(None, item, depth + 1))
        return items
    return new


def _continues(last: Any, item: Any) -> bool:
    """Return whether an item of a list belongs to the last one before it."""
    if type(item) is not dict or type(last) is not _Fields:
        return False
    if "index" not in item:
        # LiteLLM's `thinking_blocks`: a block ends with its signature.
        is_run = item.get("type") in _RUNS and "index" not in last and not last.get("signature")
        return is_run and bool(_plain(last.get("type")) == item["type"])
    index, kind = last.get("index"), last.get("type")
    return bool(_plain(index) == item["index"] and _plain(kind) == item.get("type"))


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is _TextParts:
        if len(value) > 1:
            value[:] = ["".join(value)]
        return value[0]
    if kind is _Fields:
        return {name: _plain(field) for name, field in value.items()}
    if kind is _Items:
        return [_plain(item) for item in value]
    return value
