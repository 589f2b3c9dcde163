"""What is said, and its two spellings: streams and completions agree in text, tools, usage and finish reasons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from tests.support.tables import row

from chatscope.simulator import (
    ChatRequest,
    Part,
    Plan,
    Reply,
    Response,
    Send,
    Stage,
    ToolCall,
    UsageIn,
    Wait,
    error,
    faults,
    plan,
    respond_to,
)
from chatscope.simulator.replies import cost

Chat = Callable[..., ChatRequest]
Chunks = Callable[[Response | bytes], list[dict[str, Any]]]

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
    {"type": "custom", "custom": {"name": "shell"}},
]
ASKED = {"stream": True, "stream_options": {"include_usage": True}}


def responded(request: ChatRequest, reply: Reply) -> Response:
    response = respond_to(request, reply)
    assert isinstance(response, Response)
    return response


def completion(request: ChatRequest, reply: Reply) -> dict[str, Any]:
    value: dict[str, Any] = msgspec.json.decode(responded(request, reply).content)
    return value


def test_a_completion(chat: Chat) -> None:
    response = responded(chat(), Reply("Hello, world."))
    assert response.headers == (
        ("content-type", "application/json"),
        ("openai-processing-ms", "0"),
        ("openai-version", "2020-10-01"),
    )
    assert msgspec.json.decode(response.content) == {
        "id": "chatcmpl-00000001",
        "object": "chat.completion",
        "created": 0,
        "model": "gpt-4o-mini",
        "service_tier": "default",
        "system_fingerprint": "fp_simulator",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello, world.", "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 8,
            "completion_tokens": 4,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
    }


def test_a_stream(chat: Chat, chunks: Chunks) -> None:
    response = responded(chat(**ASKED), Reply("Hello, world."))
    assert response.headers[0] == ("content-type", "text/event-stream; charset=utf-8")
    stages = [item.stage for item in response.body if isinstance(item, Part)]
    assert stages == [Stage.ROLE, *[Stage.CONTENT] * 4, Stage.FINISH, Stage.USAGE, Stage.DONE]
    read = chunks(response)
    *parts, usage = read
    assert [part["choices"][0] for part in parts] == [
        {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        for delta, reason in [
            ({"role": "assistant", "content": "", "refusal": None}, None),
            ({"content": "Hello"}, None),
            ({"content": ","}, None),
            ({"content": " world"}, None),
            ({"content": "."}, None),
            ({}, "stop"),
        ]
    ]
    assert {part["usage"] for part in parts} == {None}
    assert usage["choices"] == []
    assert usage["usage"] == completion(chat(), Reply("Hello, world."))["usage"]
    assert {(part["id"], part["object"]) for part in read} == {("chatcmpl-00000001", "chat.completion.chunk")}


def test_usage_is_sent_only_when_asked(chat: Chat, chunks: Chunks) -> None:
    read = chunks(responded(chat(stream=True), Reply("Hi")))
    assert not any("usage" in chunk for chunk in read)
    assert all(chunk["choices"] for chunk in read)


def test_usage_in_odd_places(chat: Chat, chunks: Chunks) -> None:
    rows: list[tuple[UsageIn, list[int | None]]] = [
        (UsageIn.FINISH, [None, None, None, 2]),
        (UsageIn.EVERY, [0, 1, 2, 2]),
        (UsageIn.X_GROQ, [None, None, None, 2]),
        (UsageIn.NOWHERE, [None, None, None, None]),
    ]
    for usage_in, seen in rows:
        with row(usage_in, seen):
            read = chunks(responded(chat(**ASKED), Reply("Hi there", usage_in=usage_in)))
            holders = [chunk.get("x_groq", chunk) for chunk in read]
            assert [(holder.get("usage") or {}).get("completion_tokens") for holder in holders] == seen
            assert all(("x_groq" in chunk) == (usage_in is UsageIn.X_GROQ and chunk is read[-1]) for chunk in read)


def test_the_default_reply_quotes_the_prompt(chat: Chat) -> None:
    text = completion(chat("Write\n  hello world"), Reply())["choices"][0]["message"]["content"]
    assert text == "You asked: “Write hello world”. This answer is made up by a simulator, one token at a time."
    long = completion(chat("word " * 100), Reply())["choices"][0]["message"]["content"]
    assert long.startswith(f"You asked: “{('word ' * 100)[:57]}...”.")


def test_choices_take_turns(chat: Chat, chunks: Chunks) -> None:
    request = chat(n=2)
    whole = [choice["message"]["content"] for choice in completion(request, Reply())["choices"]]
    assert whole[1] == f"{whole[0]} This is choice 2."
    read = chunks(responded(chat(n=2, stream=True), Reply()))
    indices = [chunk["choices"][0]["index"] for chunk in read]
    assert indices[:6] == [0, 1] * 3
    assert indices[-2:] == [0, 1]
    streamed = ["", ""]
    for chunk in read:
        (choice,) = chunk["choices"]
        streamed[choice["index"]] += choice["delta"].get("content", "")
    assert streamed == whole
    assert completion(request, Reply("Hi"))["usage"]["completion_tokens"] == 2


def test_limits_and_stops(chat: Chat) -> None:
    rows: list[tuple[dict[str, Any], str, str]] = [
        ({"max_tokens": 2}, "one two", "length"),
        ({"max_completion_tokens": 4}, "one two three four", "stop"),
        ({"stop": "three"}, "one two ", "stop"),
        ({"stop": ["four", " two"]}, "one", "stop"),
        ({"stop": "five"}, "one two three four", "stop"),
    ]
    for parameters, text, finish_reason in rows:
        with row(parameters, text, finish_reason):
            (choice,) = completion(chat(**parameters), Reply("one two three four"))["choices"]
            assert (choice["message"]["content"], choice["finish_reason"]) == (text, finish_reason)


def test_tokens_finish_reason_and_cached_tokens(chat: Chat) -> None:
    whole = completion(chat(), Reply("a b", tokens=5, finish_reason="content_filter", cached_tokens=99))
    assert whole["choices"][0]["message"]["content"] == "a b a b a"
    assert whole["choices"][0]["finish_reason"] == "content_filter"
    assert whole["usage"]["prompt_tokens_details"]["cached_tokens"] == whole["usage"]["prompt_tokens"]


def test_an_empty_reply(chat: Chat, chunks: Chunks) -> None:
    assert completion(chat(), Reply(""))["choices"][0]["message"]["content"] == ""
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(responded(chat(stream=True), Reply("")))]
    assert deltas == [{"role": "assistant", "content": "", "refusal": None}, {}]


def test_reasoning(chat: Chat, chunks: Chunks) -> None:
    rows: list[str] = ["reasoning_content", "reasoning"]
    for field in rows:
        with row(field):
            reply = Reply("Four.", reasoning="Two and two", reasoning_field=field)
            whole = completion(chat(), reply)
            assert whole["choices"][0]["message"][field] == "Two and two"
            assert whole["usage"]["completion_tokens"] == 5
            assert whole["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3
            deltas = [chunk["choices"][0]["delta"] for chunk in chunks(responded(chat(stream=True), reply))]
            assert deltas[1:4] == [{field: "Two"}, {field: " and"}, {field: " two"}]
            assert deltas[4] == {"content": "Four"}


def test_a_refusal(chat: Chat, chunks: Chunks) -> None:
    reply = Reply(refusal="I will not.")
    message = completion(chat(), reply)["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "I will not.")
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(responded(chat(stream=True), reply))]
    assert "".join(delta.get("refusal") or "" for delta in deltas) == "I will not."


def test_scripted_tool_calls(chat: Chat, chunks: Chunks) -> None:
    reply = Reply(tool_calls=(ToolCall("weather", {"city": "Oslo"}), ToolCall("shell", "ls -l", "custom")))
    whole = completion(chat(), reply)
    (choice,) = whole["choices"]
    first = {
        "id": "call_00000001_0_0",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
    }
    second = {"id": "call_00000001_0_1", "type": "custom", "custom": {"name": "shell", "input": "ls -l"}}
    assert choice["message"]["tool_calls"] == [first, second]
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")
    read = chunks(responded(chat(**ASKED), reply))
    assert read[-1]["usage"] == whole["usage"]
    deltas = [chunk["choices"][0]["delta"] for chunk in read[:-1]]
    assert deltas[0] == {"role": "assistant", "content": None, "refusal": None}
    calls = [delta["tool_calls"][0] for delta in deltas[1:-1]]
    assert calls[0] == {"index": 0, **first, "function": {"name": "weather", "arguments": ""}}
    assert "".join(call["function"]["arguments"] for call in calls if call["index"] == 0) == '{"city": "Oslo"}'
    assert [call["custom"]["input"] for call in calls if call["index"] == 1] == ["", "ls", " -", "l"]


def test_text_before_tool_calls_and_a_cut_call(chat: Chat) -> None:
    reply = Reply("Let me see.", tool_calls=(ToolCall("weather", '{"city": "Oslo"}'),))
    message = completion(chat(), reply)["choices"][0]["message"]
    assert (message["content"], len(message["tool_calls"])) == ("Let me see.", 1)
    (choice,) = completion(chat(max_tokens=8), reply)["choices"]
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"city'
    assert choice["finish_reason"] == "length"


def test_tools_are_called_when_demanded(chat: Chat) -> None:
    rows: list[tuple[Any, bool, list[str]]] = [
        ("auto", False, []),
        (None, False, []),
        ("required", False, ["weather"]),
        ("auto", True, ["weather", "now", "shell"]),
        ("none", True, []),
        ({"type": "function", "function": {"name": "now"}}, False, ["now"]),
        ({"type": "custom", "custom": {"name": "shell"}}, False, ["shell"]),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": TOOLS[1:]}}, False, ["now"]),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": TOOLS[1:]}}, False, []),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": TOOLS[1:]}}, True, ["now", "shell"]),
    ]
    for choice, use_tools, names in rows:
        with row(choice, use_tools, names):
            request = chat(tools=TOOLS, tool_choice=choice)
            message = completion(request, Reply(use_tools=use_tools))["choices"][0]["message"]
            calls = message.get("tool_calls", [])
            assert [call[call["type"]]["name"] for call in calls] == names
            arguments = {"weather": '{"city": "", "days": 1}', "now": "{}", "shell": "simulated input"}
            for call in calls:
                inner = call[call["type"]]
                assert inner.get("arguments", inner.get("input")) == arguments[inner["name"]]


def test_results_of_tools_are_answered_in_text(chat: Chat) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
    ]
    (choice,) = completion(chat(messages=messages, tools=TOOLS, tool_choice="required"), Reply())["choices"]
    assert choice["message"]["content"].startswith("The tools said: “noon”.")
    assert choice["finish_reason"] == "stop"


def test_structured_output(chat: Chat) -> None:
    rows: list[tuple[dict[str, Any], str]] = [
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
            '{"city": "", "days": 1}',
        ),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "{}"),
        ({"type": "json_object"}, "{}"),
    ]
    for response_format, content in rows:
        with row(response_format, content):
            request = chat(response_format=response_format)
            assert completion(request, Reply())["choices"][0]["message"]["content"] == content
            assert completion(request, Reply("free text"))["choices"][0]["message"]["content"] == "free text"


def test_text_is_the_response_format_of_prose(chat: Chat) -> None:
    request = chat(response_format={"type": "text"})
    assert completion(request, Reply())["choices"][0]["message"]["content"].startswith("You asked")


def test_logprobs(chat: Chat, chunks: Chunks) -> None:
    whole = completion(chat(logprobs=True, top_logprobs=2), Reply("Hi!", reasoning="Hm"))
    first = {
        "token": "Hi",
        "logprob": -0.1,
        "bytes": [72, 105],
        "top_logprobs": [
            {"token": "Hi", "logprob": -0.1, "bytes": [72, 105]},
            {"token": "Hi~1", "logprob": -1.1, "bytes": [72, 105, 126, 49]},
        ],
    }
    logprobs = whole["choices"][0]["logprobs"]
    assert (logprobs["content"][0], len(logprobs["content"]), logprobs["refusal"]) == (first, 2, None)
    read = chunks(responded(chat(logprobs=True, top_logprobs=2, stream=True), Reply("Hi!")))
    assert read[1]["choices"][0]["logprobs"]["content"] == [first]
    assert completion(chat(logprobs=True), Reply("Hi!"))["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


def test_timing(chat: Chat) -> None:
    reply = Reply("one two three", first_token=2.0, between_tokens=0.25)
    streamed = responded(chat(stream=True), reply)
    waits = [item.seconds for item in streamed.body if isinstance(item, Wait)]
    assert waits == [2.0, 0.25, 0.25]
    assert streamed.index(Stage.ROLE) == 1
    plain = responded(chat(), reply)
    assert plain.before_status == (Wait(2.5),)
    assert dict(plain.headers)["openai-processing-ms"] == "2500"


def test_whole_json_although_a_stream_was_asked(chat: Chat) -> None:
    response = responded(chat(stream=True), Reply("Hi", stream=False))
    assert msgspec.json.decode(response.content)["object"] == "chat.completion"


def test_responses_of_other_kinds(chat: Chat) -> None:
    request = chat(stream=True)
    response, steps = error(503), Plan((Send(b"x"),))
    assert respond_to(request, response) is response
    assert plan(request, response) == response.plan()
    assert plan(request, steps) is steps
    assert respond_to(request, faults.zero_bytes()) == respond_to(request, Reply(faults=(faults.zero_bytes(),)))


def test_costs(chat: Chat) -> None:
    request = chat(n=2)
    assert cost(request, Reply("one two")) == 8 + 4
    assert cost(request, error(503)) == 8
    assert cost(request, faults.reset()) == cost(request, Reply())
