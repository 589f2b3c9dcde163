"""The fake endpoint and the real simulator do the same to a client, fault by fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chatscope import ChatClient, ChatError, RetryPolicy
from chatscope.simulator import (
    Answer,
    Carrier,
    Close,
    ErrorShape,
    Framing,
    Plan,
    Reply,
    Send,
    Stage,
    ToolCall,
    UsageIn,
    error,
    faults,
    html,
    respond,
    simulator,
)
from chatscope.testing import ChatEndpoint

# Five tokens, one of them with a character of several bytes.
REPLY = Reply("one two thrée four five")

ANSWERS: dict[str, Answer] = {
    "reply": REPLY,
    "reasoning": replace(REPLY, reasoning="because"),
    "tool call": Reply(tool_calls=(ToolCall("f", {"a": 1}),)),
    "usage on every chunk": replace(REPLY, usage_in=UsageIn.EVERY),
    "a stream though none was asked for": replace(REPLY, stream=True),
    "JSON though a stream was asked for": replace(REPLY, stream=False),
    "error": error(503, "Overloaded."),
    "error with retry-after": error(429, retry_after=9),
    "page": html(),
    "nothing": respond(200),
    "no content": respond(204),
    "body up to the close": replace(respond(200, b'{"choices": []}'), framing=Framing.CLOSE),
    "not HTTP": Plan((Send(b"220 mail.example.com ESMTP\r\n"), Close())),
    "half a head": Plan((Send(b"HTTP/1.1 200 OK\r\ncontent-ty"), Close())),
    "100 Continue first": Plan(
        (Send(b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),)
    ),
    "close before the head": faults.close(Stage.STATUS),
    "close in the head": faults.close(Stage.HEADERS),
    "close": replace(REPLY, faults=(faults.close(2),)),
    "close after [DONE]": replace(REPLY, faults=(faults.close(Stage.END),)),
    "reset before the head": faults.reset(Stage.STATUS),
    "end": replace(REPLY, faults=(faults.end(2),)),
    "end after the finish": replace(REPLY, faults=(faults.end(Stage.USAGE),)),
    "cut chunk": replace(REPLY, faults=(faults.cut_chunk(2),)),
    "cut character": replace(REPLY, faults=(faults.cut_character(0),)),
    "comments": replace(REPLY, faults=(faults.insert(faults.KEEP_ALIVE, times=3),)),
    "endless headers": faults.endless_headers(),
    "endless line": replace(REPLY, faults=(faults.endless_line(2),)),
    "malformed": replace(REPLY, faults=(faults.malformed(2),)),
    "no bytes": faults.zero_bytes(),
    "only [DONE]": faults.only_done(),
    "no [DONE]": replace(REPLY, faults=(faults.no_done(),)),
    "unterminated": replace(REPLY, faults=(faults.unterminated(),)),
    "CR LF": replace(REPLY, faults=(faults.crlf(),)),
    "byte order mark": replace(REPLY, faults=(faults.bom(),)),
    "pieces of 7 bytes": replace(REPLY, faults=(faults.rechunk(7),)),
    "a coding that is not true": replace(REPLY, faults=(faults.header("content-encoding", "gzip"),)),
    "stream error": replace(REPLY, faults=(faults.stream_error(2, ErrorShape.INT_CODE, carrier=Carrier.EVENT),)),
}


async def outcome(client: ChatClient, *, stream: bool) -> tuple[Any, ...]:
    """Ask, and return all that a caller can see of what came of it."""
    asked: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    texts: list[str] = []
    try:
        if stream:
            async with client.stream(**asked) as reply:
                texts += [chunk.text async for chunk in reply]
            completion = reply.completion
        else:
            completion = await client.complete(**asked)
    except ChatError as problem:
        return texts, type(problem), problem.status, problem.code, problem.partial_text, getattr(problem, "phase", None)
    return texts, completion.text, completion.finish_reason, completion.usage, completion.message.tool_calls


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_both_answer_alike(answer: Answer, stream: bool) -> None:
    endpoint = ChatEndpoint()
    endpoint.add(answer)
    once = RetryPolicy(attempts=1)
    async with ChatClient(api_key="k", transport=endpoint, retry=once) as client:
        fake = await outcome(client, stream=stream)
    async with simulator(answer) as base_url, ChatClient(base_url, "k", retry=once) as client:
        real = await outcome(client, stream=stream)
    assert fake == real
    assert (endpoint.open, endpoint.problems()) == (0, [])
