"""Fields that the endpoint does not list, wherever in a reply they stand, are found again in what is handed out."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from chatscope.protocol.decode import completion_from
from chatscope.protocol.response import Completion
from chatscope.protocol.stream_decoder import StreamDecoder

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"s": "sig"}}
MESSAGE = {"role": "assistant", "content": None, "tool_calls": [CALL], "images": ["i"]}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.25}


def plain() -> Completion:
    choice = {"index": 0, "message": MESSAGE, "finish_reason": "tool_calls", "native": "x"}
    return completion_from({"id": "c", "model": "m", "provider": "p", "choices": [choice], "usage": USAGE})


def streamed() -> Completion:
    reader = StreamDecoder()
    events = [
        {"model": "m", "provider": "p", "choices": [{"index": 0, "delta": {"role": "assistant", "images": ["i"]}}]},
        {"model": "m", "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **CALL}]}}]},
        {"model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls", "native": "x"}]},
        {"model": "m", "choices": [], "usage": USAGE},
    ]
    for event in events:
        reader.feed(b"data: " + msgspec.json.encode(event) + b"\n\n", 0)
    reader.feed(b"data: [DONE]\n\n", 0)
    assert reader.done
    return reader.assembler.completion()


@pytest.mark.parametrize("make", [plain, streamed])
def test_they_stay_reachable(make: Callable[[], Completion]) -> None:
    completion = make()
    assert completion.extra["provider"] == "p"
    assert completion.extra["usage"] == {"cost": 0.25}
    assert completion.choices[0].extra == {"native": "x"}
    assert completion.message.extra == {"images": ["i"]}
    assert completion.message.tool_calls is not None
    (call,) = completion.message.tool_calls
    assert call.extra == {"extra_content": {"s": "sig"}}


@pytest.mark.parametrize("make", [plain, streamed])
def test_they_are_sent_back(make: Callable[[], Completion]) -> None:
    """Gemini refuses a conversation whose tool calls have lost their signatures."""
    completion = make()
    assert completion.message.to_dict()["tool_calls"] == [CALL]
    assert completion.message.to_dict()["images"] == ["i"]
    assert completion.to_dict()["choices"][0]["native"] == "x"
    assert completion.to_dict()["usage"]["cost"] == 0.25
    assert completion.to_dict()["usage"]["total_tokens"] == 3
