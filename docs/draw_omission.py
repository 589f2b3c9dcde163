"""Draws the picture of `load.md` that shows coordinated omission: `python docs/draw_omission.py`, which takes 20 s.

It loads a simulated server that stalls for two seconds, and draws when each request was due against how long it took,
counted from two moments. Every dot is a measured request.
"""

# ruff: noqa: INP001  # a script, not part of a package

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio

from chatscope.load import FORMULAS, Length, LoadPlan, LoadReport, RequestRecord, Workload, run
from chatscope.simulator import ChatRequest, Reply, simulator

PICTURE: Final = Path(__file__).resolve().parent / "omission.svg"

SECONDS: Final = 20
STALL: Final = (8.0, 10.0)
"""Seconds from the first request."""

RATE: Final = 25
SLOTS: Final = 4
"""As many connections as the client may use. In a closed loop, no other request is sent meanwhile."""

WIDTH: Final = 760
HEIGHT: Final = 340
LEFT: Final = 56
RIGHT: Final = 16
TOP: Final = 44
BOTTOM: Final = 44
HIGHEST: Final = 2.25
"""Seconds on the vertical axis."""

STYLE: Final = """
    text { font: 13px system-ui, sans-serif; fill: #1b2a41; }
    text.end { text-anchor: end; } text.middle { text-anchor: middle; }
    path { fill: none; stroke-linecap: round; }
    .axis { stroke: #8b97a8; } .grid { stroke: #d9dfe7; }
    .stall { fill: #8b97a8; opacity: 0.18; }
    .ttft { stroke: #c4540b; stroke-width: 4.5px; } .service { stroke: #2563c9; stroke-width: 4.5px; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf5; } .axis { stroke: #76818f; } .grid { stroke: #2c323b; }
      .ttft { stroke: #f0955a; } .service { stroke: #6ba4f5; }
    }
"""


async def measure() -> LoadReport:
    """Load a server that stalls."""
    started: list[float] = []

    def answer(_request: ChatRequest) -> Reply:
        now = anyio.current_time()
        started.append(now)
        since = now - started[0]
        stalled = STALL[1] - since if STALL[0] <= since < STALL[1] else 0.0
        return Reply(tokens=1, first_token=stalled + 0.05)

    async with simulator(answer) as base_url:
        plan = LoadPlan(
            model="simulated",
            base_url=base_url,
            api_key="",
            rate=RATE,
            arrivals="constant",
            duration=SECONDS,
            max_concurrency=SLOTS,
            workload=Workload(prompt_tokens=Length(16)),
            calibrate=False,
        )
        return await run(plan)


def draw(report: LoadReport) -> str:
    """Return the picture."""
    start = min(record.due_ns for record in report.records)
    metrics = report.stages[0].summary.metrics
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "  <title>Times to the first token while a server stalls, counted from two moments</title>",
        f"  <style>{STYLE}  </style>",
        *_axes(),
    ]
    for row, (name, kind, words) in enumerate(
        (("ttft", "ttft", "from when it was due"), ("ttft_service", "service", "from when it was sent"))
    ):
        p99 = metrics[name].percentile(99) or 0.0
        top = 18 + 18 * row
        lines.append(f'  <path class="{kind}" d="M {LEFT + 8} {top - 4} h 0"/>')
        lines.append(f'  <text x="{LEFT + 18}" y="{top}">{name}, {words}: p99 {p99 * 1e3:,.0f} ms</text>')
        lines.append(f'  <path class="{kind}" d="{_dots(report.records, name, start)}"/>')
    return "\n".join([*lines, "</svg>", ""])


def _axes() -> list[str]:
    left, right, height = _x(STALL[0]), _x(STALL[1]), HEIGHT - TOP - BOTTOM
    lines = [
        f'  <rect class="stall" x="{left:g}" y="{TOP}" width="{right - left:g}" height="{height}"/>',
        f'  <text class="middle" x="{(left + right) / 2:g}" y="{TOP - 6}">stalled</text>',
    ]
    for value in (0.0, 0.5, 1.0, 1.5, 2.0):
        kind = "axis" if not value else "grid"
        lines.append(f'  <path class="{kind}" d="M {LEFT} {_y(value):g} H {WIDTH - RIGHT}"/>')
        lines.append(f'  <text class="end" x="{LEFT - 8}" y="{_y(value) + 4:g}">{value:g} s</text>')
    below = HEIGHT - BOTTOM + 18
    lines += [f'  <text class="middle" x="{_x(value):g}" y="{below}">{value}</text>' for value in range(0, 21, 5)]
    lines.append(f'  <text class="end" x="{WIDTH - RIGHT}" y="{HEIGHT - 8}">seconds, when the request was due</text>')
    return lines


def _dots(records: Sequence[RequestRecord], name: str, start: int) -> str:
    return "".join(
        f"M{_x((record.due_ns - start) / 1e9):.1f} {_y(min(value, HIGHEST)):.1f}h0"
        for record in sorted(records, key=lambda record: record.due_ns)
        for value in FORMULAS[name].values(record)
    )


def _x(seconds: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * seconds / SECONDS


def _y(seconds: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * seconds / HIGHEST


if __name__ == "__main__":
    PICTURE.write_text(draw(anyio.run(measure)), encoding="utf-8")
