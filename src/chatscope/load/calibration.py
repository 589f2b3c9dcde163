"""Measures how many tokens a word has by the server's own count, so that no tokenizer is needed here.

A server with a tokenizer is asked (`server_tokenizer`). To any other server, two small requests are sent for their
usage.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import httpx

from chatscope import ChatClient
from chatscope.load.plan import LoadPlan
from chatscope.load.prompts import PromptSource
from chatscope.load.server_tokenizer import ServerTokenizer
from chatscope.load.workload import WordScale, Workload
from chatscope.profiles import find_profile
from chatscope.protocol.messages import SentMessage
from chatscope.protocol.request import max_tokens_name

PROBE_WORDS: Final = (64, 576)
"""Their difference is large enough for a slope within 1 % of the true one. Both fit the smallest context windows."""

COUNTED_WORDS: Final = (64, 4160)
"""For prompts that are only counted, and so are not limited by a context window."""

ScaleSource = Literal["tokenizer", "usage"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The scale of a run's prompts, and its origin: the server's tokenizer, or the usage of two requests."""

    scale: WordScale
    source: ScaleSource


async def calibrate(
    client: ChatClient, plan: LoadPlan, workload: Workload, transport: httpx.AsyncBaseTransport
) -> Calibration | None:
    """Measure the scale. If cancelled, so are the requests.

    Returns:
        The scale; `None` if the server reports no usage and has no tokenizer.

    Raises:
        ChatError: a request failed.
    """
    probes = _Probes(client, plan, workload)
    profile = find_profile(plan.profile, client.base_url)
    if not profile.hosts:  # services that are recognised by their hosts have no tokenizer
        found = await _counted(ServerTokenizer(plan, transport, client.base_url), probes)
        if found is not None:
            return Calibration(found, "tokenizer")
    found = await _measured(probes.usage, PROBE_WORDS)
    return None if found is None else Calibration(found, "usage")


async def _counted(tokenizer: ServerTokenizer, probes: _Probes) -> WordScale | None:
    """Return the scale by the server's tokenizer; `None` if it has none. If it omits the template, that is probed."""
    found = await _measured(lambda words: tokenizer.count_messages(probes.messages(words)), COUNTED_WORDS)
    if found is not None:
        return found
    found = await _measured(lambda words: tokenizer.count_text(probes.text(words)), COUNTED_WORDS)
    if found is None:
        return None
    words = PROBE_WORDS[0]
    whole = await probes.usage(words)
    return found if whole is None else WordScale(found.per_word, whole - found.per_word * words)


async def _measured(count: Callable[[int], Awaitable[int | None]], words: tuple[int, int]) -> WordScale | None:
    """Return the scale from the lengths of two prompts; `None` if one is unknown or they are equal."""
    few = await count(words[0])
    many = None if few is None else await count(words[1])
    if few is None or many is None or many <= few:
        return None
    per_word = (many - few) / (words[1] - words[0])
    return WordScale(per_word=per_word, overhead=few - per_word * words[0])


@dataclass(slots=True)
class _Probes:
    """Prompts of given lengths in words. No two start alike, and none starts like a prompt of the run."""

    client: ChatClient
    plan: LoadPlan
    workload: Workload
    made: int = 0

    def messages(self, words: int) -> list[SentMessage]:
        """Return a prompt."""
        self.made += 1  # their indexes are below zero
        return self.workload.messages(-self.made, PromptSource(prompt_tokens=words), WordScale())

    def text(self, words: int) -> str:
        """Return the text of a prompt."""
        return str(self.messages(words)[0].get("content"))

    async def usage(self, words: int) -> int | None:
        """Send a prompt and return its length by the server's usage; `None` if that is not reported.

        Raises:
            ChatError: the request failed.
        """
        parameters: dict[str, Any] = {**self.plan.parameters, max_tokens_name(self.plan.model): 1}
        completion = await self.client.complete(model=self.plan.model, messages=self.messages(words), **parameters)
        return None if completion.usage is None else completion.usage.prompt_tokens or None
