"""Prompts and traces: lengths, salts, shared prefixes, files of prompts, and recorded arrivals."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from random import Random

import pytest

from chatscope.load import Length, LoadPlan, Workload, prompts, run
from chatscope.load.prompts import PromptSource, read_prompts
from chatscope.load.traces import TraceRow, read_trace
from chatscope.load.workload import BLOCK_TOKENS, WordScale
from chatscope.protocol.messages import SentMessage
from chatscope.simulator import Config, Reply, simulator
from chatscope.simulator.tokenizer import TokenizerStyle
from chatscope.simulator.tokens import tokenize

SCALE = WordScale()


def first(workload: Workload, count: int) -> list[tuple[PromptSource, list[SentMessage]]]:
    sources = itertools.islice(workload.prompt_sources(), count)
    return [(source, workload.messages(index, source, SCALE)) for index, source in enumerate(sources)]


def text(messages: list[SentMessage]) -> str:
    return str(messages[-1].get("content"))


def test_prompts_have_their_length_and_begin_with_words_of_their_own() -> None:
    """A prefix cache must find nothing: neither within a run nor from the run before."""
    prompts = [text(messages) for _, messages in first(Workload(prompt_tokens=Length(64), salt="a"), 50)]
    assert {len(tokenize(prompt)) for prompt in prompts} == {64}
    starts = {" ".join(prompt.split()[:8]) for prompt in prompts}
    assert len(starts) == 50
    other = text(first(Workload(prompt_tokens=Length(64), salt="b"), 1)[0][1])
    assert other not in prompts
    assert text(first(Workload(prompt_tokens=Length(64), salt="a"), 1)[0][1]) == prompts[0]


def test_a_shared_prefix_is_shared_and_nothing_else() -> None:
    workload = Workload(prompt_tokens=Length(100), shared_prefix_tokens=60)
    words = [text(messages).split() for _, messages in first(workload, 10)]
    assert len({tuple(each[:60]) for each in words}) == 1
    assert len({tuple(each[60:68]) for each in words}) == 10
    assert {len(each) for each in words} == {100}


def test_lengths_follow_the_seed_and_their_distribution() -> None:
    workload = Workload(prompt_tokens=Length(100, 20), output_tokens=Length(50, 10), seed=3)
    sources = [source for source, _ in first(workload, 400)]
    lengths = [source.prompt_tokens or 0 for source in sources]
    assert sum(lengths) / 400 == pytest.approx(100, rel=0.05)
    assert len(set(lengths)) > 20
    assert sum(source.output_tokens or 0 for source in sources) / 400 == pytest.approx(50, rel=0.05)
    assert [source for source, _ in first(workload, 400)] == sources
    random = Random(1)
    assert min(Length(1, 50).draw(random) for _ in range(9)) == 1


def test_words_follow_the_scale() -> None:
    scale = WordScale(per_word=1.25, overhead=14)
    (messages,) = [Workload().messages(0, PromptSource(prompt_tokens=514), scale)]
    assert len(text(messages).split()) == 400
    assert scale.words_for(3) == 1


def test_equal_block_ids_are_equal_text() -> None:
    workload = Workload(salt="x")
    one, two = (
        text(workload.messages(index, PromptSource(prompt_tokens=3 * BLOCK_TOKENS, block_ids=ids), SCALE)).split()
        for index, ids in enumerate([(5, 6, 7), (5, 6, 8)])
    )
    assert one[: 2 * BLOCK_TOKENS] == two[: 2 * BLOCK_TOKENS]
    assert one[2 * BLOCK_TOKENS :] != two[2 * BLOCK_TOKENS :]
    assert len(one) == len(two) == 3 * BLOCK_TOKENS


PROMPT_LINES = (
    '{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "One"}]}\n'
    '\n{"prompt": "Two", "output_tokens": 7}\n{"text_input": "Three", "output_length": 8}\n'
    '{"prompt": "Four", "output_tokens_count": 9}\n'
)


def test_a_file_of_prompts_is_sent_as_it_is_and_starts_again(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(PROMPT_LINES)
    found = first(Workload(prompts=path), 6)
    assert [text(messages) for _, messages in found[:4]] == ["One", "Two", "Three", "Four"]
    assert [source.output_tokens for source, _ in found[:4]] == [None, 7, 8, 9]
    again = found[4][1]
    assert text(again[:1]) != "Be brief.", "a repeated prompt must not hit the prefix cache"
    assert text(again[:1]).endswith(" Be brief.")
    assert text(again) == "One"


def test_share_gpt_gives_first_turns(tmp_path: Path) -> None:
    path = tmp_path / "sharegpt.json"
    rows = [[("human", "One"), ("gpt", "1")], [("gpt", "Odd")], [], [("user", "Two")]]
    turns = [[{"from": sender, "value": value} for sender, value in row] for row in rows]
    path.write_text(json.dumps([{"id": "a", "conversations": each} for each in turns]))
    assert [text(list(source.messages)) for source in read_prompts(path)] == ["One", "Two"]
    asked = Workload(prompts=path, output_tokens=Length(9)).prompt_sources()
    assert [source.output_tokens for source in itertools.islice(asked, 3)] == [9, 9, 9]


@pytest.mark.parametrize("read_at_once", [1, 7, 1 << 20])
@pytest.mark.parametrize("start", ["", "\ufeff", " \n"])
def test_an_array_is_read_as_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_at_once: int, start: str
) -> None:
    """ShareGPT's file has hundreds of megabytes in one line."""
    monkeypatch.setattr(prompts, "READ_CHARACTERS", max(read_at_once, len(start) + 1))
    path = tmp_path / "sharegpt.json"
    rows = [{"conversations": [{"from": "human", "value": f'Nr. {n}, "[x]"'}]} for n in range(20)]
    path.write_text(start + json.dumps(rows, indent=2 if read_at_once == 7 else None), encoding="utf-8")
    assert [text(list(source.messages)) for source in read_prompts(path)] == [f'Nr. {n}, "[x]"' for n in range(20)]
    path.write_text(json.dumps(rows)[:-9])
    with pytest.raises(ValueError, match="prompt 20 is malformed"):
        list(read_prompts(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "x"}\n{"question": "y"}\n', "prompt 2 is malformed: it has neither messages"),
        ("{", "prompt 1 is malformed"),
        ('"x"\n', "prompt 1 is malformed"),
        ('{"prompt": null}\n', "the prompt is not a text"),
        ('{"messages": []}\n', "at least one message"),
        ('{"prompt": "x", "output_tokens": Infinity}\n', "prompt 1 is malformed"),
        ('{"prompt": "x", "output_tokens": -5}\n', "-5 is not a number of tokens"),
        ('[{"conversations": "x"}]', "prompt 1 is malformed"),
        ("[" * 100_000, "prompt 1 is malformed"),
    ],
)
def test_a_malformed_prompt_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        list(read_prompts(path))


