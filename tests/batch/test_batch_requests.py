"""From rows to requests: what a row may be, what settings add, keys, and what is refused with a reason."""

from __future__ import annotations

import json
import math
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.batches import MODEL, line, write_lines

from chatscope import Task
from chatscope.batch import BatchOptions
from chatscope.batch.digests import DigestTable, request_key, text_digest
from chatscope.batch.errors import LineError
from chatscope.batch.readers import InputRow
from chatscope.batch.requests import ParsedRow, RowParser

HI = [{"role": "user", "content": "hi"}]


def parsed(record: Any, model: str | None = "default", **options: Any) -> ParsedRow:
    data = json.dumps(record).encode() if not isinstance(record, bytes | Task) else record
    return RowParser(BatchOptions(**options), model).parse(InputRow(7, data))


def test_a_line_of_the_batch_api() -> None:
    row = parsed(line(1, temperature=0))
    assert (row.custom_id, row.number) == ("request-1", 7)
    assert row.body == {"model": MODEL, "messages": [{"role": "user", "content": "Question 1"}], "temperature": 0}


def test_a_bare_body_gets_an_id_from_its_key() -> None:
    row = parsed({"messages": HI})
    assert row.body == {"model": "default", "messages": HI}
    assert [row.request(occurrence).custom_id for occurrence in (0, 1)] == [f"{row.key.hex()}-0", f"{row.key.hex()}-1"]


def test_a_record_with_a_prompt() -> None:
    record = {"id": 4, "q (en)?": "é", "tags": ["a"], "none": None}
    row = parsed(record, prompt="{q (en)?}{none} {tags} {{}}", id_column="id", system="Be short.", model="m")
    assert (row.custom_id, row.record) == ("4", record)
    assert row.body["messages"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": 'é ["a"] {}'},
    ]


def test_values_that_json_has_as_text_have_no_quotes_in_a_prompt() -> None:
    record = {"on": date(2026, 1, 2), "price": Decimal("1.50"), "missing": math.nan, "is": True, "x": 0.5}
    options = BatchOptions(prompt="{on} {price} {missing} {is} {x}")
    row = RowParser(options, "m").parse(InputRow(1, record))
    assert row.body["messages"][0]["content"] == "2026-01-02 1.50  true 0.5"


def test_settings_fill_what_lines_leave_open() -> None:
    with pytest.raises(LineError, match="no model: the line names none"):
        parsed({"messages": HI}, model=None)
    parameters = {"temperature": 1, "top_p": 0.5}
    row = parsed(
        {"messages": [{"role": "system", "content": "own"}, *HI], "temperature": 0}, system="x", parameters=parameters
    )
    assert row.body["temperature"] == 0
    assert row.body["top_p"] == 0.5
    assert row.body["messages"][0]["content"] == "own"


def test_unknown_parameters_are_sent_as_they_are() -> None:
    task = parsed(line(1, ignore_eos=True, temperature=0)).request().task()
    assert task.parameters == {"model": MODEL, "temperature": 0, "extra_body": {"ignore_eos": True}}


def test_a_task_keeps_what_it_is() -> None:
    row = parsed(Task("hi", metadata={"custom_id": "t", "mine": 1}))
    task = row.request().task()
    assert (row.custom_id, task.prompt, task.metadata["mine"]) == ("t", "hi", 1)
    assert row.key != parsed(Task("hi", context={"a": 1})).key


def test_the_key_of_a_task_is_that_of_what_changes_its_response() -> None:
    def keys(*tasks: Task[Any]) -> set[bytes]:
        return {parsed(task).key for task in tasks}

    assert len(keys(Task("hi"), Task("hi", reask=0, strict=True, on_tool_error="report"))) == 1
    assert len(keys(Task("hi"), Task("hi", reask=1), Task("hi", strict=False), Task("hi", on_tool_error="raise"))) == 4
    partials = [Task("hi", tools=[partial(write_lines, Path())]) for _ in range(2)]
    assert len(keys(*partials)) == 1, "the address of an object is another one in the next process"

    def tool(x: int) -> int:
        """Double it."""
        return x

    before = Task("hi", tools=[tool])
    key = parsed(before).key
    tool.__doc__ = "Treble it."
    assert key != parsed(Task("hi", tools=[partial(tool)])).key, "the model is told something else"


