"""The content of messages in the JSON of the GenAI conventions: messages of parts. Used only on opt-in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from chatscope.protocol.messages import SentMessage
from chatscope.protocol.response import Completion


def input_messages(messages: Sequence[SentMessage]) -> str:
    """Return a conversation as the value of `gen_ai.input.messages`."""
    return _json([{"role": message.get("role"), "parts": _parts(message)} for message in messages])


def output_messages(completion: Completion) -> str:
    """Return the choices of a response as the value of `gen_ai.output.messages`."""
    return _json(
        [
            {
                "role": "assistant",
                "parts": _parts(choice.message.to_dict()),
                "finish_reason": choice.finish_reason or "",
            }
            for choice in completion.choices
        ]
    )


def _parts(message: Mapping[str, Any]) -> list[Any]:
    content = message.get("content")
    if message.get("role") == "tool":
        return [{"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content}]
    given = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    parts = [
        {"type": "text", "content": part["text"]}
        if part.get("type") == "text"
        else part  # other parts as they are sent
        for part in given
    ]
    for call in message.get("tool_calls") or ():
        function = call.get("function") or call.get("custom") or {}
        arguments = function.get("arguments", function.get("input"))
        parts.append({"type": "tool_call", "id": call.get("id"), "name": function.get("name"), "arguments": arguments})
    return parts


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
