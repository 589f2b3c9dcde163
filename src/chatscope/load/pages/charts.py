"""The charts of a report, as plotly figures in plain values: `data` and `layout`. Pure functions.

A colour is the name of a CSS variable, such as `var(--stage-0)`, which the page's script resolves: one figure serves
the light and the dark theme.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from chatscope.load.metrics import FORMULAS, StageSummary
from chatscope.load.pages import series
from chatscope.load.records import RequestRecord
from chatscope.load.report import LoadReport, StageReport

Figure: TypeAlias = dict[str, Any]

PERCENTS: Final = (50, 90, 99)
_COLOURS: Final = 8
"""The number of colours for stages. Further stages repeat the colours with another dash."""

_DASHES: Final = ("solid", "dot", "dashdot")


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure with its title, and a sentence that explains it. There may be only the sentence.

    `is_wide` is whether it needs the width of the page.
    """

    title: str
    caption: str
    figure: Figure | None = None
    is_wide: bool = False


def charts(report: LoadReport) -> Iterator[Chart]:
    """Yield the charts of a report, in order."""
    measured = [_measured(report, index) for index in range(len(report.stages))]
    names = [stage.summary.name for stage in report.stages]
    span = series.Span.of(report.records)
    yield _latency_against_throughput(report.stages)
    yield _pareto(report.stages)
    for name in ("ttft", "icl", "e2e"):
        yield distribution_chart(names, measured, name)
    yield _timeline(report.records, span)
    yield _over_time(report, span, "Output tokens per second", "tokens/s", series.token_rate(report.records, span))
    yield _over_time(report, span, "Requests running", "requests", series.running(report.records, span))
    yield _lateness(report, span)
    yield _errors(report.stages)


def _measured(report: LoadReport, index: int) -> list[RequestRecord]:
    return [record for record in report.records if record.stage == index and record.window == "measured"]


def _latency_against_throughput(stages: Sequence[StageReport]) -> Chart:
    title, unit = "Latency against throughput", _throughput_unit(stages)
    known = [stage.summary for stage in stages if _throughput(stage.summary, unit)]
    if not known:
        return Chart(title, "Nothing succeeded, so there is no throughput.")
    data = []
    for number, percent in enumerate(PERCENTS):
        points = [(_throughput(each, unit), each.metrics["ttft"].percentile(percent), each.name) for each in known]
        shown = [(x, y * 1e3, name) for x, y, name in points if y is not None]
        data.append(_line(*_columns(shown), f"ttft p{percent}", f"var(--shade-{number})", markers=True))
    caption = "Each point is a stage. To the right and down is better; where the lines turn up, the server is full."
    if len(stages) == 1:
        caption += " One stage is one point: give several, such as --rate 1,2,4, to see the curve."
    return Chart(title, caption, figure_of(data, f"{unit} (whole server)", "ms", **_axis_of_times(data)))


