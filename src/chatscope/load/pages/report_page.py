"""report.html: first the verdict and its reasons, then figures, charts, the run, the formulas and their other names."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any, Final

from chatscope.load.client_error import ClientError
from chatscope.load.connections import connections_sentence
from chatscope.load.distributions import Percentile
from chatscope.load.metrics import FORMULAS
from chatscope.load.objectives import ObjectiveResult
from chatscope.load.pages.charts import charts
from chatscope.load.pages.page import bullets, chart_sections, details, page, table
from chatscope.load.report import LoadReport, StageReport
from chatscope.load.verdict import VerdictState

TOOLS: Final = ("MLPerf", "vLLM", "guidellm", "aiperf")
"""The tools that have a column in the table of names."""

MEANINGS: Final[dict[VerdictState, str]] = {
    "valid": "The client was not in the way: the figures are the server's.",
    "suspect": "The client may have been in the way: the figures may be worse than the server.",
    "invalid": "The client was in the way: the figures are not the server's.",
}


def report_page(report: LoadReport) -> str:
    """Return the page of a report.

    Raises:
        ImportError: plotly is not installed; the message names the extra.
    """
    drawn = list(charts(report))
    title = f"Load test of {report.plan.get('model', 'a model')}"
    return page(title, _body(title, report, chart_sections(drawn)), charts=drawn)


def _body(title: str, report: LoadReport, drawn: str) -> Iterator[str]:
    server = report.plan.get("base_url") or "the default server"
    version = report.host.get("chatscope", "")
    yield f"<h1>{escape(title)}</h1>"
    yield f'<p class="soft">{escape(f"{server}, {report.started_at}, chatscope {version}")}</p>'
    yield _verdict(report)
    if report.client_error is not None:
        yield _error_bars(report.client_error)
    yield from _goal(report)
    notes = [f"{stage.summary.name}: {note}" for stage in report.stages for note in stage.notices]
    yield bullets([*report.notices, *notes])
    yield "<h2>Stages</h2>"
    yield table(_STAGE_HEAD, (_stage_row(stage) for stage in report.stages), caption="Latencies in milliseconds")
    yield "<h2>Charts</h2>"
    yield drawn
    yield "<h2>All figures</h2>"
    for stage in report.stages:
        yield details(stage.summary.name, _latencies(stage) + _client(stage))
    yield details("The plan, the host and the salt", _values({**report.plan, **report.host, "salt": report.salt}))
    yield "<h2>Formulas</h2>"
    yield f'<div class="words">{table(("name", "formula", *TOOLS), _formulas())}</div>'
    yield (
        '<p class="soft">A row names the figure of another tool that is computed in the same way. Where a tool has the'
        " same name in another row, it means something else: the ITL of guidellm and aiperf is the mean of a request,"
        " vLLM's is one gap; guidellm's TPOT includes the time to the first token. Tokens are the server's own"
        " count.</p>"
    )


def _verdict(report: LoadReport) -> str:
    reasons = [f"{stage.summary.name}: {reason}" for stage in report.stages for reason in stage.verdict.reasons]
    stopped = "<p>The run was stopped early.</p>" if report.was_stopped else ""
    return (
        f'<section class="verdict {report.verdict}"><strong>Client: {report.verdict}</strong>'
        f"<p>{MEANINGS[report.verdict]}</p>{bullets(reasons)}{stopped}</section>"
    )


def _error_bars(error: ClientError) -> str:
    """Return the section on the client's own error, from a run of the same shape against the simulator."""
    rows = {
        "stamps were late by": error.stamp,
        "ttft was too long by": error.ttft,
        "icl was wrong by": error.icl,
        "requests arrived after they were due by": error.arrival,
    }
    shown = (
        (name, *(_milliseconds(found.percentiles.get(f"p{percent}")) for percent in (50, 99)), in_ms(found.maximum))
        for name, found in rows.items()
        if found.maximum is not None
    )
    held = "" if error.simulator_held else " The simulator did not hold this load, and was late itself."
    caption = f"This client against the simulator, in milliseconds: {error.verdict}, {error.tokens:,} tokens.{held}"
    return table(("error of the client", "p50", "p99", "max"), shown, caption=caption)


