"""Assembles tool calls from their parts. Servers leave out index, id and name, or repeat them, each in its own way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from chatscope.protocol.loading import is_whole_json
from chatscope.protocol.response import CustomCall, FunctionCall, ToolCall, ToolCallDelta

_NOTHING: Final = ToolCallDelta()


class ToolCalls:
    """The tool calls of one choice as they grow, in the order in which they began."""

    __slots__ = ("_by_id", "_by_index", "_calls")

    def __init__(self) -> None:
        self._calls: list[GrowingCall] = []
        self._by_index: dict[int | None, int] = {}  # the latest place of a call with this index
        self._by_id: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def __getitem__(self, place: int) -> GrowingCall:
        return self._calls[place]

    def __iter__(self) -> Iterator[GrowingCall]:
        return iter(self._calls)

    def without_repeats(self, parts: list[ToolCallDelta]) -> list[ToolCallDelta]:
        """Return the parts without those that repeat a whole call, as some servers do at the end, or say nothing."""
        for part in parts:
            if (part.id and part.id in self._by_id) or part == _NOTHING:
                return [part for part in parts if not self._is_repeat(part)]
        return parts

    def _is_repeat(self, part: ToolCallDelta) -> bool:
        if part == _NOTHING:
            return True
        place = self._by_id.get(part.id or "")
        return place is not None and self._calls[place].is_repeated_by(part)

    def add(self, parts: Iterable[ToolCallDelta]) -> list[int]:
        """Add the parts of one delta, each to the call that it continues or to a new one; return their places."""
        places: list[int] = []
        named: set[int] = set()  # two names in one delta are two calls
        for part in parts:
            place = self._place(part)
            is_named = bool(_name_of(part))
            if place is None or (is_named and place in named):
                place = len(self._calls)
                self._calls.append(GrowingCall(part.index))
                self._by_index[part.index] = place
            if is_named:
                named.add(place)
            call = self._calls[place]
            call.add(part)
            if call.id:
                self._by_id[call.id] = place
            places.append(place)
        return places

    def _place(self, part: ToolCallDelta) -> int | None:
        """Return the place of the call that a part continues, or `None` if it begins a new one."""
        if not self._calls:
            return None
        place = self._by_id.get(part.id or "")
        if place is not None and self._calls[place].has_index_of(part) and self._calls[place].continues(part):
            return place
        if part.index is None:
            place = len(self._calls) - 1
        else:
            known = [self._by_index[index] for index in (part.index, None) if index in self._by_index]
            if not known:
                return None
            place = max(known)
        return place if self._calls[place].continues(part) else None


class GrowingCall:
    """One tool call as it grows."""

    __slots__ = (
        *("_extra", "_inner_extra", "_is_custom", "_repeats", "_scanner", "_size", "_snapshot", "_type"),
        *("arguments", "has_arguments", "id", "index", "name"),
    )

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.has_arguments = False  # the field was sent, even if empty, so the name is complete
        self._type = ""
        self._is_custom = False
        self._scanner = _JSONScanner()
        self._size = 0  # of the arguments, in characters
        self._repeats = False  # every part brings all arguments so far
        self._snapshot: str | None = None  # the last part, if it may be all arguments so far
        self._extra: dict[str, Any] = {}
        self._inner_extra: dict[str, Any] = {}

    def has_index_of(self, part: ToolCallDelta) -> bool:
        """Return whether no index keeps a part and this call apart."""
        return part.index is None or self.index is None or part.index == self.index

    def continues(self, part: ToolCallDelta) -> bool:
        """Return whether a part with this call's index, or without one, belongs to this call.

        A server that gives every call index 0, or none, begins a new one with a name and another id (Ollama, Gemini).
        Without ids, or with the same id for all, a name begins a new call after complete arguments if it brings more of
        them. Without ids, so does a name with a type, and another name after any arguments, even empty ones, or
        together with a type. Servers without indexes send names whole, so there another name is another call. Another
        id alone begins nothing: vLLM once made a new one for every delta.
        """
        name = _name_of(part)
        if not name or not self.name:
            return True
        is_complete = self._scanner.is_complete(self.arguments)
        if part.id and self.id:
            return part.id == self.id and not (is_complete and text_part(part).strip())
        if is_complete and (text_part(part) or (part.type and self._type)):
            return False
        is_apart = self.has_arguments or (part.type and self._type) or (part.index is None and self.index is None)
        return name == self.name or not is_apart

    def is_repeated_by(self, part: ToolCallDelta) -> bool:
        """Return whether a part with this call's id is the same call once more, complete."""
        text = text_part(part)
        is_same = bool(text) and _name_of(part) == self.name and self._scanner.is_complete(self.arguments)
        return is_same and "".join(self.arguments) == text

    def add(self, part: ToolCallDelta) -> None:
        """Take in a part that belongs to this call."""
        self.id = self.id or part.id or ""
        self._type = self._type or part.type or ""
        self._is_custom = self._is_custom or part.custom is not None
        if (inner := part.custom or part.function) is not None:
            self.name = joined_name(self.name, inner.name)
            self.has_arguments = self.has_arguments or _arguments_of(part) is not None
            self._inner_extra.update(inner.extra)
            if text := text_part(part):
                self._add_text(part, text)
        self._extra.update(part.extra)

    def _add_text(self, part: ToolCallDelta, text: str) -> None:
        if part.custom is None and part.function is not None and (new := self._without_repeat(text)) != text:
            part.function.arguments = text = new
        if text:
            self.arguments.append(text)
            self._size += len(text)

    def _without_repeat(self, text: str) -> str:
        """Return the text of a part without the arguments so far: some servers send them again with every part.

        A text that cannot continue the arguments shows that the server does. If it can be either (`{"a":`, then
        `{"a": 1}`), the next part or the end decides. Empty arguments that others follow were a placeholder.
        """
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None and text.startswith(snapshot):
            if _may_continue("".join(self.arguments)):
                self._snapshot = text
            else:
                self._restart()
                self._repeats = True
            return text
        if len(text) < self._size or not self.arguments:
            return text  # as nearly always
        so_far = "".join(self.arguments)
        if not so_far.startswith("{") or not text.startswith(so_far):
            if so_far == "{}" and text.strip():
                self._restart()
            return text
        if not self._repeats and _may_continue(so_far):
            self._snapshot = text
            return text
        self._repeats = True
        return text[len(so_far) :]

    def _restart(self) -> None:
        self.arguments.clear()
        self._scanner = _JSONScanner()
        self._size = 0

    def call(self) -> ToolCall:
        """Return the call as it is so far."""
        call = ToolCall(
            id=self.id, type=self._type or ("custom" if self._is_custom else "function"), extra=dict(self._extra)
        )
        text = "".join(self.arguments)
        if self._snapshot is not None and not is_whole_json(text.encode()) and is_whole_json(self._snapshot.encode()):
            text = self._snapshot
        if self._is_custom:
            call.custom = CustomCall(name=self.name, input=text, extra=dict(self._inner_extra))
        else:
            call.function = FunctionCall(name=self.name, arguments=text, extra=dict(self._inner_extra))
        return call


