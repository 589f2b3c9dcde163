"""The output of a load test: a live table in a terminal, occasional lines elsewhere, and the report at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.table import Table

from chatscope.cli.client_lines import error_lines, witness_line
from chatscope.cli.progress_views import LiveProgress, ProgressLines, grid_of
from chatscope.cli.terminal import Terminal
from chatscope.load import LoadProgress, LoadReport, SearchResult, StageComparison, StageReport
from chatscope.load.connections import connections_sentence
from chatscope.load.distributions import Percentile

_SHOWN: Final = ("ttft", "ttft_service", "ttfat", "tpot", "icl", "e2e", "lateness", "queue", "connect")


class LoadLines(ProgressLines[LoadProgress]):
    """Prints a line every ten seconds, and one for each stage."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal, lambda progress: progress.stage, figures)


class LoadTable(LiveProgress[LoadProgress]):
    """Redraws a table at each progress report."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal, transient=True)

    def frame(self, progress: LoadProgress) -> Table:
        """Return the table."""
        return grid_of(figures(progress))


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
    if progress.verdict is not None:
        shown.append(("client so far", progress.verdict))
    if progress.seconds_left is not None:
        shown.append(("time left", f"{progress.seconds_left:.0f} s"))
    return shown


def report_lines(report: LoadReport) -> Iterator[str]:
    """Yield the lines of the report. The verdict comes first, because it says whether the rest can be trusted."""
    yield f"client: {report.verdict}"
    for notice in report.notices:
        yield f"notice: {notice}"
    if report.client_error is not None:
        yield from error_lines(report.client_error)
    if report.search is not None:
        yield _search_line(report.search)
    for stage in report.stages:
        yield ""
        yield from _stage_lines(stage)


def _search_line(found: SearchResult) -> str:
    limit = "" if found.failed_at is None else f"; {found.failed_at:g} does not"
    if found.client_in_the_way:
        limit += ", where the client was in the way"
    if found.value is None:
        return f"search: no {found.kind} meets every objective{limit}"
    higher = " (the search ended before a higher one failed)" if found.failed_at is None else ""
    return f"search: {found.kind} {found.value:g} meets every objective{limit}{higher}"


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
            name = f"{found.name} ({unit})" if unit else found.name
            yield f"{name:22}{values}{interval}{star}"
        yield ""
    yield "* more than chance; figures whose client was not valid compare clients, not servers"


def _stage_lines(stage: StageReport) -> Iterator[str]:
    summary = stage.summary
    counts = f"{summary.ok:,} ok, {summary.failed:,} failed, {summary.unfinished:,} unfinished"
    yield f"{summary.name}: {summary.attempts:,} requests in {summary.seconds:.1f} s: {counts}"
    for reason in stage.verdict.reasons:
        yield f"client {stage.verdict.state}: {reason}"
    yield witness_line(stage.verdict.evidence)
    yield connections_sentence(stage.verdict.evidence, summary.metrics["connect"].count, summary.attempts)
    for notice in stage.notices:
        yield f"notice: {notice}"
    for kind, count in sorted(summary.failures.items(), key=lambda item: -item[1]):
        yield f"{count:,} x {kind}"
    tokens = summary.output_tokens_per_second
    unknown = "unknown (a response reported no usage)" if summary.ok else "none"
    output = unknown if tokens is None else f"{tokens:,.1f} tokens/s"
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
    """Format a duration in milliseconds, without its unit: three significant digits, but no whole digit dropped."""
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
