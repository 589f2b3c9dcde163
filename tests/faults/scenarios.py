"""What callers do with chatscope, to be cancelled at every checkpoint of it."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from tests.support.loopback import Listener, Server, responds

from chatscope import AsyncChatGPTAdapter, ChatClient, Result, RetryPolicy, Task, TaskStatus, Timeouts, ToolResult
from chatscope.simulator import Answer, Reply, ToolCall, error, faults
from chatscope.simulator.config import Script
from chatscope.transport import HTTPTransport

TEXT = "Hello, world."
MODEL = "gpt-4o-mini"
MESSAGES = [{"role": "user", "content": "hi"}]
RETRY = RetryPolicy(attempts=3, initial=0.002, jitter=0)
"""Waits long enough to be cancelled in, short enough to be waited for some hundred times."""

LARGE = "word " * 800_000
"""4 MB: more than a socket's buffers take at once, so that sending waits for the server."""

HELLO = (
    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n"
    b'data: {"choices": [{"delta": {"content": "Hello"}}]}\n\ndata: [DONE]\n\n'
)

PACED = Reply(TEXT, first_token=0.001, between_tokens=0.001)
"""A response that is read in several parts, so that there are checkpoints between them."""

DONE = (TaskStatus.COMPLETED, TEXT)


class World:
    """The adapters and clients of one run, which all talk to one server.

    Attributes:
        base_url: the server's.
        context: trusts the server's certificate.
        adapters, clients, transports: those that were made.
        outer: the adapter whose block is open around the scenario, if it wants one.
    """

    def __init__(self, base_url: str, context: ssl.SSLContext) -> None:
        self.base_url = base_url
        self.context = context
        self.adapters: list[AsyncChatGPTAdapter] = []
        self.clients: list[ChatClient] = []
        self.transports: list[HTTPTransport] = []
        self.outer: AsyncChatGPTAdapter | None = None

    def adapter(self, **options: Any) -> AsyncChatGPTAdapter:
        """Make an adapter."""
        made = AsyncChatGPTAdapter("sk-1", MODEL, **self._common(options))
        self.adapters.append(made)
        return made

    def client(self, **options: Any) -> ChatClient:
        """Make a client."""
        made = ChatClient(api_key="sk-1", **self._common(options))
        self.clients.append(made)
        return made

    @property
    def around(self) -> AsyncChatGPTAdapter:
        """The adapter whose block is open around the scenario."""
        assert self.outer is not None
        return self.outer

    def _common(self, options: dict[str, Any]) -> dict[str, Any]:
        transport = HTTPTransport(verify=self.context, trust_env=False)
        self.transports.append(transport)
        return {
            "base_url": self.base_url,
            "transport": transport,
            "timeout": Timeouts(read=30),
            "retry": RETRY,
            **options,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Something to cancel.

    Attributes:
        name: what it is.
        run: does it; returns what the caller has in the end.
        expected: what that is if nobody cancels.
        script: what the simulator answers.
        server: something else to talk to.
        tls: through TLS.
        by_name: to `localhost` rather than to an address: resolver, addresses, happy eyeballs.
        outside: the adapter's block is open around it, and stays open when it is cancelled.
        goes_on: whether its tasks then go on to their ends, rather than being cancelled.
    """

    name: str
    run: Callable[[World], Awaitable[object]]
    expected: object = DONE
    script: Script = PACED
    server: Callable[[], Server] | None = None
    tls: bool = False
    by_name: bool = False
    outside: bool = False
    goes_on: bool = False


def gist(result: Result) -> tuple[TaskStatus, str]:
    """Return what of a result is compared."""
    return result.status, result.output


async def plain(world: World) -> object:
    async with world.adapter() as adapter:
        return gist(await adapter.execute(Task("hi", parameters={"stream": False})))


async def stream(world: World) -> object:
    async with world.adapter() as adapter:
        return gist(await adapter.execute(Task("hi")))


async def large_request(world: World) -> object:
    async with world.adapter() as adapter:
        return gist(await adapter.execute(Task(LARGE)))


async def queue(world: World) -> object:
    async with world.adapter(max_concurrency=1) as adapter:
        handles = [adapter.start_task(Task("hi")) for _ in range(3)]
        return [gist(await handle.wait()) for handle in handles]


async def two_at_once(world: World) -> object:
    async with world.adapter() as adapter:
        handles = [adapter.start_task(Task("hi")) for _ in range(2)]
        return [gist(await handle.wait()) for handle in handles]


async def budgets(world: World) -> object:
    async with world.adapter(requests_per_minute=30_000, tokens_per_minute=10_000_000) as adapter:
        handles = [adapter.start_task(Task("hi")) for _ in range(3)]
        return [gist(await handle.wait()) for handle in handles]


async def block_exit(world: World) -> object:
    async with world.adapter() as adapter:
        handles = [adapter.start_task(Task("hi")) for _ in range(2)]
    return [gist(await handle.wait()) for handle in handles]


async def inside_cancel_task(world: World) -> object:
    async with world.adapter() as adapter:
        task_id = await adapter.submit_task(Task("hi"))
        text = await anext(adapter.stream_result(task_id))
        stopped = await adapter.cancel_task(task_id)
        return text, stopped, gist(await adapter.get_result(task_id))


async def streaming_with_a_reader(world: World) -> object:
    async with world.adapter() as adapter:
        task = Task("hi")
        text = "".join([part async for part in adapter.execute_streaming(task)])
        return (await adapter.get_result(task.task_id or "")).status, text


async def two_readers(world: World) -> object:
    async with world.adapter() as adapter:
        handle = adapter.start_task(Task("hi"))
        texts = ["", ""]

        async def read(place: int) -> None:
            async for part in handle.stream():
                texts[place] += part

        async with anyio.create_task_group() as group:
            group.start_soon(read, 0)
            group.start_soon(read, 1)
        return texts


async def client_stream(world: World) -> object:
    async with world.client() as client, client.stream(model=MODEL, messages=MESSAGES) as stream:
        return "".join([chunk.text async for chunk in stream])


async def client_complete(world: World) -> object:
    async with world.client() as client:
        return (await client.complete(model=MODEL, messages=MESSAGES)).text


async def look_up() -> str:
    """Look it up."""
    await checkpoint()
    return "found"


async def client_stream_tools(world: World) -> object:
    async with world.client(max_concurrency=1) as client:
        async with client.stream_tools(model=MODEL, messages=MESSAGES, tools=[look_up]) as run:
            results = [event.content async for event in run if isinstance(event, ToolResult)]
        return results, run.result.text


async def steps(world: World) -> object:
    async with world.adapter(max_concurrency=1) as adapter:
        handle = adapter.start_task(Task("hi", tools=[look_up]))
        return [step.finish_reason async for step in handle.steps()], (await handle.wait()).status


async def client_queue(world: World) -> object:
    async with world.client(max_concurrency=1) as client:
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(_complete, client)
        async with client.stream(model=MODEL, messages=MESSAGES) as stream:
            return "".join([chunk.text async for chunk in stream])


async def _complete(client: ChatClient) -> None:
    await client.complete(model=MODEL, messages=MESSAGES)


async def outer_execute(world: World) -> object:
    return gist(await world.around.execute(Task("hi")))


async def outer_get_result(world: World) -> object:
    task_id = await world.around.submit_task(Task("hi"))
    return gist(await world.around.get_result(task_id, timeout=30))


async def outer_stream_result(world: World) -> object:
    task_id = await world.around.submit_task(Task("hi"))
    return "".join([part async for part in world.around.stream_result(task_id)])


async def outer_streaming(world: World) -> object:
    async with world.around.execute_streaming(Task("hi")) as parts:
        return "".join([part async for part in parts])


async def outer_streaming_left_alone(world: World) -> object:
    return "".join([part async for part in world.around.execute_streaming(Task("hi"))])


REFUSED: Sequence[Answer] = [error(429, retry_after=0.002), error(429, retry_after=0.01), Reply(TEXT)]
"""The second pause is the longer one: the first task's retry has its turn before the pause is over."""

CALLING = Reply(tool_calls=(ToolCall("look_up", {}),))

STALLED = Reply(TEXT, faults=(faults.stall(1),))

SCENARIOS = [
    Scenario(name="plain", run=plain),
    Scenario(name="stream", run=stream),
    Scenario(name="retry wait", run=stream, script=[error(503), faults.close(0), Reply(TEXT)]),
    Scenario(name="429 pause", run=two_at_once, expected=[DONE, DONE], script=REFUSED),
    Scenario(name="queue wait", run=queue, expected=[DONE] * 3),
    Scenario(name="budgets", run=budgets, expected=[DONE] * 3),
    Scenario(name="connect by name", run=stream, by_name=True),
    Scenario(name="TLS handshake", run=stream, tls=True),
    Scenario(
        name="large request",
        run=large_request,
        expected=(TaskStatus.COMPLETED, "Hello"),
        server=lambda: Listener(responds(HELLO)),
    ),
    Scenario(name="two at once", run=two_at_once, expected=[DONE, DONE]),
    Scenario(name="block exit", run=block_exit, expected=[DONE, DONE]),
    Scenario(
        name="inside cancel_task",
        run=inside_cancel_task,
        expected=("Hello", True, (TaskStatus.CANCELLED, "Hello")),
        script=STALLED,
    ),
    Scenario(name="execute_streaming", run=streaming_with_a_reader),
    Scenario(name="two readers", run=two_readers, expected=[TEXT, TEXT]),
    Scenario(name="ChatClient.stream", run=client_stream, expected=TEXT),
    Scenario(name="ChatClient.complete", run=client_complete, expected=TEXT),
    Scenario(
        name="ChatClient.stream_tools", run=client_stream_tools, expected=(["found"], TEXT), script=[CALLING, PACED]
    ),
    Scenario(
        name="steps of a task",
        run=steps,
        expected=(["tool_calls", "stop"], TaskStatus.COMPLETED),
        script=[CALLING, PACED],
    ),
    Scenario(name="ChatClient, queue wait", run=client_queue, expected=TEXT),
    Scenario(name="execute, block stays open", run=outer_execute, outside=True),
    Scenario(name="get_result, block stays open", run=outer_get_result, outside=True, goes_on=True),
    Scenario(
        name="stream_result, block stays open", run=outer_stream_result, expected=TEXT, outside=True, goes_on=True
    ),
    Scenario(name="execute_streaming, block stays open", run=outer_streaming, expected=TEXT, outside=True),
    Scenario(name="execute_streaming, not closed", run=outer_streaming_left_alone, expected=TEXT, outside=True),
]
