"""The fixture `chat_simulator`: a real server beside the test."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from chatscope import AsyncChatGPTAdapter, AuthenticationError, ChatClient, RetryPolicy, Task
from chatscope.simulator import Config, Outcome, Reply, error, faults
from chatscope.testing import ChatSimulator

if TYPE_CHECKING:
    from tests.support.inner_pytest import Run

NOW = RetryPolicy(initial=0, jitter=0)


async def test_clients_find_it_and_it_sees_them_leave(chat_simulator: ChatSimulator) -> None:
    chat_simulator.script = [error(503), Reply("Hello."), Reply("one two", faults=(faults.stall(1),))]
    async with AsyncChatGPTAdapter(retry=NOW) as adapter:
        result = await adapter.execute(Task("hi"))
        assert (result.output, result.attempts) == ("Hello.", 2)
        async with adapter.execute_streaming(Task("again")) as stream:
            assert await anext(stream) == "one"
    await chat_simulator.wait_until(lambda server: server.connections_open == 0)
    prompts = [request.json["messages"][0]["content"] for request in chat_simulator.requests]
    assert prompts == ["hi", "hi", "again"]
    assert chat_simulator.requests[-1].outcome is Outcome.DISCONNECTED
    assert isinstance(chat_simulator.script, list)


async def test_waiting_for_it_can_be_cancelled(chat_simulator: ChatSimulator) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(chat_simulator.wait_until, lambda server: False)
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    async with ChatClient() as client:  # the server still works
        await client.complete(model="m", messages=[{"role": "user", "content": "hi"}])
    assert len(chat_simulator.requests) == 1


async def test_it_can_require_a_key(chat_simulator: ChatSimulator) -> None:
    chat_simulator.config = Config(api_keys=frozenset({"sk-right"}))
    for key, expected in (("sk-right", None), (None, AuthenticationError)):
        async with AsyncChatGPTAdapter(key, retry=NOW) as adapter:
            result = await adapter.execute(Task("hi"))
        assert type(result.exception) is (expected or type(None))
    assert chat_simulator.config.api_keys == {"sk-right"}


def test_a_program_in_another_process_finds_it(chat_simulator: ChatSimulator) -> None:
    chat_simulator.script = Reply("Hello from here.")
    command = [sys.executable, "-m", "chatscope", "ask", "hi"]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "Hello from here."
    anyio.run(chat_simulator.wait_until, lambda server: server.connections_open == 0)
    (request,) = chat_simulator.requests
    assert (request.outcome, request.headers["authorization"]) == (Outcome.COMPLETED, "Bearer sk-chatscope-test")


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.com")


async def test_it_is_exempt_from_proxies(proxied: None, chat_simulator: ChatSimulator) -> None:
    assert os.environ["NO_PROXY"] == "example.com,127.0.0.1"
    async with ChatClient() as client:
        await client.complete(model="m", messages=[{"role": "user", "content": "hi"}])


def test_the_environment_is_restored(run: Run) -> None:
    result = run("""
import os

def test_in(chat_simulator):
    assert os.environ["OPENAI_BASE_URL"] == chat_simulator.base_url
    assert os.environ["OPENAI_API_KEY"]

def test_after():
    assert "OPENAI_BASE_URL" not in os.environ
    assert "OPENAI_API_KEY" not in os.environ
""")
    result.assert_outcomes(passed=2)


def test_it_is_refused_in_virtual_time(run: Run) -> None:
    result = run("""
@pytest.mark.virtual_time
async def test_it(chat_simulator):
    pass
""")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["chat_simulator answers in real time: use chat_endpoint in virtual time"])
