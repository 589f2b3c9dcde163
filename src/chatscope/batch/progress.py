"""The progress and the summary of a batch: counts, cost, times."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from chatscope import Result, Statistics, Usage
from chatscope.batch.replacing import as_utf8

Phase = Literal["reading the output", "reading the input", "running", "stopping", "finishing", "ended"]
StopReason = Literal["interrupted", "budget", "refused", "max_errors", "disk", "tokens", "input"]

_SHOWN: Final = 1000
"""Characters of an example: about ten lines."""

PERCENTILES: Final = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """The progress of a run at one moment."""

    phase: Phase
    total: int | None
    """Rows of the input; `None` if the number is unknown before the end."""
    rows_read: int
    """Rows, or recorded lines, that were read in the phases before `running`."""
    settled: int
    """Rows whose outcome an earlier run recorded."""
    succeeded: int
    """Requests of this run that succeeded."""
    failed: int
    """Requests and rows of this run that failed."""
    running: int
    """Requests that were sent and have not ended."""
    tokens: int
    """Prompt and completion tokens of this run."""
    cost: float
    """US dollars of this run, as far as prices are known."""
    earlier_cost: float
    unpriced: int
    """Outcomes whose cost is not known, including earlier runs."""
    seconds: float
    """Since the first request could be sent."""
    waiting_for: str | None
    """What requests wait for: slots, a rate limit, a pause that the server asked for, or a failing server."""
    failures: dict[str, int]
    """Failures of this run by class."""
    stop_reason: StopReason | None

    @property
    def left(self) -> int | None:
        """Rows that have no outcome yet."""
        return None if self.total is None else self.total - self.settled - self.succeeded - self.failed

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end at this run's rate. Rows that an earlier run recorded do not count."""
        ended = self.succeeded + self.failed
        if self.left is None or not ended or self.seconds <= 0:
            return None
        return self.left * self.seconds / ended

    @property
    def projected_cost(self) -> float | None:
        """The projected cost of the whole batch, including earlier runs, at this run's average, in US dollars."""
        ended = self.succeeded + self.failed
        if self.left is None or not ended or self.unpriced:
            return None
        return self.earlier_cost + self.cost * (1 + self.left / ended)


@dataclass(slots=True)
class Tally:
    """The counts of one run as they grow."""

    succeeded: int = 0
    failed: int = 0
    invalid: int = 0
    copied: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float = 0.0
    unpriced: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    durations: array[float] = field(default_factory=lambda: array("d"))
    first_tokens: array[float] = field(default_factory=lambda: array("d"))

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens."""
        return self.prompt_tokens + self.completion_tokens

    def add(self, result: Result, first_token: float | None) -> None:
        """Count the usage, the cost and the times of a request, however it ended.

        Args:
            result: its result.
            first_token: its `first_token_seconds`.
        """
        if result.attempts > 1:
            self.retries += result.attempts - 1
        if result.cost is not None:
            self.cost += result.cost
        elif is_unpriced(result):
            self.unpriced += 1
        usage: Usage | None = result.usage
        if usage is not None:
            self.prompt_tokens += usage.prompt_tokens
            self.completion_tokens += usage.completion_tokens
            self.cached_tokens += usage.cached_tokens
            self.reasoning_tokens += usage.reasoning_tokens
        if result.success:
            self.durations.append(result.duration_seconds)
            if first_token is not None:
                self.first_tokens.append(first_token)

    def facts(self) -> dict[str, Any]:
        """Return the counts by the names that `BatchSummary` has for them."""
        names = ["succeeded", "failed", "invalid", "copied", "retries", "prompt_tokens", "completion_tokens"]
        names += ["cached_tokens", "reasoning_tokens", "cost"]
        return {name: getattr(self, name) for name in names} | {
            "failures": dict(self.failures),
            "examples": dict(self.examples),
            "duration_seconds": percentiles(self.durations),
            "first_token_seconds": percentiles(self.first_tokens),
        }

    def fail(self, error_class: str, example: str) -> None:
        """Count a failure and keep the first of its class."""
        self.failed += 1
        self.failures[error_class] += 1
        self.examples.setdefault(error_class, as_utf8(shortened(example)))


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """The summary of a run, and of the batch so far. `*.summary.json` holds the result of `to_dict`."""

    run: str
    total: int | None
    settled: int
    succeeded: int
    failed: int
    invalid: int
    not_sent: int | None
    changed: int
    vanished: int
    copied: int
    retries: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost: float
    total_cost: float
    unpriced: int
    wall_seconds: float
    duration_seconds: dict[str, float]
    first_token_seconds: dict[str, float]
    failures: dict[str, int]
    examples: dict[str, str]
    standing_failures: int
    """Lines in the errors file, including those of rows that are no longer in the input."""
    failed_rows: int
    """Rows of this input that have failed, in this run or permanently in an earlier one."""
    in_flight_at_kill: int
    stop_reason: StopReason | None
    stop_message: str | None
    notices: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """The exit code of `chatscope batch run`: 0 all done, 1 some failed, 3 stopped early, 130 interrupted."""
        if self.stop_reason == "interrupted":
            return 130
        if self.stop_reason is not None or self.not_sent:
            return 3
        return 1 if self.failed_rows else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__} | {"exit_code": self.exit_code}


def is_unpriced(result: Result) -> bool:
    """Return whether a request cost something, and the cost is not known. A refusal without usage cost nothing."""
    return result.cost is None and (result.success or bool(result.tokens_used))


def first_token_seconds(result: Result) -> float | None:
    """Return the time to the first token of a request; `None` if its response was not streamed, or had none."""
    if result.task is not None and result.task.parameters.get("stream") is False:
        return None  # without building the timings
    return None if result.timings is None else result.timings.first_token_seconds


def shortened(text: str) -> str:
    """Return a text that a terminal can show: servers send whole pages as messages. The journal holds all of it."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def percentiles(values: array[float]) -> dict[str, float]:
    """Return exact percentiles, linear between neighbours (as numpy's default); empty without values."""
    if not values:
        return {}
    ordered = sorted(values)
    found = {}
    for percent in PERCENTILES:
        at = (len(ordered) - 1) * percent / 100
        low = int(at)
        high = min(low + 1, len(ordered) - 1)
        found[f"p{percent}"] = ordered[low] + (ordered[high] - ordered[low]) * (at - low)
    return found


def waiting_for(counts: Statistics) -> str | None:
    """Return what requests wait for, in words, by the adapter's statistics."""
    if counts.held_back:
        return f"the server to recover ({counts.held_back} requests)"
    if counts.paced:
        return f"a rate limit, or a pause that the server asked for ({counts.paced} requests)"
    return "slots" if counts.queued else None
