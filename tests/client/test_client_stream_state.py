"""When a streamed response is over: the one state that every reader asks, without any I/O."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chatscope import APIConnectionError, APITimeoutError, InvalidResponseError, StreamServerError, StreamTruncatedError
from chatscope._client.stream_state import ERROR_TAIL_BYTES, ERROR_TAIL_SECONDS, KEEP_ALIVE_SECONDS, StreamState
from chatscope._limits.timeouts import FINISH_GRACE
from chatscope.protocol.stream_decoder import StreamDecoder

DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def chunk(text: str = "", finish: Any = None, index: int = 0, **fields: Any) -> bytes:
    choice = {"index": index, "delta": {"content": text} if text else {}, "finish_reason": finish}
    return event(model="m", choices=[choice], **fields)


USAGE = event(model="m", choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
ERROR = event(error={"message": "out of luck"})


def state_after(*reads: bytes, choices: int = 1) -> StreamState:
    state = StreamState(StreamDecoder(), choices)
    for number, data in enumerate(reads):
        state.feed(data, number)
    return state


@pytest.mark.parametrize(
    ("reads", "choices", "patience"),
    [
        ((), 1, None),
        ((chunk("a"),), 1, None),
        ((chunk("a", "stop"),), 1, FINISH_GRACE),  # all of it in one read
        ((chunk("a"), chunk(finish="stop")), 1, FINISH_GRACE),
        ((chunk("a"), chunk(finish="stop"), COMMENT), 1, FINISH_GRACE),
        ((chunk("a", "stop"), USAGE), 1, FINISH_GRACE),
        ((chunk("a", "stop"), chunk("b", index=1)), 1, None),  # a choice that nobody asked for counts once it is seen
        ((chunk("a", "stop"),), 2, None),  # the other choice may still come
        ((chunk("a", "stop"), chunk("b", "stop", index=1)), 2, FINISH_GRACE),
        ((chunk("a"), ERROR), 1, ERROR_TAIL_SECONDS),
        # The last event without its blank line
        ((chunk("a"), chunk(finish="stop")[:-1]), 1, FINISH_GRACE),
        ((chunk("a"), chunk(finish="stop")[:-2]), 1, FINISH_GRACE),
        ((chunk("a", "stop")[:-1],), 1, FINISH_GRACE),
        ((chunk("a", "stop")[:-1],), 2, None),
        ((chunk("a"), chunk("b")[:-1]), 1, None),
        ((chunk("a"), chunk(finish="stop")[:-9]), 1, None),
        ((chunk("a"), b"data: [DONE]"), 1, FINISH_GRACE),
        ((chunk("a"), ERROR[:-1]), 1, FINISH_GRACE),
        ((chunk("a"), b"event: error\ndata: out of luck\n"), 1, FINISH_GRACE),
        ((chunk("a")[:-1], chunk(finish="stop")[:-1], DONE[:-2]), 1, FINISH_GRACE),
        ((b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}',), 1, FINISH_GRACE),
    ],
)
def test_how_long_the_next_read_may_take(reads: tuple[bytes, ...], choices: int, patience: float | None) -> None:
    state = state_after(*reads, choices=choices)
    assert (state.is_over, state.is_open, state.patience(100.0)) == (False, patience is None, patience)


def test_output_after_a_finish_reason_goes_on() -> None:
    state = state_after(chunk("a", "stop"))
    assert state.patience(0.0) == FINISH_GRACE
    state.feed(chunk("b"), 1)
    assert not state.is_over
    state.feed(chunk(finish="stop") + DONE, 2)
    assert (state.is_over, state.error, state.decoder.assembler.text) == (True, None, "ab")


def test_comments_keep_a_finished_stream_for_a_while_and_chunks_for_longer() -> None:
    state = state_after(chunk("a", "stop"))
    now = 50.0
    assert state.patience(now) == FINISH_GRACE
    now += KEEP_ALIVE_SECONDS - 1
    state.feed(COMMENT, 1)
    assert state.patience(now) == 1
    state.feed(chunk(), 2)
    assert state.patience(now) == FINISH_GRACE


@pytest.mark.parametrize(
    "reads",
    [
        (chunk("a", "stop") + DONE,),
        (chunk("a"), DONE),
        (chunk("a"), ERROR, DONE),
        (chunk("a"), DONE[:-1]),
        (chunk("a"), b"data: [DONE]\r"),
        (chunk("a"), DONE[:-1] + b"id: 7\n"),
    ],
)
def test_done_is_the_end_whatever_follows(reads: tuple[bytes, ...]) -> None:
    state = state_after(*reads)
    assert (state.is_over, state.is_open) == (True, False)


TIMEOUT = APITimeoutError("silence", phase="idle")
BROKEN = APIConnectionError("reset")
MALFORMED = InvalidResponseError("not HTTP")


@pytest.mark.parametrize(
    ("reads", "failure", "outcome"),
    [
        ((chunk("a", "stop"),), None, None),
        ((chunk("a"),), None, StreamTruncatedError),
        ((chunk("a", "stop"),), TIMEOUT, None),
        ((chunk("a"), chunk(finish="stop")[:-1]), TIMEOUT, None),
        ((chunk("a"), ERROR[:-1]), TIMEOUT, StreamServerError),
        ((chunk("a"),), TIMEOUT, APITimeoutError),
        ((chunk("a"),), BROKEN, StreamTruncatedError),
        ((chunk("a"),), MALFORMED, InvalidResponseError),
        ((chunk("a"), ERROR), None, StreamServerError),
        ((chunk("a"), ERROR), TIMEOUT, StreamServerError),
        ((chunk("a"), ERROR), BROKEN, StreamServerError),
        ((chunk("a"), ERROR), MALFORMED, StreamServerError),
    ],
)
def test_what_the_end_means(
    reads: tuple[bytes, ...],
    failure: APIConnectionError | InvalidResponseError | None,
    outcome: type[Exception] | None,
) -> None:
    state = state_after(*reads)
    error: Exception | None
    try:
        if failure is None:
            state.end(9)
        else:
            state.on_failure(failure, 9)
        error = state.error
    except (APIConnectionError, InvalidResponseError) as raised:
        error = raised
    else:
        assert state.is_over
    assert (None if error is None else type(error)) is outcome
    assert state.decoder.assembler.text == "a"


def test_usage_after_an_error_counts_and_the_error_stays() -> None:
    state = state_after(chunk("a"), ERROR)
    error = state.error
    assert state.patience(10.0) == ERROR_TAIL_SECONDS
    state.feed(USAGE, 2)
    assert state.patience(10.75) == ERROR_TAIL_SECONDS - 0.75  # nothing that arrives makes it longer
    state.feed(event(error={"message": "again"}), 3)
    assert not state.is_over
    state.feed(DONE, 4)
    assert (state.is_over, state.error) == (True, error)
    usage = state.decoder.assembler.usage
    assert usage is not None
    assert usage.total_tokens == 5


def test_no_flood_after_an_error_is_read() -> None:
    state = state_after(chunk("a"), ERROR, b": " + b"x" * ERROR_TAIL_BYTES + b"\n")
    assert state.is_over


@pytest.mark.parametrize("garbage", [b"data: {\n\n", b"data: garbage\n\n"])
def test_after_what_is_no_chunk_nothing_more_is_read(garbage: bytes) -> None:
    state = state_after(chunk("a"), garbage)
    assert state.is_over
    assert state.error is not None
