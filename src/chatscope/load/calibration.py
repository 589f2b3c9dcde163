"""How long a word is in tokens, as the server counts. No tokenizer: two small requests, and the server's own usage."""

from __future__ import annotations

from typing import Any, Final

from chatscope import ChatClient
from chatscope.load.plan import LoadPlan
from chatscope.load.prompts import PromptSource
from chatscope.load.workload import WordScale, Workload
from chatscope.protocol.request import max_tokens_name

PROBE_WORDS: Final = (64, 576)
"""Their difference is large enough for a slope that is right within 1 %, and fits the smallest context windows."""


async def calibrate(client: ChatClient, plan: LoadPlan, workload: Workload) -> WordScale | None:
    """Measure the scale with two requests of one token each. If cancelled, so are they.

    Returns:
        The scale; `None` if the server reports no usage.

    Raises:
        ChatError: a request failed.
    """
    counts = []
    for index, words in enumerate(PROBE_WORDS):
        # Indexes below zero: no prompt of the run starts like a probe.
        messages = workload.messages(index - len(PROBE_WORDS), PromptSource(prompt_tokens=words), WordScale())
        parameters: dict[str, Any] = {**plan.parameters, max_tokens_name(plan.model): 1}
        completion = await client.complete(model=plan.model, messages=messages, **parameters)
        if completion.usage is None or not completion.usage.prompt_tokens:
            return None
        counts.append(completion.usage.prompt_tokens)
    per_word = (counts[1] - counts[0]) / (PROBE_WORDS[1] - PROBE_WORDS[0])
    if per_word <= 0:
        return None  # the count does not follow the prompt
    return WordScale(per_word=per_word, overhead=counts[0] - per_word * PROBE_WORDS[0])
