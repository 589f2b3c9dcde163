"""Load-test a chat server: percentiles of the time to first token and between tokens, and tokens per second.

    python -m examples.load_harness --simulate --requests 200 --at-once 20

Without `--simulate` it loads the server at `OPENAI_BASE_URL`. chatscope records the times: a token's time is the moment
when its bytes were read. The time to the first token starts with the request; it includes connecting, but not the wait
for a free slot. A server that puts several tokens into one chunk shows fewer and larger gaps. The load is closed: a
slow server gets fewer requests, not a longer queue. The simulator shares this process and its CPU with the client. To
measure the client alone, run `chatscope simulator` on another machine.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from statistics import quantiles
from typing import Final

import anyio

from chatscope import AsyncChatGPTAdapter, RetryPolicy, Task, TaskConstraints
from chatscope.simulator import Reply, simulator

MODEL: Final = Reply(tokens=50, first_token=0.05, between_tokens=0.01)
PROMPT: Final = "Write a paragraph about waiting."


async def main(requests: int, at_once: int, max_tokens: int, *, simulate: bool) -> None:
    """Send the requests and print the measurements."""
    first_token: list[float] = []
    between_tokens: list[float] = []
    failed: Counter[str] = Counter()
    tokens = 0
    constraints = TaskConstraints(max_tokens=max_tokens)
    server: AbstractAsyncContextManager[str | None] = simulator(MODEL) if simulate else nullcontext()
    async with (
        server as base_url,
        AsyncChatGPTAdapter(
            "simulated" if simulate else None,
            base_url=base_url,
            max_concurrency=at_once,
            retry=RetryPolicy(attempts=1),  # a failure is a result here, not something to retry
        ) as adapter,
    ):
        start = time.perf_counter()
        async with adapter.map(Task(PROMPT, constraints=constraints) for _ in range(requests)) as results:
            async for result in results:
                timings = result.timings
                if not result.success or timings is None or timings.first_token_seconds is None:
                    failed[result.error or "an empty response"] += 1
                    continue
                first_token.append(timings.first_token_seconds)
                between_tokens += timings.inter_token_seconds
                tokens += result.usage.completion_tokens if result.usage else len(timings.token_ns)
        seconds = time.perf_counter() - start
    print(f"{requests} requests, {at_once} at once, {failed.total()} failed, {seconds:.2f} s")
    print_percentiles("first token", first_token)
    print_percentiles("between tokens", between_tokens)
    print(f"{tokens} tokens, {tokens / seconds:.0f} tokens/s")
    for error, count in failed.most_common():
        print(f"{count} x {error}")


def print_percentiles(name: str, seconds: list[float]) -> None:
    """Print a line of milliseconds."""
    if len(seconds) > 1:  # percentiles need two values
        cuts = quantiles(seconds, n=100, method="inclusive")
        print(f"{name:14}", *(f"  p{rank} {cuts[rank - 1] * 1e3:8.2f} ms" for rank in (50, 90, 99)))


def count(text: str) -> int:
    """Parse a positive integer."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.load_harness", description="Load-test a chat server.")
    parser.add_argument("--requests", type=count, default=200, help="number of requests (default: %(default)s)")
    parser.add_argument("--at-once", type=count, default=20, help="concurrent requests (default: %(default)s)")
    parser.add_argument("--max-tokens", type=count, default=200, help="limit of each response (default: %(default)s)")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio", help="default: %(default)s")
    parser.add_argument("--simulate", action="store_true", help="load a simulated server, not OPENAI_BASE_URL")
    given = parser.parse_args()
    body = partial(main, given.requests, given.at_once, given.max_tokens, simulate=given.simulate)
    anyio.run(body, backend=given.backend)
