"""One HTML page: its frame, its styles for light and dark, tables, charts, and plotly's embedded script.

Here: HTML in general. Not here: the content of a page (`report_page`, `comparison_page`), and the figures (`charts`).

The page loads nothing. Its Content-Security-Policy forbids it, so a later change cannot do it by mistake.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterable, Sequence
from html import escape
from importlib import import_module
from importlib.resources import files
from typing import Any, Final

import msgspec

from chatscope.load.pages.charts import Chart

POLICY: Final = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""`img-src` is for plotly's download of a chart as a picture."""


def page(title: str, body: Iterable[str], *, charts: Sequence[Chart]) -> str:
    """Return a page that draws its charts in the sections made by `chart_sections`.

    Args:
        title: the page's title, as plain text.
        body: its parts, as HTML.
        charts: the same charts as for `chart_sections`.

    Raises:
        ImportError: plotly is not installed; the message names the extra.
    """
    figures = [chart.figure for chart in charts if chart.figure is not None]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{escape(title)}</title><style>{_resource('page.css')}</style></head><body><main>",
        *body,
        "</main>",
        f'<script type="text/plain" id="plotly">{_packed_plotly()}</script>',
        f'<script type="application/json" id="figures">{_script_json(figures)}</script>',
        f"<script>{_resource('page.js')}</script></body></html>",
    ]
    return "\n".join(parts) + "\n"


def chart_sections(charts: Iterable[Chart]) -> str:
    """Return the sections for charts, with their titles and captions."""
    sections = []
    for chart in charts:
        place = '<div class="chart"></div>' if chart.figure is not None else ""
        kind = ' class="whole"' if chart.is_wide else ""
        text = f"<h3>{escape(chart.title)}</h3>{place}<figcaption>{escape(chart.caption)}</figcaption>"
        sections.append(f"<figure{kind}>{text}</figure>")
    return f'<div class="charts">{"".join(sections)}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = "") -> str:
    """Return a table of plain text. The first cell of each row is its heading. A wide table scrolls by itself."""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    content = f"{title}<thead><tr>{columns}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide" tabindex="0"><table>{content}</table></div>'


def _cells(row: Sequence[object]) -> str:
    first, *others = (escape(str(cell)) for cell in row)
    return f'<th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others)


def details(summary: str, content: str) -> str:
    """Return content that is folded at first. `content` is HTML."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def bullets(items: Iterable[str]) -> str:
    """Return a list of plain text; nothing if it is empty."""
    rows = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f"<ul>{rows}</ul>" if rows else ""


def _packed_plotly() -> str:
    """Return plotly's script, compressed to a third. The browser unpacks it (DecompressionStream, 2023)."""
    try:
        offline = import_module("plotly.offline")
    except ModuleNotFoundError as error:
        raise ImportError("report.html needs plotly; install it with: pip install 'chatscope[load]'") from error
    script: str = offline.get_plotlyjs()
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode("ascii")


def _script_json(value: Any) -> str:
    """Return JSON that cannot end the script element that contains it."""
    return msgspec.json.encode(value).decode().replace("<", "\\u003c")


def _resource(name: str) -> str:
    return (files("chatscope.load.pages") / name).read_text(encoding="utf-8")