def test_the_key_is_that_of_what_is_sent() -> None:
    one = parsed(line(1, temperature=0, top_p=1))
    shuffled = json.dumps(
        {**line(1), "body": dict(reversed(line(1, temperature=0, top_p=1)["body"].items()))}, indent=1
    )
    assert one.key == parsed(shuffled.encode()).key == request_key("/v1/chat/completions", one.body)
    assert one.key != parsed(line(1, temperature=0.5, top_p=1)).key
    assert one.source != parsed(line(1, temperature=0, top_p=1), system="x").source, "settings are part of it"


@pytest.mark.parametrize(
    ("record", "options", "message"),
    [
        (b"{", {}, "not JSON"),
        (b"[1]", {}, "must be a JSON object, not list"),
        (b"\x00", {}, "not JSON"),
        (b"[" * 100_000, {}, "not JSON"),
        (line(1, stream=True), {}, "stream must not be set"),
        (line(1) | {"method": "GET"}, {}, "method must be POST, not 'GET'"),
        (line(1) | {"url": "/v1/embeddings"}, {}, "url must be /v1/chat/completions"),
        (line(1) | {"custom_id": ""}, {}, "custom_id must be a text that is not empty"),
        (line(1) | {"custom_id": 4}, {}, "custom_id must be a text that is not empty, not 4"),
        (line(1) | {"custom_id": [0] * 1000}, {}, r"not empty, not \[0, 0, 0, 0, 0, 0, \.\.\.\]$"),
        (line(1, messages=[]), {}, "body.messages must be a list of at least one message"),
        (line(1, messages="hi"), {}, "body.messages must be a list"),
        (line(1, model=7), {}, "model must be a text that is not empty, not 7"),
        ({"question": "hi"}, {}, "neither a request"),
        ({"question": "hi"}, {"prompt": "{other}"}, "there is no 'other', which the prompt names"),
        ({"question": "hi"}, {"prompt": "{question}", "id_column": "id"}, "there is no 'id', which id_column names"),
        ({"question": " "}, {"prompt": "{question}"}, "the prompt is empty"),
    ],
)
def test_what_can_never_be_sent_is_refused_with_the_reason(record: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LineError, match=message):
        parsed(record, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "{"}, "prompt is not a template"),
        ({"prompt": "{}"}, "is not the name of a column"),
        ({"prompt": "{a:d}"}, "a field's format does not fit text"),
        ({"prompt": "{a:{b}}"}, "a field's format does not fit text"),
        ({"prompt": "{a.__class__}"}, "is not the name of a column"),
        ({"id_column": "id"}, "id_column names the id of records, and records need a prompt"),
        ({"limit": 0}, "limit must be a whole number"),
        ({"max_cost": -1}, "max_cost must be"),
        ({"grace": -1}, "grace must be"),
        ({"prompt": "{a:100000000000000}"}, "a field's format does not fit text"),
        ({"parameters": {"metadata": {"a": math.nan}}}, "parameters cannot be written as JSON"),
        ({"schema": {"title": "\ud83d"}}, "schema cannot be written as JSON"),
        ({"retry_errors": 400}, "retry_errors must be True or an error class, such as '400', not 400"),
        ({"changed": "maybe"}, "changed must be one of refuse, rerun, keep"),
        ({"parameters": {"stream": True}}, "parameters must not have 'stream'"),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BatchOptions(**options)


def test_a_table_of_digests_holds_what_was_added() -> None:
    digests = [text_digest(str(number)) for number in range(3000)]
    table = DigestTable()
    for digest in [*digests, digests[7]]:
        table.add(digest)
    assert list(table.duplicates()) == [digests[7]]
    assert all(digest in table for digest in digests)
    assert text_digest("other") not in table
    table.add(text_digest("other"))
    assert text_digest("other") in table


def test_digests_that_overlap_are_told_apart() -> None:
    table = DigestTable()
    for digest in (b"\1\2" + b"\1" * 14, b"\1\2" + b"\1" * 13 + b"\2"):
        table.add(digest)
    assert b"\1\2" + b"\1" * 12 + b"\1\2" in table
    assert (b"\1\1" * 8) not in table
    assert b"\1\2" + b"\2" * 14 not in table
