"""The scripted endpoint and the real simulator have the same effect on a client, fault by fault."""

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

# Five tokens; one has a character of several bytes.
REPLY = Reply("one two thrée four five")

RESPONSES: dict[str, Answer] = {
    "reply": REPLY,
    "reasoning": replace(REPLY, reasoning="because"),
    "tool call": Reply(tool_calls=(ToolCall("f", {"a": 1}),)),
    "usage on every chunk": replace(REPLY, usage_in=UsageIn.EVERY),
    "a stream for a plain request": replace(REPLY, stream=True),
    "JSON for a stream request": replace(REPLY, stream=False),
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
    "reads of 7 bytes": replace(REPLY, faults=(faults.rechunk(7),)),
    "a wrong content-encoding": replace(REPLY, faults=(faults.header("content-encoding", "gzip"),)),
    "stream error": replace(REPLY, faults=(faults.stream_error(2, ErrorShape.INT_CODE, carrier=Carrier.EVENT),)),
}


async def outcome(client: ChatClient, *, stream: bool) -> tuple[Any, ...]:
    """Send a request, and return everything that a caller can see of its outcome."""
    request: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    texts: list[str] = []
    try:
        if stream:
            async with client.stream(**request) as response:
                texts += [chunk.text async for chunk in response]
            completion = response.completion
        else:
            completion = await client.complete(**request)
    except ChatError as problem:
        return texts, type(problem), problem.status, problem.code, problem.partial_text, getattr(problem, "phase", None)
    return texts, completion.text, completion.finish_reason, completion.usage, completion.message.tool_calls


@pytest.mark.one_loop
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
async def test_both_have_the_same_effect(stream: bool) -> None:
    once = RetryPolicy(attempts=1)
    scripted: dict[str, tuple[Any, ...]] = {}
    served: dict[str, tuple[Any, ...]] = {}
    for name, response in RESPONSES.items():
        endpoint = ChatEndpoint()
        endpoint.add(response)
        async with ChatClient(api_key="k", transport=endpoint, retry=once) as client:
            scripted[name] = await outcome(client, stream=stream)
        async with simulator(response) as base_url, ChatClient("k", base_url=base_url, retry=once) as client:
            served[name] = await outcome(client, stream=stream)
        assert (endpoint.open, endpoint.problems()) == (0, []), name
    assert scripted == served
