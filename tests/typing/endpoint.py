"""Never run: messages, parameters, events and clients as users write them, for mypy and pyright to accept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_never, assert_type

import httpx
import httpx2

from chatscope import (
    AssistantMessage,
    AsyncChatGPTAdapter,
    ChatClient,
    ChatParameters,
    ChoiceFinished,
    Completion,
    ContentPart,
    DeveloperMessage,
    EventStream,
    FunctionMessage,
    Message,
    ReasoningDelta,
    ReasoningDone,
    RefusalDelta,
    RefusalDone,
    StreamEvent,
    SystemMessage,
    Task,
    TaskParameters,
    TextDelta,
    TextDone,
    ToolArgumentsDelta,
    ToolCallDone,
    ToolCallStarted,
    ToolMessage,
    Usage,
    UsageReported,
    UserMessage,
    content,
)
from chatscope.protocol.response import ToolCall


async def messages(client: ChatClient, earlier: Completion) -> None:
    await client.complete(
        model="m",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {
                "role": "user",
                "name": "ann",
                "content": [
                    {"type": "text", "text": "See."},
                    {"type": "image_url", "image_url": {"url": "https://a.example/a.png", "detail": "low"}},
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                    {"type": "file", "file": {"file_id": "file-1"}},
                    {"type": "text", "text": "cached", "cache_control": {"type": "ephemeral"}},  # a server's own field
                    {"type": "video_url", "video_url": {"url": "https://a.example/a.mp4"}},  # a server's own part
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "42"},
            {"role": "function", "name": "f", "content": "42"},
            {"role": "critic", "content": "a server's own role"},
            earlier.message.to_dict(),
        ],
    )
    developer: DeveloperMessage = {"role": "developer", "content": "Be brief."}
    system: SystemMessage = {"role": "system", "content": "Be brief."}
    user: UserMessage = {"role": "user", "content": [content.text("hi"), content.image(Path("a.png"), detail="high")]}
    assistant: AssistantMessage = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    tool: ToolMessage = {"role": "tool", "tool_call_id": "1", "content": "42"}
    function: FunctionMessage = {"role": "function", "name": "f", "content": None}
    conversation: list[Message] = [developer, system, user, assistant, tool, function]
    conversation.append({"role": "user", "content": "and now?"})
    only_users: list[UserMessage] = [user]
    plain = [{"role": "user", "content": "hi"}]
    loose: list[dict[str, Any]] = []
    for given in (conversation, only_users, plain, loose):
        await client.complete(model="m", messages=given)
        client.stream(model="m", messages=given)
        Task(messages=given)
    wrong: UserMessage = {"role": "critic", "content": "hi"}  # type: ignore[typeddict-item]  # pyright: ignore[reportAssignmentType]
    short: ToolMessage = {"role": "tool", "content": "hi"}  # type: ignore[typeddict-item]  # pyright: ignore[reportAssignmentType]
    await client.complete(model="m", messages=[wrong, short])
    await client.complete(model="m", messages="hi")  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]


def parts() -> list[ContentPart]:
    content.image(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return [
        content.text("a"),
        content.image("https://a.example/a.png", detail="of tomorrow"),
        content.image(b"", media_type="image/png"),
        content.audio("a.wav"),
        content.audio(b"", format="mp3"),
        content.file("a.pdf"),
        content.file(b"", filename="a.pdf"),
        content.file(file_id="file-1"),
    ]


async def parameters(client: ChatClient) -> None:
    given: ChatParameters = {
        "audio": {"voice": "alloy", "format": "wav"},
        "function_call": {"name": "f"},
        "functions": [{"name": "f", "parameters": {"type": "object"}}],
        "modalities": ["text", "audio"],
        "prediction": {"type": "content", "content": "x"},
        "prompt_cache_retention": "24h",
        "reasoning_effort": "xhigh",
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "strict": True}},
        "service_tier": "of tomorrow",
        "stop": ["a", "b"],
        "stream_options": {"include_obfuscation": False},
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
        "tools": [
            {"type": "function", "function": {"name": "f", "strict": True}},
            {"type": "custom", "custom": {"name": "c"}},
            {"type": "web_search_preview"},
        ],
        "verbosity": "low",
    }
    await client.complete(model="m", messages=[], tool_choice="required", tools=given["tools"])
    await client.complete(model="m", messages=[], tool_choice={"type": "function", "function": {"name": "f"}})
    await client.complete(model="m", messages=[], logprobs="yes")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    of_a_task: TaskParameters = {"seed": 7, "stream": False, "model": "m", "extra_body": {"top_k": 5}}
    Task("hi", parameters=given)
    Task("hi", parameters=of_a_task)
    Task("hi", parameters={"seed": 7, "timeout": 5, "top_k": 3})
    mistyped: TaskParameters = {"seeed": 7}  # type: ignore[typeddict-unknown-key]  # pyright: ignore[reportAssignmentType]
    Task("hi", parameters=mistyped)


async def events(client: ChatClient) -> None:
    async with client.stream(model="m", messages=[{"role": "user", "content": "hi"}]) as stream:
        assert_type(stream.events(), EventStream)
        async for event in stream.events():
            assert_type(event, StreamEvent)
            match event:
                case TextDelta() | ReasoningDelta() | RefusalDelta() | ToolArgumentsDelta():
                    assert_type(event.text, str)
                case TextDone(choice, text) | ReasoningDone(choice, text) | RefusalDone(choice, text):
                    assert_type(choice, int)
                    assert_type(text, str)
                case ToolCallStarted():
                    assert_type((event.call, event.id, event.name), tuple[int, str, str])
                case ToolCallDone():
                    assert_type(event.tool_call, ToolCall)
                case ChoiceFinished():
                    reason: str | None = event.reason
                    assert reason != "stop"
                case UsageReported():
                    assert_type(event.usage, Usage)
                case _:
                    assert_never(event)


def clients(ours: httpx.AsyncClient, theirs: httpx2.AsyncClient) -> None:
    ChatClient(http_client=ours)
    ChatClient(http_client=theirs)
    AsyncChatGPTAdapter(http_client=theirs)
    ChatClient(base_url="https://mine.openai.azure.com", profile="azure")
    AsyncChatGPTAdapter(base_url="http://gpu:8000/v1", profile="vllm")
    ChatClient(http_client=httpx.Client())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ChatClient(profile=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
