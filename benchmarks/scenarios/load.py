"""`python -m benchmarks.load`: the figures of `chatscope.load` against a server that records when it wrote each token.

The server runs in a process of its own, on the same machine and the same clock. It writes the first token 50 ms after a
request has arrived, and one every 10 ms after that, each in a write of its own. The difference between a client's stamp
and the server's is the client's error. `streams` measures it in closed loops, `arrivals` measures from when a request
was due until it arrived, in an open loop of 25 requests a second. The exit status is 1 if a verdict was `valid`
although the error at p99 was above 10 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final

import anyio

from benchmarks.harness.processes import ROOT, environment
from chatscope.load import Length, LoadPlan, LoadReport, Workload, run
from chatscope.load.distributions import linear_percentile

FIRST_TOKEN: Final = 0.05
BETWEEN_TOKENS: Final = 0.01
MOST_ERROR: Final = 0.010
"""Seconds at p99: with a larger error no verdict may be `valid`."""

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TOKENS: Final = re.compile(rb'"max_tokens": ?(\d+)')

Written = dict[str, tuple[int, list[int]]]
"""By request id: when the request had arrived, and when each token was written (`time.perf_counter_ns`)."""

# -- the server --------------------------------------------------------------------------------------------------------


def _event(value: object) -> bytes:
    data = b"data: %s\n\n" % json.dumps(value).encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


def _chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return _event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


_ROLE: Final = _chunk({"role": "assistant", "content": ""})
_TOKEN: Final = _chunk({"content": " token"})


async def _respond(writer: asyncio.StreamWriter, request_id: str, tokens: int, written: Written) -> None:
    arrived = time.perf_counter_ns()
    stamps: list[int] = []
    written[request_id] = arrived, stamps
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    writer.write(f"{head}x-request-id: {request_id}\r\n\r\n".encode() + _ROLE)
    for number in range(tokens):
        due = arrived / 1e9 + FIRST_TOKEN + number * BETWEEN_TOKENS
        await asyncio.sleep(max(0.0, due - time.perf_counter_ns() / 1e9))
        stamps.append(time.perf_counter_ns())
        writer.write(_TOKEN)
    usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
    done = b"data: [DONE]\n\n"
    writer.write(_chunk({}, "stop") + _event({"id": "c", "choices": [], "usage": usage}))
    writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(done), done))


async def _serve() -> None:
    written: Written = {}
    numbers = count()

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    body = json.dumps(written).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                    await writer.drain()
                    continue
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                tokens = _TOKENS.search(body)
                await _respond(writer, f"r{next(numbers)}", int(tokens[1]) if tokens else 1, written)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # it ends with its standard input


@contextmanager
def _server() -> Iterator[int]:
    """Run the server in a process of its own, and yield its port."""
    command = [sys.executable, "-m", "benchmarks.load", "--serve"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.communicate()


# -- what is measured --------------------------------------------------------------------------------------------------


def _measure(loop: str, plan: LoadPlan) -> LoadReport:
    backend = "trio" if loop == "trio" else "asyncio"
    options = {"use_uvloop": loop == "uvloop"} if backend == "asyncio" else {}

    async def body() -> LoadReport:
        return await run(plan)

    return anyio.run(body, backend=backend, backend_options=options)


def _written(port: int) -> Written:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
        written: Written = json.load(response)
    return written


def _percentiles(nanoseconds: list[int]) -> tuple[float, float]:
    ordered = sorted(each / 1e9 for each in nanoseconds)
    return linear_percentile(ordered, 50), linear_percentile(ordered, 99)


def _plan(
    port: int, tokens: int, duration: float, *, concurrency: int | None = None, rate: float | None = None
) -> LoadPlan:
    return LoadPlan(
        model="m",
        base_url=f"http://127.0.0.1:{port}/v1",
        api_key="",
        concurrency=concurrency,
        rate=rate,
        duration=duration,
        warmup=min(1.0, duration / 4),
        ramp=min(0.5, duration / 8),
        workload=Workload(prompt_tokens=Length(16), output_tokens=Length(tokens)),
        calibrate=False,
    )


def streams(loop: str, numbers: list[int], duration: float) -> bool:
    """Print the client's error at each number of streams; return whether no verdict was wrong."""
    is_right = True
    for number in numbers:
        with _server() as port:
            report = _measure(loop, _plan(port, 100, duration, concurrency=number))
            written = _written(port)
        measured = [record for record in report.records if record.window == "measured" and record.outcome == "ok"]
        pairs = [(record, written[record.request_id or ""]) for record in measured]
        assert all(len(record.token_ns) == len(stamps) for record, (_, stamps) in pairs)
        errors = [
            ours - theirs for record, (_, stamps) in pairs for ours, theirs in zip(record.token_ns, stamps, strict=True)
        ]
        p50, p99 = _percentiles(errors)
        (stage,) = report.stages
        cpu = sum(stage.verdict.evidence.cpu_shares)
        metrics = stage.summary.metrics
        print(
            f"{loop:8}{number:5} streams {stage.summary.output_tokens_per_second or 0:8,.0f} events/s  stamp - write:"
            f" p50 {p50 * 1e3:.2f}, p99 {p99 * 1e3:.2f} ms  ttft p50 {(metrics['ttft'].percentile(50) or 0) * 1e3:.2f}"
            f" icl p50 {(metrics['icl'].percentile(50) or 0) * 1e3:.2f} ms  cpu {cpu:.0%}  {report.verdict}"
        )
        is_right = is_right and not (report.verdict == "valid" and p99 > MOST_ERROR)
    return is_right


def arrivals(loop: str, duration: float) -> None:
    """Print the time from when a request was due until it had arrived at the server."""
    with _server() as port:
        report = _measure(loop, _plan(port, 10, duration, rate=25))
        written = _written(port)
    delays = [written[record.request_id][0] - record.due_ns for record in report.records if record.request_id]
    p50, p99 = _percentiles(delays)
    print(f"{loop:8}25 requests/s  due - arrived: p50 {p50 * 1e3:.2f}, p99 {p99 * 1e3:.2f} ms  {report.verdict}")


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--streams", default="10,50,150", help="numbers of streams (default: %(default)s)")
    parser.add_argument("--duration", type=float, default=10.0, help="seconds of each run (default: %(default)s)")
    parser.add_argument("--loop", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.serve:
        asyncio.run(_serve())
        return 0
    is_right = streams(given.loop, [int(number) for number in given.streams.split(",")], given.duration)
    arrivals(given.loop, given.duration)
    return 0 if is_right else 1
