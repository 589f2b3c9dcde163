"""The comparison of two reports as a page: which differences are more than chance, and both distributions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from chatscope.load.comparison import Difference, StageComparison, compare, plan_differences
from chatscope.load.pages.charts import Chart, Figure, distribution_chart, figure_of
from chatscope.load.pages.page import bullets, chart_sections, page, table
from chatscope.load.pages.report_page import in_ms
from chatscope.load.records import RequestRecord
from chatscope.load.report import LoadReport
from chatscope.load.verdict import VerdictState

_WORSE: Final[tuple[VerdictState, ...]] = ("valid", "suspect", "invalid")


def comparison_page(first: LoadReport, second: LoadReport, names: tuple[str, str] = ("first", "second")) -> str:
    """Return the page that compares two reports, stage by stage.

    Args:
        first: a report.
        second: the other one. A difference is its figure minus the first one's.
        names: their names on the page.

    Raises:
        ValueError: they have no stage in common.
        ImportError: plotly is not installed; the message names the extra.
    """
    stages = compare(first, second)
    drawn = {stage.name: list(_charts(stage, (first, second), names)) for stage in stages}
    title = f"{names[0]} and {names[1]}"
    every = [chart for charts in drawn.values() for chart in charts]
    return page(title, _body(title, stages, (first, second), names, drawn), charts=every)


def _body(
    title: str,
    stages: Sequence[StageComparison],
    reports: tuple[LoadReport, LoadReport],
    names: tuple[str, str],
    drawn: dict[str, list[Chart]],
) -> Iterator[str]:
    yield f"<h1>{escape(title)}</h1>"
    for name, report in zip(names, reports, strict=True):
        yield f'<p class="soft">{escape(f"{name}: {_model(report)}, {report.started_at}")}</p>'
    worst = max((verdict for stage in stages for verdict in stage.verdicts), key=_WORSE.index)
    meaning = "Both clients were out of the way." if worst == "valid" else "This may compare clients, not servers."
    text = f"<p>{meaning}</p>{bullets(_verdicts(stages))}"
    yield f'<section class="verdict {worst}"><strong>Clients: {worst}</strong>{text}</section>'
    yield bullets(plan_differences(*reports))
    for stage in stages:
        yield f"<h2>{escape(stage.name)}</h2>"
        yield table(("", "unit", *names, "difference", "95 % interval", ""), map(_row, stage.differences))
        yield chart_sections(drawn[stage.name])
    yield (
        '<p class="soft">A difference is the second minus the first. Intervals come from the bootstrap: of requests for'
        " percentiles, of blocks of time for rates; of shares, they are Newcombe's. A percentile with fewer than ten"
        " values beyond it has none. Of twenty figures that do not differ, one is called a difference by chance.</p>"
    )


def _model(report: LoadReport) -> object:
    return report.plan.get("model", "a model")


def _verdicts(stages: Sequence[StageComparison]) -> Iterator[str]:
    for stage in stages:
        yield f"{stage.name}: client {stage.verdicts[0]}, then {stage.verdicts[1]}"


def _row(found: Difference) -> tuple[str, ...]:
    is_time = found.unit == "s"

    def shown(value: float) -> str:
        return in_ms(value) if is_time else f"{value:,.4g}"

    interval = "" if found.low is None or found.high is None else f"{shown(found.low)} to {shown(found.high)}"
    verdict = "differs" if found.is_significant else "may be chance" if interval else "unknown"
    unit = "ms" if is_time else found.unit
    return found.name, unit, shown(found.first), shown(found.second), shown(found.difference), interval, verdict


def _charts(stage: StageComparison, reports: tuple[LoadReport, LoadReport], names: tuple[str, str]) -> Iterator[Chart]:
    yield _changes(stage.differences)
    measured = [_measured(report, stage.name) for report in reports]
    for name in ("ttft", "icl", "e2e"):
        yield distribution_chart(names, measured, name)


def _measured(report: LoadReport, name: str) -> list[RequestRecord]:
    index = next(index for index, stage in enumerate(report.stages) if stage.summary.name == name)
    return [record for record in report.records if record.stage == index and record.window == "measured"]


def _changes(differences: Sequence[Difference]) -> Chart:
    """Return the relative differences with their intervals."""
    title = "Differences, in percent of the first"
    known = [each for each in reversed(differences) if each.low is not None and each.high is not None and each.first]
    if not known:
        return Chart(title, "No figure has an interval: there are too few requests.")
    data: list[Figure] = []
    for is_significant, name, colour in (
        (True, "differs", "var(--stage-1)"),
        (False, "may be chance", "var(--stage-7)"),
    ):
        rows = [each for each in known if each.is_significant is is_significant]
        percents = [100 * each.difference / each.first for each in rows]
        upper = [100 * ((each.high or 0) - each.difference) / each.first for each in rows]
        lower = [100 * (each.difference - (each.low or 0)) / each.first for each in rows]
        if rows:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "x": percents,
                    "y": [each.name for each in rows],
                    "error_x": {"type": "data", "symmetric": False, "array": upper, "arrayminus": lower},
                    "marker": {"color": colour, "size": 9},
                }
            )
    figure = figure_of(data, "%", "")
    order = [each.name for each in known]
    figure["layout"]["yaxis"] |= {"categoryorder": "array", "categoryarray": order}
    figure["layout"]["xaxis"]["zerolinewidth"] = 2
    return Chart(title, "Left of 0 is less. For latencies, less is better; for rates and shares, more.", figure)
