"""Reports as pages: what is drawn, that it is what plotly takes, and that nothing in it comes from elsewhere."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from typing import Any

import pytest
from tests.support.load_reports import HOSTILE, SECOND, made_report

from chatscope.load import RequestRecord, comparison_page, report_page
from chatscope.load.pages import series
from chatscope.load.pages.charts import charts

Span = series.Span


class _Reader(HTMLParser):
    """Collects the elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._hidden += tag in {"script", "style"}

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in {"script", "style"}

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data + "\n"


@pytest.fixture(scope="module")
def page() -> str:
    pytest.importorskip("plotly", reason="it is what draws the pages")
    return report_page(made_report())


def test_the_verdict_comes_first_with_its_reasons(page: str) -> None:
    text = _Reader(page).text
    order = [
        "Client: suspect",
        "worker 0 used 70% of a core",
        "stamps were late by",
        "Objectives",
        "Stages",
        "Charts",
        "Formulas",
        "guidellm",
    ]
    positions = [text.index(each) for each in order]
    assert positions == sorted(positions)
    assert "200.0 ms, NOT MET" in text
    assert "rate 10: prompts had 5 tokens on average" in text


def test_a_page_loads_nothing_and_executes_nothing_of_a_server(page: str) -> None:
    """The policy forbids it, too: the browser would refuse."""
    read = _Reader(page)
    attributes = {name: value for _, given in read.elements for name, value in given.items()}
    assert not {"src", "href", "srcset", "action", "onerror", "onload"} & attributes.keys()
    assert {tag for tag, _ in read.elements}.isdisjoint({"img", "link", "iframe", "object", "embed", "base"})
    (policy,) = (given["content"] for tag, given in read.elements if given.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert sum(tag == "script" for tag, _ in read.elements) == 3
    assert not re.search(r"@import|url\(", page.split("</style>", maxsplit=1)[0])
    assert HOSTILE in read.text
    assert len(page) < 3_000_000


def test_every_figure_is_one_that_plotly_takes() -> None:
    objects = pytest.importorskip("plotly.graph_objects", reason="it checks the figures")
    found = list(charts(made_report()))
    titles = [chart.title for chart in found]
    assert titles == [
        "Latency against throughput",
        "Speed for one user against speed of the server",
        "Time to the first token (ttft)",
        "Gaps between chunks (icl)",
        "Time to the last token (e2e)",
        "Requests",
        "Output tokens per second",
        "Requests running",
        "Lateness",
        "Errors",
    ]
    for chart in found:
        assert chart.figure is not None, chart.title
        objects.Figure(_with_colours(chart.figure))
        for trace in chart.figure["data"]:
            assert len(trace["x"]) == len(trace["y"]) > 0, chart.title
    with pytest.raises(ValueError, match="linewidth"):
        objects.Figure({"data": [{"type": "scatter", "linewidth": 2}]})  # it does check


def test_a_report_of_nothing_but_failures_is_drawn() -> None:
    report = made_report(loads=(1,), failed=8)
    drawn = {chart.title: chart for chart in charts(report)}
    assert drawn["Latency against throughput"].figure is None
    assert drawn["Time to the first token (ttft)"].figure is None
    figure = drawn["Errors"].figure
    assert figure is not None
    assert figure["data"][0]["y"] == ["500 InternalServerError"]
    assert figure["data"][0]["x"] == [7], "one of eight was given up"


def test_two_reports_are_compared_on_a_page() -> None:
    pytest.importorskip("plotly", reason="it is what draws the pages")
    text = _Reader(comparison_page(made_report(failed=0), made_report(seed=2, failed=60), ("a", "b"))).text
    assert "Clients: suspect" in text
    assert text.index("rate 10") < text.index("rate 20")
    assert "differs" in text
    assert "may be chance" in text


def test_without_plotly_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.delitem(sys.modules, "plotly.offline", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'chatscope\[load\]'"):
        report_page(made_report())


def record(due: float, first: float, last: float, **values: Any) -> RequestRecord:
    """Return a request by seconds, whose two tokens are the first and the last."""
    given: dict[str, Any] = {"outcome": "ok", "output_tokens": 2} | values
    stamps = [round(first * SECOND), round(last * SECOND)]
    due_ns = round(due * SECOND)
    return RequestRecord(index=0, due_ns=due_ns, dispatched_ns=due_ns, token_ns=stamps, finished_ns=stamps[1], **given)


def test_a_distribution_ends_below_1_where_requests_were_given_up() -> None:
    given_up = RequestRecord(index=3, due_ns=0, dispatched_ns=0, finished_ns=SECOND)
    found = [record(0, 1, 2), record(0, 3, 4), record(0, 5, 6), given_up]
    assert series.cumulative(found, "ttft") == ([1000, 3000, 5000], [0, 0.375, 0.75])


def test_a_long_distribution_is_thinned_out_and_keeps_its_ends() -> None:
    values, shares = series.cumulative([record(0, n / 1000, 9) for n in range(1, 5001)], "ttft")
    assert (values[0], values[-1], shares[-1]) == (1, 5000, 1)
    assert len(values) < 250
    assert sum(share > 0.99 for share in shares) > 20, "the tail has points of its own"
    assert all(abs(value / 5000 - share) < 0.001 for value, share in zip(values, shares, strict=True))


def test_gaps_are_drawn_from_a_part_of_many() -> None:
    found = [record(n, n + 1, n + 2) for n in range(50)]
    assert series.every_nth(found) == (found, 1)
    for each in found:
        each.token_ns = [0] * (series.DRAWN_GAPS // 20)
    assert series.every_nth(found) == (found[::3], 3)


def test_rates_and_concurrency_keep_their_totals() -> None:
    found = [record(0, 1, 3), record(1, 2, 9, output_tokens=10), record(4, 5, 6, output_tokens=None)]
    span = Span.of(found)
    times, rates = series.token_rate(found, span)
    assert sum(rates) * span.bin_ns / SECOND == pytest.approx(12, rel=0.02)
    _, busy = series.running(found, span)
    assert sum(busy) * span.bin_ns / SECOND == pytest.approx(3 + 8 + 2, rel=0.02)
    assert max(busy) == 2
    assert times[0] == 0
    assert len(times) <= series.BINS


def test_lateness_has_the_longest_of_each_bin() -> None:
    found = [record(0, 1, 2) for _ in range(3)]
    for late, each in zip((1, 2, 9), found, strict=True):
        each.dispatched_ns = late * 1_000_000
    assert series.lateness(found, Span.of(found)) == {"median": ([0], [2]), "longest": ([0], [9])}


def test_a_timeline_is_sampled_evenly() -> None:
    found = [record(n, n + 1, n + 2) for n in range(4 * series.SHOWN_REQUESTS)]
    shown = series.sample(found[::-1])
    assert [each.due_ns // SECOND for each in shown] == list(range(0, 4 * series.SHOWN_REQUESTS, 4))


def _with_colours(value: Any) -> Any:
    """Return a figure whose CSS variables are resolved, as the page's script does."""
    if isinstance(value, str):
        return "#123456" if value.startswith("var(--") else value
    if isinstance(value, dict):
        return {key: _with_colours(each) for key, each in value.items()}
    return [_with_colours(each) for each in value] if isinstance(value, list) else value
