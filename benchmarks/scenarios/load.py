"""`python -m benchmarks.load`: checks the accuracy of `chatscope.load`, row by row.

The server runs in its own process on its own core, and records the time of each write by the same clock. It writes the
first token 50 ms after a request has arrived, and another one every 10 ms. The difference between the client's time
stamp and the server's is the client's error. Each row shows a measurement and whether it meets its requirement. The
exit status is 1 if any row does not. Rows that compare several tools are in `load_tools`.
"""

from __future__ import annotations

import argparse
import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Final

import anyio

from benchmarks.harness.cores import Cores, on_core
from benchmarks.harness.paced import BETWEEN_TOKENS, FIRST_TOKEN, paced_server
from benchmarks.scenarios.load_readers import read_streams
from benchmarks.scenarios.load_tools import Compared, compare_tools
from chatscope.load import Length, LoadPlan, LoadReport, RequestRecord, StageReport, Workload, run, run_in_processes
from chatscope.load.distributions import linear_percentile
from chatscope.load.worker_loops import WORKER_LOOPS, WorkerLoop, anyio_backend_of
from chatscope.simulator.written import WrittenResponse, WrittenResponses
from chatscope.transport import HTTPTransport, ReadWitness

MOST_ERROR: Final = 0.010
"""The error at p99, in seconds, above which no verdict may be `valid`."""

RANGE: Final = (5, 10, 20, 30, 40, 50, 65, 80, 100, 120, 140, 160, 180, 200, 225, 250, 275, 300, 350, 400)
"""Numbers of streams of 100 tokens per second: from a fifth of a core's capacity to far beyond it."""

SAME_READ_NS: Final = 4000
"""The longest time between the stamp of a read and those of its tokens. Two reads are always further apart."""

SLOTS: Final = 4
STALL: Final = (7.99, 9.99)
STALL_RATE, STALL_SECONDS = 25, 20.0


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the result: the measurement, and whether it meets the requirement."""

    name: str
    measured: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Errors:
    """The differences between a report's time stamps and the server's, in seconds."""

    stamps: list[float]
    ttft: float
    gap: float

    @classmethod
    def of(cls, report: LoadReport, written: WrittenResponses) -> Errors:
        """Compare every token of the measured requests, and the medians computed from them."""
        pairs = _pairs(report, written)
        stamps = [
            (ours - theirs) / 1e9
            for record, response in pairs
            for ours, theirs in zip(record.token_ns, response.token_ns, strict=True)
        ]
        ttft = [record.token_ns[0] - (record.dispatched_ns or 0) for record, _ in pairs]
        true_ttft = [response.token_ns[0] - response.arrived_ns for _, response in pairs]
        gaps = [gap for record, _ in pairs for gap in _gaps(record.token_ns)]
        true_gaps = [gap for _, response in pairs for gap in _gaps(response.token_ns)]
        return cls(
            sorted(stamps),
            (_median(ttft) - _median(true_ttft)) / 1e9,
            (_median(gaps) - _median(true_gaps)) / 1e9,
        )

    def percentile(self, percent: float) -> float:
        """Return a percentile of the stamps' error."""
        return linear_percentile(self.stamps, percent)


def _pairs(report: LoadReport, written: WrittenResponses) -> list[tuple[RequestRecord, WrittenResponse]]:
    measured = [record for record in report.records if record.window == "measured" and record.outcome == "ok"]
    pairs = [(record, written.responses[record.request_id or ""]) for record in measured]
    assert pairs, "no measured request has ended: this machine is too busy"
    assert all(len(record.token_ns) == len(response.token_ns) for record, response in pairs)
    return pairs


def _witnessed(
    pairs: Sequence[tuple[RequestRecord, WrittenResponse]], reads: Sequence[tuple[int, int]]
) -> tuple[list[float], list[float]]:
    """Return the kernel's lags of the reads that brought tokens, and the errors of the last token of each, sorted.

    A token's stamp follows the stamp of its read within a few microseconds. No other read fits between them.
    """
    lags, true, moments = [], [], [read_ns for read_ns, _ in reads]
    for record, response in pairs:
        following = [*record.token_ns[1:], 0]
        for ours, theirs, after in zip(record.token_ns, response.token_ns, following, strict=True):
            at = bisect_right(moments, ours) - 1
            if ours != after and at >= 0 and ours - moments[at] <= SAME_READ_NS:
                lags.append(reads[at][1] / 1e9)
                true.append((ours - theirs) / 1e9)
    return sorted(lags), sorted(true)


def _gaps(stamps: Sequence[int]) -> list[int]:
    return [after - before for before, after in pairwise(stamps)]


def _median(values: Sequence[float]) -> float:
    return linear_percentile(sorted(values), 50)


def _ms(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds * 1e3:.2f}"


