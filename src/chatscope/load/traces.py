"""Recorded arrivals: traces of Mooncake, Azure and BurstGPT, told apart by their first line. Read as streams.

Here: files to rows. Not here: the prompts that a row stands for (`workload`).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from chatscope.load.schedule import SECOND

_Reader = Callable[[Iterator[str]], Iterator["TraceRow"]]


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One recorded request: when it arrived, in nanoseconds on the trace's own clock, and its lengths in tokens."""

    arrived: int
    prompt_tokens: int
    output_tokens: int
    block_ids: tuple[int, ...] = ()
    """Blocks of the prompt, where recorded: equal ids stand for equal text."""
    session: str | None = None


def read_trace(path: Path) -> Iterator[TraceRow]:
    """Yield the rows of a trace, with the first arrival at 0.

    Raises:
        ValueError: the file is none of the known traces, or a row cannot be right; the message has its line.
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = iter(file)
        head = next(lines, "")
        reader = _reader_of(head)
        if reader is None:
            raise ValueError(
                f"{path}: neither a Mooncake trace (JSON lines with timestamp, input_length, output_length), nor one of"
                " Azure (TIMESTAMP,ContextTokens,GeneratedTokens), nor one of BurstGPT (Timestamp,...,Request tokens,"
                "Response tokens)"
            )
        first: int | None = None
        number = 0
        rows = reader(_chained(head, lines))
        while True:
            number += 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except (ValueError, KeyError, TypeError, AttributeError, InvalidOperation) as error:
                raise ValueError(f"{path}: row {number} is malformed: {error!r}") from error
            if first is None:
                first = row.arrived
            if row.arrived < first:
                raise ValueError(f"{path}: row {number} is earlier than the first: sort the trace by time")
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
                prompt_tokens=_length(row["input_length"]),
                output_tokens=_length(row["output_length"]),
                block_ids=tuple(map(int, row.get("hash_ids") or ())),
            )


def _azure(lines: Iterator[str]) -> Iterator[TraceRow]:
    """Rows have a date with up to seven decimals (github.com/Azure/AzurePublicDataset, LLM inference)."""
    for row in csv.DictReader(lines):
        date, _, fraction = row["TIMESTAMP"].strip().partition(".")
        fraction = fraction.partition("+")[0]
        elapsed = datetime.fromisoformat(date.partition("+")[0]) - _EPOCH
        yield TraceRow(
            arrived=(elapsed.days * 86_400 + elapsed.seconds) * SECOND + int(fraction[:9].ljust(9, "0")),
            prompt_tokens=_length(row["ContextTokens"]),
            output_tokens=_length(row["GeneratedTokens"]),
        )


def _burst_gpt(lines: Iterator[str]) -> Iterator[TraceRow]:
    """Rows have a time in seconds; those without response tokens had failed (github.com/HPMLL/BurstGPT)."""
    for row in csv.DictReader(lines):
        if _count(row["Response tokens"]):
            yield TraceRow(
                arrived=round(Decimal(row["Timestamp"]) * SECOND),
                prompt_tokens=_length(row["Request tokens"]),
                output_tokens=_length(row["Response tokens"]),
                session=row.get("Session ID") or None,
            )


def _count(value: object) -> int:
    count = int(Decimal(str(value)))
    if count < 0:
        raise ValueError(f"{value} is negative")
    return count


def _length(value: object) -> int:
    """Return a length in tokens: at least 1, since no server takes less."""
    return max(1, _count(value))


_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - only differences between dates of one file count
