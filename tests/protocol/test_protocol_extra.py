"""Fields that the endpoint does not list, wherever in a response they stand, are found again in what is handed out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.support.tables import each_row

from chatscope.protocol.assemble import Assembler
from chatscope.protocol.chunk_decoder import ChunkDecoder
from chatscope.protocol.decode import completion_from
from chatscope.protocol.error_object import find_error
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


def test_values_that_do_not_fit_are_not_lost() -> None:
    choice = {"index": 0, "message": MESSAGE | {"annotations": "none"}, "logprobs": "off", "finish_reason": "stop"}
    completion = completion_from({"created": "today", "choices": [choice]})
    assert (completion.extra, completion.choices[0].extra) == ({"created": "today"}, {"logprobs": "off"})
    assert completion.message.to_dict()["annotations"] == "none"


def test_what_comes_once_may_come_with_text() -> None:
    assembler = Assembler()
    for sent in (_text(), _text(x_groq={"id": "r", "seed": 1}, moderation={"flagged": False})):
        assembler.add(ChunkDecoder().decode(msgspec.json.encode(sent))[0])
    completion = assembler.completion()
    assert completion.extra["x_groq"] == {"id": "r", "seed": 1}
    assert completion.moderation == {"flagged": False}


def _text(
    content: str = "a", *, delta: dict[str, Any] | None = None, choice: dict[str, Any] | None = None, **own: Any
) -> dict[str, Any]:
    spoken = {"content": content} | (delta or {})
    return {"id": "c", "model": "m", "created": 1, "choices": [{"index": 0, "delta": spoken, **(choice or {})}], **own}


@each_row(
    "sent",
    [
        [_text(provider="p"), _text(provider="p"), _text(provider="q"), _text(provider="r")],
        [_text(choice={"native_finish_reason": None})] * 3 + [_text(choice={"native_finish_reason": "stop"})] * 2,
        [_text(p="x" * n, choice={"filter": {"hate": n}}, delta={"own": None}) for n in range(5)],
        [_text(delta={"signature": "s"})] * 4,
        [
            _text(p="1"),
            _text(p="2"),
            _text(p="3"),
            _text(q="4"),
            _text(q="5"),
            _text(q="6"),
            _text(p="7"),
            _text(q="8"),
        ],
        [_text(p="1"), _text(p="2"), _text(p="3"), _text(), _text(), _text(p=None, q={}), _text(q=[])],
        [_text(p=n, choice={"finish_reason": None, "index": n % 2}) for n in range(8)],
        [_text(p=1), _text(p=2), _text(p=3, choice={"finish_reason": "stop"}), _text(p=4, usage={"total_tokens": 3})],
        [_text(p=1), _text(p=2), _text("", p=3, delta={"reasoning": "r"}), _text(p=4, delta={"reasoning": "r"})],
        [_text("", delta={"reasoning": str(n)}, p=n // 2) for n in range(6)] + [_text(p=9), _text(p=9), _text(p=9)],
        [_text("", delta={"content": None, "reasoning_content": str(n)}) for n in range(4)],
        [_text(p=1), _text(p=2), _text(p=3), {"p": 4, "choices": [], "usage": {"total_tokens": 3, "cost": 1}}],
        [_text(code=200, message="m", p=1)] * 3 + [_text(code=500, message="m", p=1)],
        [_text(p=1)] * 3 + [_text(p=1, error={"message": "no"})],
        [_text(p=1)] * 3 + [_text(p=1, choice={"finish_reason": "error"})],
        [_text(p=1)] * 3 + [{"p": 1, "choices": [], "detail": "no"}],
        [_text() | {'"': 1, "<raw>": 2, "\x1f": 3, "x" * 99: 4, "p": 5}] * 4,
        [_text() | {f"p{n}": 1} for n in range(40) for _ in range(2)],
        [_text() | {f"p{n}": 1 for n in range(40)}] * 4,
    ],
)
def test_fields_without_a_name_are_the_same_to_every_reader(sent: list[dict[str, Any]]) -> None:
    """A decoder that has learned the names of a stream's own fields reads it as one does that has learned nothing."""
    events = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in sent]
    reader, watcher, assembler = StreamDecoder(), StreamDecoder(), Assembler()
    chunks = [chunk for event in events for chunk in reader.feed(event, 0)]
    fresh = [ChunkDecoder().decode(json.dumps(chunk).encode())[0] for chunk in sent]
    assert chunks == fresh[: len(chunks)]
    for chunk in chunks:
        assembler.add(chunk)
    for event in events:
        _ = watcher.feed_text(event, 0) or watcher.feed(event, 0)
    assert reader.assembler.completion() == watcher.assembler.completion() == assembler.completion()
    assert repr(reader.error) == repr(watcher.error)
    assert (reader.error is not None) == any(find_error(chunk) is not None for chunk in sent)