def _pareto(stages: Sequence[StageReport]) -> Chart:
    title = "Speed for one user against speed of the server"
    found = [
        (user, stage.summary.output_tokens_per_second, stage.summary.name)
        for stage in stages
        if (user := stage.summary.tokens_per_second_per_user) and stage.summary.output_tokens_per_second
    ]
    if not found:
        return Chart(title, "Unknown: it needs streams of several tokens, and the server's usage.")
    best: list[tuple[float, float, str]] = []
    for point in sorted(found, key=lambda point: (-point[0], -point[1])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    data = [
        _line(*_columns(best), "best of all stages", "var(--shade-1)"),
        {**_line(*_columns(found), "stage", "var(--stage-0)", markers=True), "mode": "markers+text"},
    ]
    data[1] |= {"textposition": "top center", "cliponaxis": False}
    caption = "Up and to the right is better. The line joins the stages that no other beats in both (Pareto)."
    figure = figure_of(data, "tokens/s for one user (1 / median tpot)", "tokens/s, whole server")
    figure["layout"]["xaxis"]["rangemode"] = figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return Chart(title, caption, figure)


_DISTRIBUTIONS: Final = {
    "ttft": ("Time to the first token", "From when a request was due. Dashed: from when it was dispatched."),
    "icl": ("Gaps between chunks", "Of all responses together."),
    "e2e": ("Time to the last token", "From when a request was due. Dashed: from when it was dispatched."),
}


def distribution_chart(names: Sequence[str], measured: Sequence[list[RequestRecord]], name: str) -> Chart:
    """Return the distributions of a latency in several sets of requests, by the names of the sets."""
    title, caption = _DISTRIBUTIONS[name]
    if name == "icl":
        thinned = [series.every_nth(records) for records in measured]
        measured, step = [list(records) for records, _ in thinned], max((step for _, step in thinned), default=1)
        caption += f" Drawn from one request in {step:,}." if step > 1 else ""
    data = []
    for index, (of, records) in enumerate(zip(names, measured, strict=True)):
        for which, dash in ((name, _DASHES[index // _COLOURS % len(_DASHES)]), (f"{name}_service", "dash")):
            values, shares = series.cumulative(records, which) if which in FORMULAS else ([], [])
            if values:
                trace = _line(values, shares, None, of, _stage_colour(index), dash=dash)
                data.append(trace | {"showlegend": which == name, "legendgroup": str(index)})
    if not data:
        return Chart(f"{title} ({name})", "No request had it.")
    figure = figure_of(data, f"{name}, ms", "share of requests" if name != "icl" else "share of gaps")
    figure["layout"]["yaxis"] |= {"range": [0, 1.02], "tickformat": ".0%"}
    if _is_wide([value for trace in data for value in trace["x"]]):
        figure["layout"]["xaxis"] |= {"type": "log", "dtick": 1}
    figure["layout"]["showlegend"] = len(names) > 1
    return Chart(f"{title} ({name})", caption, figure)


def _timeline(records: Sequence[RequestRecord], span: series.Span) -> Chart:
    shown = series.sample(records)
    waits: tuple[list[float | None], list[float | None]] = ([], [])
    outputs: tuple[list[float | None], list[float | None]] = ([], [])
    ends: dict[str, tuple[list[float], list[float]]] = {"failed": ([], []), "unfinished": ([], [])}
    for row, record in enumerate(shown):
        finished = record.finished_ns or record.due_ns
        first = record.token_ns[0] if record.token_ns else finished
        _add_segment(waits, span.seconds(record.due_ns), span.seconds(first), row)
        _add_segment(outputs, span.seconds(first), span.seconds(finished), row)
        if record.outcome != "ok":
            ends[record.outcome][0].append(span.seconds(finished))
            ends[record.outcome][1].append(row)
    data = [
        _line(*waits, None, "waiting for the first token", "var(--waiting)") | {"hoverinfo": "skip"},
        _line(*outputs, None, "receiving", "var(--stage-0)") | {"hoverinfo": "skip"},
        *(
            _line(x, y, None, name, f"var(--{name})", markers=True) | {"mode": "markers"}
            for name, (x, y) in ends.items()
            if x
        ),
    ]
    part = f" {len(shown):,} of {len(records):,} requests are shown." if len(shown) < len(records) else ""
    figure = figure_of(data, "seconds", "requests, by when they were due")
    figure["layout"]["yaxis"] |= {"autorange": "reversed", "showticklabels": False}
    return Chart("Requests", f"A line for each request, from when it was due.{part}", figure, is_wide=True)


def _over_time(report: LoadReport, span: series.Span, title: str, unit: str, points: series.Points) -> Chart:
    figure = figure_of([_line(*points, None, unit, "var(--stage-0)", fill=True)], "seconds", unit)
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return Chart(title, f"{_windows(figure, report, span)} Means over {span.bin_ns / 1e9:.2g} s.", figure)


def _lateness(report: LoadReport, span: series.Span) -> Chart:
    found = series.lateness(report.records, span)
    data = [
        _line(*points, None, name, f"var(--shade-{shade})")
        for (name, points), shade in zip(found.items(), (0, 2), strict=True)
    ]
    figure = figure_of(data, "seconds", "ms")
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    caption = "How late requests were sent: the client's own delay, and waiting for --max-concurrency."
    return Chart("Lateness", f"{caption} {_windows(figure, report, span)}", figure)


def _errors(stages: Sequence[StageReport]) -> Chart:
    kinds = sorted({kind for stage in stages for kind in stage.summary.failures})
    if not kinds:
        return Chart("Errors", "No measured request failed.")
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": stage.summary.name,
            "y": kinds,
            "x": [stage.summary.failures.get(kind, 0) for kind in kinds],
            "marker": {"color": _stage_colour(index)},
        }
        for index, stage in enumerate(stages)
        if stage.summary.failures
    ]
    figure = figure_of(data, "requests", "")
    figure["layout"] |= {"barmode": "stack"}
    figure["layout"]["yaxis"] |= {"automargin": True}
    return Chart("Errors", "Failed requests by status and kind. Nothing is sent again.", figure)


def _windows(figure: Figure, report: LoadReport, span: series.Span) -> str:
    """Shade the measured window of each stage. Return the sentence that explains it."""
    figure["layout"]["shapes"] = [
        {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "x0": span.seconds(stage.window_ns[0]),
            "x1": span.seconds(stage.window_ns[1]),
            "y0": 0,
            "y1": 1,
            "fillcolor": "var(--window)",
            "line": {"width": 0},
            "layer": "below",
        }
        for stage in report.stages
    ]
    return "Shaded: what was measured of each stage."


def figure_of(data: list[Figure], x: str, y: str, **layout: Any) -> Figure:
    """Return a figure with the titles of its axes."""
    axes = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
    return {"data": data, "layout": {**axes, "showlegend": len(data) > 1, **layout}}


def _line(
    x: Sequence[float | None],
    y: Sequence[float | None],
    text: Sequence[str] | None,
    name: str,
    colour: str,
    *,
    dash: str = "solid",
    markers: bool = False,
    fill: bool = False,
) -> Figure:
    trace: Figure = {"type": "scatter", "name": name, "x": x, "y": y, "mode": "lines+markers" if markers else "lines"}
    trace["line"] = {"color": colour, "width": 2, "dash": dash}
    trace["marker"] = {"color": colour, "size": 8}
    if text is not None:
        trace["text"] = text
    if fill:
        trace |= {"fill": "tozeroy", "fillcolor": "var(--fill)", "line": trace["line"] | {"shape": "hv", "width": 1.5}}
    return trace


def _columns(points: Iterable[tuple[Any, Any, str]]) -> tuple[list[Any], list[Any], list[str]]:
    rows = list(points)
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def _add_segment(trace: tuple[list[float | None], list[float | None]], start: float, end: float, row: int) -> None:
    """Add a horizontal line. The gap after it keeps it apart from the next."""
    trace[0].extend((start, end, None))
    trace[1].extend((row, row, None))


def _axis_of_times(data: Sequence[Figure]) -> dict[str, Any]:
    is_wide = _is_wide([value for trace in data for value in trace["y"]])
    return {"yaxis": {"title": {"text": "ms"}, **({"type": "log", "dtick": 1} if is_wide else {"rangemode": "tozero"})}}


def _is_wide(values: Sequence[float]) -> bool:
    """Return whether values differ so much that a linear axis would hide the small ones."""
    return bool(values) and max(values) > 50 * max(1e-9, min(values)) and min(values) > 0


def _stage_colour(index: int) -> str:
    return f"var(--stage-{index % _COLOURS})"


def _throughput_unit(stages: Sequence[StageReport]) -> str:
    is_known = all(stage.summary.output_tokens_per_second is not None for stage in stages)
    return "output tokens/s" if is_known else "requests/s"


def _throughput(summary: StageSummary, unit: str) -> float | None:
    return summary.output_tokens_per_second if unit.startswith("output") else summary.requests_per_second
