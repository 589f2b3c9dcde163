"""A dry run of a batch: checks every row, estimates tokens and price, and sends nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from chatscope import PriceQuery, Usage
from chatscope.batch.errors import InputError, LineError
from chatscope.batch.journal import Paths
from chatscope.batch.judging import Judge
from chatscope.batch.manifest import check_manifest, check_owner, settings_of
from chatscope.batch.options import BatchOptions
from chatscope.batch.plan import FilePlan, rows_of
from chatscope.batch.readers import Reader
from chatscope.batch.requests import RowParser
from chatscope.batch.scan import Recorded
from chatscope.pricing import Pricer, resolve

BYTES_PER_TOKEN: Final = 4
"""OpenAI's rule of thumb for English text. The real counts are the server's."""

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
        completion_tokens: the sum of the requests' own limits; `None` if one has none.
        cost: an upper estimate in US dollars; `None` if a price or a limit is not known.
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
    paths = Paths(output)
    check_owner(paths)
    check_manifest(paths, settings_of(options, model, base_url), new_settings=options.new_settings)
    recorded = Recorded(retry_errors=options.retry_errors)
    recorded.read(paths, check=lambda: None)
    parser, judge = RowParser(options, model), Judge(recorded, options)
    plan = FilePlan(judge, parser, options)
    with Reader(source, options.input_format) as reader:
        if reader.is_stream:
            raise InputError("a dry run reads the input twice: give a file instead of standard input or a pipe")
        plan.read(reader, lambda: None)
    pricer = resolve(None)
    problems: list[str] = []
    invalid = to_send = prompt_tokens = 0
    completion_tokens: int | None = 0
    cost: float | None = 0.0
    with Reader(source, options.input_format) as reader:
        for ordinal, row in enumerate(rows_of(reader, options.limit)):
            if not plan.wants(ordinal):
                continue
            try:
                body = parser.parse(row).body
            except LineError as error:
                invalid += 1
                if len(problems) < SHOWN:
                    problems.append(f"line {row.number}: {error}")
                continue
            to_send += 1
            prompt = len(msgspec.json.encode(body["messages"], enc_hook=str)) // BYTES_PER_TOKEN
            limit = body.get("max_completion_tokens") or body.get("max_tokens")
            limit = limit if isinstance(limit, int) and not isinstance(limit, bool) else None
            prompt_tokens += prompt
            completion_tokens = None if completion_tokens is None or limit is None else completion_tokens + limit
            price = None if limit is None else _price(pricer, body["model"], base_url, prompt, limit)
            cost = None if cost is None or price is None else cost + price
    return DryRun(plan.total, judge.settled, to_send, invalid, tuple(problems), prompt_tokens, completion_tokens, cost)


def _price(pricer: Pricer, model: str, base_url: str, prompt: int, limit: int) -> float | None:
    usage = Usage(prompt_tokens=prompt, completion_tokens=limit, total_tokens=prompt + limit)
    return pricer(PriceQuery(model=model, usage=usage, requested_model=model, base_url=base_url))
