"""Bad input: a clear error that names the argument, before anything is sent."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from chatscope import (
    AsyncChatGPTAdapter,
    ChatClient,
    InternalServerError,
    RetryPolicy,
    Task,
    TaskConstraints,
    Timeouts,
    retry_on_rate_limit,
    retry_on_transient,
)
from chatscope._limits.pacer import BudgetPacer
from chatscope.simulator import error

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

HI = [{"role": "user", "content": "hi"}]
NAN = float("nan")
INF = float("inf")


@contextmanager
def refused(name: str, given: object) -> Iterator[None]:
    """Assert that the block raises a ValueError that names an argument; a failure shows what was given."""
    try:
        yield
    except ValueError as refusal:
        if name not in str(refusal):
            pytest.fail(f"{given!r}: {refusal}")
    else:
        pytest.fail(f"{given!r} was accepted")


def constrained(**constraints: Any) -> Task:
    return Task("hi", constraints=TaskConstraints(**constraints))


def with_parameters(**parameters: Any) -> Task:
    return Task("hi", parameters=parameters)


TASKS: list[tuple[str, Task]] = [
    ("prompt", Task()),
    ("prompt", Task("")),
    ("prompt", Task(3)),  # type: ignore[arg-type]
    ("prompt and messages", Task("hi", messages=HI)),
    ("messages", Task(messages=[])),
    ("messages", Task(messages="hi")),  # type: ignore[arg-type]
    ("messages", Task(messages=["hi"])),  # type: ignore[list-item]
    ("context", Task("hi", context=[1])),  # type: ignore[arg-type]
    ("constraints", Task("hi", constraints={"max_tokens": 5})),  # type: ignore[arg-type]
    ("timeout_seconds", constrained(timeout_seconds=-1)),
    ("timeout_seconds", constrained(timeout_seconds=0)),
    ("timeout_seconds", constrained(timeout_seconds=NAN)),
    ("timeout_seconds", constrained(timeout_seconds="5")),
    ("timeout_seconds", constrained(timeout_seconds=True)),
    ("temperature", constrained(temperature="warm")),
    ("temperature", constrained(temperature=NAN)),
    ("temperature", constrained(temperature=True)),
    ("max_tokens", constrained(max_tokens=0)),
    ("max_tokens", constrained(max_tokens=1.5)),
    ("max_tokens", constrained(max_tokens=True)),
    ("max_turns", constrained(max_turns=0)),
    ("tool_timeout_seconds", constrained(tool_timeout_seconds=-1)),
    ("tool_timeout_seconds", constrained(tool_timeout_seconds=NAN)),
    ("model", constrained(model=5)),
    ("model", constrained(model="")),
    ("on_tool_error", Task("hi", on_tool_error="hide")),  # type: ignore[arg-type]
    ("parameters", Task("hi", parameters=None)),  # type: ignore[arg-type]
    ("parameters", Task("hi", parameters=5)),  # type: ignore[arg-type]
    ("parameters", Task("hi", parameters=[1])),  # type: ignore[arg-type]
    ("parameters", Task("hi", parameters="x")),  # type: ignore[arg-type]
    ("parameters has messages", with_parameters(messages=HI)),
    ("model", with_parameters(model="")),
    ("model", with_parameters(model=5)),
    ("retry", with_parameters(retry=0)),
    ("logit_bias", with_parameters(logit_bias={"5": NAN})),
    ("extra_body", with_parameters(extra_body={"top_k": INF})),
    ("extra_body", with_parameters(extra_body=5)),
    ("priority", constrained(priority="high")),
    ("temperature", with_parameters(temperature="warm")),
    ("temperature", with_parameters(temperature=INF)),
    ("top_p", with_parameters(top_p="all")),
    ("n", with_parameters(n=True)),
    ("stop", with_parameters(stop=object())),
    ("tools", with_parameters(tools=[{1, 2}, object()])),
    ("timeout", with_parameters(timeout=-1)),
    ("extra_headers", with_parameters(extra_headers={"x-a": "1\r\nx-b: 2"})),
    ("extra_headers", with_parameters(extra_headers={"x a": "1"})),
    ("extra_headers", with_parameters(extra_headers={"x-a": 1})),
    ("extra_headers", with_parameters(extra_headers={"Content-Length": "5"})),
    ("extra_headers", with_parameters(extra_headers={"transfer-encoding": "chunked"})),
    ("extra_headers", with_parameters(extra_headers={"Upgrade": "h2c"})),
    ("extra_body", with_parameters(extra_body=[1])),
]


async def test_a_task(serve: Serve) -> None:
    server = serve()
    async with AsyncChatGPTAdapter("sk-1", transport=server) as adapter:
        for name, task in TASKS:
            for call in (adapter.start_task, adapter.execute_streaming):
                with refused(name, task):
                    call(task)
            for method in (adapter.submit_task, adapter.execute):
                with refused(name, task):
                    await method(task)
            assert task.task_id is None
        report = adapter.get_adapter_status()
        assert (report["pending"], report["running"], report["finished"]) == (0, 0, 0)
        assert adapter.statistics().running == 0, "a slot is lost"
        assert (await adapter.execute(Task("hi"))).success
    assert len(server.requests) == 1


@pytest.mark.one_loop
@pytest.mark.parametrize("wrong", [b"hello", None, {"prompt": "hi"}])
async def test_what_is_no_task(serve: Serve, wrong: Any) -> None:
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        with pytest.raises(ValueError, match="task must be a Task, not "):
            await adapter.submit_task(wrong)
        with pytest.raises(ValueError, match="task must be a Task, not "):
            adapter.execute_streaming(wrong)


ARGUMENTS: list[tuple[str, dict[str, Any]]] = [
    ("timeout", {"timeout": -1}),
    ("timeout", {"timeout": 0}),
    ("timeout", {"timeout": NAN}),
    ("timeout", {"timeout": "60"}),
    ("timeout", {"timeout": True}),
    ("base_url", {"base_url": "example.com/v1"}),
    ("base_url", {"base_url": "ftp://example.com"}),
    ("base_url", {"base_url": "http://"}),
    ("base_url", {"base_url": "http:///v1"}),
    ("base_url", {"base_url": "https://exa mple.com"}),
    ("base_url", {"base_url": "http://[half"}),
    ("base_url", {"base_url": "http://example.com:port"}),
    ("base_url", {"base_url": "http://example.com:99999/v1"}),
    ("base_url", {"base_url": 5}),
    ("base_url", {"base_url": ""}),
    ("retry", {"retry": 0}),
    ("retry", {"retry": True}),
    ("retry", {"retry": {"attempts": 3}}),
    ("transport", {"transport": "x"}),
    ("http_client", {"http_client": "x"}),
    ("verify", {"verify": 5}),
    ("verify", {"verify": "/no/such/file.pem"}),
    ("verify and cert", {"verify": False, "transport": httpx.MockTransport(lambda _: httpx.Response(200))}),
    ("cert", {"cert": "/no/such/file.pem"}),
    ("cert", {"cert": "/no/such/file.pem", "verify": ssl.create_default_context()}),
    ("telemetry", {"telemetry": "yes"}),
    ("telemetry", {"telemetry": 5}),
    ("default_headers", {"default_headers": "x"}),
    ("default_headers", {"default_headers": 5}),
    ("default_headers", {"default_headers": [1]}),
    ("max_concurrency", {"max_concurrency": 0}),
    ("max_concurrency", {"max_concurrency": -5}),
    ("max_concurrency", {"max_concurrency": 1.5}),
    ("max_concurrency", {"max_concurrency": True}),
    ("max_concurrency", {"max_concurrency": "many"}),
    ("max_pending", {"max_pending": 0}),
    ("backpressure", {"backpressure": "no"}),
    ("requests_per_minute", {"requests_per_minute": 0}),
    ("tokens_per_minute", {"tokens_per_minute": NAN}),
    ("pacer", {"pacer": 600}),
    ("pacer", {"pacer": BudgetPacer(1, None), "requests_per_minute": 1}),
    ("default_headers", {"default_headers": {"x-a": "1\nx-b: 2"}}),
    ("default_headers", {"default_headers": {"x-a": "1\r"}}),
    ("default_headers", {"default_headers": {"x\n": "1"}}),
    ("default_headers", {"default_headers": {"x-a": "é"}}),
    ("default_headers", {"default_headers": {"": "1"}}),
    ("api_key", {"api_key": "sk-1\n"}),
    ("api_key", {"api_key": 5}),
    ("organization", {"organization": "a\r\nb"}),
    ("project", {"project": "a\0b"}),
]

ADAPTER_ONLY: list[tuple[str, dict[str, Any]]] = [
    ("model", {"model": ""}),
    ("model", {"model": None}),
    ("hedge_after", {"hedge_after": -1}),
    ("keep_finished", {"keep_finished": 0}),
    ("keep_finished", {"keep_finished": 2.5}),
    ("prices", {"prices": {"m": {"input": -1, "output": 1}}}),
]


@pytest.mark.parametrize("make", [ChatClient, AsyncChatGPTAdapter])
def test_an_argument_of_client_and_adapter(make: Callable[..., object]) -> None:
    for name, arguments in [*ARGUMENTS, *(ADAPTER_ONLY if make is AsyncChatGPTAdapter else ())]:
        with refused(name, arguments):
            make(**arguments)


@pytest.mark.parametrize("prices", [5, "gpt-4o", {"m": 5}, {5: {"input": 1, "output": 1}}])
def test_prices_of_a_wrong_type(prices: Any) -> None:
    with pytest.raises(TypeError, match="prices"):
        AsyncChatGPTAdapter("sk-1", prices=prices)


@pytest.mark.parametrize("base_url", ["http://me:secret@example.com/v1?api-key=secret", "ftp://me:secret@example.com"])
def test_an_address_shows_no_password(base_url: str) -> None:
    try:
        adapter = AsyncChatGPTAdapter("sk-1", base_url=base_url)
    except ValueError as error:
        shown = str(error)
    else:
        shown = f"{adapter!r} {adapter.get_adapter_status()}"
    assert ("***@example.com" if base_url.startswith("http") else "not with ftp://") in shown
    assert "secret" not in shown


def test_an_empty_address_in_the_environment_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    assert ChatClient().base_url == "https://api.openai.com/v1"
    with pytest.raises(ValueError, match="base_url"):
        ChatClient(base_url="")


def test_an_address_from_the_environment_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:8000")
    with pytest.raises(ValueError, match="base_url"):
        AsyncChatGPTAdapter("sk-1")


POLICIES: list[tuple[str, Callable[[], object]]] = [
    ("attempts", lambda: RetryPolicy(attempts=0)),
    ("attempts", lambda: RetryPolicy(attempts=True)),
    ("initial", lambda: RetryPolicy(initial=-1)),
    ("max", lambda: RetryPolicy(max=NAN)),
    ("jitter", lambda: RetryPolicy(jitter=-0.5)),
    ("connect", lambda: Timeouts(connect=-1)),
    ("first_token", lambda: Timeouts(first_token=0)),
    ("idle", lambda: Timeouts(idle=NAN)),
    ("total", lambda: Timeouts(total="1")),  # type: ignore[arg-type]
    ("read", lambda: Timeouts(read=-1)),
    ("attempts", lambda: retry_on_rate_limit(max_attempts=0)),
    ("initial", lambda: retry_on_transient(initial_wait=-1)),
]


def test_of_the_policies() -> None:
    for name, make in POLICIES:
        with refused(name, make):
            make()


async def test_the_timeout_of_a_wait(serve: Serve) -> None:
    wrong: list[Any] = [-1, NAN, "5", True]
    async with AsyncChatGPTAdapter("sk-1", transport=serve()) as adapter:
        task_id = await adapter.submit_task(Task("hi"))
        for limit in wrong:
            with refused("timeout", limit):
                await adapter.get_result(task_id, timeout=limit)


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("model", {"model": "", "messages": HI}),
    ("model", {"model": None, "messages": HI}),
    ("messages", {"model": "m", "messages": []}),
    ("messages", {"model": "m", "messages": "hi"}),
    ("messages", {"model": "m", "messages": {"role": "user"}}),
    ("messages", {"model": "m", "messages": ["hi"]}),
    ("messages", {"model": "m", "messages": [{"role": "user", "content": object()}]}),
    ("temperature", {"model": "m", "messages": HI, "temperature": "hot"}),
    ("temperature", {"model": "m", "messages": HI, "temperature": NAN}),
    ("timeout", {"model": "m", "messages": HI, "timeout": NAN}),
    ("extra_headers", {"model": "m", "messages": HI, "extra_headers": {"a": "b\nc"}}),
    ("extra_body", {"model": "m", "messages": HI, "extra_body": 5}),
    ("extra_body", {"model": "m", "messages": HI, "extra_body": {"a": [NAN]}}),
    ("logit_bias", {"model": "m", "messages": HI, "logit_bias": {"5": NAN}}),
    ("retry", {"model": "m", "messages": HI, "retry": 0}),
    ("user", {"model": "m", "messages": HI, "user": object()}),
]


async def test_of_one_request(serve: Serve) -> None:
    server = serve()
    async with ChatClient(api_key="k", transport=server, max_concurrency=1) as client:
        for name, request in REQUESTS:
            with refused(name, request):
                await client.complete(**request)
            with refused(name, request):
                client.stream(**request)
        assert server.requests == []
        assert (await client.complete(model="m", messages=HI)).text


async def test_a_request_s_own_policy_may_be_left_to_the_client(serve: Serve) -> None:
    once = RetryPolicy(attempts=1)
    async with ChatClient(api_key="k", transport=serve(error(503)), retry=once) as client:
        with pytest.raises(InternalServerError) as caught:
            await client.complete(model="m", messages=HI, retry=None)
        assert caught.value.attempts == 1
    async with AsyncChatGPTAdapter("sk-1", transport=serve(error(503)), retry=once) as adapter:
        result = await adapter.execute(with_parameters(retry=None))
        assert (type(result.exception), result.attempts) == (InternalServerError, 1)
