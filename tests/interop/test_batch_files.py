"""The files of a batch, read by code that is not ours; files of other tools; and a batch through the LiteLLM proxy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from openai.types.chat import ChatCompletion
from openai.types.shared import ErrorObject
from tests.batch.test_batch_run import fails_for, finish
from tests.support.batches import ids, line, read_lines, write_lines
from tests.support.memory_server import Serve

from chatscope import AsyncChatGPTAdapter, RetryPolicy
from chatscope.batch import run_batch
from chatscope.batch.export import export
from chatscope.batch.status import read_status

if TYPE_CHECKING:
    from tests.support.litellm_proxy import LiteLLMProxy

# As vLLM's page on run-batch shows them: https://docs.vllm.ai/en/latest/examples/offline_inference/openai_batch.html.
VLLM_BODY = {
    "id": "cmpl-61c020e54b964d5a98fa7527bfcdd378",
    "object": "chat.completion",
    "created": 1715633336,
    "model": "meta-llama/Meta-Llama-3-8B-Instruct",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello!"},
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
        }
    ],
    "usage": {"prompt_tokens": 25, "total_tokens": 56, "completion_tokens": 31},
}
VLLM_OUTPUT: list[dict[str, Any]] = [
    {"id": "vllm-1", "custom_id": "request-0", "response": VLLM_BODY, "error": None},
    {
        "id": "vllm-2",
        "custom_id": "request-1",
        "response": {"status_code": 200, "request_id": "vllm-batch-2", "body": VLLM_BODY},
        "error": None,
    },
    {
        "id": "vllm-3",
        "custom_id": "request-2",
        "response": {"status_code": 400, "request_id": "vllm-batch-3", "body": None},
        "error": {"object": "error", "message": "too long", "type": "BadRequestError", "param": None, "code": 400},
    },
    {"id": "vllm-4", "custom_id": "request-3", "response": None, "error": "the engine died"},
]


@pytest.mark.one_loop
@pytest.mark.parametrize("stream", [True, False])
async def test_the_openai_package_reads_successes_and_failures(serve: Serve, tmp_path: Path, stream: bool) -> None:
    source = write_lines(tmp_path / "in.jsonl", [line(number, n=2, logprobs=True) for number in range(4)])
    await finish(serve(fails_for(3)), source, tmp_path / "out.jsonl", stream=stream)
    for recorded in read_lines(tmp_path / "out.jsonl"):
        completion = ChatCompletion.model_validate(recorded["response"]["body"], strict=True)
        assert completion.choices[0].message.content == "Hello."
        assert completion.usage is not None
        assert completion.usage.total_tokens > 0
        assert {type(recorded["id"]), type(recorded["custom_id"]), recorded["error"]} == {str, None}
    (refused,) = read_lines(tmp_path / "out.errors.jsonl")
    assert ErrorObject.model_validate(refused["response"]["body"]["error"]).type == "invalid_request_error"


@pytest.mark.one_loop
@pytest.mark.slow
@pytest.mark.parametrize("output_format", ["batch", "record"])
async def test_pandas_reads_the_lines_and_both_exports(serve: Serve, tmp_path: Path, output_format: str) -> None:
    pandas = pytest.importorskip("pandas")
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(4)])
    await finish(serve(fails_for(3)), source, tmp_path / "out.jsonl", output_format=output_format)
    assert len(pandas.read_json(tmp_path / "out.jsonl", lines=True)) == 3
    for target, read in (("x.parquet", pandas.read_parquet), ("x.csv", pandas.read_csv)):
        assert export(tmp_path / "out.jsonl", tmp_path / target) == 4
        table = read(tmp_path / target).set_index("custom_id")
        assert table["success"].to_dict() == {f"request-{number}": number != 3 for number in range(4)}
        assert (table.loc["request-0", "output"], table.loc["request-0", "completion_tokens"]) == ("Hello.", 2)
        assert table.loc["request-3", "status_code"] == 400
        assert table["cost_usd"].sum() > 0


@pytest.mark.one_loop
async def test_an_output_of_vllm_is_read_exported_and_resumed(serve: Serve, tmp_path: Path) -> None:
    output = write_lines(tmp_path / "out.jsonl", VLLM_OUTPUT)
    status = read_status(output)
    assert (status.succeeded, status.failures, status.in_flight) == (2, {"400": 1, "error": 1}, 0)
    assert export(output, tmp_path / "x.csv") == 4
    assert (tmp_path / "x.csv").read_text().count("Hello!") == 2
    source = write_lines(tmp_path / "in.jsonl", [line(number) for number in range(5)])
    server = serve(fails_for())
    summary = await finish(server, source, output)
    assert (summary.settled, summary.succeeded, len(server.requests)) == (3, 2, 2), "what may pass runs again"


async def test_a_batch_through_the_litellm_proxy(litellm_proxy: LiteLLMProxy, tmp_path: Path) -> None:
    models = ["gpt-4o-mini", "simulated", "context-too-long", "rate-limited", "fails-midway", "gpt-4o-mini"]
    lines = [line(number) for number in range(len(models))]
    for one, model in zip(lines, models, strict=True):
        one["body"]["model"] = model
    source = write_lines(tmp_path / "in.jsonl", lines)
    adapter = AsyncChatGPTAdapter(
        litellm_proxy.api_key, base_url=litellm_proxy.base_url, retry=RetryPolicy(attempts=1), max_concurrency=4
    )
    async with adapter:
        for settled in (0, 4):  # a rate limit and a broken stream may pass, so they run again
            async with run_batch(source, tmp_path / "out.jsonl", adapter=adapter) as run:
                summary = await run.finish()
            assert (summary.settled, summary.exit_code) == (settled, 1)
            assert sorted(ids(tmp_path / "out.jsonl")) == ["request-0", "request-1", "request-5"]
            failures = {one["custom_id"]: one for one in read_lines(tmp_path / "out.errors.jsonl")}
            assert failures["request-2"]["response"]["status_code"] == 400
            assert failures["request-3"]["response"]["status_code"] == 429
            assert failures["request-4"]["response"] is None
    assert litellm_proxy.api_key not in json.dumps(summary.to_dict())
