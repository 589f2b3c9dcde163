"""From a row to a request: OpenAI's batch lines, bare request bodies, and records with a template.

Only rows that are certainly invalid are refused here. Whatever only the server can judge is sent unchanged.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from hashlib import blake2b
from numbers import Integral
from typing import Any, Final

import msgspec

from chatscope import Task, TaskParameters
from chatscope._conversation.tools import Tool
from chatscope.batch.digests import SIZE, canonical, digest_of, pair_digest, request_key, text_digest
from chatscope.batch.errors import InputError, LineError
from chatscope.batch.json_rows import decode_row, id_in_line, is_unicode
from chatscope.batch.options import BatchOptions, template_fields
from chatscope.batch.readers import InputRow, Reader, RowError

NOT_IN_BODY: Final = frozenset({"extra_headers", "extra_query", "extra_body"})
"""Parameters of a task that are not part of a body: a line must not set headers."""

_NAMED: Final = frozenset(TaskParameters.__annotations__) - NOT_IN_BODY
"""Parameters that a task has by name. A body's other parameters are passed through `extra_body`."""

_INSTRUCTIONS: Final = ("system", "developer")


class BatchRequest(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One request of a batch: what is sent, and its ids. Compared by identity. Not part of any reference cycle.

    Attributes:
        custom_id: the line's own id, or one made from the key.
        key: the digest of what is sent.
        number: the line in the input, from 1.
        body: what is sent.
        record: the input record, if the row is one.
        source_task: the task, if the row is one; `body` then describes its request.
        source: the digest of the input line, if the line has its own id.
        id_digest: the digest of the id.
        pair: the digest under which its outcome is recorded: of its id and its key.
    """

    custom_id: str
    key: bytes
    number: int
    body: Mapping[str, Any]
    record: Mapping[str, Any] | None
    source_task: Task | None
    source: bytes
    id_digest: bytes
    pair: bytes

    def task(self, *, stream: bool = True) -> Task:
        """Return the task that runs it. Its metadata holds the request itself.

        Args:
            stream: stream the response on the wire. A row that is a task decides this itself.
        """
        if self.source_task is not None:
            return replace(self.source_task, metadata={**self.source_task.metadata, "batch": self})
        named = dict(self.body)
        messages = named.pop("messages")
        if not _NAMED.issuperset(named):
            named["extra_body"] = {name: named.pop(name) for name in self.body if name in named and name not in _NAMED}
        if not stream:
            named["stream"] = False
        return Task(messages=messages, parameters=named, metadata={"batch": self})


class ParsedRow(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A request whose id may not be decided yet: if its row has none, the id is made from the key's occurrence."""

    custom_id: str | None
    key: bytes
    number: int
    body: dict[str, Any]
    record: dict[str, Any] | None = None
    source_task: Task | None = None
    source: bytes = b""

    def request(self, occurrence: int = 0) -> BatchRequest:
        """Return the request. `occurrence` counts the earlier rows with the same key and no id."""
        custom_id = self.custom_id or unnamed_id(self.key, occurrence)
        id_digest = text_digest(custom_id)
        return BatchRequest(
            custom_id,
            self.key,
            self.number,
            self.body,
            self.record,
            self.source_task,
            self.source,
            id_digest,
            pair_digest(id_digest, self.key),
        )


def unnamed_id(key: bytes, occurrence: int) -> str:
    """Return the id of a row that has none. Rows inserted before it do not change it."""
    return f"{key.hex()}-{occurrence}"


class RowParser:
    """Makes requests from rows.

    Args:
        options: defaults for the rows.
        model: the model if neither the row nor the options name one.
    """

    def __init__(self, options: BatchOptions, model: str | None = None) -> None:
        self._options = options
        self._defaults: dict[str, Any] = {"model": options.model or model, **options.parameters}
        if options.schema is not None:
            json_schema = {"name": "output", "schema": dict(options.schema)}  # not `strict`, which few schemas fit
            self._defaults["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        salt = request_key("settings", {"defaults": self._defaults, **options.settings()})
        self._salted = blake2b(digest_size=SIZE, salt=salt)
        self._fields = template_fields(options.prompt) if options.prompt is not None else []

    def check_columns(self, reader: Reader) -> None:
        """Check that a CSV or Parquet file has the columns of the template and of the id.

        Raises:
            InputError: a column is missing.
        """
        if reader.columns is None:
            return
        names = [(name, "prompt") for name in self._fields]
        if self._options.id_column is not None:
            names.append((self._options.id_column, "id_column"))
        for name, argument in names:
            if name not in reader.columns:
                columns = ", ".join(map(repr, reader.columns))
                raise InputError(f"{reader.path}: {argument} names {name!r}, and the columns are {columns}")
        if self._options.prompt is None and not {"body", "messages"} & {*reader.columns}:
            raise InputError(f"{reader.path}: the rows are records, which need a prompt: a template over the columns")

    def source_digest(self, line: bytes) -> bytes:
        """Return the digest of a line together with the settings, so it changes if the settings do.

        With it, a resumed run skips recorded lines without decoding them.
        """
        digest = self._salted.copy()  # a third cheaper than a new one
        digest.update(line)
        return digest.digest()

    def id_of(self, line: bytes) -> str | None:
        """Return the id of a line without examining the rest of it; `None` if only `parse` can tell."""
        return None if self._options.prompt is not None else id_in_line(line)

    def parse(self, row: InputRow, *, with_source: bool = True) -> ParsedRow:
        """Return the request of a row.

        Args:
            row: the row.
            with_source: digest the line, too, for the record of the outcome.

        Raises:
            LineError: the row is invalid; the message gives the reason.
        """
        record = row.data
        if isinstance(record, Task):
            return _task(row.number, record)
        if isinstance(record, bytes):
            record = decode_row(record, self._options.id_column or "custom_id")
        elif isinstance(record, RowError):
            raise LineError(record.message)
        if self._options.prompt is None and isinstance(record.get("body"), dict):
            return self._batch_line(row, record, with_source=with_source)
        if self._options.prompt is None and "messages" in record:
            body = dict(record)
            custom_id = _custom_id(body.pop("custom_id", None))
            return self._parsed(custom_id, row.number, body)
        return self._record(row.number, record)

    def _batch_line(self, row: InputRow, line: dict[str, Any], *, with_source: bool) -> ParsedRow:
        custom_id = _custom_id(line.get("custom_id"))
        method, url = line.get("method", "POST"), line.get("url", self._options.url)
        if method != "POST":
            raise LineError(f"method must be POST, not {_repr.repr(method)}", custom_id)
        if url != self._options.url:
            raise LineError(f"url must be {self._options.url}, not {_repr.repr(url)}", custom_id)
        has_source = with_source and custom_id is not None
        source = self.source_digest(row.data) if has_source and isinstance(row.data, bytes) else b""
        return self._parsed(custom_id, row.number, line["body"], source=source)

    def _record(self, number: int, record: dict[str, Any]) -> ParsedRow:
        custom_id = record.get("custom_id" if self._options.id_column is None else self._options.id_column)
        if isinstance(custom_id, Integral) and not isinstance(custom_id, bool):
            custom_id = str(custom_id)
        custom_id = _custom_id(custom_id)
        if self._options.id_column is not None and custom_id is None:
            raise LineError(f"there is no {self._options.id_column!r}, which id_column names")
        if self._options.prompt is None:
            raise LineError(
                "neither a request (custom_id, body) nor a body (messages); records need a prompt", custom_id
            )
        for name in self._fields:
            if name not in record:
                raise LineError(f"there is no {name!r}, which the prompt names", custom_id)
        try:
            values = {name: _shown(record[name]) for name in self._fields}
        except UnicodeDecodeError as error:
            raise LineError(
                f"a column that the prompt names holds bytes that are not UTF-8: {error}", custom_id
            ) from error
        text = self._options.prompt.format_map(values)
        if not text.strip():
            raise LineError("the prompt is empty", custom_id)
        body = {"messages": [{"role": "user", "content": text}]}
        return self._parsed(custom_id, number, body, record)

    def _parsed(
        self,
        custom_id: str | None,
        number: int,
        given: dict[str, Any],
        record: dict[str, Any] | None = None,
        source: bytes = b"",
    ) -> ParsedRow:
        if given.get("stream"):
            raise LineError("stream must not be set: the output holds whole responses", custom_id)
        body = self._defaults.copy()
        for name, value in given.items():
            if value is not None:
                body[name] = value
        body.pop("stream", None)
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not _are_objects(messages):
            raise LineError("body.messages must be a list of at least one message", custom_id)
        if not isinstance(body["model"], str) or not body["model"]:
            if body["model"] is None:
                raise LineError("no model: the line names none, and there is no default", custom_id)
            raise LineError(f"model must be a text that is not empty, not {_repr.repr(body['model'])}", custom_id)
        if self._options.system is not None and messages[0].get("role") not in _INSTRUCTIONS:
            body["messages"] = [{"role": "system", "content": self._options.system}, *messages]
        key = digest_of(_canonical(self._options.url, body, custom_id))
        return ParsedRow(custom_id, key, number, body, record, None, source)


def _are_objects(items: list[Any]) -> bool:
    for item in items:  # noqa: SIM110 - a generator would take longer than the rest
        if not isinstance(item, dict):
            return False
    return True


_ASKED: Final = {
    each.name: each.default
    for each in fields(Task)
    if each.name in {"model", "temperature", "system", "strict", "reask", "on_tool_error"}
}
"""Fields of a task that change its response, with the defaults: a key holds only what differs from them."""


def _task(number: int, task: Task) -> ParsedRow:
    """Return the row of a task. Its key is made from everything that changes its response."""
    asked = {
        "prompt": task.prompt,
        "context": dict(task.context),
        "messages": task.messages,
        "parameters": dict(task.parameters),
        "constraints": [getattr(task.constraints, name) for name in ("model", "max_tokens", "temperature")],
        "output_type": repr(task.output_type),
        **{name: given for name, default in _ASKED.items() if (given := getattr(task, name)) != default},
        "tools": [_described(tool, strict=task.strict) for tool in task.tools],
    }
    custom_id = _custom_id(task.metadata.get("custom_id"))
    return ParsedRow(custom_id, digest_of(_canonical("task", asked, custom_id)), number, asked, source_task=task)


def _described(tool: Callable[..., Any], *, strict: bool) -> object:
    """Return what the model is told about a function: the same in another process, unlike the function's repr."""
    try:
        return Tool.of(tool, strict=strict).definition
    except ValueError:  # the task will fail with it
        return type(tool).__qualname__


def _canonical(url: str, body: Mapping[str, Any], custom_id: str | None) -> bytes:
    try:
        return canonical(url, body)
    except (TypeError, ValueError, RecursionError) as error:
        raise LineError(f"cannot be written as JSON: {error}", custom_id) from error


def _custom_id(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise LineError(f"custom_id must be a text that is not empty, not {_repr.repr(value)}")
    if not is_unicode(value):
        raise LineError(f"custom_id is not valid Unicode text: {_repr.repr(value)}")
    return value


_repr: Final = reprlib.Repr()
_repr.maxstring = 100


def _shown(value: object) -> str:
    """Return a column's value for the prompt: text unchanged, nothing for null or NaN, anything else as JSON.

    A value that JSON has only as text, such as a date or a decimal, needs no quotes.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):  # a column of Parquet, in which older tools store text
        return value.decode()
    if value is None or value != value:  # noqa: PLR0124 - NaN, which is how pandas marks what is missing
        return ""
    shown = msgspec.json.encode(value, enc_hook=str)
    return str(msgspec.json.decode(shown)) if shown.startswith(b'"') else shown.decode()
