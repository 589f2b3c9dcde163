"""ChatClient and AsyncChatGPTAdapter against a server that is not ours: the LiteLLM proxy.

Its responses differ from the endpoint's: no finish_reason for a second choice, the usage beside an
empty choice, error codes as strings of the status, 400 for a wrong key.
"""

from __future__ import annotations

import uuid
from contextlib import aclosing
from typing import TYPE_CHECKING

import anyio
import pytest

from chatscope import (
    AsyncChatGPTAdapter,
    BadRequestError,
    ChatClient,
    ChatError,
    InternalServerError,
    RateLimitError,
    RetryPolicy,
    StreamServerError,
    Task,
    TaskConstraints,
    TaskStatus,
)

if TYPE_CHECKING:
    from tests.support.litellm_proxy import LiteLLMProxy

MODEL = "gpt-4o-mini"
REPLY = "The proxy says hello to the world."  # as in the proxy's config
WORDS = "one two three "  # all that the scripted provider streams
ASKED = [{"role": "user", "content": "hi"}]
NO_RETRY = RetryPolicy(attempts=1)

ERRORS = pytest.mark.parametrize(
    ("model", "error_class", "status", "error_type"),
    [
        ("rate-limited", RateLimitError, 429, "throttling_error"),
        ("out-of-order", InternalServerError, 500, "internal_server_error"),
        ("context-too-long", BadRequestError, 400, "invalid_request_error"),
        ("no-such-model", BadRequestError, 400, "invalid_request_error"),
    ],
)


def client_of(proxy: LiteLLMProxy) -> ChatClient:
    return ChatClient(proxy.api_key, base_url=proxy.base_url, retry=NO_RETRY)


def adapter_of(proxy: LiteLLMProxy) -> AsyncChatGPTAdapter:
    return AsyncChatGPTAdapter(proxy.api_key, model=MODEL, base_url=proxy.base_url, retry=NO_RETRY)


def endless_task() -> Task:
    """A task whose stream pauses for ever after its third word; its prompt finds it in the proxy's log."""
    return Task(prompt=f"cancelled {uuid.uuid4()}", constraints=TaskConstraints(model="never-ends"))


async def assert_disconnect_seen(proxy: LiteLLMProxy, prompt: str) -> None:
    """The provider's stream was closed, and LiteLLM itself put it down to its client."""
    await proxy.log.wait_for(f"interop: provider-closed {prompt}")
    await proxy.log.wait_for(f"interop: client-disconnected {prompt}")


async def test_a_plain_completion(litellm_proxy: LiteLLMProxy) -> None:
    async with client_of(litellm_proxy) as client:
        completion = await client.complete(model=MODEL, messages=ASKED)
    assert (completion.text, completion.model) == (REPLY, MODEL)
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (10, 20)


async def test_a_streamed_completion(litellm_proxy: LiteLLMProxy) -> None:
    async with client_of(litellm_proxy) as client, client.stream(model=MODEL, messages=ASKED) as stream:
        texts = [chunk.text async for chunk in stream]
    assert "".join(texts) == REPLY
    assert len([text for text in texts if text]) > 1
    assert stream.completion.text == REPLY
    assert stream.completion.choices[0].finish_reason == "stop"
    assert stream.completion.usage is not None
    assert stream.completion.usage.completion_tokens > 0


async def test_two_choices(litellm_proxy: LiteLLMProxy) -> None:
    async with client_of(litellm_proxy) as client:
        plain = await client.complete(model=MODEL, messages=ASKED, n=2)
        async with client.stream(model=MODEL, messages=ASKED, n=2) as stream:
            async for _ in stream:
                pass
    assert [(choice.message.content, choice.finish_reason) for choice in plain.choices] == [(REPLY, "stop")] * 2
    streamed = [(choice.message.content, choice.finish_reason) for choice in stream.completion.choices]
    assert streamed == [(REPLY, "stop"), (REPLY, None)]


@pytest.mark.one_loop
@ERRORS
async def test_an_error_has_its_class(
    litellm_proxy: LiteLLMProxy, model: str, error_class: type[ChatError], status: int, error_type: str
) -> None:
    async with client_of(litellm_proxy) as client:
        with pytest.raises(error_class) as plain:
            await client.complete(model=model, messages=ASKED)
        with pytest.raises(error_class) as streamed:
            async with client.stream(model=model, messages=ASKED):
                pass
    for error in (plain.value, streamed.value):
        assert type(error) is error_class
        assert (error.status, error.code, error.type) == (status, str(status), error_type)
        assert error.attempts == 1


async def test_a_rate_limit_is_tried_again(litellm_proxy: LiteLLMProxy) -> None:
    at_once = RetryPolicy(attempts=3, initial=0, max=0, jitter=0)
    async with client_of(litellm_proxy) as client:
        with pytest.raises(RateLimitError) as caught:
            await client.complete(model="rate-limited", messages=ASKED, retry=at_once)
    assert caught.value.attempts == 3