class LoadRows:
    """The rows. Each is measured when it is iterated over.

    Args:
        loop: the event loop of the workers.
        seconds: the length of each run of streams.
    """

    def __init__(self, loop: WorkerLoop, seconds: float) -> None:
        self._loop: WorkerLoop = loop
        self._seconds = seconds
        self._cores = Cores.of_this_machine()

    @property
    def rows(self) -> dict[str, Callable[[], Iterator[Row]]]:
        """The rows by name."""
        return {
            "streams": self.streams,
            "witness": self.witness,
            "range": self.range,
            "arrivals": self.arrivals,
            "stall": self.stall,
            "seed": self.seed,
            "simulator": self.simulator,
            "tools": self.tools,
        }

    def streams(self) -> Iterator[Row]:
        """Yield the errors at 5,000 and 15,000 events per second."""
        for number in (50, 150):
            report, errors, stage = self._streams(number, self._seconds)
            p50, p99 = errors.percentile(50), errors.percentile(99)
            cpu = sum(stage.verdict.evidence.cpu_shares)
            rate = stage.summary.output_tokens_per_second or 0.0
            shown = f"stamp - write: p50 {_ms(p50)}, p99 {_ms(p99)} ms; cpu {cpu:.0%}; {report.verdict}"
            if number == 50:
                shown += f"; ttft {_ms(errors.ttft)}, gap {_ms(errors.gap)} ms off"
                holds = p50 < 0.0003 and p99 < 0.003 and abs(errors.ttft) < 0.001 and abs(errors.gap) < 0.0002
            else:
                holds = p99 < MOST_ERROR or report.verdict != "valid"
            yield Row(f"{number} streams, {rate:,.0f} events/s", shown, holds)

    def witness(self) -> Iterator[Row]:
        """Yield whether a read's lag, by the kernel, is the time since the server wrote the last token of that read."""
        for number in (50, 100, 150):
            reads = ReadWitness()
            with paced_server(self._cores.server) as server, on_core(self._cores.client):
                plan = self._plan(server.base_url, 100, concurrency=number, duration=self._seconds)
                # In this process, where nothing else reads, so reads can be matched to tokens.
                backend, options = anyio_backend_of(self._loop)
                measured = partial(run, plan, transport=HTTPTransport(witness=reads))
                report = anyio.run(measured, backend=backend, backend_options=options)
            lags, true = _witnessed(_pairs(report, server.written), reads.take())
            figures = [(linear_percentile(lags, at), linear_percentile(true, at)) for at in (50, 99)]
            p50, p99 = (f"{_ms(lag)} (truth {_ms(error)})" for lag, error in figures)
            agrees = all(abs(lag - error) <= 0.0002 for lag, error in figures)
            yield Row(f"witness, {number} streams", f"lag of {len(lags):,} reads: p50 {p50}, p99 {p99} ms", agrees)

    def range(self) -> Iterator[Row]:
        """Yield how often a verdict was `valid` despite too large an error, over the whole range of loads."""
        wrong, shown = 0, []
        for number in RANGE:
            report, errors, _ = self._streams(number, 3.0)
            p99 = errors.percentile(99)
            wrong += report.verdict == "valid" and p99 > MOST_ERROR
            shown.append(f"{number}: {p99 * 1e3:.1f} ms {report.verdict}")
        yield Row(f"{len(RANGE)} runs", f"{wrong} valid with p99 above 10 ms ({'; '.join(shown)})", wrong == 0)

    def arrivals(self) -> Iterator[Row]:
        """Yield the time from when a request was due until it arrived at the server."""
        with paced_server(self._cores.server, tokens=10) as server:
            report = self.measure(self._plan(server.base_url, 10, rate=25, duration=max(self._seconds, 8.0)))
        delays = sorted((each.arrived_ns - record.due_ns) / 1e9 for record, each in _pairs(report, server.written))
        p50, p99 = linear_percentile(delays, 50), linear_percentile(delays, 99)
        shown = f"due - arrived: p50 {_ms(p50)}, p99 {_ms(p99)} ms; {report.verdict}"
        yield Row("25 requests/s", shown, p50 < 0.002 and p99 < 0.010)

    def stall(self) -> Iterator[Row]:
        """Yield the effect of a stall of two seconds on the headline figure and on the service time."""
        with paced_server(self._cores.server, tokens=1, stall=STALL) as server:
            plan = self._plan(server.base_url, 1, rate=STALL_RATE, duration=STALL_SECONDS, max_concurrency=SLOTS)
            report = self.measure(plan)
        implied = _implied_ttft_p99()
        metrics = report.stages[0].summary.metrics
        ttft, service = metrics["ttft"].percentile(99) or 0.0, metrics["ttft_service"].percentile(99) or 0.0
        shown = f"ttft p99 {ttft:.3f} s (the schedule implies {implied:.3f}); service p99 {service:.3f} s"
        yield Row("a stall of 2 s", shown, abs(ttft - implied) <= 0.05 * implied and service < 0.1)

    def seed(self) -> Iterator[Row]:
        """Yield whether one seed always gives the same schedule, for any number of workers, on every loop."""
        schedules = []
        runs: tuple[tuple[int, WorkerLoop], ...] = ((1, "asyncio"), (2, "asyncio"), (4, "asyncio"), (2, "trio"))
        for workers, loop in runs:
            with paced_server(self._cores.server, tokens=1) as server:
                plan = self._plan(server.base_url, 1, rate=100, duration=1.0)
                report = self.measure(plan, loop=loop, workers=workers)
            records = sorted(report.records, key=lambda record: record.index)
            schedules.append([record.due_ns - records[0].due_ns for record in records])
        same = all(schedule == schedules[0] for schedule in schedules)
        shown = f"{len(schedules[0])} requests over {', '.join(f'{n} {loop}' for n, loop in runs)}: "
        yield Row("seed", shown + ("the same to the nanosecond" if same else "different"), same)

    def simulator(self) -> Iterator[Row]:
        """Yield whether the paced server sustains 20,000 events per second on a core, or reports that it cannot."""
        with paced_server(self._cores.server, tokens=600) as server:
            read_streams(server.base_url, 200, 5.0)
        written, cost = server.written, server.cpu_seconds / max(1, server.written.tokens)
        verdict = "held" if written.held else "not held, and it says so"
        late = f"p50 {_ms(written.late_p50)}, p99 {_ms(written.late_p99)} ms"
        shown = f"{written.tokens:,} tokens, late by {late}: {verdict}"
        yield Row("simulator, 20,000 events/s", f"{shown}; {cost * 1e6:.0f} us of CPU a token", cost < 1 / 20_000)

    @staticmethod
    def tools() -> Iterator[Row]:
        """Yield each tool's figures for 50 streams, and whether chatscope's are the most accurate and the cheapest."""
        runs: list[Compared] = []
        for found in compare_tools():
            if not isinstance(found, Compared):
                yield Row(f"  {found[0]}", found[1], holds=True)
                continue
            runs.append(found)
            ours = runs[0]
            beaten = found.error >= ours.error and found.figures.cpu_seconds >= ours.figures.cpu_seconds
            yield Row(f"  {found.tool.name}", f"{found.shown}; worst by {_ms(found.error)} ms", beaten)

    def measure(self, plan: LoadPlan, *, loop: WorkerLoop | None = None, workers: int = 1) -> LoadReport:
        """Run a plan in worker processes, on the client's core."""
        with on_core(self._cores.client if workers == 1 else None):
            chosen: WorkerLoop = self._loop if loop is None else loop
            return anyio.run(partial(run_in_processes, plan, workers=workers, loop=chosen))

    def _streams(self, number: int, seconds: float) -> tuple[LoadReport, Errors, StageReport]:
        with paced_server(self._cores.server) as server:
            report = self.measure(self._plan(server.base_url, 100, concurrency=number, duration=seconds))
        return report, Errors.of(report, server.written), report.stages[0]

    @staticmethod
    def _plan(
        base_url: str,
        tokens: int,
        *,
        duration: float,
        concurrency: int | None = None,
        rate: float | None = None,
        max_concurrency: int | None = None,
    ) -> LoadPlan:
        return LoadPlan(
            model="m",
            base_url=base_url,
            api_key="",
            concurrency=concurrency,
            rate=rate,
            arrivals="constant" if max_concurrency else "poisson",
            max_concurrency=max_concurrency,
            duration=duration,
            warmup=0.0 if rate is not None else min(1.0, duration / 4),
            ramp=0.0 if rate is not None else min(0.5, duration / 8),
            workload=Workload(prompt_tokens=Length(16), output_tokens=Length(tokens)),
            calibrate=False,
        )