def _goal(report: LoadReport) -> Iterator[str]:
    found = report.search
    if found is not None:
        what = f"{found.kind} {found.value:g} met" if found.value is not None else f"no {found.kind} met"
        limit = "" if found.failed_at is None else f"; {found.failed_at:g} did not"
        yield f"<p><b>Search:</b> {escape(what)} every objective{escape(limit)}.</p>"
    stages = [stage for stage in report.stages if stage.objectives]
    if stages:
        head = [result.objective for result in stages[0].objectives]
        rows = [(stage.summary.name, *map(_outcome, stage.objectives), f"{stage.goodput:.1%}") for stage in stages]
        yield "<h2>Objectives</h2>"
        yield table(("stage", *head, "goodput"), rows)


_STAGE_HEAD: Final = (
    *("stage", "requests", "ok", "failed", "unfinished", "requests/s", "tokens/s", "tokens/s/user", "running"),
    *("ttft p50", "ttft p90", "ttft p99", "icl p50", "icl p99", "e2e p50", "e2e p99", "client"),
)


def _stage_row(stage: StageReport) -> tuple[object, ...]:
    summary = stage.summary
    shown = (("ttft", 50), ("ttft", 90), ("ttft", 99), ("icl", 50), ("icl", 99), ("e2e", 50), ("e2e", 99))
    return (
        *(summary.name, f"{summary.attempts:,}", f"{summary.ok:,}", f"{summary.failed:,}", f"{summary.unfinished:,}"),
        *(f"{summary.requests_per_second:,.2f}", _number(summary.output_tokens_per_second)),
        *(_number(summary.tokens_per_second_per_user), f"{summary.mean_concurrency:,.1f}"),
        *(_milliseconds(summary.metrics[name].percentiles.get(f"p{percent}")) for name, percent in shown),
        stage.verdict.state,
    )


def _latencies(stage: StageReport) -> str:
    rows = []
    for name, found in stage.summary.metrics.items():
        if found.percentiles:
            percentiles = (found.percentiles.get(f"p{percent}") for percent in (50, 90, 95, 99))
            mean = "" if found.mean is None else in_ms(found.mean)
            rows.append((name, f"{found.count:,}", f"{found.censored:,}", mean, *map(_with_interval, percentiles)))
    caption = "Milliseconds, with 95 % intervals. A star marks a percentile that fewer than 10 values lie beyond."
    return table(("", "count", "given up", "mean", "p50", "p90", "p95", "p99"), rows, caption=caption)


def _client(stage: StageReport) -> str:
    evidence = stage.verdict.evidence
    lags = {
        "lateness": evidence.lateness,
        "lag of the event loop": evidence.loop_lag,
        "stamps behind the kernel's": evidence.read_lag,
    }
    rows = [
        (name, *(_milliseconds(found.percentiles.get(f"p{percent}")) for percent in (50, 99)), in_ms(found.maximum))
        for name, found in lags.items()
        if found.maximum is not None
    ]
    notes = [f"CPU of worker {worker}: {share:.0%} of a core" for worker, share in enumerate(evidence.cpu_shares)]
    notes.append(connections_sentence(evidence, stage.summary.metrics["connect"].count, stage.summary.attempts))
    notes.append(f"chunks read together, late: {evidence.shared_read_share:.1%}")
    notes.append(f"garbage collection: {evidence.gc_share:.1%} of the time")
    if evidence.no_witness is not None:
        notes.append(f"no stamps of the kernel: {evidence.no_witness}")
    return table(("the client", "p50", "p99", "max"), rows, caption="Milliseconds") + bullets(notes)


def _values(values: dict[str, Any]) -> str:
    rows = ((name, "" if value is None else value) for name, value in values.items())
    return f'<div class="words">{table(("name", "value"), rows)}</div>'


def _formulas() -> Iterator[tuple[str, ...]]:
    for name, formula in FORMULAS.items():
        yield (name, formula.text, *(formula.also_called.get(tool, "") for tool in TOOLS))


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.1f}"


def _milliseconds(found: Percentile | None) -> str:
    if found is None:
        return ""
    text = "unknown" if found.value is None else in_ms(found.value)
    return f"{text}*" if found.few else text


def _with_interval(found: Percentile | None) -> str:
    text = _milliseconds(found)
    if found is None or found.low is None or found.high is None:
        return text
    return f"{text} ({in_ms(found.low)} to {in_ms(found.high)})"


def _outcome(result: ObjectiveResult) -> str:
    if result.value is None:
        measured = "unknown"
    elif result.objective.startswith("failed"):
        measured = f"{result.value:.2%}"
    else:
        measured = f"{in_ms(result.value)} ms"
    return f"{measured}, {'met' if result.is_met else 'NOT MET'}"


def in_ms(seconds: float) -> str:
    """Format a duration in milliseconds, without the unit."""
    value = seconds * 1e3
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"
