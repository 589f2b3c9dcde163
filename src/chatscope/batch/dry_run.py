"""A dry run of a batch: checks every row, estimates tokens and price, and sends nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from chatscope import PriceQuery, Usage
from chatscope.batch.errors import InputError, LineError
from chatscope.batch.journal import Paths
from chatscope.batch.judging import Judge
from chatscope.batch.manifest import check_manifest, settings_of
from chatscope.batch.options import BatchOptions
from chatscope.batch.plan import FilePlan, rows_of
from chatscope.batch.prepare import check_files
from chatscope.batch.readers import Reader
from chatscope.batch.recorder import validator
from chatscope.batch.requests import ParsedRow, RowParser
from chatscope.batch.scan import Recorded
from chatscope.pricing import resolve

BYTES_PER_TOKEN: Final = 4
"""OpenAI's rule of thumb for English text. The real counts are the server's."""

_Number = TypeVar("_Number", int, float)

SHOWN: Final = 20
"""How many invalid rows are listed."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would do.

    Attributes:
        total: rows of the input.
        settled: rows that are recorded already.
        to_send: requests that would be sent.
        invalid: the number of invalid rows; the first of them are listed with the reason.
        prompt_tokens: an estimate, by the size of the messages.
        completion_tokens: the sum of the requests' own limits, for each of their choices; `None` if one has none.
        cost: an estimate in US dollars, of responses as long as these limits; `None` if a price or a limit is not
            known.
    """

    total: int
    settled: int
    to_send: int
    invalid: int
    problems: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int | None
    cost: float | None


def dry_run(source: str | Path, output: str | Path, options: BatchOptions, model: str, base_url: str) -> DryRun:
    """Check every row of a file and estimate the run's tokens and cost. Blocks; sends and writes nothing.

    Raises:
        InputError, JournalError: the batch could not be run.
        OSError: the output cannot be read.
    """
    if options.schema is not None:
        validator(options.schema)
    paths = Paths(output)
    check_manifest(paths, settings_of(options, model, base_url), new_settings=options.new_settings)
    recorded = Recorded(retry_errors=options.retry_errors, with_offsets=options.dedup)
    recorded.read(paths, check=lambda: None)
    parser, judge = RowParser(options, model), Judge(recorded, options)
    plan = FilePlan(judge, parser, options)
    with Reader(source, options.input_format) as reader:
        if reader.is_stream:
            raise InputError("a dry run reads the input twice: give a file instead of standard input or a pipe")
        check_files(reader.path, paths, options)
        plan.read(reader, lambda: None)
    estimate = _Estimate(base_url, recorded.offsets)
    problems: list[str] = []
    invalid = 0
    with Reader(source, options.input_format) as reader:
        for ordinal, row in enumerate(rows_of(reader, options.limit)):
            if not plan.wants(ordinal):
                continue
            try:
                parsed = parser.parse(row)
            except LineError as error:
                invalid += 1
                if len(problems) < SHOWN:
                    problems.append(f"line {row.number}: {error}")
                continue
            estimate.add(parsed)
    return DryRun(
        plan.total,
        judge.settled,
        estimate.requests,
        invalid,
        tuple(problems),
        estimate.prompt_tokens,
        estimate.completion_tokens,
        estimate.cost,
    )


class _Estimate:
    """The estimated tokens and cost of requests. The attributes are those of `DryRun`.

    Args:
        base_url: the server's address, for the prices.
        known: with `dedup`, the keys that need no further request.
    """

    def __init__(self, base_url: str, known: Iterable[bytes] | None) -> None:
        self._base_url = base_url
        self._known = None if known is None else set(known)
        self._price = resolve(None)
        self.requests = 0
        self.prompt_tokens = 0
        self.completion_tokens: int | None = 0
        self.cost: float | None = 0.0

    def add(self, row: ParsedRow) -> None:
        """Add a request, unless it is one of several equal ones that are sent once."""
        if self._known is not None:
            if row.key in self._known:
                return
            self._known.add(row.key)
        body = row.body
        prompt = len(msgspec.json.encode(body["messages"], enc_hook=str)) // BYTES_PER_TOKEN
        limit, cost = _most_tokens(body), None
        if limit is not None:
            usage = Usage(prompt_tokens=prompt, completion_tokens=limit, total_tokens=prompt + limit)
            model = body["model"]
            query = PriceQuery(model=model, usage=usage, requested_model=model, base_url=self._base_url)
            cost = self._price(query)
        self.requests += 1
        self.prompt_tokens += prompt
        self.completion_tokens = _sum(self.completion_tokens, limit)
        self.cost = _sum(self.cost, cost)


def _sum(total: _Number | None, one: _Number | None) -> _Number | None:
    return None if total is None or one is None else total + one


def _most_tokens(body: dict[str, Any]) -> int | None:
    """Return the most tokens that a response can have, with all its choices; `None` if the request sets no limit."""
    limit, choices = body.get("max_completion_tokens") or body.get("max_tokens"), body.get("n") or 1
    return limit * choices if type(limit) is int and type(choices) is int else None
