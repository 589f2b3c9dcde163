"""Inputs and outputs that people break: edited, shared, linked, full, damaged; and what each must not lead to."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from tests.batch.test_batch_run import HELLO, adapter_of, fails_for, finish
from tests.support.batches import MODEL, errors_of, files_of, ids, line, questions, read_lines, write_lines
from tests.support.memory_server import Serve
from tests.support.tables import row

from chatscope import AsyncChatGPTAdapter, QueueFullError, Result, Task
from chatscope.batch import BatchOptions, InputError, JournalError, recorder, run_batch
from chatscope.batch.errors import LineError
from chatscope.batch.export import export
from chatscope.batch.outcomes import RequestOutcome, outcome_of
from chatscope.batch.readers import InputRow
from chatscope.batch.requests import BatchRequest, RowParser
from chatscope.batch.status import failed_requests, read_status
from chatscope.simulator import Reply, ToolCall, error, respond

pytestmark = pytest.mark.two_loops  # its subject is files, read in anyio's threads

WORDS = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.mark.one_loop
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n"])
async def test_line_ends_and_marks_do_not_change_what_is_asked(
    serve: Serve, output: Path, end: bytes, start: bytes
) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(0), line(1)])
    await finish(serve(HELLO), source, output)
    source.write_bytes(start + end.join(source.read_bytes().splitlines()) + end)
    server = serve(HELLO)
    assert (await finish(server, source, output)).settled == 2
    assert server.requests == []


@pytest.mark.slow
@pytest.mark.one_loop
@pytest.mark.parametrize(
    "bad",
    [
        b"\0" * 100,
        b'{"custom_id":"x","body":{}}\0',
        b"\xff\xfe{}",
        b'{"custom_id":"\\ud800","body":{"messages":[]}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        *[json.dumps(line(0)).encode()[:-2] + b',"x":' + b"[" * deep + b"]" * deep + b"}}" for deep in (500, 950, 980)],
        b"null",
        b'"text"',
        b"[]",
        b'{"custom_id":7,"body":{"messages":[{}]}}',
        b'{"custom_id":"","body":{"messages":[{}]}}',
        b'{"custom_id":"x","body":null}',
        b'{"custom_id":"x","body":[]}',
        b'{"custom_id":"x","body":{"messages":"Hi"}}',
        b'{"custom_id":"x","body":{"messages":[]}}',
        b'{"custom_id":"x","body":{"messages":["Hi"]}}',
        b'{"custom_id":"x","body":{"model":3,"messages":[{"role":"user","content":"Hi"}]}}',
        b'{"custom_id":"x","method":"GET","body":{"messages":[{}]}}',
        b'{"custom_id":"x","url":"/v1/embeddings","body":{"messages":[{}]}}',
        b'{"custom_id":"x","body":{"stream":"yes","messages":[{"role":"user","content":"Hi"}]}}',
    ],
)
async def test_a_line_that_cannot_be_right_is_one_error_row(serve: Serve, output: Path, bad: bytes) -> None:
    source = output.with_name("in.jsonl")
    good = json.dumps(line(1)).encode()
    source.write_bytes(bad + b"\n" + good if bad[:1] == b"\0" else good + b"\n" + bad)
    for _ in range(2):
        summary = await finish(serve(HELLO), source, output)
        assert (summary.exit_code, summary.not_sent, ids(output)) == (1, 0, ["request-1"])
        assert [one["error"]["code"] for one in errors_of(output)] == ["invalid_line"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"[" * 600 + b"]" * 600, "nested deeper than 500 levels"),
        (b"NaN", "not JSON"),
        (b"1e999", "not JSON"),
        ('"caf\xe9"'.encode("latin-1"), "not JSON: Invalid UTF-8"),
        (b'"cut \\ud83d"', "half of a surrogate pair"),
        (b'"\\ude00 cut"', "half of a surrogate pair"),
    ],
)
def test_a_row_that_cannot_be_sent_keeps_its_id(value: bytes, message: str) -> None:
    bad = json.dumps(line(0)).encode()[:-2] + b',"x":' + value + b"}}"
    with pytest.raises(LineError, match=message) as caught:
        RowParser(BatchOptions(), MODEL).parse(InputRow(1, bad))
    assert caught.value.custom_id == "request-0"
    record = b'{"n":7,"q":"Hi","x":' + value + b"}"
    with pytest.raises(LineError, match=message) as caught:
        RowParser(BatchOptions(prompt="{q}", id_column="n"), MODEL).parse(InputRow(1, record))
    assert caught.value.custom_id == "7"


@pytest.mark.parametrize("deep", [100, 900, 940, 960, 980, 985, 990, 2000])
@pytest.mark.parametrize("where", ["request", "response", "stream"])
async def test_no_depth_ends_the_run(serve: Serve, output: Path, deep: int, where: str) -> None:
    body, nested = line(0)["body"], "[" * deep + "]" * deep
    if where == "request":
        for _ in range(deep):
            body["x"] = [body.get("x")]
    kind = "delta" if where == "stream" else "message"
    choice = {"index": 0, kind: {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    said = json.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]})
    answer: Any = HELLO
    if where == "response":
        answer = respond(200, f'{said[:-1]},"x":{nested}}}'.encode())
    elif where == "stream":
        last = f'{{"choices":[],"x":{nested}}}'
        events = "".join(f"data: {data}\n\n" for data in (said, last, "[DONE]"))
        answer = respond(200, events.encode(), "text/event-stream")
    summary = await finish(serve(answer), [{"custom_id": "x", "body": body}], output, stream=where == "stream")
    assert summary.succeeded + summary.failed == 1
    for failure in errors_of(output):
        assert deep > 850, "no server accepts as much"
        assert (
            failure["error"]["code"]
            == {
                "request": "invalid_line",
                "response": "response_invalid",
                "stream": "stream_invalid",
            }[where]
        )
        assert failure["error"].get("partial_text") == ("Hi" if where == "stream" else None)


@pytest.mark.parametrize("kept", [["request"], []])
async def test_an_outcome_that_is_too_deep_to_be_written_is_a_failure_with_its_text(
    serve: Serve, output: Path, kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def limited(request: BatchRequest, result: Result, *args: Any, **more: Any) -> RequestOutcome:
        if result.success or (request.body and not kept):  # the depth is in the response, or in the request
            raise RecursionError("maximum recursion depth exceeded")
        return outcome_of(request, result, *args, **more)

    monkeypatch.setattr(recorder, "outcome_of", limited)
    summary = await finish(serve(HELLO), [line(0)], output)
    assert (summary.failed, summary.exit_code) == (1, 1)
    failure = errors_of(output)[0]
    assert failure["error"]["message"] == "nested too deeply to be recorded: the response"
    assert (failure["error"]["code"], failure["error"]["partial_text"]) == ("response_invalid", "Hello.")
    assert [name for name in ("request",) if failure["chatscope"].get(name)] == kept


@pytest.mark.slow
@pytest.mark.one_loop
@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{}]},
        {"messages": [{"role": []}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": [{"type": "unheard-of"}]}]},
        {"messages": WORDS, "temperature": "hot"},
        {"messages": WORDS, "n": 2},
        {"messages": WORDS, "n": -1},
        {"messages": WORDS, "tools": "none"},
        {"messages": WORDS, "stop": 5},
        {"messages": WORDS, "max_tokens": 2**80},
        {"messages": WORDS, "seed": 1e300},
        {"messages": WORDS, "extra_headers": {"Authorization": "Bearer stolen"}},
        {"messages": WORDS, "extra_body": 5, "extra_query": []},
        {"messages": WORDS, "stream_options": {"include_usage": False}},
        {"messages": WORDS, "response_format": None, "model": None},
        {"messages": WORDS, "é \U0001f600": {"deep": [[[[]]]]}},
        {"messages": WORDS, "": 1},
    ],
)
async def test_any_shape_of_a_body_has_one_outcome_and_a_resume(serve: Serve, output: Path, body: Any) -> None:
    source = write_lines(output.with_name("in.jsonl"), [{"custom_id": "x", "body": body}, line(1)])
    server = serve(HELLO)
    summary = await finish(server, source, output)
    assert summary.not_sent == 0
    assert sorted(ids(output) + [one["custom_id"] for one in errors_of(output)]) == ["request-1", "x"]
    assert all(request.headers.get("authorization") == "Bearer sk-1" for request in server.requests)
    server = serve(HELLO)
    again = await finish(server, source, output)
    assert (again.settled, server.requests, again.exit_code) == (2, [], summary.exit_code)


@pytest.mark.one_loop
async def test_names_of_files_may_have_any_bytes(serve: Serve, tmp_path: Path) -> None:
    source = write_lines(tmp_path / os.fsdecode(b"in-\xe9.jsonl"), [line(0)])
    output = tmp_path / os.fsdecode(b"out-\xe9.jsonl")
    output.write_text("{torn")
    for _ in range(2):
        summary = await finish(serve(HELLO), source, output)
        assert (summary.exit_code, read_status(output).succeeded) == (0, 1)
    assert json.loads(output.with_name(f"{output.stem}.summary.json").read_text())["settled"] == 1


@pytest.mark.one_loop
@pytest.mark.parametrize("custom_id", ["x" * 200_000, "\U0001f600é\u2028\x00\x1b[31m", " ", "../../etc", "a\nb"])
async def test_any_text_is_an_id(serve: Serve, output: Path, custom_id: str) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(0) | {"custom_id": custom_id}])
    await finish(serve(HELLO), source, output)
    server = serve(HELLO)
    assert ((await finish(server, source, output)).settled, ids(output)) == (1, [custom_id])


async def test_records_that_json_cannot_hold_are_error_rows(serve: Serve, output: Path) -> None:
    records = [
        line(0) | {"custom_id": "\ud800"},
        line(1, user="\ud800"),
        line(2, metadata={(1, 2): 3}),
        line(3),
    ]
    summary = await finish(serve(HELLO), records, output)
    assert (summary.invalid, ids(output)) == (3, ["request-3"])
    assert (await finish(serve(HELLO), records, output)).settled == 4


async def test_a_long_line_is_a_request_like_any_other(serve: Serve, output: Path) -> None:
    long = line(0, messages=[{"role": "user", "content": "x" * 10_000_000}])
    source = write_lines(output.with_name("in.jsonl"), [line(1), long, line(2)])
    summary = await finish(serve(HELLO), source, output)
    assert summary.succeeded == 3
    server = serve(HELLO)
    assert ((await finish(server, source, output)).settled, server.requests) == (3, [])


@pytest.mark.slow
@pytest.mark.one_loop
async def test_an_input_that_grows_or_changes_while_it_runs_stops_the_run(serve: Serve, output: Path) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(number) for number in range(1000)])
    server = serve(HELLO)
    async with adapter_of(server) as adapter, run_batch(source, output, adapter=adapter) as run:
        await anext(run)
        write_lines(source, [line(number) for number in range(1001, 0, -1)])
        with pytest.raises(InputError, match="the input was changed while it was being run"):
            await run.finish()
    assert (run.summary.stop_reason, run.summary.exit_code) == ("input", 3)
    assert len(ids(output)) == len(set(ids(output))) == len(server.requests), "what was sent is recorded"
    summary = await finish(serve(HELLO), source, output)
    assert summary.exit_code == 0
    assert {f"request-{number}" for number in range(1, 1002)} <= set(ids(output))
    assert max(Counter(ids(output)).values()) == 1


async def test_a_recorded_line_does_not_hide_another_with_its_id(serve: Serve, output: Path) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(0), line(1)])
    await finish(serve(HELLO), source, output)
    edited = line(0, messages=WORDS)
    for second in (edited, json.dumps(line(0), indent=None, separators=(",", ":"))):
        write_lines(source, [line(0), line(1), second])
        with pytest.raises(InputError, match=r"lines 1 and 3 have the same custom_id 'request-0'"):
            await finish(serve(HELLO), source, output, changed="rerun")


async def test_an_edited_line_is_named(serve: Serve, output: Path) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(0), line(1)])
    await finish(serve(HELLO), source, output)
    write_lines(source, [line(0), line(1, messages=WORDS)])
    with pytest.raises(JournalError, match=r"in\.jsonl: line 2: custom_id 'request-1' is recorded for another"):
        await finish(serve(HELLO), source, output)
    assert (await finish(serve(HELLO), source, output, changed="keep")).exit_code == 0
    failed = output.with_name("failed.jsonl")
    await finish(serve(error(400)), [line(0)], failed)
    kept = await finish(serve(HELLO), [line(0, messages=WORDS)], failed, changed="keep")
    assert (kept.failed_rows, kept.exit_code) == (1, 1), "what is kept is a failure"


async def test_the_input_is_not_written_over(serve: Serve, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [line(0)])
    before = source.read_bytes()
    for output in (source, tmp_path / "link.jsonl"):
        if output != source:
            output.symlink_to(source)
        with pytest.raises(InputError, match="the input is a file that the run would write"):
            await finish(serve(HELLO), source, output)
    (tmp_path / "out.meta").mkdir()
    log = write_lines(tmp_path / "out.meta" / "started.log", [line(0)])
    with pytest.raises(InputError, match="the input is a file that the run would write"):
        await finish(serve(HELLO), log, tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="ordered reads the input again at the end"):
        await finish(serve(HELLO), [line(0)], tmp_path / "out.jsonl", ordered=True)
    assert not (tmp_path / "out.jsonl").exists()
    other = write_lines(tmp_path / "other.jsonl", [line(1)])
    with pytest.raises(JournalError, match="neither a response nor an error"):
        await finish(serve(HELLO), source, other)
    assert source.read_bytes() == before


# -- failures ----------------------------------------------------------------------------------------------------------


async def test_a_failure_that_was_recorded_was_not_in_flight(serve: Serve, output: Path) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(number) for number in range(4)])
    await finish(serve(error(503)), source, output)
    assert read_status(output).in_flight == 0
    assert (await finish(serve(HELLO), source, output)).in_flight_at_kill == 0
    rows: list[dict[str, Any]] = [{"id": 1}, {"id": 2}, line(0)]
    server, stopped = serve(HELLO), output.with_name("stopped.jsonl")
    summary = await finish(server, write_lines(source, rows), stopped, max_errors=2)
    assert (summary.stop_reason, len(server.requests)) == ("max_errors", 0)
    assert read_status(stopped).in_flight == 0, "nor was a row that a stop kept from being sent"


@pytest.mark.one_loop
@pytest.mark.parametrize("output_format", ["batch", "record"])
async def test_permanent_failures_are_settled_in_each_format(serve: Serve, output: Path, output_format: str) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(number) for number in range(4)])
    options = {"output_format": output_format}
    await finish(serve(fails_for(1)), source, output, **options)
    server = serve(HELLO)
    summary = await finish(server, source, output, **options)
    assert (server.requests, summary.exit_code) == ([], 1)
    summary = await finish(server, source, output, retry_errors="404", **options)
    assert (summary.settled, summary.notices) == (4, ("no recorded failure is of the class '404'; there are 400",))
    assert (await finish(server, source, output, retry_errors="400", **options)).exit_code == 0


@pytest.mark.one_loop
async def test_no_failure_looks_like_a_success(serve: Serve, output: Path) -> None:
    bodies = (b'{"error": "No."}', b'{"error": {"code": 400}}', b'{"choices": []}', b'{"detail": "No."}', b"[]")
    responses = [*map(error, (300, 302, 304, 400, 503, 999)), *(respond(200, body) for body in bodies)]
    source = write_lines(output.with_name("in.jsonl"), [line(number) for number in range(len(responses))])
    for number, (stream, form) in enumerate(product((True, False), ("batch", "record"))):
        with row(stream, form):
            failed = output.with_name(f"{number}.jsonl")
            await finish(serve(responses), source, failed, stream=stream, output_format=form)
            assert (ids(failed), read_status(failed).failed) == ([], len(responses))
            for one in errors_of(failed):  # as other tools tell them apart
                assert one["error"] is not None or one["response"]["status_code"] >= 400, one


async def test_failures_that_were_put_right_no_longer_count(serve: Serve, output: Path) -> None:
    source = write_lines(output.with_name("in.jsonl"), ["{bad", line(1), '{"custom_id":"request-2","body":{}}'])
    assert (await finish(serve(fails_for(1)), source, output)).exit_code == 1
    write_lines(source, [line(0), line(1, messages=WORDS), line(2)])
    summary = await finish(serve(HELLO), source, output, changed="rerun")
    assert (summary.exit_code, summary.standing_failures, errors_of(output)) == (0, 0, [])
    assert sorted(ids(output)) == ["request-0", "request-1", "request-2"]


async def test_what_a_replaced_failure_has_cost_counts(serve: Serve, output: Path) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(0)])
    schema = {"type": "object"}
    first = await finish(serve(HELLO), source, output, schema=schema)
    assert (first.failures, first.cost > 0) == ({"output_invalid": 1}, True)
    second = await finish(serve(Reply("{}")), source, output, schema=schema, retry_errors=True)
    assert second.total_cost == pytest.approx(first.cost + second.cost)
    assert read_status(output).cost == pytest.approx(first.cost + second.cost)


@pytest.mark.one_loop
@pytest.mark.parametrize("kind", ["lines", "bodies", "csv", "records"])
async def test_failed_requests_come_from_any_source(serve: Serve, output: Path, kind: str) -> None:
    options: dict[str, Any] = {}
    source: Any = output.with_name("in.txt")
    if kind == "csv":
        source.write_text("id;q\n".replace(";", ",") + "request-0,Question 0\nrequest-1,Question 1\n")
        options = {"prompt": "{q}", "id_column": "id", "model": MODEL, "system": "Be brief."}
    elif kind == "records":
        source = [{"id": number, "q": f"Question {number}"} for number in range(2)]
        options = {"prompt": "{q}", "id_column": "id", "model": MODEL}
    else:
        write_lines(source, [line(number) if kind == "lines" else line(number)["body"] for number in range(2)])
    await finish(serve(fails_for(1)), source, output, **options)
    if isinstance(source, Path):
        source.unlink()
    failed = output.with_name("failed.jsonl")
    failed.write_bytes(b"".join(failed_requests(output)))
    server = serve(HELLO)
    summary = await finish(server, failed, output, new_settings=True, retry_errors=True)
    assert (questions(server.bodies), summary.exit_code, len(ids(output))) == (["Question 1"], 0, 2)
    assert list(failed_requests(output)) == []


async def test_equal_requests_share_a_failure_and_are_handed_out(serve: Serve, output: Path) -> None:
    equal = [line(0) | {"custom_id": f"equal-{number}"} for number in range(4)]
    source = write_lines(output.with_name("in.jsonl"), equal)
    server = serve(error(503))
    async with adapter_of(server) as adapter, run_batch(source, output, adapter=adapter, dedup=True) as run:
        results = [result async for result in run]
    assert (len(server.requests), len(results), len(errors_of(output))) == (1, 4, 4)
    server = serve(HELLO)
    async with adapter_of(server) as adapter, run_batch(source, output, adapter=adapter, dedup=True) as run:
        delivered = [result.result async for result in run]
    assert [one.task.metadata["batch"].custom_id for one in delivered if one.task] == ids(output)
    assert sum(one.cost or 0 for one in delivered) == run.summary.cost > 0, "it counts once"
    assert (len(server.requests), run.summary.exit_code, len(ids(output)), errors_of(output)) == (1, 0, 4, [])
    source, server = (
        write_lines(source, [*equal, *(one | {"custom_id": f"later-{at}"} for at, one in enumerate(equal))]),
        serve(HELLO),
    )
    async with adapter_of(server) as adapter, run_batch(source, output, adapter=adapter, dedup=True) as run:
        copies = [(result.custom_id, result.output, result.result.cost) async for result in run]
    assert (server.requests, copies) == ([], [(f"later-{number}", "Hello.", 0) for number in range(4)])


async def test_an_output_that_was_moved_stops_the_copies(serve: Serve, output: Path) -> None:
    await finish(serve(HELLO), [line(0)], output, dedup=True)

    def rows() -> Iterator[dict[str, Any]]:
        output.rename(output.with_name("moved.jsonl"))
        yield line(0) | {"custom_id": "copy"}

    summary = await finish(serve(HELLO), rows(), output, dedup=True)
    assert (summary.stop_reason, summary.exit_code) == ("disk", 3)
    assert "cannot be read again" in (summary.stop_message or "")


async def test_a_failure_of_a_row_that_was_changed_goes_once_the_row_has_succeeded(serve: Serve, output: Path) -> None:
    """Even if the run of that success was killed before its last step; but not a failure that came after a success."""
    source = write_lines(output.with_name("in.jsonl"), [line(0)])
    await finish(serve(error(500)), source, output)
    write_lines(source, [line(0, seed=1)])
    failures = output.with_name("out.errors.jsonl").read_bytes()
    await finish(serve(HELLO), source, output)
    output.with_name("out.errors.jsonl").write_bytes(failures)
    assert (await finish(serve(HELLO), source, output)).standing_failures == 0
    write_lines(source, [line(0, seed=2)])
    for changed in ("rerun", "refuse"):
        assert (await finish(serve(error(400)), source, output, changed=changed)).standing_failures == 1
    assert [one["chatscope"]["request"]["seed"] for one in errors_of(output)] == [2]
    assert (await finish(serve(HELLO), [line(1)], output)).standing_failures == 1, "other rows say nothing of it"
    write_lines(source, [line(1), line(2)])
    assert (await finish(serve(HELLO), source, output)).standing_failures == 1


@pytest.mark.one_loop
@pytest.mark.parametrize("first", ["out.jsonl", "out.errors.jsonl"])
async def test_no_output_is_another_one_s_file_of_failures(serve: Serve, tmp_path: Path, first: str) -> None:
    second = "out.jsonl" if first == "out.errors.jsonl" else "out.errors.jsonl"
    await finish(serve(HELLO), [line(0)], tmp_path / first)
    with pytest.raises(JournalError, match="would share a file of failures"):
        await finish(serve(HELLO), [line(1)], tmp_path / second)
    assert ids(tmp_path / first) == ["request-0"]
    (tmp_path / first).unlink()
    await finish(serve(HELLO), [line(1)], tmp_path / second)
    for name in ("other.errors.json", "other.jsonl"):  # whose failures are in different files
        await finish(serve(HELLO), [line(1)], tmp_path / name)


@pytest.mark.one_loop
@pytest.mark.parametrize("limit", [{"max_cost": 1e-9}, {"max_tokens_total": 1}, {"max_errors": 1}])
async def test_a_limit_that_the_last_row_reaches_has_stopped_nothing(
    serve: Serve, output: Path, limit: dict[str, Any]
) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(0)])
    server = serve(error(400) if "max_errors" in limit else HELLO)
    summary = await finish(server, source, output, **limit)
    assert (summary.stop_reason, summary.exit_code) == (None, 1 if "max_errors" in limit else 0)


async def test_what_the_adapter_does_not_accept_is_no_outcome(serve: Serve, output: Path) -> None:
    server = serve(Reply("Late.", first_token=60))
    async with adapter_of(server, max_concurrency=1, max_pending=1) as adapter:
        others = [adapter.start_task(Task("Other?")) for _ in range(2)]
        run = run_batch([line(0)], output, adapter=adapter)
        with pytest.raises(QueueFullError):
            async with run:
                await run.finish()
        for other in others:
            await other.cancel()
    assert (ids(output), errors_of(output), run.summary.stop_reason) == ([], [], "input")
    run = run_batch([line(0)], output, adapter=adapter)
    with pytest.raises(RuntimeError, match="the adapter is not open"):
        async with run:
            await run.finish()
    assert (ids(output), errors_of(output), run.summary.exit_code) == ([], [], 3)


async def test_a_record_keeps_a_response_that_is_more_than_a_text(serve: Serve, output: Path) -> None:
    options: dict[str, Any] = {"prompt": "{q}", "output_format": "record", "model": MODEL}
    replies = {"cut": Reply("Hel", finish_reason="length"), "call": Reply("", tool_calls=(ToolCall("f", {"a": 1}),))}
    server = serve(lambda request: replies[questions([request.body])[0]])
    assert (await finish(server, [{"q": name} for name in replies], output, **options)).exit_code == 0
    facts = {one["q"]: one["chatscope"] for one in read_lines(output)}
    assert (facts["cut"]["finish_reason"], "body" in facts["cut"]) == ("length", False)
    assert facts["call"]["body"]["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "f"
    export(output, output.with_name("x.csv"))
    with output.with_name("x.csv").open(newline="") as file:
        assert sorted(one["finish_reason"] for one in csv.DictReader(file)) == ["length", "tool_calls"]


async def test_a_column_named_response_is_no_status(serve: Serve, output: Path) -> None:
    rows = [{"id": "1", "q": "hi", "response": {"status_code": "200 OK"}}]
    options: dict[str, Any] = {"prompt": "{q}", "id_column": "id", "output_format": "record", "model": MODEL}
    for settled in (0, 1):
        assert (await finish(serve(HELLO), rows, output, **options)).settled == settled


async def test_a_failure_whose_cost_is_not_known_stays_so(serve: Serve, output: Path) -> None:
    options: dict[str, Any] = {"schema": {"type": "object"}}
    summary = await finish(serve(Reply("no JSON")), [line(0, model="unpriced")], output, **options)
    assert (summary.failures, summary.unpriced, read_status(output).unpriced) == ({"output_invalid": 1}, 1, 1)
    assert (await finish(serve(HELLO), [line(0, model="unpriced")], output, **options)).unpriced == 1


async def test_an_id_that_a_recorded_row_has_is_refused_in_an_invalid_row(serve: Serve, output: Path) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(0), line(1)])
    await finish(serve(HELLO), source, output)
    write_lines(source, [line(0), line(1), line(0, stream=True)])
    with pytest.raises(InputError, match="lines 1 and 3 have the same custom_id 'request-0'"):
        await finish(serve(HELLO), source, output)


async def test_copies_of_a_record_keep_their_own_columns(serve: Serve, output: Path) -> None:
    source = output.with_name("in.csv")
    source.write_text(",q,output,response,error,input_error,custom_id\n1,Same,a,b,c,d,z\n2,Same,e,f,g,h,z\n")
    options: dict[str, Any] = {"prompt": "{q}", "output_format": "record", "dedup": True, "model": MODEL}
    options["id_column"] = ""
    for _ in range(2):
        summary = await finish(serve(HELLO), source, output, **options)
        names = ("", "output", "response", "input_output", "input_error", "input_input_error", "input_custom_id")
        rows = [tuple(one[name] for name in names) for one in read_lines(output)]
        assert sorted(rows) == [("1", "Hello.", "b", "a", "d", "c", "z"), ("2", "Hello.", "f", "e", "h", "g", "z")]
        assert summary.exit_code == 0


# -- the order of the input --------------------------------------------------------------------------------------------


async def test_an_ordered_output_with_repeated_failed_and_invalid_rows(serve: Serve, output: Path) -> None:
    bodies = [line(number)["body"] for number in (3, 1, 3, 2, 1)]
    rows: list[Any] = [*bodies, "{bad", line(9)]
    source = write_lines(output.with_name("in.jsonl"), rows)
    delays = {"Question 3": 0.05, "Question 1": 0.02, "Question 9": 0.0}
    server = serve(
        lambda request: (
            error(400)
            if (asked := questions([request.body])[0]) == "Question 2"
            else Reply("Hi.", first_token=delays[asked])
        )
    )
    for _ in range(2):
        await finish(server, source, output, ordered=True)
        places = [one["chatscope"]["line"] for one in read_lines(output)]
        assert sorted(places) == [1, 2, 3, 5, 7]
        assert len(set(ids(output))) == 5
        asked = {row["chatscope"]["line"]: row["custom_id"] for row in read_lines(output)}
        assert ids(output)[-1] == "request-9"
        assert [custom_id[:32] for custom_id in ids(output)[:2]] == [asked[1][:32], asked[2][:32]]
    assert not list(output.parent.glob(".*.tmp"))


# -- settings ----------------------------------------------------------------------------------------------------------


async def test_the_manifest_keeps_the_settings_of_earlier_lines(serve: Serve, output: Path) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(0), line(1)])
    await finish(serve(HELLO), source, output, system="One.")
    write_lines(source, [line(0), line(1), line(2)])
    await finish(serve(HELLO), source, output, system="Two.", new_settings=True, changed="keep")
    manifest = json.loads((output.parent / "out.meta" / "manifest.json").read_text())
    assert manifest["settings"]["system"] == "Two."
    assert [one["settings"]["system"] for one in manifest["earlier_settings"]] == ["One."]
    with pytest.raises(JournalError, match=r"system was 'Two\.' when"):
        await finish(serve(HELLO), source, output, system="One.")


async def test_no_file_holds_the_key(serve: Serve, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(3)])
    server = serve(error(401, "Incorrect API key provided: sk-secret-0123456789. Find it elsewhere."))
    adapter = AsyncChatGPTAdapter(
        "sk-secret-0123456789", transport=server, base_url="https://user:pass-secret@host.test/v1?api-key=also-secret"
    )
    async with adapter, run_batch(source, tmp_path / "out.jsonl", adapter=adapter) as run:
        summary = await run.finish()
    written = b"".join(path.read_bytes() for path in files_of(tmp_path))
    assert b"secret" not in written
    assert "secret" not in json.dumps(summary.to_dict())
    with pytest.raises(ValueError, match="parameters must not have 'extra_headers'"):
        run_batch(source, "out.jsonl", adapter=adapter, parameters={"extra_headers": {}})


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schema": {"type": 5}}, "schema: not a valid JSON schema"),
        ({"prompt": "{missing}"}, r"in\.csv: prompt names 'missing', and the columns are 'id', 'q'"),
        ({"prompt": "{q}", "id_column": "ID"}, "id_column names 'ID'"),
        ({}, "the rows are records, which need a prompt"),
    ],
)
async def test_what_cannot_be_right_is_refused_and_leaves_the_output_unlocked(
    serve: Serve, output: Path, options: dict[str, Any], message: str
) -> None:
    source = output.with_name("in.csv")
    source.write_text("id,q\n1,Question 1\n")
    server = serve(HELLO)
    for _ in range(2):
        with pytest.raises(InputError, match=message):
            await finish(server, source, output, **options)
    assert server.requests == []
    await finish(serve(HELLO), source, output, prompt="{q}", model=MODEL)


async def test_a_schema_that_cannot_be_applied_loses_no_outcome(serve: Serve, output: Path) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(0)])
    summary = await finish(serve(Reply("{}")), source, output, schema={"$ref": "#/nowhere"})
    assert (summary.failures, summary.not_sent) == ({"output_invalid": 1}, 0)


async def test_a_schema_fills_the_parsed_column(serve: Serve, output: Path) -> None:
    source = write_lines(output.with_name("in.jsonl"), [line(0)])
    await finish(serve(Reply('{"n": 1}')), source, output, schema={"type": "object"}, output_format="record")
    assert read_lines(output)[0]["parsed"] == {"n": 1}


# -- inputs that end early ---------------------------------------------------------------------------------------------


@pytest.mark.one_loop
@pytest.mark.parametrize("kind", ["gz", "zst", "csv"])
async def test_an_input_that_was_cut_is_refused(serve: Serve, output: Path, kind: str) -> None:
    content = b"".join(json.dumps(line(number)).encode() + b"\n" for number in range(500))
    source = output.with_name(f"in.{kind}")
    if kind == "gz":
        source.write_bytes(gzip.compress(content)[:-20])
    elif kind == "zst":
        zstandard = pytest.importorskip("zstandard")
        source.write_bytes(zstandard.ZstdCompressor().compress(content)[:-20])
    else:
        source.write_text('id,q\n1,"open\n2,b\n')
    server = serve(HELLO)
    with pytest.raises(InputError):
        await finish(server, source, output, prompt="{q}" if kind == "csv" else None)
    assert server.requests == []


@pytest.mark.one_loop
@pytest.mark.parametrize("prompt", [None, "{missing}"])
async def test_columns_of_standard_input_are_checked_before_anything_is_sent(
    serve: Serve, output: Path, monkeypatch: pytest.MonkeyPatch, prompt: str | None
) -> None:
    text = io.TextIOWrapper(io.BytesIO(b"id,q\n1,Question 1\n2,Question 2\n"))
    monkeypatch.setattr(sys, "stdin", text)
    server = serve(HELLO)
    with pytest.raises(InputError, match="prompt"):
        await finish(server, "-", output, prompt=prompt)
    assert (server.requests, errors_of(output)) == ([], [])