def test_an_empty_file_of_prompts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n")
    with pytest.raises(ValueError, match="there is no prompt in it"):
        next(Workload(prompts=path).prompt_sources())


MOONCAKE = (
    '{"timestamp": 1000, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}\n'
    '{"timestamp": 1003.5, "input_length": 10, "output_length": 0, "hash_ids": []}\n'
)
AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319569,3180,8\n2023-11-17 00:00:00,1,1\n"
)
BURST_GPT = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,abc,1,ChatGPT,472,18,490,Conversation log\n6.25,abc,1,ChatGPT,9,0,9,Conversation log\n"
    "45.0,,1,GPT-4,1087,230,1317,API log\n"
)
OLD_BURST_GPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,4,2,6,API log\n"


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (MOONCAKE, [TraceRow(0, 6758, 500, (0, 1, 2)), TraceRow(3_500_000, 10, 1)]),
        (
            AZURE,
            [TraceRow(0, 4808, 10), TraceRow(51_996_900, 3180, 8), TraceRow(20_576_020_040_000, 1, 1)],
        ),
        (BURST_GPT, [TraceRow(0, 472, 18, (), "abc"), TraceRow(40_000_000_000, 1087, 230)]),
        (OLD_BURST_GPT, [TraceRow(0, 4, 2)]),
        ("\ufeff" + OLD_BURST_GPT.replace("\n", "\r\n"), [TraceRow(0, 4, 2)]),
    ],
    ids=["mooncake", "azure", "burstgpt", "burstgpt without sessions", "a byte order mark"],
)
def test_traces_are_told_apart_by_their_head(tmp_path: Path, content: str, rows: list[TraceRow]) -> None:
    path = tmp_path / "trace"
    path.write_text(content, newline="")
    assert list(read_trace(path)) == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "neither a Mooncake trace"),
        ("", "neither a Mooncake trace"),
        (MOONCAKE + '{"timestamp": 1}\n', "row 3 is malformed"),
        (MOONCAKE + "[1]\n", "row 3 is malformed"),
        (
            MOONCAKE + '{"timestamp": 9, "input_length": 1, "output_length": 1}\n',
            "row 3 is earlier than the one before",
        ),
        (AZURE + "2033-11-20 00:00:00,1,1\n", "row 4 is more than ten years later"),
        (BURST_GPT + "inf,,1,GPT-4,1,2,1,API log\n", "row 3 is malformed"),
        (BURST_GPT + "46,,1,GPT-4,1e9,2,1,API log\n", "row 3 is malformed"),
        (AZURE + "yesterday,1,1\n", "row 4 is malformed"),
        (AZURE + "2023-11-17 00:00:01\n", "row 4 is malformed"),
        (BURST_GPT + "46,,1,GPT-4,-1,2,1,API log\n", "row 3 is malformed"),
    ],
)
def test_a_malformed_trace_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "trace"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        list(read_trace(path))


@pytest.mark.one_loop
@pytest.mark.parametrize(
    ("style", "source", "asked"),
    [
        ("vllm", "tokenizer", ["/tokenize"] * 2),
        ("sglang", "tokenizer", ["/tokenize"] * 3 + ["/v1/chat/completions"]),
        ("llama.cpp", "tokenizer", ["/tokenize"] * 3 + ["/v1/chat/completions"]),
        (None, "usage", ["/tokenize"] * 2 + ["/v1/chat/completions"] * 2),
    ],
)
async def test_a_server_with_a_tokenizer_is_asked_how_long_words_are(
    style: TokenizerStyle | None, source: str, asked: list[str]
) -> None:
    """Of those that count text alone, one small request brings the template's length."""
    server = simulator(Reply(tokens=1), Config(tokenizer=style, api_keys=frozenset({"k"})))
    async with server as base_url:
        plan = LoadPlan(model="m", base_url=base_url, api_key="k", concurrency=1, requests=3)
        report = await run(plan)
    assert [request.path for request in server.requests] == asked + ["/v1/chat/completions"] * 3
    assert {request.status for request in server.requests} <= {200, 400, 404}
    assert report.lengths_counted_by == source
    assert (report.tokens_per_word, report.prompt_overhead_tokens) == (1, 6)
    assert report.stages[0].summary.prompt_tokens_mean == 512
    assert report.stages[0].notices == []
