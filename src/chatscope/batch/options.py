"""The options of a batch: plain values, checked when they are created."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from chatscope._validation import check_count, check_rate, check_seconds
from chatscope.batch.readers import InputFormat

Fsync = Literal["group", "each", "none"]

DEFAULT_URL: Final = "/v1/chat/completions"

GRACE: Final = 30.0
"""Seconds that running requests get after the first Ctrl-C: most responses end within that."""

_CHOICES: Final[dict[str, tuple[object, ...]]] = {
    "input_format": ("auto", "jsonl", "csv", "parquet"),
    "output_format": ("batch", "record"),
    "changed": ("refuse", "rerun", "keep"),
    "fsync": ("group", "each", "none"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """How a batch is run.

    Args:
        model, system, parameters: defaults for the lines. A line's own values take precedence.
        prompt: a template such as `"Translate: {text}"`, for rows that are records. Its fields are columns.
        id_column: the column that holds the custom_id of a record; needs `prompt`.
        schema: a JSON schema. It is requested by `response_format`, and each response is validated against it.
        url: the endpoint that the lines must name.
        stream: stream the responses on the wire. Otherwise a request costs less CPU, but the time of the first token is
            not known, and a failure keeps no partial text.
        input_format: the format of the input; `auto` detects it by the first bytes.
        limit: run only this many rows, from the first.
        strict: refuse the whole input if a row is invalid, instead of recording an error for that row. The input must
            be a file.
        retry_errors: run permanent failures again: `True` for all, or one error class, such as `"400"`.
        changed: what to do with a row whose id is recorded for another request: `refuse` the run, `rerun` the row, or
            `keep` the recorded outcome.
        new_settings: resume even if settings that change responses differ from those of the earlier run. `changed` then
            decides about the recorded rows.
        repair: set unreadable lines of the output aside instead of refusing to resume.
        dedup: send equal requests once; each id gets a line.
        ordered: at the end, sort the output in the order of the input, which must be a file.
        max_errors: stop after this many failures in this run.
        max_cost: stop when this many US dollars are spent, including earlier runs. Running requests may exceed it. Also
            stop if prices are not known, unless `max_tokens_total` limits the run.
        max_tokens_total: stop when this run has used this many tokens.
        output_format: `batch` writes the lines of OpenAI's Batch API; `record` writes the input record with its output.
        fsync: `group` syncs every second or 256 lines, `each` every line, `none` leaves it to the system.
        grace: seconds that running requests get when the run is stopped.

    Raises:
        ValueError: a value is out of range; the message names it.
    """

    model: str | None = None
    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    prompt: str | None = None
    id_column: str | None = None
    schema: Mapping[str, Any] | None = None
    url: str = DEFAULT_URL
    stream: bool = True
    input_format: InputFormat = "auto"
    limit: int | None = None
    strict: bool = False
    retry_errors: bool | str = False
    changed: Literal["refuse", "rerun", "keep"] = "refuse"
    new_settings: bool = False
    repair: bool = False
    dedup: bool = False
    ordered: bool = False
    max_errors: int | None = None
    max_cost: float | None = None
    max_tokens_total: int | None = None
    output_format: Literal["batch", "record"] = "batch"
    fsync: Fsync = "group"
    grace: float = GRACE

    def __post_init__(self) -> None:
        for name in ("limit", "max_errors", "max_tokens_total"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name)
        check_rate(self.max_cost, "max_cost")
        check_seconds(self.grace, "grace", zero=True)
        if not isinstance(self.retry_errors, bool | str):
            raise ValueError(f"retry_errors must be True or an error class, such as '400', not {self.retry_errors!r}")  # noqa: TRY004 - bad input is a ValueError throughout
        for name, values in _CHOICES.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {', '.join(map(str, values))}, not {getattr(self, name)!r}")
        if not isinstance(self.parameters, Mapping):
            raise ValueError(f"parameters must be a mapping, not {type(self.parameters).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout
        _check_json(self.parameters, "parameters")
        for name in ("messages", "stream"):
            if name in self.parameters:
                raise ValueError(f"parameters must not have {name!r}: the batch sets it for each line")
        for name in ("extra_headers", "extra_query", "extra_body"):  # a header may be a secret; the manifest is a file
            if name in self.parameters:
                raise ValueError(f"parameters must not have {name!r}: they are fields of the request's body")
        if self.schema is not None and not isinstance(self.schema, Mapping):
            raise ValueError(f"schema must be a JSON object, not {type(self.schema).__name__}")
        if self.schema is not None:
            _check_json(self.schema, "schema")
        if self.prompt is not None:
            template_fields(self.prompt)
        elif self.id_column is not None:
            raise ValueError("id_column names the id of records, and records need a prompt: give one")

    def settings(self) -> dict[str, Any]:
        """Return the settings that change responses, for the manifest."""
        names = ("model", "system", "prompt", "schema", "output_format", "url", "id_column")
        return {name: getattr(self, name) for name in names} | {"parameters": dict(self.parameters)}


def _check_json(value: Mapping[str, Any], name: str) -> None:
    """Check that a value can be written as JSON and read again as the same value.

    Raises:
        ValueError: it holds a number that is not finite, half of a surrogate pair, or too many levels.
    """
    try:
        json.dumps(dict(value), allow_nan=False, ensure_ascii=False, default=str).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{name} cannot be written as JSON: {error}") from error


def template_fields(template: str) -> list[str]:
    """Return the columns that a prompt template names.

    Raises:
        ValueError: the template is malformed, or a field is more than a column's name.
    """
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ValueError(f"prompt is not a template: {error}; write {{{{ for a brace") from error
    for name in fields:
        if not name or name.isdecimal() or not name.isprintable() or {*name} & {*".["}:  # which format would look into
            raise ValueError(f"prompt: {{{name}}} is not the name of a column")
    try:
        template.format_map(dict.fromkeys(fields, "text"))
    except (ValueError, KeyError, MemoryError, OverflowError) as error:
        raise ValueError(f"prompt: a field's format does not fit text: {error}") from error
    return fields
