"""The record of one request: its stamps, its outcome, and its counts, as a line of `requests.jsonl`.

Here: the record and its JSON. Not here: figures from records (`metrics`).

Every stamp is on the clock of `time.perf_counter_ns`, which all processes of a Linux machine share.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from chatscope.errors import ChatError
from chatscope.load.schedule import Window

RequestOutcome = Literal["ok", "failed", "unfinished"]


class RequestError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request failed. `class_` is the exception's name, `class` in JSON."""

    class_: str = msgspec.field(name="class")
    message: str = ""
    status: int | None = None
    code: str | None = None
    phase: str | None = None

    @classmethod
    def of(cls, error: ChatError) -> RequestError:
        """Return the part of an error that a record stores."""
        return cls(
            class_=type(error).__name__,
            message=error.message,
            status=error.status,
            code=error.code,
            phase=error.phase,
        )

    @property
    def kind(self) -> str:
        """The kind by which failures are counted: the status, or else the class, with a deadline's phase."""
        name = self.class_ if self.status is None else f"{self.status} {self.class_}"
        return name if self.phase is None else f"{name} ({self.phase})"


class RequestRecord(msgspec.Struct, kw_only=True):
    """The record of one request.

    `due_ns` is when it should have been sent: by the schedule, or in a closed loop when its slot became free.
    `dispatched_ns` is when the client started to send it; `None` if it never did. `queued_ns` is how long it had then
    waited for `max_concurrency`. `connect_ns` is how long connecting took, if a new connection was needed. `sent_ns` is
    when the request had been written; `None` with a transport other than chatscope's own. Token counts are the
    server's; `None` means that it did not report them.
    """

    index: int
    due_ns: int
    stage: int = 0
    worker: int = 0
    session: str | None = None
    turn: int = 0
    request_id: str | None = None
    dispatched_ns: int | None = None
    queued_ns: int = 0
    connect_ns: int | None = None
    sent_ns: int | None = None
    headers_ns: int | None = None
    token_ns: list[int] = []
    """When each chunk with output was read."""
    answer_ns: int | None = None
    """When the first chunk with output other than reasoning was read."""
    finished_ns: int | None = None
    outcome: RequestOutcome = "unfinished"
    error: RequestError | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    requested_prompt_tokens: int | None = None
    requested_output_tokens: int | None = None
    finish_reason: str | None = None
    window: Window = "measured"

    def to_json(self) -> bytes:
        """Return the record as one line of `requests.jsonl`."""
        return _ENCODER.encode(self) + b"\n"


def read_records(path: Path) -> Iterator[RequestRecord]:
    """Yield the records of a `requests.jsonl`. A truncated last line is skipped.

    Raises:
        ValueError: a line is not a record; the message has its number.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = _DECODER.decode(line)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path}: line {number} is not a record: {error}") from error
            if [record.due_ns, *record.token_ns] != sorted([record.due_ns, *record.token_ns]):
                raise ValueError(f"{path}: line {number} is not a record: its stamps are not in order")
            yield record


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(RequestRecord)
