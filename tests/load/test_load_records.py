"""Lines of requests.jsonl: written and read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatscope import APITimeoutError, RateLimitError
from chatscope.load import RequestError, RequestRecord, read_records


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    error = RequestError.of(RateLimitError("Slow down.", status=429, code="rate_limit"))
    records = [RequestRecord(index=0, due_ns=5, token_ns=[7, 9]), RequestRecord(index=1, due_ns=6, error=error)]
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b"".join(record.to_json() for record in records) + b'{"index": 2, "due')
    assert list(read_records(path)) == records, "a line that was cut off is left out"
    assert json.loads(records[1].to_json())["error"] == {
        "class": "RateLimitError",
        "message": "Slow down.",
        "status": 429,
        "code": "rate_limit",
    }
    out_of_order = RequestRecord(index=2, due_ns=5, token_ns=[4, 9]).to_json()
    for line, reason in ((b"{}\n", "missing required field"), (out_of_order, "its stamps are not in order")):
        path.write_bytes(records[0].to_json() + line)
        with pytest.raises(ValueError, match=f"line 2 is not a record: .*{reason}"):
            list(read_records(path))


def test_failures_are_counted_by_kind() -> None:
    assert RequestError.of(RateLimitError("No.", status=429)).kind == "429 RateLimitError"
    assert RequestError.of(APITimeoutError("Late.", phase="idle")).kind == "APITimeoutError (idle)"
