"""The source of a batch's requests: a file, standard input, or an iterable. It is read a little ahead, in order.

Files are read in a worker thread, so a large or slow file never blocks the event loop.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio
import anyio.to_thread
from anyio.lowlevel import checkpoint

from chatscope import Task
from chatscope.batch.digests import pair_digest, text_digest
from chatscope.batch.errors import InputError, LineError
from chatscope.batch.options import BatchOptions
from chatscope.batch.plan import EDITED, FilePlan, StreamPlan, invalid_key
from chatscope.batch.readers import InputRow, Reader
from chatscope.batch.requests import BatchRequest, ParsedRow, RowParser, unnamed_id
from chatscope.batch.scan import Recorded

Source: TypeAlias = str | Path | Iterable[Mapping[str, Any] | Task] | AsyncIterable[Mapping[str, Any] | Task]
"""A source for `run_batch`: a path, `"-"` for standard input, or an iterable of records or tasks, sync or async.

Within this package, an iterable may also contain parsed rows, such as those of a shard.
"""

LOOKED_AT: Final = 4096
"""The most recorded rows that one turn in the worker thread examines: a few milliseconds."""


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """A row that cannot become a request, and is not recorded yet."""

    custom_id: str
    key: bytes
    number: int
    message: str


class Requests:
    """The requests of a source that are still to be sent, and its invalid rows.

    Attributes:
        invalid: the keys of its invalid rows, with how often each occurs.
        is_exhausted: whether the whole source has been read.

    Args:
        source: a reader of a file, or an iterator.
        plan: decides which rows to send.
        parser: makes requests from rows.
        recorded: what earlier runs recorded.
        options: how the batch is run.
        identity: the file's identity when it was planned (`Reader.identity`).
    """

    def __init__(
        self,
        source: Reader | Iterator[Any] | AsyncIterator[Any],
        plan: FilePlan | StreamPlan,
        parser: RowParser,
        recorded: Recorded,
        options: BatchOptions,
        identity: tuple[int, ...] | None = None,
    ) -> None:
        self._source: Any = source
        self._is_async = isinstance(source, AsyncIterator) or not isinstance(source, Iterator)
        self._blocks = source.blocks() if isinstance(source, Reader) else iter(())
        self._plan = plan
        self._parser = parser
        self._recorded = recorded
        self._limit = options.limit
        self._ordinal = 0
        self.invalid: dict[bytes, int] = {}
        self.is_exhausted = False
        self._identity = identity
        self._threads: anyio.CapacityLimiter | None = None

    async def read(self) -> list[BatchRequest | InvalidRow] | None:
        """Return the next of them, or `None` at the end. If cancelled, a read of a pipe continues in its thread.

        Raises:
            InputError: the file is damaged.
            JournalError: as `Judge.is_settled`.
            Exception: what an iterable raised.
        """
        if isinstance(self._source, Reader):
            # A limiter of our own: the host's threads may all be busy.
            self._threads = self._threads or anyio.CapacityLimiter(1)
            return await anyio.to_thread.run_sync(self._read_rows, abandon_on_cancel=True, limiter=self._threads)
        await checkpoint()  # an iterable that never waits must not block the loop
        if self._ordinal == self._limit:
            return None
        try:
            item = await anext(self._source) if self._is_async else next(self._source)
        except (StopIteration, StopAsyncIteration):
            self.is_exhausted = True
            return None
        if isinstance(item, ParsedRow):
            return self._planned(item)
        if not isinstance(item, Mapping | Task):
            raise InputError(f"the source must consist of mappings or tasks, not of {type(item).__name__}")
        return self._looked_at([InputRow(self._ordinal + 1, item if isinstance(item, Task) else dict(item))])

    def _read_rows(self) -> list[BatchRequest | InvalidRow] | None:
        looked_at = 0
        while looked_at < LOOKED_AT:
            if self._limit is not None and self._ordinal >= self._limit:
                return None
            if (rows := next(self._blocks, None)) is None:
                self._check_unchanged()
                self.is_exhausted = True
                return None
            if not self._ordinal and isinstance(self._source, Reader):
                self._parser.check_columns(self._source)
            if self._limit is not None:
                rows = rows[: self._limit - self._ordinal]
            looked_at += len(rows)
            if self._plan.all_settled(self._ordinal, len(rows)):
                self._ordinal += len(rows)
                continue
            self._check_unchanged()
            if found := self._looked_at(rows):
                return found
        return []

    def _check_unchanged(self) -> None:
        """Refuse rows of a file that has changed since it was planned, because the plan identifies rows by position."""
        if (
            self._identity is not None
            and isinstance(self._source, Reader)
            and (self._source.identity() != self._identity)
        ):
            raise InputError(f"{self._source.path}: {EDITED}")

    def _looked_at(self, rows: list[InputRow]) -> list[BatchRequest | InvalidRow]:
        found: list[BatchRequest | InvalidRow] = []
        plan = self._plan
        for row in rows:
            ordinal = self._ordinal
            self._ordinal += 1
            wanted = plan.wants(ordinal)
            if not wanted and not plan.has_repeated:
                continue
            try:
                parsed = self._parser.parse(row)
                if not wanted:
                    if parsed.custom_id is None:
                        plan.skip(parsed.key)
                    continue
                if (request := plan.request(parsed)) is not None:
                    found.append(request)
            except LineError as error:
                if (invalid := self._invalid_row(row, error)) is not None:
                    found.append(invalid)
        return found

    def _planned(self, row: ParsedRow) -> list[BatchRequest | InvalidRow]:
        self._plan.wants(self._ordinal)
        self._ordinal += 1
        request = self._plan.request(row)
        return [] if request is None else [request]

    def _invalid_row(self, row: InputRow, error: LineError) -> InvalidRow | None:
        key = invalid_key(row)
        occurrence = self.invalid[key] = self.invalid.get(key, -1) + 1
        custom_id = error.custom_id or unnamed_id(key, occurrence)
        pair = pair_digest(text_digest(custom_id), key)
        if pair in self._recorded.settled:
            self._plan.judge.settled += 1
            self._plan.judge.failed += pair in self._recorded.failed
            return None
        return InvalidRow(custom_id, key, row.number, str(error))

    async def aclose(self) -> None:
        """Close the iterable if it is a generator, because nothing else can close it."""
        if isinstance(self._source, AsyncGenerator):
            await self._source.aclose()
        elif isinstance(self._source, Generator):
            self._source.close()


def iterator_of(source: Iterable[Any] | AsyncIterable[Any]) -> Iterator[Any] | AsyncIterator[Any]:
    """Return the iterator of a source that is not a file.

    Raises:
        InputError: it is not an iterable.
    """
    if isinstance(source, AsyncIterable):
        return aiter(source)
    if isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        return iter(source)
    raise InputError(f"source must be a path or an iterable of records or tasks, not {type(source).__name__}")
