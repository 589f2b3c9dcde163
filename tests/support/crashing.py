"""A batch that is killed at each of its writes in turn, each time in a process of its own, and resumed.

Run as `python -m tests.support.crashing FOLDER MODE ...`, with a folder of that name in FOLDER for each mode; prints
what the last, undisturbed run of each says. A mode is where the kill (SIGKILL) comes: `before` the write, `within` it
after some bytes, or `after` it; or else `unreplaced` or `replaced`, before or after a file takes the place of another.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
from tests.support.batches import line, questions, write_lines
from tests.support.memory_server import MemoryServer

from chatscope import AsyncChatGPTAdapter
from chatscope.batch import BatchSummary, run_batch
from chatscope.simulator import Reply, error

REQUESTS = 12
CONCURRENCY = 3
"""So many requests can be under way at a kill."""


def main(folder: Path, mode: str) -> dict[str, int]:
    """Kill, resume, and report."""
    source = write_lines(folder / "in.jsonl", [line(number) for number in range(REQUESTS)])
    kills = 0
    while True:
        pid = os.fork()
        if pid == 0:
            if mode in {"unreplaced", "replaced"}:
                _kill_at_replacement(kills % 4 + 1, mode)
            else:
                _kill_at_write(kills % 7 + 1, mode)
            anyio.run(_run, source, folder)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            break
        kills += 1
    summary = anyio.run(_run, source, folder)
    return {"kills": kills, "settled": summary.settled, "standing": summary.standing_failures}


async def _run(source: Path, folder: Path) -> BatchSummary:
    def script(request: Any) -> Any:
        question = questions([request.body])[0]
        with (folder / "seen.log").open("a") as seen:
            seen.write(question + "\n")
        return error(400) if question == "Question 5" else Reply("Hello.")

    adapter = AsyncChatGPTAdapter("sk-1", transport=MemoryServer(script), max_concurrency=CONCURRENCY)
    async with adapter, run_batch(source, folder / "out.jsonl", adapter=adapter, fsync="none", ordered=True) as run:
        return await run.finish()


def _kill_at_write(number: int, mode: str) -> None:
    write, writes = os.write, [0]

    def killing(fd: int, data: Any) -> int:
        writes[0] += 1
        if writes[0] < number:
            return write(fd, data)
        if mode != "before":
            write(fd, bytes(data)[: len(data) // 2] if mode == "within" else data)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    os.write = killing  # this process ends with it


def _kill_at_replacement(number: int, mode: str) -> None:
    replace, calls = os.replace, [0]

    def killing(source: Any, target: Any) -> None:
        calls[0] += 1
        if calls[0] == number and mode == "unreplaced":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if calls[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = killing  # type: ignore[assignment]  # as above


if __name__ == "__main__":
    sys.stdout.write(json.dumps({mode: main(Path(sys.argv[1]) / mode, mode) for mode in sys.argv[2:]}))
