"""The event-stream decoder against the WHATWG grammar: own cases, an oracle, every split, the limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.tables import each_row

from chatscope.errors import StreamProtocolError
from chatscope.protocol.sse import MAX_EVENT_BYTES, ServerSentEvent, SSEDecoder

BOM = b"\xef\xbb\xbf"


def event(data: bytes, name: str = "message", last_id: str = "") -> ServerSentEvent:
    return ServerSentEvent(name, data, last_id)


def decode(reads: Iterable[bytes], *, closes: bool = False, error_field: bool = False) -> list[ServerSentEvent]:
    decoder, splitting = SSEDecoder(error_field=error_field), SSEDecoder(error_field=error_field)
    events: list[ServerSentEvent] = []
    for raw in reads:
        found = decoder.feed(raw)
        lone = splitting.lone_data(raw)
        parts, others = splitting.split(raw)
        assert lone is None or (parts, others) == ([lone], [])
        assert [("message", part) for part in parts] + [each[:2] for each in others] == [each[:2] for each in found]
        assert splitting.is_fresh is decoder.is_fresh
        events += found
    return events + decoder.close() if closes else events


def cut(raw: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut bytes at places, which may repeat: an empty read is a read."""
    ends = [*sorted(place % (len(raw) + 1) for place in places), len(raw)]
    return [raw[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def by_the_standard(raw: bytes) -> list[ServerSentEvent]:
    """Section 9.2.6 word by word, on a stream that is there as a whole."""
    events: list[ServerSentEvent] = []
    data, name, last_id = b"", "", ""
    for line in re.split(rb"\r\n|\r|\n", raw.removeprefix(BOM))[:-1]:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                events.append(ServerSentEvent(name or "message", data[:-1], last_id))
            data, name = b"", ""
        elif field == b"data":
            data += value + b"\n"
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"id" and b"\0" not in value:
            last_id = value.decode("utf-8", "replace")
    return events


CASES: dict[str, tuple[bytes, list[ServerSentEvent]]] = {
    "nothing": (b"", []),
    "blank lines": (b"\n\r\r\n\n", []),
    "one line": (b"data: a\n\n", [event(b"a")]),
    "no space after the colon": (b"data:a\n\n", [event(b"a")]),
    "only one space is dropped": (b"data:  a \n\n", [event(b" a ")]),
    "a tab is no space": (b"data:\ta\n\n", [event(b"\ta")]),
    "several lines": (b"data: a\ndata: b\ndata: c\n\n", [event(b"a\nb\nc")]),
    "no colon: the field's value is empty": (b"data\n\n", [event(b"")]),
    "empty data is an event": (b"data:\n\n", [event(b"")]),
    "two empty lines of data": (b"data\ndata:\n\n", [event(b"\n")]),
    "a colon in the value": (b"data: a: b\n\n", [event(b"a: b")]),
    "a comment": (b": data: a\n\n", []),
    "a comment inside an event": (b"data: a\n:\ndata: b\n\n", [event(b"a\nb")]),
    "a named event": (b"event: ping\ndata: a\n\n", [event(b"a", "ping")]),
    "the last name counts": (b"event: x\nevent: y\ndata: a\n\n", [event(b"a", "y")]),
    "an empty name is the default": (b"event: x\nevent\ndata: a\n\n", [event(b"a")]),
    "the name may follow the data": (b"data: a\nevent: x\n\n", [event(b"a", "x")]),
    "a name lasts for one event": (b"event: x\ndata: a\n\ndata: b\n\n", [event(b"a", "x"), event(b"b")]),
    "a name without data is forgotten": (b"event: x\n\ndata: a\n\n", [event(b"a")]),
    "an id lasts": (b"id: 7\ndata: a\n\ndata: b\n\n", [event(b"a", last_id="7"), event(b"b", last_id="7")]),
    "an id without data lasts too": (b"id: 7\n\ndata: a\n\n", [event(b"a", last_id="7")]),
    "an empty id resets it": (b"id: 7\ndata: a\n\nid\ndata: b\n\n", [event(b"a", last_id="7"), event(b"b")]),
    "an id with a NUL is ignored": (b"id: 7\nid: 8\x009\ndata: a\n\n", [event(b"a", last_id="7")]),
    "retry is not for this decoder": (b"retry: 10\n\ndata: a\n\n", [event(b"a")]),
    "an unknown field": (b"datum: x\ndata: a\nDATA: y\n data: z\n\n", [event(b"a")]),
    "an error field": (b"error: x\n\n", []),
    "CR": (b"data: a\r\rdata: b\r\r", [event(b"a"), event(b"b")]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [event(b"a"), event(b"b")]),
    "mixed endings": (b"data: a\r\ndata: b\rdata: c\n\r\ndata: d\n\r", [event(b"a\nb\nc"), event(b"d")]),
    "LF CR is two endings": (b"data: a\n\rdata: b\n\n", [event(b"a"), event(b"b")]),
    "a byte order mark": (BOM + b"data: a\n\n", [event(b"a")]),
    "two byte order marks": (BOM + BOM + b"data: a\n\ndata: b\n\n", [event(b"b")]),
    "a byte order mark later on": (b"data: a\n\n" + BOM + b"data: b\n\n", [event(b"a")]),
    "half a byte order mark": (BOM[:2] + b"data: a\n\ndata: b\n\n", [event(b"b")]),
    "other line separators are text": (
        "data: a\u2028b\u2029c\u0085d\x0be\x0c\n\n".encode(),
        [event("a\u2028b\u2029c\u0085d\x0be\x0c".encode())],
    ),
    "data stays bytes": (b"data: \xff\xc3\n\n", [event(b"\xff\xc3")]),
    "a name that is no UTF-8": (b"event: \xff\xe2\x82\ndata: a\n\n", [event(b"a", "\ufffd\ufffd")]),
    "an id that is no UTF-8": (b"id: \xe2\x82x\ndata: a\n\n", [event(b"a", last_id="\ufffdx")]),
    "an unfinished event": (b"data: a\n\ndata: b\n", [event(b"a")]),
    "an unfinished line": (b"data: a\n\ndata: b", [event(b"a")]),
}


@each_row(("raw", "events"), CASES.values(), ids=CASES)
def test_the_grammar_whatever_the_reads(raw: bytes, events: list[ServerSentEvent]) -> None:
    assert by_the_standard(raw) == events
    assert decode([raw]) == events
    assert decode(raw[place : place + 1] for place in range(len(raw))) == events
    for place in range(len(raw)):
        assert decode([raw[:place], raw[place:]]) == events


fields = st.sampled_from([b"data", b"event", b"id", b"retry", b"error", b"", b"dat", b"data ", b"\xff", BOM + b"data"])
values = st.sampled_from(
    [b"", b" ", b"a", b"  a ", b"\xf0\x9f", b"\x98\x80", b"\xff", b"\0", b":", b"{}", BOM, b"[DONE]"]
)
lines = st.builds(b"".join, st.tuples(fields, st.sampled_from([b"", b":", b": "]), values)) | st.just(b"")
endings = st.sampled_from([b"\n", b"\r", b"\r\n"])
streams = st.builds(
    lambda start, body, rest: start + b"".join(line + ending for line, ending in body) + rest,
    st.sampled_from([b"", BOM, BOM[:1], BOM[:2], BOM * 2]),
    st.lists(st.tuples(lines, endings), max_size=25),
    lines,
)
places = st.lists(st.integers(min_value=0), max_size=12)


@given(streams | st.binary(max_size=200), places)
@example(b"data: a\r\n\r\n", [8, 9, 10])
@example(BOM + b"data: a\n\n", [1, 2])
@example(b"\ndata: a\n\ndata: b\n\ndata:\n\ndata: \n\ndata: c\n\n", [1, 21, 29])
def test_any_split_gives_the_events_of_the_standard(raw: bytes, where: list[int]) -> None:
    assert decode(cut(raw, where)) == by_the_standard(raw)


@given(streams, places, st.booleans())
def test_any_split_gives_the_same_last_event(raw: bytes, where: list[int], error_field: bool) -> None:
    whole = decode([raw], closes=True, error_field=error_field)
    assert decode(cut(raw, where), closes=True, error_field=error_field) == whole
    if not error_field:
        # Ending the last line and the last event is all that closing does.
        assert whole == by_the_standard(raw + b"\n\n")


@each_row(
    ("raw", "last"),
    [
        (b"", []),
        (b"data: a\n\n", []),
        (b"data: a\n", [event(b"a")]),
        (b"data: a", [event(b"a")]),
        (b"data: a\r", [event(b"a")]),
        (b"data: a\ndata: b", [event(b"a\nb")]),
        (b"event: x\nid: 1\ndata: a", [event(b"a", "x", "1")]),
        (b"event: x", []),
        (b": comment", []),
        (BOM + b"data: a", [event(b"a")]),
        (BOM, []),
        (BOM[:2], []),
        (b"data", [event(b"")]),
    ],
)
def test_close_hands_out_what_has_no_blank_line(raw: bytes, last: list[ServerSentEvent]) -> None:
    decoder = SSEDecoder()
    decoder.feed(raw)
    assert decoder.close() == last
    assert decoder.close() == []


def test_an_error_field_is_an_event_where_that_is_asked_for() -> None:
    assert decode([b'error: {"a":1}\n\ndata: b\n\n'], error_field=True) == [event(b'{"a":1}', "error"), event(b"b")]
    assert decode([b"error:x\nerror: y"], error_field=True, closes=True) == [event(b"x\ny", "error")]


def one_by_one(raw: bytes) -> list[bytes]:
    return [raw[place : place + 1] for place in range(len(raw))]


Split = Callable[[bytes], list[bytes]]

LIMIT = 20
TOO_LONG = {
    "a line of data": b"data: " + b"x" * 15 + b"\n\n",
    "a line of data without its end": b"data: " + b"x" * 15,
    "a line of data without a space": b"data:" + b"x" * 16 + b"\n\n",
    "a comment": b":" + b"x" * 20 + b"\n",
    "a comment without its end": b":" + b"x" * 20,
    "an event's name": b"event: " + b"x" * 14 + b"\n",
    "an unknown field": b"x" * 21 + b"\n",
    "an event of short lines": b"data: 1\n" * 3,
    "an event of empty lines": b"data:\n" * 5,
    "an event of error lines": b"error: 1\n" * 3,
    "an event whose last line has no end": b"data: 1\ndata: 1\ndata: 1",
}


@each_row("raw", TOO_LONG.values(), ids=TOO_LONG)
@each_row("before", [b"", b"data: before\n\n", b"id: 1\n: comment\n\n"])
@each_row("split", [lambda raw: [raw], one_by_one], ids=["one read", "byte by byte"])
def test_what_is_too_long_is_refused_after_the_events_before_it(before: bytes, raw: bytes, split: Split) -> None:
    decoder = SSEDecoder(error_field=True, max_event_bytes=LIMIT)
    events: list[ServerSentEvent] = []
    with pytest.raises(StreamProtocolError, match="longer than 20 bytes"):  # noqa: PT012 - where it comes depends on the reads
        for part in split(before + raw):
            events += decoder.feed(part)
        decoder.close()
    assert events == ([event(b"before")] if before.startswith(b"data") else [])
    with pytest.raises(StreamProtocolError):
        decoder.feed(b"data: after\n\n")
    with pytest.raises(StreamProtocolError):
        decoder.close()


@each_row(
    "raw",
    [
        b"data: " + b"x" * 14 + b"\n\n",
        b"data:" + b"x" * 15,
        b":" + b"x" * 19 + b"\n",
        b"data: 12345678\n:" + b"x" * 19 + b"\n\n",
        b"data: 1\ndata: 23\n\n" * 3,
    ],
)
def test_what_is_just_short_enough_passes(raw: bytes) -> None:
    for parts in ([raw], one_by_one(raw)):
        decoder = SSEDecoder(max_event_bytes=LIMIT)
        events = [found for part in parts for found in decoder.feed(part)]
        assert events + decoder.close() == by_the_standard(raw + b"\n\n")


@given(streams, places)
@example(b"data\ndata: too long\nx\n\n", [18])
@example(b"data\nunknown: long\n\n", [18])
def test_any_split_overflows_alike(raw: bytes, where: list[int]) -> None:
    def run(parts: list[bytes]) -> tuple[list[ServerSentEvent], bool]:
        decoder = SSEDecoder(max_event_bytes=12)
        events: list[ServerSentEvent] = []
        try:
            for part in parts:
                events += decoder.feed(part)
            events += decoder.close()
        except StreamProtocolError:
            return events, True
        return events, False

    assert run(cut(raw, where)) == run([raw])


def test_the_stated_limit_is_the_default() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b":" * MAX_EVENT_BYTES) == []
    with pytest.raises(StreamProtocolError, match=str(MAX_EVENT_BYTES)):
        decoder.feed(b":")
