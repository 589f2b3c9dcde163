"""Resumes a batch with most lines recorded: measures the time to the first progress and request, and the memory.

The recorded rows are of OpenAI's batch format with ids, so a resumed run knows them by the digests of their lines. Rows
of other formats are decoded again, which takes several times as long.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

from benchmarks.harness.wire import MODEL
from benchmarks.scenarios.batch_input import figures_of, write_input
from chatscope import AsyncChatGPTAdapter
from chatscope.batch import BatchOptions, run_batch
from chatscope.batch.journal import Paths
from chatscope.batch.readers import InputRow
from chatscope.batch.requests import RowParser
from chatscope.simulator import Reply, simulator


def resume(lines: int, settled: int) -> None:
    """Print the peak of the resident size, and the time until the first new request."""
    with tempfile.TemporaryDirectory() as folder:
        source = write_input(Path(folder) / "in.jsonl", lines)
        _write_output(source, Path(folder) / "out.jsonl", settled)
        figures = figures_of("--resume", str(source))
    print(
        f"{lines:,} lines, {settled:,} recorded: first progress after {figures['progress']:.2f} s (wanted 1), first new"
        f" request after {figures['first']:.1f} s (wanted 15; {figures['cpu']:.1f} s of CPU), of which"
        f" {figures['scan']:.1f} s to read the output ({settled / figures['scan']:,.0f} lines a second, wanted"
        f" 100,000); peak {figures['mib']:.0f} MiB of 250"
    )


def _write_output(source: Path, output: Path, settled: int) -> None:
    parser = RowParser(BatchOptions(), MODEL)
    content = "Structured concurrency keeps tasks inside a block. " * 4
    body = {"id": "chatcmpl-1", "object": "chat.completion", "model": MODEL, "created": 1}
    body["choices"] = [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]
    body["usage"] = {"prompt_tokens": 20, "completion_tokens": 40, "total_tokens": 60}
    response = {"status_code": 200, "request_id": "req_1", "body": body}
    paths = Paths(output)
    paths.meta.mkdir()
    with source.open("rb") as lines, output.open("wb") as file, paths.started.open("wb") as started:
        started.write(b"run 1\n")
        for number, data in zip(range(1, settled + 1), lines, strict=False):
            row = parser.parse(InputRow(number, data.strip()))
            facts = {"key": row.key.hex(), "source": row.source.hex(), "line": number, "attempts": 1, "cost_usd": 1e-5}
            recorded = {"id": "batch_req_1", "custom_id": row.custom_id, "response": response, "error": None}
            file.write(json.dumps(recorded | {"chatscope": facts}).encode() + b"\n")
            started.write(f"{row.request().pair.hex()} {json.dumps(row.custom_id)}\n".encode())


def measure_resume(source: Path) -> None:
    """Resume, and print the measurements as JSON."""
    began = time.perf_counter()
    seen: dict[str, float] = {}

    async def main() -> None:
        server = simulator(Reply("Hello.", first_token=0, between_tokens=0))
        async with server as base_url, AsyncChatGPTAdapter("", base_url=base_url, max_concurrency=4) as adapter:
            run = run_batch(source, source.with_name("out.jsonl"), adapter=adapter)
            async with anyio.create_task_group() as group:
                group.start_soon(watch, run)
                async with run:
                    while not server.requests:  # noqa: ASYNC110 - it has no event for that
                        await anyio.sleep(0.01)
                    seen["first"], seen["cpu"] = time.perf_counter() - began, time.process_time()
                group.cancel_scope.cancel()

    async def watch(run: Any) -> None:
        while True:
            await anyio.sleep(0.05)
            progress = run.progress()
            seen.setdefault("progress", time.perf_counter() - began)
            if progress.phase != "reading the output":
                seen.setdefault("scan", time.perf_counter() - began)

    anyio.run(main)
    seen["mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(seen))
