"""Chunks of text that are compared instead of decoded: whatever fits a template says what decoding it would find."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.tables import each_row

from chatscope.protocol.assemble import Assembler
from chatscope.protocol.chunk_decoder import ChunkDecoder
from chatscope.protocol.stream_decoder import StreamDecoder
from chatscope.protocol.text_template import TextTemplate

SEPARATORS = ((",", ":"), (", ", ": "))


def says(text: str, *, delta: dict[str, Any] | None = None, **own: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text} | (delta or {}), "finish_reason": None}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **own}


def encoded(chunk: dict[str, Any], separators: tuple[str, str] = SEPARATORS[0]) -> bytes:
    return json.dumps(chunk, ensure_ascii=False, separators=separators).encode("utf-8", "surrogatepass")


def read_as_one_that_knows_nothing(events: list[bytes]) -> None:
    """Read a stream in several ways: as its own template tells, and chunk by chunk by a decoder that has seen none."""
    reader, watcher, burst, assembler = StreamDecoder(), StreamDecoder(), StreamDecoder(), Assembler()
    framed = [b"data: " + event + b"\n\n" for event in events]
    chunks = [chunk for event in framed for chunk in reader.feed(event, 0)]
    fresh = [ChunkDecoder().decode(event)[0] for event in events]
    assert chunks == fresh
    for chunk in fresh:
        assembler.add(chunk)
    for event in framed:
        _ = watcher.feed_text(event, 0) or watcher.feed(event, 0)
    assert burst.feed(b"".join(framed), 0) == fresh
    expected = assembler.completion()
    assert [each.assembler.completion() for each in (reader, watcher, burst)] == [expected] * 3
    assert list(reader.token_ns) == list(watcher.token_ns) == list(burst.token_ns)


parts = st.text(max_size=4) | st.sampled_from(['"', "\\", "\n", "\r", "\x7f", "\x85", "\u2028", "</p>", 'a","b":"c'])
padding = st.none() | st.sampled_from(["", "aB3", "x" * 20])
values = st.none() | st.integers(0, 1) | st.sampled_from(["p", "q", {"hate": {"filtered": False}}, ["x"]])


@pytest.mark.slow
@given(st.lists(st.tuples(parts, padding, values, values), max_size=9), st.sampled_from(SEPARATORS))
def test_text_padding_and_own_fields_are_read_as_they_are(
    sent: list[tuple[str, str | None, object, object]], separators: tuple[str, str]
) -> None:
    read_as_one_that_knows_nothing(
        [
            encoded(says(text, provider=own, seed=other) | ({} if pad is None else {"obfuscation": pad}), separators)
            for text, pad, own, other in [("start", None, 0, 0), *sent]
        ]
    )


@each_row(
    "sent",
    [
        [says(text) for text in "abcdef"],
        [says(text, usage=None, obfuscation="x" * n) for n, text in enumerate("abcdef")],
        [says("a"), *[says("b", obfuscation=padding) for padding in ("aB3", "aB3", "", "aB3")]],
        [says("a", obfuscation="x"), *[says("b", obfuscation=f'"{n}\n') for n in range(4)]],
        [says("a", provider={"content": "a"}) for _ in range(4)],  # the text in two places
        [{"content": "a", **says("a")} for _ in range(4)],
        [says("a") | {'"content': "a"} for _ in range(4)],
        [says("", delta={"reasoning_content": text, "content": None}) for text in "abcd"] + [says("e"), says("f")],
        [says("a", usage={"prompt_tokens": 1, "completion_tokens": n, "total_tokens": n + 1}) for n in range(5)],
        [says("a", p=1), says("b", p=1), says("c", p=2), says("d", p=2), says("e", p=1), says("f", p=1)],
        [says("a", filter={"hate": 1})] * 5,
    ],
)
def test_streams_whose_chunks_are_alike(sent: list[dict[str, Any]]) -> None:
    for separators in SEPARATORS:
        read_as_one_that_knows_nothing([encoded(chunk, separators) for chunk in sent])


def test_no_two_chunks_share_what_a_caller_may_change() -> None:
    reader = StreamDecoder()
    event = b"data: " + encoded(says("a", filter={"hate": 1}, own="p")) + b"\n\n"
    chunks = [chunk for _ in range(6) for chunk in reader.feed(event, 0)]
    chunks[4].extra["filter"]["hate"] = 2
    chunks[4].extra["own"] = "q"
    assert [chunk.extra for chunk in chunks if chunk is not chunks[4]] == [{"filter": {"hate": 1}, "own": "p"}] * 5
    assert len({id(chunk.choices[0].delta) for chunk in chunks}) == 6


@pytest.fixture
def template() -> TextTemplate:
    decoder = ChunkDecoder()
    first = encoded(says("a"))
    assert decoder.decode_text(first) == "a"
    made = TextTemplate.of(first, decoder.sent, "content", ChunkDecoder()._decode_text)
    assert made is not None
    return made


@each_row("text", ["b", " two words", "naïve “quoted”", "</p>", "你好"])
def test_a_chunk_that_fits(template: TextTemplate, text: str) -> None:
    event = encoded(says(text))
    assert template.text_of(event, template.ends) == text
    assert template.text_of(b"data: " + event + b"\n\n", template.ends_of_read) == text


@each_row("event", [says(""), says("\n"), says('"'), says("b", own=1), says("b", delta={"role": "tool"}), {}])
def test_a_chunk_that_does_not(template: TextTemplate, event: dict[str, Any]) -> None:
    assert template.text_of(encoded(event), template.ends) is None


@each_row("damage", [b"\xff", b"\n", b"\r", b'b"},"x":{"y":"z', b"\\", b"\xc2\x85"])
def test_bytes_that_do_not_stand_for_themselves_do_not_fit(template: TextTemplate, damage: bytes) -> None:
    before, after, _ = template.ends
    assert template.text_of(before + damage + after, template.ends) is None
    assert template.text_of(before + b"b" + after, template.ends) == "b"
    assert template.text_of(before[:-1] + after[1:], template.ends) is None
