"""Load-test a chat server: a few lines on `chatscope.load`.

    python -m examples.load_harness --simulate --rate 20 --duration 5

Without `--simulate` it loads the server at `OPENAI_BASE_URL`. Times count from when a request was due. The simulator
shares this process and its CPU with the client, so the verdict may be that the client was in the way. To measure a
server alone, run it on another machine (`chatscope simulator` for the simulated one). The command `chatscope load` can
do all this and more; a harness of your own starts here.
"""

from __future__ import annotations

import argparse
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Final

import anyio

from chatscope.load import Length, LoadPlan, LoadReport, Workload, run
from chatscope.simulator import Reply, simulator

MODEL: Final = Reply(first_token=0.05, between_tokens=0.01)


async def measure(rate: float, duration: float, output_tokens: int, *, simulate: bool) -> LoadReport:
    """Send requests at a rate and return the report."""
    server: AbstractAsyncContextManager[str | None] = simulator(MODEL) if simulate else nullcontext()
    async with server as base_url:
        plan = LoadPlan(
            model="gpt-4o-mini",
            base_url=base_url,
            api_key="simulated" if simulate else None,
            rate=rate,
            duration=duration,
            workload=Workload(prompt_tokens=Length(64), output_tokens=Length(output_tokens)),
        )
        return await run(plan)


def print_report(report: LoadReport) -> None:
    """Print the verdict on the client, counts, and milliseconds."""
    (stage,) = report.stages
    summary = stage.summary
    print(f"client: {report.verdict}", *stage.verdict.reasons, sep="\n  ")
    print(f"{summary.attempts} requests, {summary.ok} ok")
    for name in ("ttft", "tpot", "e2e"):
        shown = [summary.metrics[name].percentile(percent) for percent in (50, 90, 99)]
        print(f"{name:5}", *("unknown" if value is None else f"{value * 1e3:8.2f} ms" for value in shown))
    for kind, count in summary.failures.items():
        print(f"{count} x {kind}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.load_harness", description="Load-test a chat server.")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second (default: %(default)s)")
    parser.add_argument("--duration", type=float, default=5.0, help="in seconds (default: %(default)s)")
    parser.add_argument("--output-tokens", type=int, default=50, help="of each response (default: %(default)s)")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio", help="default: %(default)s")
    parser.add_argument("--simulate", action="store_true", help="load a simulated server, not OPENAI_BASE_URL")
    given = parser.parse_args()
    body = partial(measure, given.rate, given.duration, given.output_tokens, simulate=given.simulate)
    print_report(anyio.run(body, backend=given.backend))
