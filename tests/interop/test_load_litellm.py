"""Load tests through the LiteLLM proxy: prompts of the requested length, by the count that the server reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chatscope.load import Length, LoadPlan, Workload, run
from chatscope.simulator import Reply, Script, Simulator, UsageIn

if TYPE_CHECKING:
    from tests.support.litellm_proxy import LiteLLMProxy

pytestmark = pytest.mark.one_loop

COUNTED_BY = pytest.mark.parametrize(
    "script",
    [
        pytest.param(Reply("Hello", first_token=0, between_tokens=0), id="the simulator"),
        # Without usage from behind it, LiteLLM counts with a tokenizer of OpenAI's.
        pytest.param(Reply("Hello", first_token=0, between_tokens=0, usage_in=UsageIn.NOWHERE), id="LiteLLM"),
    ],
)


@COUNTED_BY
@pytest.mark.parametrize("tokens", [64, 512, 4096])
async def test_prompts_have_their_length(
    litellm_proxy: LiteLLMProxy, upstream: tuple[Simulator, str], script: Script, tokens: int
) -> None:
    server, _ = upstream
    before, server.script = server.script, script
    try:
        plan = LoadPlan(
            model="simulated",
            base_url=litellm_proxy.base_url,
            api_key=litellm_proxy.api_key,
            concurrency=2,
            requests=6,
            workload=Workload(prompt_tokens=Length(tokens)),
        )
        report = await run(plan)
    finally:
        server.script = before
    (stage,) = report.stages
    assert stage.summary.ok == 6, stage.summary.failures
    assert stage.summary.prompt_tokens_mean == pytest.approx(tokens, rel=0.02)
    assert not [notice for notice in stage.notices if notice.startswith("prompts")]
