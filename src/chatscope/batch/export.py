"""An output as a table with one row per request, for pandas, spreadsheets and pyarrow."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from chatscope.batch.digests import DigestTable
from chatscope.batch.errors import InputError, JournalError
from chatscope.batch.extras import optional
from chatscope.batch.finish import add_success, pair_of, standing_failures
from chatscope.batch.journal import Paths, check_regular
from chatscope.batch.manifest import manifest_of
from chatscope.batch.records import RECORD
from chatscope.batch.replacing import Replacement
from chatscope.batch.scan import CHUNK, recorded_lines, whole_line

COLUMNS: Final[dict[str, str]] = {
    "custom_id": "string",
    "success": "bool",
    "output": "string",
    "finish_reason": "string",
    "status_code": "int64",
    "error_code": "string",
    "error_message": "string",
    "prompt_tokens": "int64",
    "completion_tokens": "int64",
    "cost_usd": "double",
    "duration_seconds": "double",
    "first_token_seconds": "double",
    "attempts": "int64",
    "line": "int64",
    "request_id": "string",
}
"""The columns. They are fixed, so exports can be concatenated. The types are Arrow's."""

_LARGEST: Final = (1 << 63) - 1
"""The largest number that a column holds. No count of a server is as large, unless it is wrong."""

ROWS: Final = 10_000
"""Rows that are written at a time: about 10 MiB."""


def export(output: str | Path, target: str | Path) -> int:
    """Write an output and its errors as Parquet or CSV, by the target's ending. Return the rows. Blocks.

    Raises:
        JournalError: there is no such output, or a line of it is not JSON.
        InputError: the ending is neither, pyarrow is not installed, or the target is a file of the batch.
        OSError: a file cannot be read or written; the target is then as before.
    """
    paths, target = Paths(output), Path(target)
    if not paths.output.exists():
        raise JournalError(f"{paths.output}: there is no such output")
    check_regular(paths.output)
    write = {".csv": _write_csv, ".parquet": _write_parquet, ".pq": _write_parquet}.get(target.suffix.lower())
    if write is None:
        raise InputError(f"{target}: the ending must be .parquet or .csv")
    source = manifest_of(paths).input.get("path")
    kept = [paths.output, paths.errors, *paths.meta.glob("*"), *([Path(source)] if isinstance(source, str) else [])]
    if any(path.exists() and target.exists() and path.samefile(target) for path in kept):
        raise InputError(f"{target}: this is the input of the batch, or one of its own files; export to another file")
    with Replacement(target) as replacement:
        count = write(_rows(paths), replacement.file)
        replacement.commit()
    return count


def _write_csv(rows: Iterator[dict[str, Any]], file: BinaryIO) -> int:
    count = 0
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    for row in rows:
        writer.writerow(row)
        count += 1
    text.flush()
    text.detach()
    return count


def _write_parquet(rows: Iterator[dict[str, Any]], file: BinaryIO) -> int:
    pyarrow, parquet = optional("pyarrow", "parquet"), optional("pyarrow.parquet", "parquet")
    schema = pyarrow.schema(list(COLUMNS.items()))
    count = 0
    with parquet.ParquetWriter(file, schema) as writer:
        for group in _groups(rows):
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
            count += len(group)
    return count


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for row in rows:
        group.append(row)
        if len(group) == ROWS:
            yield group
            group = []
    if group:
        yield group


def _rows(paths: Paths) -> Iterator[dict[str, Any]]:
    """Iterate over the rows: the successes, then the failures that no success supersedes."""
    succeeded = DigestTable()
    others: dict[bytes, int] = {}  # failures in the output itself, which other tools recorded
    with paths.output.open("rb", CHUNK) as file:
        for _, offset, recorded in recorded_lines(paths.output):
            if recorded.failed:
                others[pair_of(recorded)] = offset
                continue
            add_success(succeeded, recorded)
            if file.tell() != offset:
                file.seek(offset)
            yield _row(whole_line(file, paths.output), success=True)
        for pair, offset in others.items():
            if pair not in succeeded:
                file.seek(offset)
                yield _row(whole_line(file, paths.output), success=False)
    failures = standing_failures(paths, lambda _, pair: pair in succeeded).values()
    with paths.errors.open("rb") if failures else io.BytesIO() as file:
        for offset in failures:
            file.seek(offset)
            yield _row(whole_line(file, paths.errors), success=False)


def _row(line: dict[str, Any], *, success: bool) -> dict[str, Any]:
    facts = _object(line.get("chatscope"))
    is_record = facts.get("format") == RECORD  # then a `response` is a column of the input
    response = {} if is_record else _object(line.get("response"))
    body = response if "choices" in response else _object(response.get("body"))  # as in older outputs of vLLM
    choices = body.get("choices")
    choice = _object(choices[0]) if isinstance(choices, list) and choices else {}
    usage = _object(line.get("usage") if is_record else body.get("usage"))
    status = facts.get("status_code") if is_record else response.get("status_code")
    given = line.get("error")
    nested = _object(_object(given).get("error"))  # as in newer outputs of vLLM
    error = (
        nested or _object(given) or _object(body.get("error")) or ({"message": given} if isinstance(given, str) else {})
    )
    row = {
        "custom_id": line.get("custom_id"),
        "success": success,
        "output": line.get("output") if is_record else _object(choice.get("message")).get("content"),
        "finish_reason": facts.get("finish_reason") if is_record else choice.get("finish_reason"),
        "status_code": status,
        "error_code": error.get("code"),
        "error_message": error.get("message"),
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "cost_usd": facts.get("cost_usd"),
        "duration_seconds": facts.get("duration_seconds"),
        "first_token_seconds": facts.get("first_token_seconds"),
        "attempts": facts.get("attempts"),
        "line": facts.get("line"),
        "request_id": response.get("request_id"),
    }
    return {name: _as(COLUMNS[name], value) for name, value in row.items()}


def _as(kind: str, value: object) -> object:
    """Return a value in the type of its column. Servers send texts as lists of parts, and counts in various types."""
    if value is None or kind == "bool":
        return value
    if kind == "string":
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
        return None
    return float(value) if kind == "double" else int(value)


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
