"""What a task looks like on the wire: constraints, context, conversations, parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from chatscope import AsyncChatGPTAdapter, RetryPolicy, Task, TaskConstraints
from chatscope.simulator import error

if TYPE_CHECKING:
    from tests.support.memory_server import Serve


async def sent(serve: Serve, task: Task, **options: Any) -> dict[str, Any]:
    server = serve()
    async with AsyncChatGPTAdapter("sk-1", transport=server, **options) as adapter:
        (await adapter.execute(task)).raise_for_error()
    (body,) = server.bodies
    assert isinstance(body, dict)
    return body


async def test_a_prompt_and_nothing_else(serve: Serve) -> None:
    assert await sent(serve, Task("Write hello world")) == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "Write hello world"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_constraints(serve: Serve) -> None:
    constraints = TaskConstraints(model="gpt-4.1", max_tokens=50, temperature=0.0, timeout_seconds=30)
    body = await sent(serve, Task("hi", constraints=constraints))
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("gpt-4.1", 50, 0.0)
    assert "max_completion_tokens" not in body
    assert "timeout_seconds" not in body


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-3.5-turbo", "max_tokens"),
        ("gpt-4", "max_tokens"),
        ("gpt-4o-mini", "max_tokens"),
        ("gpt-4.1-nano", "max_tokens"),
        ("chatgpt-4o-latest", "max_tokens"),
        ("llama-3.1-8b-instruct", "max_tokens"),
        ("mistral-large", "max_tokens"),
        ("o1", "max_completion_tokens"),
        ("o1-preview", "max_completion_tokens"),
        ("o3-mini-2025-01-31", "max_completion_tokens"),
        ("o4-mini", "max_completion_tokens"),
        ("gpt-5", "max_completion_tokens"),
        ("gpt-5-nano", "max_completion_tokens"),
        ("gpt-5.1-codex", "max_completion_tokens"),
        ("gpt-6", "max_completion_tokens"),
        ("gpt-10", "max_completion_tokens"),
        ("openai/o3", "max_completion_tokens"),
        ("ft:o4-mini:acme::abc", "max_completion_tokens"),
    ],
)
async def test_the_token_limit_goes_by_the_name_that_the_model_takes(serve: Serve, model: str, name: str) -> None:
    body = await sent(serve, Task("hi", constraints=TaskConstraints(model=model, max_tokens=7)))
    assert {key: value for key, value in body.items() if key.startswith("max")} == {name: 7}


async def test_the_adapters_model_decides_the_name_where_the_task_has_none(serve: Serve) -> None:
    body = await sent(serve, Task("hi", constraints=TaskConstraints(max_tokens=7)), model="gpt-5-mini")
    assert (body["model"], body["max_completion_tokens"]) == ("gpt-5-mini", 7)


async def test_the_context_is_a_system_message_before_the_prompt(serve: Serve) -> None:
    body = await sent(serve, Task("hi", context={"language": "Python", "lines": 3}))
    assert body["messages"] == [
        {"role": "system", "content": "Context:\nlanguage: Python\nlines: 3"},
        {"role": "user", "content": "hi"},
    ]


async def test_a_conversation_goes_out_as_it_is_behind_its_context(serve: Serve) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ]
    body = await sent(serve, Task(messages=messages, context={"a": "b"}))
    assert body["messages"] == [{"role": "system", "content": "Context:\na: b"}, *messages]
    assert (await sent(serve, Task(messages=messages)))["messages"] == messages


async def test_parameters_go_out_as_given(serve: Serve) -> None:
    parameters = {
        "seed": 7,
        "stop": ["\n"],
        "response_format": {"type": "json_object"},
        "top_p": None,
    }
    unlisted = {"not_yet_invented": {"deep": [1, None]}}
    body = await sent(serve, Task("hi", parameters={**parameters, "extra_body": unlisted}))
    assert {name: body[name] for name in parameters | unlisted} == parameters | unlisted


async def test_a_model_among_the_parameters_is_the_tasks_model(serve: Serve) -> None:
    body = await sent(serve, Task("hi", parameters={"model": "o3"}, constraints=TaskConstraints(max_tokens=5)))
    assert (body["model"], body["max_completion_tokens"]) == ("o3", 5)
    body = await sent(serve, Task("hi", parameters={"model": "o3"}, constraints=TaskConstraints(model="gpt-4o")))
    assert body["model"] == "gpt-4o"


async def test_what_concerns_one_request_alone(serve: Serve) -> None:
    server = serve([error(503)])
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        parameters = {
            "extra_body": {"guided_json": {}},
            "extra_headers": {"X-Trace": "t1"},
            "extra_query": {"api-version": "2024-10-21"},
            "retry": RetryPolicy(attempts=1),
        }
        result = await adapter.execute(Task("hi", parameters=parameters))
    assert result.attempts == 1
    (request,) = server.requests
    assert str(request.url) == "https://api.openai.com/v1/chat/completions?api-version=2024-10-21"
    assert request.headers["x-trace"] == "t1"
    assert server.bodies[0].keys() == {"model", "messages", "stream", "stream_options", "guided_json"}


async def test_metadata_type_and_id_stay_here(serve: Serve) -> None:
    body = await sent(serve, Task("hi", metadata={"secret": "mine"}))
    assert body.keys() == {"model", "messages", "stream", "stream_options"}


async def test_a_task_may_ask_for_a_plain_response(serve: Serve) -> None:
    server = serve()
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        handle = adapter.start_task(Task("Write hello world", parameters={"stream": False}))
        result = await handle.wait()
        assert [text async for text in handle.stream()] == ["Hello, world."]
    assert server.bodies[0].keys() == {"model", "messages"}
    assert (result.output, result.tokens_used, result.finish_reason) == ("Hello, world.", 13, "stop")
    assert result.cost == pytest.approx(3.75e-6)
    assert result.timings is not None
    assert result.timings.token_ns == ()
    assert result.metadata["request_id"] == "req_1"
