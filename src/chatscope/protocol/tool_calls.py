"""Tool calls from their pieces. Servers leave out index, id and name, or repeat them, each in its own way."""

from __future__ import annotations

import json
from typing import Any

from chatscope.protocol.response import CustomCall, ToolCall, ToolCallDelta


def add_piece(calls: list[CallSoFar], piece: ToolCallDelta) -> int:
    """Add a piece of a tool call to the call that it continues, or to a new one; return that one's place."""
    for place in reversed(range(len(calls))):
        if calls[place].continues(piece):
            break
    else:
        place = len(calls)
        calls.append(CallSoFar(piece.index))
    calls[place].add(piece)
    return place


class CallSoFar:
    """One tool call as it grows."""

    __slots__ = ("arguments", "custom", "extra", "id", "index", "name", "type")

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = ""
        self.type = ""
        self.name = ""
        self.arguments: list[str] = []
        self.custom = False
        self.extra: dict[str, Any] = {}

    def continues(self, delta: ToolCallDelta) -> bool:
        """Tell whether a delta belongs to this call.

        The index decides, and the latest call where there is none. But a server that gives every call index 0, or
        none, starts a new one with a name and another id (Ollama, Gemini), or, without ids, with a name after the
        arguments were complete. Another id alone starts nothing: vLLM once made a new one for every delta.
        """
        if delta.index is not None and self.index is not None and delta.index != self.index:
            return False
        piece = delta.custom or delta.function
        if piece is None or not piece.name or not self.name:
            return True
        if delta.id and self.id:
            return delta.id == self.id
        return not (piece_text(delta) and _complete("".join(self.arguments)))

    def add(self, delta: ToolCallDelta) -> None:
        """Take in a piece that belongs to this call."""
        self.id = self.id or delta.id or ""
        self.type = self.type or delta.type or ""
        self.custom = self.custom or delta.custom is not None
        if (piece := delta.custom or delta.function) is not None:
            self.name = joined_name(self.name, piece.name)
        if text := piece_text(delta):
            self.arguments.append(text)

    def call(self) -> ToolCall:
        """Return the call as it is so far."""
        call = ToolCall(id=self.id, type=self.type or ("custom" if self.custom else "function"), extra=dict(self.extra))
        if self.custom:
            call.custom = CustomCall(name=self.name, input="".join(self.arguments))
        else:
            call.function.name, call.function.arguments = self.name, "".join(self.arguments)
        return call


def piece_text(delta: ToolCallDelta) -> str:
    """Return the arguments that a piece brings, or the input of a custom tool."""
    if delta.custom is not None:
        return delta.custom.input or ""
    return (delta.function.arguments or "") if delta.function is not None else ""


def joined_name(so_far: str, piece: str | None) -> str:
    """Join a name that is sent once, repeated whole (OpenRouter), or sent in pieces."""
    if not piece:
        return so_far
    return piece if piece.startswith(so_far) else so_far + piece


def _complete(arguments: str) -> bool:
    try:
        json.loads(arguments)
    except ValueError:
        return False
    return True
