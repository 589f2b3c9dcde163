"""The output of a load test: a live table in a terminal, occasional lines elsewhere, and the report at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from rich.live import Live
from rich.table import Table
from rich.text import Text

from chatscope.cli.terminal import Terminal, without_controls
from chatscope.load import LoadProgress, LoadReport, StageComparison, StageReport
from chatscope.load.distributions import Percentile

PLAIN_SECONDS: Final = 10.0
"""Seconds between two plain lines."""

_SHOWN: Final = ("ttft", "ttft_service", "ttfat", "tpot", "icl", "e2e", "lateness", "queue")


class LoadView(Protocol):
    """Shows a run while its block is open."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, progress: LoadProgress) -> None:
        """Show the current progress."""


class NoLoadView:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, progress: LoadProgress) -> None:
        """Do nothing."""


class LoadLines(NoLoadView):
    """Prints a line every ten seconds, and one for each stage."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._stage = ""
        self._shown_at = 0.0

    def show(self, progress: LoadProgress) -> None:
        """Print a line if one is due."""
        now = time.monotonic()
        if progress.stage != self._stage or now - self._shown_at >= PLAIN_SECONDS:
            self._stage, self._shown_at = progress.stage, now
            line = "; ".join(f"{name} {value}" for name, value in figures(progress))
            self._terminal.print(Text(without_controls(line)), soft_wrap=True)


class LoadTable:
    """Redraws a table with each progress."""

    def __init__(self, terminal: Terminal) -> None:
        self._live = Live(Text(""), console=terminal, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, progress: LoadProgress) -> None:
        """Draw the table."""
        grid = Table.grid(padding=(0, 1))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in figures(progress):
            grid.add_row(name, Text(without_controls(value)))
        self._live.update(grid, refresh=True)


def figures(progress: LoadProgress) -> list[tuple[str, str]]:
    """Return the shown figures: names and values."""
    counts = f"{progress.sent:,} sent, {progress.running:,} running, {progress.ok:,} ok, {progress.failed:,} failed"
    shown = [("stage", progress.stage), ("requests", counts)]
    if progress.output_tokens_per_second is not None:
        shown.append(("output", f"{progress.output_tokens_per_second:,.0f} tokens/s"))
    for name, pair in (("ttft", progress.ttft), ("icl", progress.icl)):
        if pair is not None:
            shown.append((name, f"p50 {milliseconds(pair[0])}, p99 {milliseconds(pair[1])} ms"))
    if progress.lateness_p99 is not None:
        shown.append(("lateness", f"p99 {milliseconds(progress.lateness_p99)} ms"))
    if progress.seconds_left is not None:
        shown.append(("time left", f"{progress.seconds_left:.0f} s"))
    return shown


def report_lines(report: LoadReport) -> Iterator[str]:
    """Yield the lines of the report. The verdict comes first: it says whether to read on."""
    yield f"client: {report.verdict}"
    for notice in report.notices:
        yield f"notice: {notice}"
    for stage in report.stages:
        yield ""
        yield from _stage_lines(stage)


def comparison_lines(stages: Sequence[StageComparison]) -> Iterator[str]:
    """Yield the lines of a comparison. A star marks differences that are more than chance."""
    for stage in stages:
        yield f"{stage.name}: client {stage.verdicts[0]}, then {stage.verdicts[1]}"
        yield f"{'':22}{'first':>12}{'second':>12}{'difference':>14}  95 % interval"
        for found in stage.differences:
            scale = 1e3 if found.unit == "s" else 1.0
            values = f"{found.first * scale:>12,.4g}{found.second * scale:>12,.4g}{found.difference * scale:>+14,.3g}"
            interval = ""
            if found.low is not None and found.high is not None:
                interval = f"  {found.low * scale:+,.3g} to {found.high * scale:+,.3g}"
            star = " *" if found.is_significant else ""
            unit = "ms" if found.unit == "s" else found.unit
            yield f"{f'{found.name} ({unit})':22}{values}{interval}{star}"
        yield ""
    yield "* more than chance; figures whose client was not valid compare clients, not servers"


def _stage_lines(stage: StageReport) -> Iterator[str]:
    summary = stage.summary
    counts = f"{summary.ok:,} ok, {summary.failed:,} failed, {summary.unfinished:,} unfinished"
    yield f"{summary.name}: {summary.attempts:,} requests in {summary.seconds:.1f} s: {counts}"
    for reason in stage.verdict.reasons:
        yield f"client {stage.verdict.state}: {reason}"
    for notice in stage.notices:
        yield f"notice: {notice}"
    for kind, count in sorted(summary.failures.items(), key=lambda item: -item[1]):
        yield f"{count:,} x {kind}"
    tokens = summary.output_tokens_per_second
    output = "unknown (a response reported no usage)" if tokens is None else f"{tokens:,.1f} tokens/s"
    running = f"{summary.mean_concurrency:.1f} running on average"
    yield f"{summary.requests_per_second:.2f} requests/s, output {output}, {running}"
    yield f"{'ms':13}{'p50':>10} {'95 % interval':>20}{'p90':>11}{'p99':>11}"
    for name in _SHOWN:
        found = summary.metrics[name]
        if found.percentiles and found.maximum:
            p50, p90, p99 = (found.percentiles[f"p{percent}"] for percent in (50, 90, 99))
            yield f"{name:13}{_value(p50):>10} {_interval(p50):>20}{_value(p90):>11}{_value(p99):>11}"
    if any(found.few for metric in summary.metrics.values() for found in metric.percentiles.values()):
        yield "* fewer than 10 values lie beyond it"
    for result in stage.objectives:
        value = "unknown" if result.value is None else _measured(result.objective, result.value)
        yield f"{'met' if result.is_met else 'NOT MET'}: {result.objective} (measured: {value})"
    if stage.objectives:
        yield f"goodput: {stage.goodput:.1%} of all requests, {stage.goodput_per_second:.2f} a second"


def milliseconds(seconds: float) -> str:
    """Format a duration without its unit: three digits, or all that are whole milliseconds."""
    value = seconds * 1e3
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _measured(objective: str, value: float) -> str:
    return f"{value:.2%}" if objective.startswith("failed") else f"{milliseconds(value)} ms"


def _value(found: Percentile) -> str:
    text = "unknown" if found.value is None else milliseconds(found.value)
    return f"{text}*" if found.few else f"{text} "


def _interval(found: Percentile) -> str:
    if found.low is None or found.high is None:
        return ""
    return f"{milliseconds(found.low)} to {milliseconds(found.high)}"
