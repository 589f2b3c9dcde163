"""Responses become HTTP/1.1 bytes; points in them are found; steps stand where they were put."""

from __future__ import annotations

from tests.support.tables import row

from chatscope.simulator import Close, Framing, Part, Plan, Repeat, Response, Send, Stage, Stall, Wait
from chatscope.simulator.plan import Point

STREAM = Response(
    200,
    (("content-type", "text/event-stream"),),
    (
        Wait(0.5),
        Part(b"role", Stage.ROLE),
        Part(b"one"),
        Wait(0.1),
        Part(b"two"),
        Part(b"finish", Stage.FINISH),
        Part(b"done", Stage.DONE),
    ),
    Framing.CHUNKED,
)


def test_chunked_response() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    assert STREAM.plan() == Plan(
        (
            Send(head),
            Wait(0.5),
            Send(b"4\r\nrole\r\n"),
            Send(b"3\r\none\r\n"),
            Wait(0.1),
            Send(b"3\r\ntwo\r\n"),
            Send(b"6\r\nfinish\r\n"),
            Send(b"4\r\ndone\r\n0\r\n\r\n"),
        )
    )


def test_response_with_a_length_or_closed_at_its_end() -> None:
    body = (Part(b"ab"), Part(b"cd"))
    length = Response(404, (), body).plan()
    assert length.steps == (Send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\n"), Send(b"ab"), Send(b"cd"))
    closed = Response(200, (), body, Framing.CLOSE).plan()
    assert closed.steps == (Send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"), Send(b"ab"), Send(b"cd"), Close())


def test_empty_bodies() -> None:
    assert Response(framing=Framing.CHUNKED).plan().steps == (
        Send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    )
    # An empty chunk would end the body, so an empty part is no chunk.
    assert Framing.CHUNKED.frame(b"") == b""


def test_reason_phrase() -> None:
    rows: list[tuple[int, str | None, bytes]] = [
        (599, None, b"HTTP/1.1 599 "),
        (200, "", b"HTTP/1.1 200 "),
        (200, "Fine", b"HTTP/1.1 200 Fine"),
    ]
    for status, reason, line in rows:
        with row(status, reason, line):
            (head,) = Response(status, reason=reason).plan().steps
            assert isinstance(head, Send)
            assert head.data.startswith(line + b"\r\n")


def test_a_point_lies_before_what_it_names() -> None:
    rows: list[tuple[Point, bytes | None]] = [
        (Stage.ROLE, b"role"),
        (Stage.CONTENT, b"one"),
        (0, b"one"),
        (1, None),  # directly behind the first token, before the wait
        (2, b"finish"),
        (9, b"finish"),
        (Stage.FINISH, b"finish"),
        (Stage.USAGE, b"done"),  # there is no usage chunk: before what follows it
        (Stage.DONE, b"done"),
    ]
    for at, following in rows:
        with row(at, following):
            item = STREAM.body[STREAM.index(at)]
            assert item == Wait(0.1) if following is None else isinstance(item, Part) and item.data == following


def test_points_at_the_end() -> None:
    assert STREAM.index(Stage.END) == len(STREAM.body)
    assert Response(body=(Part(b"only"),)).index(5) == 1


def test_interruptions_of_the_head() -> None:
    steps = STREAM.interrupted(Stage.STATUS, Wait(1)).interrupted(Stage.HEADERS, Stall()).plan().steps
    assert steps[:4] == (
        Wait(1),
        Send(b"HTTP/1.1 200 OK\r\n"),
        Stall(),
        Send(b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"),
    )


def test_interruptions_around_the_end() -> None:
    steps = STREAM.interrupted(Stage.END, Wait(1)).interrupted(Stage.IDLE, Close()).plan().steps
    assert steps[-4:] == (Send(b"4\r\ndone\r\n"), Wait(1), Send(b"0\r\n\r\n"), Close())


def test_a_step_in_the_body_leaves_the_promised_length() -> None:
    response = Response(body=(Part(b"abcd"),)).interrupted(Stage.CONTENT, Send(b"ab"), Close())
    assert response.plan().steps == (
        Send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"),
        Send(b"ab"),
        Close(),
        Send(b"abcd"),
    )


def test_headers_replace_others_of_their_name() -> None:
    response = Response(headers=(("Content-Type", "a"), ("x", "1")))
    assert response.with_headers(("content-type", "b")).headers == (("x", "1"), ("content-type", "b"))
    assert response.with_default_header("content-type", "b") is response
    assert response.with_default_header("y", "2").headers == (*response.headers, ("y", "2"))


def test_content_is_the_body_without_its_steps() -> None:
    assert STREAM.inserted(0, Repeat(b"x")).content == b"roleonetwofinishdone"
