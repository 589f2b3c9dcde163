"""How a run is stopped, and when it stops by itself: limits on cost, tokens or failures, or refusal of all requests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import anyio
import anyio.abc

from chatscope import ChatError, QuotaExceededError, Result
from chatscope.batch.errors import JournalError
from chatscope.batch.options import BatchOptions
from chatscope.batch.prepare import Prepared
from chatscope.batch.progress import BatchSummary, Phase, StopReason, Tally, shortened
from chatscope.batch.recorder import DiskError

CLOSE_SECONDS: Final = 2.0
"""Seconds that syncing and closing may take while the run is being cancelled."""

REFUSALS: Final = 5
"""This many consecutive refusals of the key or the account stop the run: no further request would succeed."""

UNPRICED: Final = 5
"""This many consecutive successes without a known cost stop a run that has nothing but `max_cost` to limit it."""

_STATUSES: Final = frozenset({401, 402, 403})


class Stop:
    """Whether a run must send nothing new, and why. The first reason counts, unless the disk fails.

    Attributes:
        reason, message: why; `None` while it continues.
        is_asked: whether the run must stop.
    """

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self.message: str | None = None
        self.is_asked = False
        self._asked = anyio.Event()

    def ask(self, reason: StopReason, message: str | None = None) -> None:
        """Stop the run."""
        if self.reason is None:
            self.reason, self.message, self.is_asked = reason, message, True
            self._asked.set()

    def fail(self, error: Exception) -> None:
        """Stop the run because the disk failed. This overrides any other reason."""
        self.reason, self.message, self.is_asked = "disk", str(error), True
        self._asked.set()

    async def wait(self) -> None:
        """Wait until the run must stop."""
        await self._asked.wait()


def reason_of(error: Exception) -> StopReason:
    """Return why a run stops at an error: the output cannot be written or read again, or else the input fails."""
    return "disk" if isinstance(error, OSError | DiskError | JournalError) else "input"


class StoppableRun:
    """The base of all runs of a batch: they can be stopped, and have a summary once they have ended.

    Args:
        prepared: the prepared input and output.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._group: anyio.abc.TaskGroup | None = None  # exists while requests may run
        self._was_entered = False
        self._is_finishing = False
        self._stop = Stop()
        self._summary: BatchSummary | None = None

    @property
    def _phase(self) -> Phase:
        if self._summary is not None:
            return "ended"
        if self._group is None:
            return self._prepared.phase
        if self._is_finishing:
            return "finishing"
        return "stopping" if self._stop.is_asked else "running"

    def _check_first_entry(self) -> None:
        """Check that the run's block is entered for the first time.

        Raises:
            RuntimeError: it was entered before.
        """
        if self._was_entered:
            raise RuntimeError("a run can be entered once; make another one to resume it")
        self._was_entered = True

    def stop(self, reason: StopReason = "interrupted", message: str | None = None) -> None:
        """Send nothing new. Running requests get the grace period to end; the next run sends those that do not."""
        if self._phase == "running":
            self._stop.ask(reason, message)

    @property
    def summary(self) -> BatchSummary:
        """The run's summary. It is available once the run has ended.

        Raises:
            RuntimeError: the run has not ended.
        """
        if self._summary is None:
            raise RuntimeError("the run has not ended yet")
        return self._summary


class StopRules:
    """Examines each outcome and decides whether the run must stop.

    Args:
        options: the limits.
        earlier_cost: the cost of earlier runs, in US dollars.
    """

    def __init__(self, options: BatchOptions, earlier_cost: float) -> None:
        self._options = options
        self._earlier_cost = earlier_cost
        self._refusal: object = None
        self._refusals = 0
        self._unpriced = 0  # in succession

    def reason(self, tally: Tally, results: Iterable[Result] = ()) -> tuple[StopReason, str] | None:
        """Return the reason to stop the run, and a message; `None` if it continues.

        Args:
            tally: the run's counts, including these outcomes.
            results: the outcomes since the last call, in the order of their ends.
        """
        options, spent = self._options, tally.cost + self._earlier_cost
        for result in results:
            if result.success:
                self._refusal = None
                self._unpriced = self._unpriced + 1 if result.cost is None else 0
            elif self._is_refused_again(result):
                error = shortened(result.error or "")
                return "refused", f"{self._refusals} consecutive requests were refused: {error}"
        if options.max_cost is not None and options.max_tokens_total is None and self._unpriced >= UNPRICED:
            return "budget", (
                f"the cost of {self._unpriced} consecutive requests is not known, so max_cost limits nothing: use"
                " max_tokens_total, alone or with it"
            )
        if options.max_errors is not None and tally.failed >= options.max_errors:
            return "max_errors", f"{tally.failed} requests failed, as many as max_errors allows"
        if options.max_cost is not None and spent >= options.max_cost:
            return (
                "budget",
                f"{spent:.6g} USD are spent, and max_cost is {options.max_cost:g} USD; raise it to continue",
            )
        if options.max_tokens_total is not None and tally.tokens >= options.max_tokens_total:
            return "tokens", f"{tally.tokens} tokens are used, and max_tokens_total is {options.max_tokens_total}"
        return None

    def _is_refused_again(self, result: Result) -> bool:
        error = result.exception
        refusal: object = None
        if isinstance(error, QuotaExceededError):
            refusal = "quota"
        elif isinstance(error, ChatError) and error.status in _STATUSES:
            refusal = error.status
        self._refusals = self._refusals + 1 if refusal is not None and refusal == self._refusal else 1
        self._refusal = refusal
        return refusal is not None and self._refusals >= REFUSALS
