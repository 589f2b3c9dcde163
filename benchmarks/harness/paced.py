"""Runs the simulator's paced server in a separate process. Clients' time stamps are compared with its own."""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from benchmarks.harness.cores import settle
from benchmarks.harness.processes import ROOT, environment
from chatscope.simulator import ChatRequest, Reply
from chatscope.simulator.paced import PacedServer
from chatscope.simulator.written import WrittenResponses

FIRST_TOKEN: Final = 0.05
BETWEEN_TOKENS: Final = 0.01


@dataclass(slots=True)
class Paced:
    """A running paced server.

    Attributes:
        base_url: its address.
        written: what it wrote; available once the block has ended.
        cpu_seconds: the CPU time that it used; available once the block has ended.
    """

    base_url: str
    written: WrittenResponses = msgspec.UNSET  # type: ignore[assignment]  # known at the end
    cpu_seconds: float = 0.0


@contextmanager
def paced_server(core: int | None, *, tokens: int = 100, stall: tuple[float, float] | None = None) -> Iterator[Paced]:
    """Run a server that sends the first token after 50 ms, and another every 10 ms.

    Args:
        core: the core to run on.
        tokens: the length of responses to requests without `max_tokens`.
        stall: the start and end of a period in which it sends nothing, in seconds from the first request.
    """
    command = [sys.executable, "-m", "benchmarks.harness.paced", "--tokens", str(tokens)]
    command += [] if core is None else ["--core", str(core)]
    command += [] if stall is None else ["--stall", *map(str, stall)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        running = Paced(process.stdout.readline().decode().strip())
        yield running
        rest, _ = process.communicate()
        running.cpu_seconds, running.written = msgspec.json.decode(rest, type=tuple[float, WrittenResponses])


def main() -> None:
    """Serve until standard input ends, then print the CPU seconds and what was written."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", type=int)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--stall", type=float, nargs=2)
    given = parser.parse_args()
    settle(given.core)
    began: list[float] = []

    def reply(_request: ChatRequest) -> Reply:
        began.append(time.perf_counter())
        since = began[-1] - began[0]
        stalled = given.stall[1] - since if given.stall and given.stall[0] <= since < given.stall[1] else 0.0
        return Reply(tokens=given.tokens, first_token=stalled + FIRST_TOKEN, between_tokens=BETWEEN_TOKENS)

    server = PacedServer(reply)
    print(server.base_url, flush=True)

    def stop_at_the_end() -> None:
        sys.stdin.buffer.read()
        server.stop()

    threading.Thread(target=stop_at_the_end, daemon=True).start()
    before = time.process_time()
    written = server.run()
    sys.stdout.buffer.write(msgspec.json.encode((time.process_time() - before, written)))


if __name__ == "__main__":
    main()