def _implied_ttft_p99() -> float:
    """Return the p99 that follows from the schedule, the stall and the slots."""
    free, ttft = [0.0] * SLOTS, []
    for due in (number / STALL_RATE for number in range(int(STALL_RATE * STALL_SECONDS))):
        starts = max(due, heapq.heappop(free))
        wait = STALL[1] - starts if STALL[0] <= starts < STALL[1] else 0.0
        heapq.heappush(free, starts + wait + FIRST_TOKEN)
        ttft.append(starts + wait + FIRST_TOKEN - due)
    return linear_percentile(sorted(ttft), 99)


def main(arguments: list[str] | None = None) -> int:
    """Measure the requested rows and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--rows", default="", help="names, separated by commas (default: all)")
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="length of each run of streams (default: %(default)s)"
    )
    parser.add_argument("--loop", choices=WORKER_LOOPS, default="asyncio")
    given = parser.parse_args(arguments)
    rows = LoadRows(given.loop, given.seconds).rows
    names = [name for name in given.rows.split(",") if name] or list(rows)
    if unknown := set(names) - rows.keys():
        parser.error(f"--rows: there are {', '.join(rows)}, not {', '.join(unknown)}")
    all_hold = True
    print(f"first token after {FIRST_TOKEN * 1e3:.0f} ms, then one every {BETWEEN_TOKENS * 1e3:.0f} ms; {given.loop}")
    for name in names:
        for row in rows[name]():
            print(f"{'holds' if row.holds else 'FAILS'}  {row.name:26} {row.measured}", flush=True)
            all_hold = all_hold and row.holds
    return 0 if all_hold else 1