def _may_continue(so_far: str) -> bool:
    """Return whether an object may follow what has arrived of a JSON text."""
    return so_far.rstrip().endswith((":", ",", "["))


def text_part(part: ToolCallDelta) -> str:
    """Return the arguments that a part brings, or the input of a custom tool."""
    return _arguments_of(part) or ""


def joined_name(so_far: str, part: str | None) -> str:
    """Join a name that is sent once, repeated whole (OpenRouter), or sent in parts."""
    if not part:
        return so_far
    return part if part.startswith(so_far) else so_far + part


def _arguments_of(part: ToolCallDelta) -> str | None:
    if part.custom is not None:
        return part.custom.input
    return part.function.arguments if part.function is not None else None


def _name_of(part: ToolCallDelta) -> str | None:
    inner = part.custom or part.function
    return None if inner is None else inner.name


_JSON_MARK: Final = re.compile(r'["\\{}\[\]]')


class _JSONScanner:
    """Whether JSON text in parts is complete: each part is looked at once."""

    __slots__ = ("_depth", "_escapes", "_has_begun", "_in_text", "_seen")

    def __init__(self) -> None:
        self._seen = 0  # how many parts were scanned
        self._depth = 0
        self._in_text = False
        self._escapes = False  # the last character was a backslash within a text
        self._has_begun = False

    def is_complete(self, parts: list[str]) -> bool:
        """Scan the parts that were added since the last call; return whether an object, list or text has ended."""
        for part in parts[self._seen :]:
            self._scan(part)
        self._seen = len(parts)
        return self._has_begun and self._depth <= 0 and not self._in_text

    def _scan(self, part: str) -> None:
        at = -1
        if self._escapes and part:
            self._escapes = False
            at = 0  # the first character is escaped
        for mark in _JSON_MARK.finditer(part):
            place, character = mark.start(), mark[0]
            if place <= at:
                continue
            if self._in_text:
                if character == "\\":
                    at = place + 1
                    self._escapes = at == len(part)
                elif character == '"':
                    self._in_text = False
            elif character == '"':
                self._in_text = self._has_begun = True
            elif character in "{[":
                self._depth += 1
                self._has_begun = True
            elif character in "}]":
                self._depth -= 1
