"""Every fault, as the bytes and steps that it makes of a stream or a plain response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import msgspec
import pytest
from tests.support.tables import row

from chatscope.simulator import (
    Carrier,
    ChatRequest,
    Close,
    ErrorShape,
    Fault,
    Part,
    Repeat,
    Reply,
    Reset,
    Response,
    Send,
    Stage,
    Stall,
    Until,
    Wait,
    error,
    faults,
    html,
    respond,
    respond_to,
)
from chatscope.simulator.plan import Point, Step

Chat = Callable[..., ChatRequest]
Chunks = Callable[[Response | bytes], list[dict[str, Any]]]
Make = Callable[..., Response]


@pytest.fixture
def stream(chat: Chat) -> Make:
    """Make the stream of "one two" with faults."""

    def make(*made: Fault, text: str = "one two") -> Response:
        response = respond_to(chat(stream=True), Reply(text, faults=made))
        assert isinstance(response, Response)
        return response

    return make


@pytest.fixture
def plain(chat: Chat) -> Make:
    """Make the plain response "one two" with faults."""

    def make(*made: Fault, text: str = "one two") -> Response:
        response = respond_to(chat(), Reply(text, faults=made))
        assert isinstance(response, Response)
        return response

    return make


def following(response: Response, step: Step) -> bytes | None:
    """Return the part right behind a step of the body."""
    index = response.body.index(step)
    return next((item.data for item in response.body[index:] if isinstance(item, Part)), None)


def test_endings_at_each_stage(stream: Make) -> None:
    rows: list[tuple[Callable[[Point], Fault], Step]] = [
        (faults.close, Close()),
        (faults.reset, Reset()),
        (faults.stall, Stall()),
    ]
    points: list[tuple[Point, bytes | None]] = [
        (Stage.ROLE, b'"role"'),
        (0, b'"one"'),
        (1, b'" two"'),
        (Stage.FINISH, b'"stop"'),
        (Stage.DONE, b"[DONE]"),
        (Stage.END, None),
    ]
    for make, step in rows:
        for at, before in points:
            with row(make, step, at, before):
                response = stream(make(at))
                after = following(response, step)
                assert after is None if before is None else after is not None and before in after
                assert response.content == stream().content  # in front of what it would have sent


def test_endings_around_the_body(stream: Make) -> None:
    assert stream(faults.stall(Stage.STATUS)).plan().steps[0] == Stall()
    assert stream(faults.reset(Stage.HEADERS)).plan().steps[:2] == (Send(b"HTTP/1.1 200 OK\r\n"), Reset())
    assert stream(faults.close(Stage.IDLE)).plan().steps[-1] == Close()


def test_pauses(stream: Make) -> None:
    event = anyio.Event()
    response = stream(faults.pause(1, 0.5), faults.hold(Stage.DONE, event))
    assert b'" two"' in (following(response, Wait(0.5)) or b"")
    assert following(response, Until(event)) == b"data: [DONE]\n\n"


def test_a_body_that_ends_early_in_good_order(stream: Make, chunks: Chunks) -> None:
    response = stream(faults.end(1))
    read = chunks(response.content + b"data: [DONE]\n\n")
    assert [chunk["choices"][0]["delta"].get("content") for chunk in read] == ["", "one"]
    last = response.body[-1]
    assert isinstance(last, Part)
    assert response.plan().steps[-1] == Send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(last.data), last.data))


def test_a_cut_chunk(stream: Make, plain: Make) -> None:
    steps = stream(faults.cut_chunk(1)).plan().steps
    half = steps[steps.index(Close()) - 1]
    assert isinstance(half, Send)
    size, _, data = half.data.partition(b"\r\n")
    assert data.startswith(b'data: {"id"')
    assert 0 < len(data) < int(size, 16)
    whole = plain().content
    steps = plain(faults.cut_chunk(Stage.CONTENT)).plan().steps
    assert b"content-length: %d\r\n" % len(whole) in steps[0].data  # type: ignore[union-attr]  # the head
    assert steps[1:3] == (Send(whole[: len(whole) // 2]), Close())
    at_the_end = stream(faults.cut_chunk(Stage.END)).plan().steps
    assert at_the_end[-3:-1] == (Send(b"e\r\ndata"), Close())


def test_a_cut_character(stream: Make) -> None:
    response = stream(faults.cut_character(Stage.ROLE), text="one wörld")
    half = response.body[response.body.index(Close()) - 1]
    assert isinstance(half, Send)
    assert half.data.endswith(b'"content":" w\xc3\r\n')
    with pytest.raises(ValueError, match="no character of several bytes"):
        stream(faults.cut_character(1))


def test_insertions(stream: Make) -> None:
    plain_stream = stream().content
    assert stream(faults.insert(faults.PING, times=2)).content == faults.PING * 2 + plain_stream
    paced = stream(faults.insert(faults.KEEP_ALIVE, times=2, seconds=15.0))
    comment = Part(faults.KEEP_ALIVE)
    assert paced.body[:4] == (Wait(15.0), comment, Wait(15.0), comment)
    middle = stream(faults.malformed(1)).content
    assert middle.replace(faults.MALFORMED, b"") == plain_stream
    assert not middle.startswith(faults.MALFORMED)
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(faults.MALFORMED.removeprefix(b"data: "))


def test_endless_things(stream: Make) -> None:
    framed = b"e\r\n: keep-alive\n\n\r\n"
    assert Repeat(framed, 15.0) in stream(faults.endless(seconds=15.0)).body
    line = stream(faults.endless_line(1))
    index = line.body.index(Part(b"data: "))
    assert line.body[index + 1] == Repeat(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
    headers = stream(faults.endless_headers()).plan().steps[1]
    assert isinstance(headers, Repeat)
    assert headers.data.startswith(b"x-filler: x")
    assert headers.data.endswith(b"x\r\n")


def test_error_objects_in_a_stream(stream: Make) -> None:
    rows: list[tuple[ErrorShape, dict[str, Any]]] = [
        (ErrorShape.NESTED, {"error": {"message": "m", "type": "t", "param": None, "code": "c"}}),
        (ErrorShape.INT_CODE, {"error": {"message": "m", "type": "t", "param": None, "code": 502}}),
        (ErrorShape.FLAT, {"object": "error", "message": "m", "type": "t", "param": None, "code": 502}),
        (ErrorShape.STRING, {"error": "m"}),
        (ErrorShape.DETAIL, {"detail": "m"}),
    ]
    for shape, value in rows:
        with row(shape, value):
            fault = faults.stream_error(1, shape, status=502, message="m", kind="t", code="c")
            *before, last = [item.data for item in stream(fault).body if isinstance(item, Part)]
            assert before == [item.data for item in stream(faults.end(1)).body if isinstance(item, Part)]
            assert msgspec.json.decode(last.removeprefix(b"data: ")) == value
            assert msgspec.json.decode(error(502, "m", kind="t", code="c", shape=shape).content) == value


def test_errors_in_chunks(stream: Make, chunks: Chunks) -> None:
    rows: list[tuple[ErrorShape, Any]] = [
        (ErrorShape.NULL_CHOICES, None),
        (ErrorShape.IN_CHUNK, [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]),
    ]
    for shape, choices in rows:
        with row(shape, choices):
            *_, chunk = chunks(stream(faults.stream_error(Stage.USAGE, shape, status=502, message="m", done=True)))
            assert chunk["object"] == "chat.completion.chunk"
            assert chunk["error"] == {"message": "m", "code": 502}
            assert chunk["choices"] == choices


def test_carriers_of_errors(stream: Make) -> None:
    body = b'{"error":"m"}'
    for carrier, event in [
        (Carrier.DATA, b"data: %b\n\n" % body),
        (Carrier.FIELD, b"error: %b\n\n" % body),
        (Carrier.EVENT, b"event: error\ndata: %b\n\n" % body),
    ]:
        fault = faults.stream_error(Stage.ROLE, ErrorShape.STRING, carrier=carrier, message="m")
        assert stream(fault).content == event


def test_whole_bodies(stream: Make) -> None:
    whole = stream().content
    assert stream(faults.zero_bytes()).content == b""
    assert stream(faults.only_done()).content == b"data: [DONE]\n\n"
    assert stream(faults.no_done()).content == whole.removesuffix(b"data: [DONE]\n\n")
    assert stream(faults.unterminated()).content == whole.removesuffix(b"\n\n")
    assert stream(faults.zero_bytes(), faults.unterminated()).content == b""
    assert stream(faults.crlf()).content == whole.replace(b"\n", b"\r\n")
    assert stream(faults.bom()).content == b"\xef\xbb\xbf" + whole
    assert stream(faults.blank_lines(3)).content == b"\n\n\n" + whole


def test_blank_lines_before_a_plain_response(plain: Make) -> None:
    response = plain(faults.blank_lines(), faults.header("content-type", "text/plain"))
    assert response.content == b"\n" * 5 + plain().content
    assert dict(response.headers)["content-type"] == "text/plain"


def test_slices(stream: Make) -> None:
    whole = stream().content
    response = stream(faults.rechunk(7))
    assert response.content == whole
    assert {len(item.data) for item in response.body[:-1] if isinstance(item, Part)} == {7}
    dripped = stream(faults.drip(1.0)).body
    assert dripped[:4] == (Wait(1.0), Part(b"d"), Wait(1.0), Part(b"a"))
    assert len(dripped) == 2 * len(whole)


def test_rewriting(stream: Make, plain: Make, chunks: Chunks) -> None:
    def without_roles(chunk: dict[str, Any]) -> dict[str, Any] | None:
        return None if "role" in chunk["choices"][0]["delta"] else {**chunk, "id": ""}

    read = chunks(stream(faults.rewrite(without_roles)))
    assert [(chunk["id"], chunk["choices"][0]["delta"]) for chunk in read] == [
        ("", {"content": "one"}),
        ("", {"content": " two"}),
        ("", {}),
    ]
    assert plain(faults.rewrite(lambda _: {"detail": "no"})).content == b'{"detail":"no"}'


def test_faults_are_named_values() -> None:
    assert repr(faults.stall()) == "Fault(name='stall')"


def test_errors_and_other_responses() -> None:
    response = error(429, retry_after=1.2345, param="p", headers=(("x-should-retry", "false"),))
    assert response.headers == (
        ("content-type", "application/json"),
        ("retry-after", "2"),
        ("retry-after-ms", "1235"),
        ("x-should-retry", "false"),
    )
    assert msgspec.json.decode(response.content)["error"] == {
        "message": "The simulator was told to answer with status 429.",
        "type": "requests",
        "param": "p",
        "code": None,
    }
    assert msgspec.json.decode(error(503).content)["error"]["type"] == "server_error"
    assert html().content.startswith(b"<!DOCTYPE html>")
    assert respond(204).body == ()
