"""What is kept of finished tasks: little, and everything that is asked for later is as it was."""

from __future__ import annotations

import copy
import gc
import json
import pickle

import anyio
import httpx
import pytest

from chatscope import AsyncChatGPTAdapter, Completion, Result, Task

pytestmark = pytest.mark.one_loop

PAGE = 'A page of text, with "quotes", an é and line breaks.\n' * 40
BODY: dict[str, object] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    "system_fingerprint": "fp_1",
}
EVENTS = (
    b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"}}]}\n\n'
    b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"."},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


def saying(text: str) -> dict[str, object]:
    return BODY | {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    }


def server(body: bytes, kind: str = "application/json") -> httpx.MockTransport:
    headers = {"content-type": kind, "x-request-id": "req_1", "Server": "Big"}
    return httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, content=body))


@pytest.mark.parametrize("text", ["Hi.", PAGE])
@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("extra", [{}, {"prompt_logprobs": None}])
async def test_a_completion_is_the_same_when_it_is_read_late(
    text: str, ascii_only: bool, extra: dict[str, object]
) -> None:
    loaded = saying(text) | extra
    body = json.dumps(loaded, ensure_ascii=ascii_only).encode()
    results: list[Result] = []
    async with AsyncChatGPTAdapter("sk-1", transport=server(body)) as adapter:
        results.append(await adapter.execute(Task("hi", parameters={"stream": False})))
        results += await adapter.gather([Task("hi", parameters={"stream": False})])
        kept = results[0]
        assert await adapter.get_result(kept.task.task_id) is kept  # type: ignore[union-attr,arg-type]  # it has a task
    for result in (*results, copy.copy(kept), pickle.loads(pickle.dumps(kept))):
        assert result.message is not None
        assert result.message.content == result.output == text
        assert isinstance(result.completion, Completion)
        assert result.completion is result.completion
        assert result.completion.to_dict().items() >= extra.items()
        assert (result.completion.id, result.completion.system_fingerprint) == ("chatcmpl-1", "fp_1")
        assert (result.completion.usage, result.completion.finish_reason) == (result.usage, result.finish_reason)
        assert (result.completion.status, result.completion.request_id) == (200, "req_1")
        assert result.completion.headers["server"] == "Big"
        assert result.completion == results[1].completion
    assert kept.message is kept.completion.message  # type: ignore[union-attr]  # one value, whichever is read first


@pytest.mark.parametrize(("streams", "most"), [(False, 2), (True, 4)])
async def test_the_garbage_collector_sees_few_objects_of_a_kept_task(streams: bool, most: int) -> None:
    """Each of its full passes looks at all of them, so thousands of kept tasks would slow every new one down."""
    body = EVENTS if streams else json.dumps(BODY).encode()
    transport = server(body, "text/event-stream" if streams else "application/json")

    async def seen_after(adapter: AsyncChatGPTAdapter, tasks: int) -> int:
        for _ in range(tasks):
            result = await adapter.get_result(await adapter.submit_task(Task("hi", parameters={"stream": streams})))
            assert result.output == "Hi."
        for _ in range(2):
            gc.collect()  # sets inner tuples aside, then outer ones
        return len(gc.get_objects())

    async with AsyncChatGPTAdapter("sk-1", transport=transport) as adapter:
        before = await seen_after(adapter, 50)
        assert await seen_after(adapter, 300) - before < (most + 0.5) * 300


async def test_the_parts_of_a_kept_text_are_as_they_arrived() -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=server(EVENTS, "text/event-stream")) as adapter:
        task_id = await adapter.submit_task("hi")
        await adapter.get_result(task_id)
        for _ in range(2):
            assert [text async for text in adapter.stream_result(task_id)] == ["Hi", "."]
        assert await adapter.cancel_task(task_id) is False
    with anyio.fail_after(1):
        assert (await adapter.get_result(task_id)).output == "Hi."