async def test_an_error_inside_a_stream_keeps_the_text_before_it(litellm_proxy: LiteLLMProxy) -> None:
    got = ""
    async with client_of(litellm_proxy) as client, client.stream(model="fails-midway", messages=ASKED) as stream:
        with pytest.raises(StreamServerError) as caught:  # noqa: PT012  # the loop is the statement
            async for chunk in stream:
                got += chunk.text
    assert got == caught.value.partial_text == stream.completion.text == WORDS
    assert (caught.value.status, caught.value.code) == (503, "503")


async def test_a_wrong_key_is_refused_and_not_shown(litellm_proxy: LiteLLMProxy) -> None:
    async with ChatClient("sk-wrong-key", base_url=litellm_proxy.base_url) as client:
        with pytest.raises(BadRequestError) as caught:
            await client.complete(model=MODEL, messages=ASKED)
    assert (caught.value.status, caught.value.attempts) == (400, 1)
    assert "sk-wrong-key" not in f"{caught.value} {caught.value!r} {caught.value.body}"


async def test_cancelling_a_stream_disconnects(litellm_proxy: LiteLLMProxy) -> None:
    prompt = f"cancelled {uuid.uuid4()}"
    asked = [{"role": "user", "content": prompt}]
    got = ""
    async with client_of(litellm_proxy) as client:
        stream = client.stream(model="never-ends", messages=asked)
        with anyio.CancelScope() as scope:
            async with stream:
                async for chunk in stream:
                    got += chunk.text
                    if got == WORDS:
                        scope.cancel()
        assert scope.cancelled_caught
        assert stream.completion.text == WORDS
        await assert_disconnect_seen(litellm_proxy, prompt)


async def test_a_task_has_its_text_tokens_and_cost(litellm_proxy: LiteLLMProxy) -> None:
    async with adapter_of(litellm_proxy) as adapter:
        task_id = await adapter.submit_task(Task(prompt="hi"))
        streamed = "".join([text async for text in adapter.stream_result(task_id)])
        result = await adapter.get_result(task_id, timeout=30)
    assert streamed == result.output == REPLY
    assert (result.status, result.success, result.finish_reason) == (TaskStatus.COMPLETED, True, "stop")
    assert result.metadata["model"] == MODEL
    assert result.usage is not None
    read, written = result.usage.prompt_tokens, result.usage.completion_tokens
    assert (result.metadata["input_tokens"], result.metadata["output_tokens"]) == (read, written)
    assert result.tokens_used == read + written > 0
    # gpt-4o-mini costs 0.15 USD per million tokens read and 0.60 written: LiteLLM's own figures too.
    assert result.cost == pytest.approx((0.15 * read + 0.60 * written) / 1e6)


@ERRORS
async def test_a_task_fails_with_its_error_and_leaves_its_sibling_alone(
    litellm_proxy: LiteLLMProxy, model: str, error_class: type[ChatError], status: int, error_type: str
) -> None:
    async with adapter_of(litellm_proxy) as adapter:
        failing = await adapter.submit_task(Task(prompt="hi", constraints=TaskConstraints(model=model)))
        sibling = await adapter.submit_task(Task(prompt="hi"))
    failed = await adapter.get_result(failing)
    assert (failed.status, failed.success, failed.cost) == (TaskStatus.FAILED, False, None)
    assert isinstance(failed.exception, error_class)
    assert (failed.exception.status, failed.exception.type) == (status, error_type)
    assert (await adapter.get_result(sibling)).output == REPLY


async def test_a_task_that_breaks_off_keeps_its_text(litellm_proxy: LiteLLMProxy) -> None:
    async with adapter_of(litellm_proxy) as adapter:
        result = await adapter.execute(Task(prompt="hi", constraints=TaskConstraints(model="fails-midway")))
    assert (result.status, result.output, result.attempts) == (TaskStatus.FAILED, WORDS, 1)
    assert isinstance(result.exception, StreamServerError)


async def test_cancelling_a_task_disconnects_and_keeps_its_text(litellm_proxy: LiteLLMProxy) -> None:
    task = endless_task()
    got = ""
    async with adapter_of(litellm_proxy) as adapter:
        task_id = await adapter.submit_task(task)
        async for text in adapter.stream_result(task_id):
            got += text
            if got == WORDS:
                assert await adapter.cancel_task(task_id)
        await assert_disconnect_seen(litellm_proxy, task.prompt)
        result = await adapter.get_result(task_id)
    assert (result.status, result.output) == (TaskStatus.CANCELLED, WORDS)


async def test_a_reader_that_leaves_execute_streaming_disconnects(litellm_proxy: LiteLLMProxy) -> None:
    task = endless_task()
    got = ""
    async with adapter_of(litellm_proxy) as adapter:
        async with aclosing(adapter.execute_streaming(task)) as texts:
            async for text in texts:
                got += text
                if got == WORDS:
                    break
        await assert_disconnect_seen(litellm_proxy, task.prompt)
