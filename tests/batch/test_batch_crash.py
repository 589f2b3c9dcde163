"""Runs that are killed: nothing that was recorded is lost or sent again, and a resume is never refused."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.support.batches import ids
from tests.support.crashing import CONCURRENCY, REQUESTS
from tests.support.tables import row

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it forks, and kills by signals")


@pytest.mark.slow
def test_a_run_that_is_killed_at_each_write_ends_whole(tmp_path: Path) -> None:
    modes = ["before", "within", "after", "unreplaced", "replaced"]
    for mode in modes:
        (tmp_path / mode).mkdir()
    command = [sys.executable, "-m", "tests.support.crashing", str(tmp_path), *modes]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    for mode, report in json.loads(found.stdout).items():
        with row(mode):
            ends_whole(tmp_path / mode, report, kills=2 if "replaced" in mode else 7)


def ends_whole(folder: Path, report: dict[str, int], *, kills: int) -> None:
    assert report["kills"] >= kills
    assert (report["settled"], report["standing"]) == (REQUESTS, 1)
    assert ids(folder / "out.errors.jsonl") == ["request-5"]
    assert ids(folder / "out.jsonl") == [f"request-{number}" for number in range(REQUESTS) if number != 5]
    assert not list(folder.rglob("*.tmp"))
    seen = Counter((folder / "seen.log").read_text().splitlines())
    assert sum(seen.values()) - REQUESTS <= report["kills"] * CONCURRENCY


def test_a_limit_on_the_size_of_files_stops_the_run_with_the_reason(tmp_path: Path) -> None:
    script = """
import anyio, json, sys
from tests.support.batches import line, write_lines
from tests.support.memory_server import MemoryServer
from chatscope import AsyncChatGPTAdapter
from chatscope.batch import run_batch
from chatscope.simulator import Reply
from pathlib import Path

folder = Path(sys.argv[1])
source = write_lines(folder / "in.jsonl", [line(number) for number in range(20)])

async def main():
    async with AsyncChatGPTAdapter("sk-1", transport=MemoryServer(Reply("Hello."))) as adapter:
        async with run_batch(source, folder / "out.jsonl", adapter=adapter) as run:
            summary = await run.finish()
    print(json.dumps([summary.stop_reason, summary.stop_message, summary.succeeded, summary.exit_code]))

import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
anyio.run(main)
"""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))

    # -B: the limit would also cut the compiled modules that other processes load.
    command = [sys.executable, "-B", "-c", script, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, preexec_fn=limit)
    reason, message, succeeded, exit_code = json.loads(found.stdout)
    assert (reason, exit_code) == ("disk", 3)
    assert "File too large" in message
    recorded = ids(tmp_path / "out.jsonl")
    assert 0 < len(recorded) == len(set(recorded)) == succeeded
