"""Takes one sample of one contender, in its own process: warm up, measure, check that the work was done.

Not here: the choice of contenders and the number of samples (`run`), and the meaning of the figures (`report`).
"""

from __future__ import annotations

import gc
import http.client
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import anyio

from benchmarks.contenders.base import Address, Contender, Received
from benchmarks.harness.loops import at_once
from benchmarks.harness.memory import resident_bytes
from benchmarks.harness.server import Pace, Statistics
from benchmarks.harness.wire import response_text
from benchmarks.scenarios.costs import Scenario

WARM_TOKENS: Final = 20
"""The length of the warm-up streams, in tokens: enough for every line of code to run."""

SETTLE_SECONDS: Final = 0.3
"""Seconds of silence after which everything sent has been read. The slowest client reads 1,000 streams in 0.1 s."""

WAIT_SECONDS: Final = 120.0
"""Seconds that the server may take to see something that must happen. After that, the run fails."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: the value, in the scenario's unit, and how busy client and server were."""

    value: float
    cpu_seconds: float
    wall_seconds: float
    server_cpu_seconds: float
    late_share: float
    """The share of the paced tokens that the server sent late."""


class Server:
    """The server's statistics. Requests for them block, so never make one within a measured section."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)

    def statistics(self) -> Statistics:
        """Ask."""
        self._connection.request("GET", "/stats")
        return Statistics(**json.loads(self._connection.getresponse().read()))

    async def until(self, holds: Callable[[Statistics], bool]) -> Statistics:
        """Poll until a condition is true."""
        with anyio.fail_after(WAIT_SECONDS):
            while not holds(seen := self.statistics()):  # noqa: ASYNC110 - it happens in another process
                await anyio.sleep(0.01)
        return seen

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Section:
    """A measured section. It starts when this object is created."""

    def __init__(self, server: Server) -> None:
        gc.collect()
        self._server = server
        self._before = server.statistics()
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def end(self, value: Callable[[float], float]) -> Sample:
        """End the section. The value is computed from the CPU seconds that it took."""
        cpu = time.process_time() - self._cpu
        wall = time.perf_counter() - self._wall
        before, after = self._before, self._server.statistics()
        late_share = (after.late_tokens - before.late_tokens) / max(after.tokens - before.tokens, 1)
        return Sample(value(cpu), cpu, wall, after.cpu_seconds - before.cpu_seconds, late_share)


async def take_sample(
    loop: str, client: type[Contender], scenario: Scenario, address: Address, server: Server
) -> Sample:
    """Open a contender, take one sample, close the contender."""
    async with client(address) as contender:
        match scenario.kind:
            case "stream":
                return await _cpu(loop, contender.stream, scenario, server, count=scenario.total * scenario.tokens)
            case "plain":
                return await _cpu(loop, contender.complete, scenario, server, count=scenario.total)
            case "memory":
                return await _memory(contender, scenario, server)
            case "cancel":
                return await _cancel(contender, scenario, server)
            case "import":
                raise ValueError("an import is timed in an interpreter of its own")


async def _cpu(
    loop: str, call: Callable[[int], Awaitable[Received]], scenario: Scenario, server: Server, *, count: int
) -> Sample:
    warm = min(scenario.tokens, WARM_TOKENS) if scenario.pace is Pace.STEADY else scenario.tokens
    await _closed_loop(loop, call, warm, scenario.at_once, scenario.at_once)
    section = Section(server)
    responses = await _closed_loop(loop, call, scenario.tokens, scenario.at_once, scenario.total)
    sample = section.end(lambda cpu: cpu / count * 1e6)
    for received in responses:
        _check(received, scenario.tokens)
    return sample


async def _closed_loop(
    loop: str, call: Callable[[int], Awaitable[Received]], tokens: int, callers: int, total: int
) -> list[Received]:
    """Make `total` calls from a number of callers. Each caller starts its next call when the last one has ended."""
    responses: list[Received] = []
    left = total

    async def caller() -> None:
        nonlocal left
        while left:
            left -= 1
            responses.append(await call(tokens))

    await at_once(loop, callers, caller)
    return responses


async def _memory(contender: Contender, scenario: Scenario, server: Server) -> Sample:
    await _size_with_streams_open(contender, scenario, server, 8)
    before = _size_without_garbage()
    section = Section(server)
    after = await _size_with_streams_open(contender, scenario, server, scenario.at_once)
    return section.end(lambda _: (after - before) / scenario.at_once / 1024)


async def _size_with_streams_open(contender: Contender, scenario: Scenario, server: Server, number: int) -> int:
    """Return the resident bytes while a number of streams are open and silent; then cancel the streams."""
    size = 0
    tokens = server.statistics().tokens + number * scenario.tokens
    async with anyio.create_task_group() as group:
        for _ in range(number):
            group.start_soon(contender.stream, scenario.tokens)
        await server.until(lambda seen: seen.tokens == tokens)
        await anyio.sleep(SETTLE_SECONDS)
        size = _size_without_garbage()
        await contender.cancel(group.cancel_scope.cancel)
    await server.until(lambda seen: not seen.open_streams)
    return size


def _size_without_garbage() -> int:
    gc.collect()
    return resident_bytes()


async def _cancel(contender: Contender, scenario: Scenario, server: Server) -> Sample:
    section = Section(server)
    took = [await _cancelled_in(contender, scenario, server) for _ in range(scenario.total)]
    return section.end(lambda _: statistics.median(took))


async def _cancelled_in(contender: Contender, scenario: Scenario, server: Server) -> float:
    """Return the microseconds from the cancellation of a stream until the server sees its connection closed."""
    ordered_ns = 0
    before = server.statistics()
    async with anyio.create_task_group() as group:
        group.start_soon(contender.stream, scenario.tokens)
        await server.until(lambda seen: seen.tokens > before.tokens + 3)
        ordered_ns = time.perf_counter_ns()
        await contender.cancel(group.cancel_scope.cancel)
    seen = await server.until(lambda seen: seen.broken_off > before.broken_off)
    return (seen.broken_off_ns - ordered_ns) / 1e3


def _check(received: Received, tokens: int) -> None:
    """Raise if the work was not done: it must not give a figure."""
    if received != Received(response_text(tokens), tokens):
        raise AssertionError(
            f"a response of {tokens} tokens was read as {len(received.text)} characters: {received!r:.200}"
        )
