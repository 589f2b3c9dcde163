"""The output of a batch: a panel in a terminal, occasional lines elsewhere, and a summary at the end."""

from __future__ import annotations

import time
from typing import Final

from rich import box
from rich.panel import Panel

from chatscope.batch import BatchProgress, BatchSummary
from chatscope.cli.progress_views import LiveProgress, ProgressLines, grid_of
from chatscope.cli.terminal import Terminal

WINDOW_SECONDS: Final = 60.0
"""The window over which rates per minute are measured."""

_NARROW: Final = 60
"""Below this width, the panel shows one figure per line."""

_ECHO: Final = 3
"""Columns left free at the right. A terminal echoes `^C` after the last line; if it wrapped, the panel would shift."""


class BatchLines(ProgressLines[BatchProgress]):
    """Prints a line every ten seconds, and one for each new phase."""

    def __init__(self, terminal: Terminal, limits: Limits) -> None:
        super().__init__(terminal, lambda progress: progress.phase, Rates(limits).figures)


class BatchPanel(LiveProgress[BatchProgress]):
    """Redraws a panel at each progress report."""

    def __init__(self, terminal: Terminal, title: str, limits: Limits) -> None:
        super().__init__(terminal, transient=False)
        self._terminal = terminal
        self._title = title
        self._rates = Rates(limits)

    def frame(self, progress: BatchProgress) -> Panel:
        """Return the panel."""
        narrow = self._terminal.width < _NARROW
        return Panel(
            grid_of(self._rates.figures(progress), alarming="failures"),
            title=self._title,
            box=box.SIMPLE if narrow else box.ROUNDED,
            expand=not narrow,
            width=self._terminal.width - _ECHO,
        )


class Limits:
    """The limits of a run, shown beside its rates.

    Args:
        requests_per_minute, tokens_per_minute: `None` means no limit.
    """

    def __init__(self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        self.requests = requests_per_minute
        self.tokens = tokens_per_minute


class Rates:
    """Requests and tokens per minute, over the last minute."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._moments: list[tuple[float, int, int]] = []

    def add(self, now: float, progress: BatchProgress) -> None:
        """Add the current progress, and drop entries older than the window."""
        self._moments.append((now, progress.succeeded + progress.failed, progress.tokens))
        while self._moments[0][0] < now - WINDOW_SECONDS:
            del self._moments[0]

    def figures(self, progress: BatchProgress) -> list[tuple[str, str]]:
        """Add the current progress, and return the figures to show."""
        self.add(time.monotonic(), progress)
        return figures(progress, self)

    def per_minute(self) -> tuple[float, float]:
        """Return requests and tokens per minute."""
        (start, requests, tokens), (end, requests_now, tokens_now) = self._moments[0], self._moments[-1]
        minutes = (end - start) / 60
        return (0.0, 0.0) if minutes <= 0 else ((requests_now - requests) / minutes, (tokens_now - tokens) / minutes)


def figures(progress: BatchProgress, rates: Rates) -> list[tuple[str, str]]:
    """Return the shown figures: names and values."""
    if progress.phase in {"reading the output", "reading the input"}:
        return [("phase", f"{progress.phase}, {progress.rows_read:,} lines")]
    counts = f"{progress.succeeded:,} done, {progress.failed:,} failed, {progress.running:,} running"
    if progress.left is not None:
        counts += f", {max(0, progress.left):,} left"
    shown = [("phase", progress.phase), ("requests", counts)]
    if progress.settled:
        shown.append(("recorded", f"{progress.settled:,} by earlier runs"))
    requests, tokens = rates.per_minute()
    shown.append(
        ("rate", f"{_of(requests, rates.limits.requests)} requests, {_of(tokens, rates.limits.tokens)} tokens a minute")
    )
    if progress.waiting_for is not None:
        shown.append(("waits for", progress.waiting_for))
    shown.append(("cost", _cost(progress)))
    if (seconds := progress.seconds_left) is not None and progress.phase == "running":
        shown.append(("time left", duration(seconds)))
    if progress.failures:
        classes = sorted(progress.failures.items(), key=lambda item: -item[1])[:5]
        shown.append(("failures", ", ".join(f"{count:,} x {name}" for name, count in classes)))
    return shown


def summary_lines(summary: BatchSummary) -> list[str]:
    """Return the lines of the summary."""
    lines = [*summary.notices]
    if summary.in_flight_at_kill:
        lines.append(
            f"{summary.in_flight_at_kill:,} requests were under way when an earlier run ended;"
            " they may be paid for twice"
        )
    lines.append(
        f"{summary.succeeded:,} succeeded, {summary.failed:,} failed in {duration(summary.wall_seconds)};"
        f" {summary.settled:,} were recorded before; {summary.retries:,} retries"
    )
    if summary.not_sent:
        lines.append(f"{summary.not_sent:,} have no outcome yet")
    if summary.vanished:
        lines.append(
            f"{summary.vanished:,} recorded requests were removed from the input or changed in it; their lines stay"
        )
    lines.append(
        f"tokens: {summary.prompt_tokens:,} in ({summary.cached_tokens:,} cached), {summary.completion_tokens:,} out"
        f" ({summary.reasoning_tokens:,} reasoning); cost ${summary.cost:.6g}, all runs ${summary.total_cost:.6g}"
        + (f"; the cost of {summary.unpriced:,} is not known" if summary.unpriced else "")
    )
    for name, values in (("duration", summary.duration_seconds), ("first token", summary.first_token_seconds)):
        if values:
            lines.append(f"{name}: " + ", ".join(f"{percent} {value:.3g} s" for percent, value in values.items()))
    for name, count in sorted(summary.failures.items(), key=lambda item: -item[1]):
        lines.append(f"{count:,} x {name}, for example {summary.examples[name]}")
    if summary.standing_failures > summary.failed:
        lines.append(f"{summary.standing_failures:,} failures remain; --retry-errors reruns the permanent ones")
    if summary.stop_reason is not None:
        lines.append(f"stopped early ({summary.stop_reason}): {summary.stop_message or 'as asked'}")
    return lines


def duration(seconds: float) -> str:
    """Format a duration: `42 s`, `12 min`, `3 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def _of(rate: float, limit: float | None) -> str:
    return f"{rate:,.0f}" if limit is None else f"{rate:,.0f} of {limit:,.0f}"


def _cost(progress: BatchProgress) -> str:
    text = f"${progress.cost:.4g} this run"
    if progress.earlier_cost:
        text += f", ${progress.cost + progress.earlier_cost:.4g} all runs"
    if progress.projected_cost is not None:
        text += f", ${progress.projected_cost:.4g} in the end"
    return text + (f"; {progress.unpriced:,} not priced" if progress.unpriced else "")
