"""Observers that fail: whatever they raise or return, the call does not notice, and the log says it once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import pytest

from chatscope import AsyncChatGPTAdapter, BadRequestError, ChatClient, Task, TaskStatus
from chatscope.simulator import error as error_response
from chatscope.telemetry.guard import Guard

if TYPE_CHECKING:
    from tests.support.memory_server import Serve

HI: Any = [{"role": "user", "content": "hi"}]


class Observer:
    """The plainest observer, which fails at one step. Its calls and attempts are itself."""

    def __init__(self, fails_at: str) -> None:
        self.fails_at = fails_at
        self.steps: list[str] = []

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name == self.fails_at:
            raise RuntimeError(f"bug in {name}")

    def call(self, *_: Any, **__: Any) -> Any:
        self._step("call")
        return self

    def start(self) -> None:
        self._step("start")

    def current(self) -> AbstractContextManager[object]:
        self._step("current")
        return self._block()

    @contextmanager
    def _block(self) -> Iterator[None]:
        self._step("enter")
        yield
        self._step("exit")

    def permit_acquired(self) -> None:
        self._step("permit_acquired")

    def attempt(self, failed: int) -> Any:
        self._step("attempt")
        return Attempt(self, failed)


class Attempt(Observer):
    """One attempt of an observer."""

    def __init__(self, observer: Observer, failed: int) -> None:
        super().__init__(observer.fails_at)
        self.steps = observer.steps
        self.failed = failed

    @property
    def headers(self) -> Mapping[str, str]:
        self._step("headers")
        return {"x-trace": "a\nb" if self.fails_at == "header value" else "1"}

    def on_response(self, *_: Any) -> None:
        self._step("on_response")

    def end(self, *_: Any) -> None:
        self._step("attempt end")


class CallEnd(Observer):
    """An observer that knows the end of a call."""

    def end(self, *_: Any, **__: Any) -> None:
        self._step("end")


STEPS = [
    "call",
    "start",
    "current",
    "enter",
    "exit",
    "permit_acquired",
    "attempt",
    "headers",
    "header value",
    "on_response",
    "attempt end",
    "end",
]


@pytest.fixture(params=STEPS)
def step(request: pytest.FixtureRequest) -> str:
    """Where the observer fails."""
    return str(request.param)


@pytest.mark.one_loop
async def test_a_task_does_not_notice(serve: Serve, step: str, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(["Hello."] * 4)
    observer = CallEnd(step)
    async with AsyncChatGPTAdapter("", base_url="http://x/v1", transport=server, telemetry=observer) as adapter:
        results = await adapter.gather([Task("hi")] * 3)
        result = await adapter.execute(Task("hi", parameters={"stream": False}))
        assert adapter.statistics().running == 0
    assert [each.status for each in (*results, result)] == [TaskStatus.COMPLETED] * 4
    assert step == "header value" or step in observer.steps
    logged = [record for record in caplog.records if record.name == "chatscope.callbacks"]
    # `current()` of the call and of its attempts are two functions.
    assert len(logged) == (2 if step in {"current", "enter", "exit"} else 1)
    assert all(record.exc_info for record in logged)


@pytest.mark.one_loop
async def test_a_client_does_not_notice(serve: Serve, step: str) -> None:
    server = serve(["Hello."] * 2)
    async with ChatClient("", base_url="http://x/v1", transport=server, telemetry=CallEnd(step)) as client:
        assert (await client.complete(model="m", messages=HI)).text == "Hello."
        async with client.stream(model="m", messages=HI) as stream:
            assert "".join([chunk.text async for chunk in stream]) == "Hello."
        assert client.statistics().running == 0


async def test_an_observer_s_block_swallows_no_error(serve: Serve) -> None:
    class Swallows(CallEnd):
        def current(self) -> AbstractContextManager[object]:
            return suppress(Exception)

    async with ChatClient(
        "", base_url="http://x/v1", transport=serve([error_response(400)]), telemetry=Swallows("")
    ) as client:
        with pytest.raises(BadRequestError):
            await client.complete(model="m", messages=HI)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (KeyboardInterrupt(), True),
        (SystemExit(), True),
        (BaseExceptionGroup("several", [ValueError(), KeyboardInterrupt()]), True),
        (asyncio.CancelledError(), False),
        (GeneratorExit(), False),
        (BaseExceptionGroup("several", [asyncio.CancelledError()]), False),
        (StopIteration(), False),
    ],
    ids=repr,
)
def test_a_guard_lets_only_what_ends_the_program_pass(error: BaseException, passes: bool) -> None:
    def function() -> None:
        raise error

    with pytest.raises(type(error)) if passes else nullcontext():
        Guard().call("prices", None, function)


def test_a_guard_refuses_async_functions(caplog: pytest.LogCaptureFixture) -> None:
    async def function() -> int:
        return 1

    guard = Guard()
    assert guard.call("prices", None, function) is None
    assert guard.call("prices", None, function) is None
    assert guard.call("telemetry", 2, nullcontext(1).__enter__) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "prices raised an error; it is ignored here, and further ones are not logged"
    ]
