"""Merges JSON values that arrive in parts, in time linear in the number of parts."""

from __future__ import annotations

from typing import Any, Final

_REPLACED: Final = frozenset({"id", "type", "index", "format", "signature"})
"""Fields that are sent whole, again and again, and not continued."""

_MAX_DEPTH: Final = 50
"""How deep values are merged. Below that, the last part replaces the ones before it."""


class GrowingValue:
    """A JSON value that grows.

    Texts and lists are continued, objects are merged field by field. An item of a list that has an `index` is merged
    with the last item before it if that has the same index and type. Any other value is replaced. Null changes nothing.
    """

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value: Any = None  # _TextParts, _Fields, _Items, or a plain value

    def add(self, new: Any, depth: int = 0) -> None:
        """Merge a new part into the value."""
        value = self._value
        if new is None:
            return
        if depth > _MAX_DEPTH or not isinstance(new, str | dict | list):
            self._value = new
        elif isinstance(new, str):
            if not isinstance(value, _TextParts):
                value = self._value = _TextParts()
            value.append(new)
        elif isinstance(new, dict):
            if not isinstance(value, _Fields):
                value = self._value = _Fields()
            for name, field in new.items():
                if name not in value or (name in _REPLACED and field is not None):
                    value[name] = GrowingValue()
                value[name].add(field, depth + 1)
        else:
            if not isinstance(value, _Items):
                value = self._value = _Items()
            for item in new:
                if not (value and value[-1].is_continued_by(item)):
                    value.append(GrowingValue())
                value[-1].add(item, depth + 1)

    def is_continued_by(self, item: Any) -> bool:
        """Return whether an item of a list belongs to this one, the last before it."""
        fields = self._value
        if not isinstance(item, dict) or "index" not in item or not isinstance(fields, _Fields):
            return False
        return all((fields[name].value() if name in fields else None) == item.get(name) for name in ("index", "type"))

    def value(self) -> Any:
        """Return the value so far, as a copy."""
        value = self._value
        if isinstance(value, _TextParts):
            return value.joined()
        if isinstance(value, _Fields):
            return {name: field.value() for name, field in value.items()}
        if isinstance(value, _Items):
            return [item.value() for item in value]
        return value


class _TextParts(list[str]):
    """A text in parts."""

    def joined(self) -> str:
        if len(self) > 1:
            self[:] = ["".join(self)]
        return self[0]


class _Fields(dict[str, GrowingValue]):
    """The fields of an object."""


class _Items(list[GrowingValue]):
    """The items of a list."""
