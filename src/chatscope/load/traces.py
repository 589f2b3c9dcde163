"""Recorded arrivals: traces of Mooncake, Azure and BurstGPT, distinguished by their first line. Read as streams.

Here: from files to rows. Not here: the prompts of a row (`workload`).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from chatscope.load.schedule import SECOND

LONGEST_NS: Final = 10 * 365 * 86_400 * SECOND
"""Ten years. If a row is later than this after the first, its time has another unit, or is not a time."""

MOST_TOKENS: Final = 100_000_000
"""Ten times the longest context of any model."""

MALFORMED: Final = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""The exceptions that parsing a malformed value raises."""


def reason_of(error: Exception) -> str:
    """Return why a value is malformed, in words where the exception has any."""
    if isinstance(error, KeyError):
        return f"there is no {error}"
    return str(error) if isinstance(error, ValueError) else repr(error)


_Reader = Callable[[Iterator[str]], Iterator["TraceRow"]]


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One recorded request: its arrival, in nanoseconds on the trace's own clock, and its lengths in tokens."""

    arrived: int
    prompt_tokens: int
    output_tokens: int
    block_ids: tuple[int, ...] = ()
    """Blocks of the prompt, where recorded: equal ids stand for equal text."""
    session: str | None = None


def read_trace(path: Path) -> Iterator[TraceRow]:
    """Yield the rows of a trace, with the first arrival at 0.

    Raises:
        ValueError: the file is not a known kind of trace, or a row is invalid; the message has its line.
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = iter(file)
        try:
            head = next(lines, "")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not a text: {error}") from error
        reader = _reader_of(head)
        if reader is None:
            raise ValueError(
                f"{path}: neither a Mooncake trace (JSON lines with timestamp, input_length, output_length), nor one of"
                " Azure (TIMESTAMP,ContextTokens,GeneratedTokens), nor one of BurstGPT (Timestamp,...,Request tokens,"
                "Response tokens)"
            )
        first = last = None
        number = 0
        rows = reader(_chained(head, lines))
        while True:
            number += 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except MALFORMED as error:
                raise ValueError(f"{path}: row {number} is malformed: {reason_of(error)}") from error
            if first is None or last is None:
                first = last = row.arrived
            if row.arrived < last:
                raise ValueError(f"{path}: row {number} is earlier than the one before it: sort the trace by time")
            if row.arrived - first > LONGEST_NS:
                raise ValueError(f"{path}: row {number} is more than ten years later than the first")
            last = row.arrived
            yield TraceRow(row.arrived - first, row.prompt_tokens, row.output_tokens, row.block_ids, row.session)


def _reader_of(head: str) -> _Reader | None:
    if head.lstrip().startswith("{"):
        return _mooncake if "input_length" in head else None
    columns = {column.strip().strip('"') for column in head.split(",")}
    if {"TIMESTAMP", "ContextTokens", "GeneratedTokens"} <= columns:
        return _azure
    return _burst_gpt if {"Timestamp", "Request tokens", "Response tokens"} <= columns else None


def _chained(head: str, lines: Iterator[str]) -> Iterator[str]:
    yield head
    yield from lines


def _mooncake(lines: Iterator[str]) -> Iterator[TraceRow]:
    """Rows have a `timestamp` in milliseconds (github.com/kvcache-ai/Mooncake, FAST25-release/traces)."""
    for line in lines:
        if line.strip():
            row: Mapping[str, Any] = json.loads(line, parse_float=Decimal)
            yield TraceRow(
                arrived=round(Decimal(row["timestamp"]) * 1_000_000),
                prompt_tokens=length_of(row["input_length"]),
                output_tokens=length_of(row["output_length"]),
                block_ids=tuple(map(int, row.get("hash_ids") or ())),
            )


def _azure(lines: Iterator[str]) -> Iterator[TraceRow]:
    """Rows have a date with up to seven decimals (github.com/Azure/AzurePublicDataset, LLM inference)."""
    for row in csv.DictReader(lines):
        found = _DATE.fullmatch(row["TIMESTAMP"].strip())
        if found is None:
            raise ValueError(f"{row['TIMESTAMP']!r} is not a date")
        elapsed = datetime.fromisoformat(f"{found['date']}{found['zone'] or '+00:00'}") - _EPOCH
        fraction = (found["fraction"] or "")[:9].ljust(9, "0")
        yield TraceRow(
            arrived=(elapsed.days * 86_400 + elapsed.seconds) * SECOND + int(fraction),
            prompt_tokens=length_of(row["ContextTokens"]),
            output_tokens=length_of(row["GeneratedTokens"]),
        )


def _burst_gpt(lines: Iterator[str]) -> Iterator[TraceRow]:
    """Rows have a time in seconds. Requests without response tokens failed (github.com/HPMLL/BurstGPT)."""
    for row in csv.DictReader(lines):
        if _count(row["Response tokens"]):
            yield TraceRow(
                arrived=round(Decimal(row["Timestamp"]) * SECOND),
                prompt_tokens=length_of(row["Request tokens"]),
                output_tokens=length_of(row["Response tokens"]),
                session=row.get("Session ID") or None,
            )


def _count(value: object) -> int:
    count = int(Decimal(str(value)))
    if not 0 <= count <= MOST_TOKENS:
        raise ValueError(f"{value} is not a number of tokens")
    return count


def length_of(value: object) -> int:
    """Return a length in tokens: at least 1, because no server accepts less.

    Raises:
        ValueError, ArithmeticError: it is not a length.
    """
    return max(1, _count(value))


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_DATE: Final = re.compile(r"(?P<date>[^.Z+]+?)(?:\.(?P<fraction>\d+))?(?P<zone>Z|[+-]\d\d:\d\d)?")
