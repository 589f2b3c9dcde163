"""Prepares a run before it sends anything: locks the journal, reads what is recorded, decides what to send.

All of it blocks and runs in a worker thread. Other threads may read `Prepared` meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec
from anyio.lowlevel import checkpoint

from chatscope import AsyncChatGPTAdapter
from chatscope.batch.digests import DigestTable, text_digest
from chatscope.batch.errors import AbandonedError, InputError, JournalError, LineError
from chatscope.batch.finish import CurrentRows, Supersession, reorder, rewrite_errors, set_bad_lines_aside
from chatscope.batch.journal import Journal, Paths
from chatscope.batch.judging import Judge, Occurrences
from chatscope.batch.manifest import check_manifest, check_owner, settings_of, write_manifest
from chatscope.batch.options import BatchOptions
from chatscope.batch.plan import FilePlan, StreamPlan, rows_of
from chatscope.batch.progress import BatchProgress, BatchSummary, Phase, StopReason, Tally
from chatscope.batch.readers import Reader
from chatscope.batch.recorder import validator
from chatscope.batch.replacing import as_utf8, write_durably
from chatscope.batch.requests import RowParser, unnamed_id
from chatscope.batch.scan import Recorded, started_without_record
from chatscope.batch.shards import merge_parts
from chatscope.batch.source import Requests, Source, iterator_of
from chatscope.pricing import PriceTable

_LIMITS: Final = frozenset({"budget", "tokens", "max_errors"})


class Prepared:
    """The state of the preparation.

    Attributes:
        cancelled: set by another thread to end the preparation soon.
        phase: what is being read.
        standing_failures: failures that the last step found.
        in_flight_at_kill: requests that an earlier run started and did not record.
    """

    journal: Journal
    requests: Requests

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.cancelled = False
        self.phase: Phase = "reading the output"
        self.recorded = Recorded()
        self.judge: Judge | None = None
        self.plan: FilePlan | StreamPlan | None = None
        self.standing_failures = 0
        self.in_flight_at_kill = 0
        self._again: Reader | None = None
        self._parser: RowParser | None = None
        self._options = BatchOptions()
        self._closes: list[Journal | Reader] = []

    @property
    def total(self) -> int | None:
        """The number of rows of the input, once all of them have been read."""
        return self.plan.total if isinstance(self.plan, FilePlan) and hasattr(self, "requests") else None

    @property
    def rows_read(self) -> int:
        """Rows, or recorded lines, read so far in this phase."""
        return self.recorded.lines if self.plan is None else self.plan.total

    def check(self) -> None:
        """Raise if the run was cancelled.

        Raises:
            AbandonedError: `cancelled` is set.
        """
        if self.cancelled:
            raise AbandonedError

    def finish(
        self, outcomes: DigestTable, runs: Collection[str] | None = None, later: DigestTable | None = None
    ) -> None:
        """Do the last steps: remove superseded failures, and sort the output. Blocks.

        Args:
            outcomes: the ids for which this run has recorded an outcome.
            runs: as in `Supersession`; by default this run alone.
            later: as in `Supersession`.

        Raises:
            BatchError: the output or the input cannot be read any more.
            OSError: the disk is full, or failed.
        """
        self.journal.check_in_place()
        assert self.plan is not None  # noqa: S101 - it is prepared
        requests, of_file = self.requests, isinstance(self.plan, FilePlan)
        rows = CurrentRows(requests.invalid, self.plan.judge.superseding, of_file) if requests.is_exhausted else None
        runs = [self.run_id] if runs is None else runs
        superseded = Supersession(self.recorded, runs, outcomes, rows, later)
        self.standing_failures = rewrite_errors(self.journal, superseded)
        if self._options.ordered and isinstance(self.plan, FilePlan) and self._again is not None:
            with Reader(self._again.path, self._again.format) as reader:
                reorder(self.journal, self._ids(reader, self.plan.occurrences()))

    def summary(self, tally: Tally, seconds: float, reason: StopReason | None, message: str | None) -> BatchSummary:
        """Return the summary of a run, and write it beside the output."""
        judge = self.judge
        settled = judge.settled if judge is not None else 0
        changed = judge.changed if judge is not None else 0
        rerun = changed - (judge.kept if judge is not None else 0)
        is_known = not reason or self.requests.is_exhausted
        total = self.total if self.total is not None else (self._streamed_total() if is_known else None)
        not_sent = None if total is None else max(0, total - settled - tally.succeeded - tally.failed)
        is_whole = self.total is not None and self._options.limit is None  # else rows beyond the limit look vanished
        failed = (judge.failed if judge is not None else 0) + tally.failed
        if reason in _LIMITS and not_sent == 0:
            reason = message = None  # a limit was reached by the last row, so it stopped nothing
        summary = BatchSummary(
            run=self.run_id,
            total=total,
            settled=settled,
            not_sent=not_sent,
            changed=changed,
            vanished=max(0, len(self.recorded.settled) - settled - rerun) if is_whole else 0,
            **tally.facts(),
            total_cost=tally.cost + self.recorded.cost,
            unpriced=tally.unpriced + self.recorded.unpriced,
            wall_seconds=seconds,
            standing_failures=self.standing_failures,
            failed_rows=failed,
            in_flight_at_kill=self.in_flight_at_kill,
            stop_reason=reason,
            stop_message=None if message is None else as_utf8(message),
            notices=(*map(as_utf8, self.journal.notices), *_unlimited(self._options, tally.unpriced)),
        )
        try:
            content = msgspec.json.format(msgspec.json.encode(summary.to_dict())) + b"\n"
            write_durably(self.journal.paths.summary, content)
        except OSError as error:
            notice = f"{self.journal.paths.summary}: not written: {error}"
            summary = replace(summary, notices=(*summary.notices, notice))
        return summary

    def close(self) -> None:
        """Close the files and release the lock. Closing twice does nothing."""
        while self._closes:
            self._closes.pop().close()

    def _streamed_total(self) -> int | None:
        return self.plan.total if self.plan is not None else None

    def _ids(self, reader: Reader, occurrences: Occurrences) -> Iterator[bytes]:
        assert self._parser is not None  # noqa: S101 - the rows were parsed once
        for row in rows_of(reader, self._options.limit):
            try:
                parsed = self._parser.parse(row)
            except LineError:
                continue
            yield text_digest(parsed.custom_id or unnamed_id(parsed.key, occurrences.next(parsed.key)))


def progress_of(
    prepared: Prepared,
    tally: Tally,
    *,
    phase: Phase,
    running: int,
    seconds: float,
    waiting_for: str | None,
    stop_reason: StopReason | None,
) -> BatchProgress:
    """Return the current progress of a run."""
    return BatchProgress(
        phase=phase,
        total=prepared.total,
        rows_read=prepared.rows_read,
        settled=prepared.judge.settled if prepared.judge is not None else 0,
        succeeded=tally.succeeded,
        failed=tally.failed,
        running=running,
        tokens=tally.tokens,
        cost=tally.cost,
        earlier_cost=prepared.recorded.cost,
        unpriced=tally.unpriced + prepared.recorded.unpriced,
        seconds=seconds,
        waiting_for=waiting_for,
        failures=dict(tally.failures),
        stop_reason=stop_reason,
    )


def prepare(
    prepared: Prepared,
    source: str | Path | Iterator[Any] | AsyncIterator[Any],
    output: Path,
    options: BatchOptions,
    adapter: AsyncChatGPTAdapter,
) -> None:
    """Open the journal and decide what to send. Blocks.

    Raises:
        InputError, JournalError, LockedError: the batch cannot be run.
        OSError: the disk is full, or a file cannot be read.
    """
    reader = Reader(source, options.input_format) if isinstance(source, str | Path) else None
    if reader is not None:
        prepared._closes.append(reader)
    if options.schema is not None:
        validator(options.schema)
    PriceTable.default()  # its file is read now, not at the first response, when all file descriptors may be in use
    paths = Paths(output)
    check_files(None if reader is None or reader.is_stream else reader.path, paths, options)
    journal = prepared.journal = Journal(paths)
    prepared._closes.append(journal)
    settings = settings_of(options, adapter.model, adapter.get_adapter_status()["base_url"])
    history = check_manifest(paths, settings, new_settings=options.new_settings)
    if options.repair:
        set_bad_lines_aside(journal)
    recorded = _read_records(prepared, options)
    parser, judge = RowParser(options, adapter.model), Judge(recorded, options)
    prepared.judge, prepared.phase = judge, "reading the input"
    if reader is None or reader.is_stream:
        plan: FilePlan | StreamPlan = StreamPlan(judge)
        requests = Requests(reader or source, plan, parser, recorded, options)  # type: ignore[arg-type]  # no path
    else:
        identity = reader.identity()
        prepared.plan = plan = FilePlan(judge, parser, options)
        plan.read(reader, prepared.check)
        again = prepared._again = Reader(reader.path, reader.format)
        prepared._closes.append(again)
        requests = Requests(again, plan, parser, recorded, options, identity)
    prepared.plan, prepared._parser, prepared._options = plan, parser, options
    write_manifest(paths, settings, history, None if reader is None else reader.path)
    journal.clear_started(prepared.run_id)
    prepared.requests = requests


def _read_records(prepared: Prepared, options: BatchOptions) -> Recorded:
    """Read what earlier runs recorded, also in parts that are not merged yet."""
    journal = prepared.journal
    prepared.in_flight_at_kill = merge_parts(journal)
    recorded = prepared.recorded = Recorded(retry_errors=options.retry_errors, with_offsets=options.dedup)
    recorded.read(journal.paths, check=prepared.check)
    journal.notices.extend(_unmatched(options.retry_errors, recorded))
    prepared.in_flight_at_kill += started_without_record(journal.paths, recorded)
    return recorded


def _unlimited(options: BatchOptions, unpriced: int) -> Iterator[str]:
    """Yield a notice if the limit on the cost did not hold for some requests, because their prices are not known."""
    if options.max_cost is not None and unpriced:
        yield f"max_cost did not limit {unpriced:,} requests, whose cost is not known; max_tokens_total limits them"


def _unmatched(retry_errors: bool | str, recorded: Recorded) -> Iterator[str]:
    """Yield a notice if the class to run again is that of no recorded failure: a mistyped class has no effect."""
    classes = sorted(recorded.failures)
    if isinstance(retry_errors, str) and classes and retry_errors not in classes:
        yield f"no recorded failure is of the class {retry_errors!r}; there are {', '.join(classes)}"


def check_files(source: str | None, paths: Paths, options: BatchOptions) -> None:
    """Refuse an output that would replace its own input, or share files with another output.

    Args:
        source: the input, if it is a file that can be read again.
        paths: those of the output.
        options: how the batch is run.

    Raises:
        InputError, JournalError: it would.
    """
    if source is None and options.ordered:
        raise InputError("ordered reads the input again at the end: give a file")
    if source is None and options.strict:
        raise InputError("strict checks the whole input before anything is sent: give a file")
    for path in (paths.output, paths.errors, paths.summary, *paths.meta.glob("*")):
        if source is not None and path.exists() and path.samefile(source):
            raise InputError(f"{source}: the input is a file that the run would write; give another output")
    check_owner(paths)


async def prepare_in_thread(
    prepared: Prepared, source: Source, output: Path, options: BatchOptions, adapter: AsyncChatGPTAdapter
) -> None:
    """Prepare in a worker thread. If cancelled, wait until the thread has ended, which is soon: it holds the lock.

    Raises:
        InputError, JournalError, LockedError: the batch cannot be run.
    """

    async def tell_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            prepared.cancelled = True

    rows = source if isinstance(source, str | Path) else iterator_of(source)  # here: some must not change threads
    opening = partial(prepare, prepared, rows, output, options, adapter)
    error: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(tell_when_cancelled)
        try:
            await anyio.to_thread.run_sync(opening, limiter=anyio.CapacityLimiter(1))
        except AbandonedError:
            await checkpoint()  # raises the cancellation
        except OSError as raised:
            error = JournalError(f"{raised.filename or output}: {raised.strerror or raised}")
            error.__cause__ = raised
        except Exception as raised:  # noqa: BLE001 - raised outside the group, which would wrap it
            error = raised
        group.cancel_scope.cancel()
    if error is not None:
        raise error
