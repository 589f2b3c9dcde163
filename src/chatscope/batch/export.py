"""An output as a table: one row a request, for pandas, spreadsheets and pyarrow."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from chatscope.batch.errors import InputError, JournalError
from chatscope.batch.journal import Paths
from chatscope.batch.readers import optional

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
"""The columns, fixed, so that two exports can be put together; the types are Arrow's."""

ROWS: Final = 10_000
"""Rows that are written at a time: some 10 MiB."""


def export(output: str | Path, target: str | Path) -> int:
    """Write an output and its errors as Parquet or CSV, by the target's ending. Return the rows. Blocks.

    Raises:
        JournalError: there is no such output, or a line of it is not JSON.
        InputError: the ending is neither, or pyarrow is not installed.
    """
    paths, target = Paths(output), Path(target)
    if not paths.output.exists():
        raise JournalError(f"{paths.output}: there is no such output")
    if target.suffix == ".csv":
        return _write_csv(paths, target)
    if target.suffix in {".parquet", ".pq"}:
        return _write_parquet(paths, target)
    raise InputError(f"{target}: the ending must be .parquet or .csv")


def _write_csv(paths: Paths, target: Path) -> int:
    count = 0
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in _rows(paths):
            writer.writerow(row)
            count += 1
    return count


def _write_parquet(paths: Paths, target: Path) -> int:
    pyarrow, parquet = optional("pyarrow", "parquet"), optional("pyarrow.parquet", "parquet")
    schema = pyarrow.schema(list(COLUMNS.items()))
    count = 0
    with parquet.ParquetWriter(target, schema) as writer:
        for rows in _groups(_rows(paths)):
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
            count += len(rows)
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
    for path in (paths.output, paths.errors):
        if not path.exists():
            continue
        with path.open("rb") as file:
            for number, data in enumerate(file, 1):
                if data.strip():
                    try:
                        line = msgspec.json.decode(data, type=dict[str, Any])
                    except msgspec.MsgspecError as error:
                        raise JournalError(f"{path}: line {number} is not a record: {error}") from error
                    yield _row(line)


def _row(line: dict[str, Any]) -> dict[str, Any]:
    response = _object(line.get("response"))
    body = _object(response.get("body"))
    facts = _object(line.get("chatscope"))
    choice = _object(next(iter(body.get("choices") or ()), None))
    usage = _object(body.get("usage") or line.get("usage"))
    status = response.get("status_code")
    given = line.get("error")
    error = _object(given) or _object(body.get("error")) or ({"message": given} if isinstance(given, str) else {})
    return {
        "custom_id": line.get("custom_id"),
        "success": not error and (status is None or status < 400),
        "output": _object(choice.get("message")).get("content", line.get("output")),
        "finish_reason": choice.get("finish_reason"),
        "status_code": status,
        "error_code": None if error.get("code") is None else str(error["code"]),
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


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
