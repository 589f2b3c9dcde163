"""Costs are those of genai-prices, over every provider, model and name of its data.

`expected` says when there is no cost at all; every cost that there is comes from genai-prices.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from functools import cache
from itertools import product
from typing import Any

import genai_prices
import pytest
from genai_prices import data_snapshot
from genai_prices import types as source
from tests.support.tables import row

from chatscope.pricing import PriceTable
from chatscope.protocol.usage import CompletionTokensDetails, PromptTokensDetails, Usage

BUNDLED = data_snapshot.get_snapshot()
PROVIDERS = {provider.id: provider for provider in BUNDLED.providers}
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

# A base URL as users of each provider write it. `openai-decisions` has OpenAI's, which finds `openai` first.
URLS = {
    "anthropic": "https://api.anthropic.com/v1/",
    "arcee": "https://api.arcee.ai/v1",
    "avian": "https://api.avian.io/v1",
    "aws": "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1",
    "azure": "https://my-resource.openai.azure.com/openai/v1/",
    "baseten": "https://inference.baseten.co/v1",
    "cerebras": "https://api.cerebras.ai/v1",
    "cloudflare": "https://api.cloudflare.com/client/v4/accounts/0123/ai/v1",
    "cohere": "https://api.cohere.ai/compatibility/v1",
    "cursor": "https://api.cursor.com/v1",
    "databricks": "https://dbc-1.cloud.databricks.com/serving-endpoints",
    "deepseek": "https://api.deepseek.com",
    "doubleword": "https://api.doubleword.ai/v1",
    "elevenlabs": "https://api.elevenlabs.io/v1",
    "fireworks": "https://api.fireworks.ai/inference/v1",
    "github-copilot": "https://api.githubcopilot.com",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai/",
    "groq": "https://api.groq.com/openai/v1",
    "huggingface_cerebras": "https://router.huggingface.co/cerebras/v1",
    "huggingface_fireworks-ai": "https://router.huggingface.co/fireworks-ai/v1",
    "huggingface_groq": "https://router.huggingface.co/groq/v1",
    "huggingface_hyperbolic": "https://router.huggingface.co/hyperbolic/v1",
    "huggingface_nebius": "https://router.huggingface.co/nebius/v1",
    "huggingface_novita": "https://router.huggingface.co/novita/v1",
    "huggingface_nscale": "https://router.huggingface.co/nscale/v1",
    "huggingface_ovhcloud": "https://router.huggingface.co/ovhcloud/v1",
    "huggingface_publicai": "https://router.huggingface.co/publicai/v1",
    "huggingface_sambanova": "https://router.huggingface.co/sambanova/v1",
    "huggingface_together": "https://router.huggingface.co/together/v1",
    "meta": "https://api.meta.ai/v1",
    "minimax": "https://api.minimax.io/v1",
    "mistral": "https://api.mistral.ai/v1",
    "modal": "https://me--app.modal.run/v1",
    "moonshotai": "https://api.moonshot.ai/v1",
    "novita": "https://api.novita.ai/v3/openai",
    "openai": "https://api.openai.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "ovhcloud": "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1",
    "perplexity": "https://api.perplexity.ai",
    "quicksilverpro": "https://api.quicksilverpro.io/v1",
    "together": "https://api.together.xyz/v1",
    "typesafe": "https://api.typesafe.ai/v1",
    "voyageai": "https://api.voyageai.com/v1",
    "x-ai": "https://api.x.ai/v1",
    "zai": "https://api.z.ai/api/paas/v4",
    "zhipuai": "https://open.bigmodel.cn/api/paas/v4",
}
ELSEWHERE = (None, "http://127.0.0.1:8000/v1", "https://llm-proxy.example.com/v1")

# Parts of a price that the usage of a chat completion has no count for: without them a total would be wrong.
NOT_IN_CHAT_USAGE = {
    *("audio_hours", "input_audio_hours", "input_text_messages_kcount", "input_mchars"),
    *("input_document_kpages", "input_annotated_document_kpages"),
    *("input_image_mtok", "input_video_mtok", "output_image_mtok", "output_video_mtok", "output_citation_mtok"),
}


def usage(prompt: int, completion: int, *, reasoning: int = 0, spoken: int = 0, **read: int) -> Usage:
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetails(**{f"{name}_tokens": count for name, count in read.items()}),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=reasoning, audio_tokens=spoken),
    )


USAGES = {
    "plain": Usage(prompt_tokens=1234, completion_tokens=567, total_tokens=1801),
    "zero": usage(0, 0),
    "cached": usage(2048, 100, cached=1024),
    "all-cached": usage(1024, 1, cached=1024),
    "cache-writes": usage(5000, 300, cached=1000, cache_write=3000),
    "reasoning": usage(100, 900, reasoning=800),
    "audio": usage(300, 200, audio=250, spoken=150),
    "audio-and-cached": usage(300, 200, audio=250, cached=100),
    "audio-and-written": usage(300, 200, audio=250, cache_write=100),
    "more-cached-than-read": usage(100, 10, cached=101),
    "more-reasoned-than-written": usage(100, 10, reasoning=11),
    "at-100k": usage(100_000, 10),
    "above-100k": usage(100_001, 10),
    "at-200k": usage(200_000, 1000, cached=50_000),
    "above-200k": usage(200_001, 1000, cached=50_000, cache_write=1000),
    "at-272k": usage(272_000, 1000, cached=50_000),
    "above-272k": usage(272_001, 1000, cached=50_000, reasoning=500),
    "a-million": usage(1_000_000, 64_000),
}


@cache
def is_known(url: str | None) -> bool:
    return url is not None and any(re.match(provider.api_pattern, url) for provider in BUNDLED.providers)


@cache
def find(name: str, url: str | None) -> tuple[source.Provider, source.ModelInfo] | None:
    try:
        return BUNDLED.find_provider_model(name, None, None, url)
    except LookupError:
        return None


def expected(name: str, tokens: Usage, url: str | None, tier: str | None = None, when: datetime = NOW) -> float | None:
    """The cost by genai-prices, and `None` where its answer would be an estimate."""
    url = url if is_known(url) else None
    found = find(name, url)
    if found is None:
        return None
    provider, model = found
    keys = {key for key, value in vars(model.get_prices(when)).items() if value is not None}
    context = {"service_tier": tier} if tier is not None else None
    if context:
        variants = model.price_variants or [] if model in provider.models else []
        if not any(v.when == context and (v.constraint is None or v.constraint.active(when)) for v in variants):
            return None
    if not keys:
        return 0.0 if model.id.endswith(":free") or (model.name or "").endswith("(free)") else None
    if not keys >= {"input_mtok", "output_mtok"} or keys & NOT_IN_CHAT_USAGE:
        return None
    read = tokens.prompt_tokens_details or PromptTokensDetails()
    written = tokens.completion_tokens_details or CompletionTokensDetails()
    counted = genai_prices.Usage(
        input_tokens=tokens.prompt_tokens,
        output_tokens=tokens.completion_tokens,
        cache_read_tokens=read.cached_tokens,
        cache_write_tokens=read.cache_write_tokens,
        input_audio_tokens=read.audio_tokens,
        output_audio_tokens=written.audio_tokens,
        output_reasoning_tokens=written.reasoning_tokens,
    )
    try:
        price = genai_prices.calc_price(
            counted, name, provider_api_url=url, genai_request_timestamp=when, price_context=context
        )
    except ValueError:  # the counts don't add up, or don't tell what is priced apart
        return None
    return float(price.total_price)


def same(ours: float | None, theirs: float | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return math.isclose(ours, theirs, rel_tol=1e-12, abs_tol=0.0)


def names(model: source.ModelInfo) -> Iterator[str]:
    """Names that mean this model, and some that nearly do."""
    yield model.id
    for kind, text in clauses(model.match):
        match kind:
            case "starts_with":
                yield from (text, f"{text}-2026-01-31", f"{text}07-18:my-org::abc123", f"x{text}")
            case "ends_with":
                yield from (f"vendor/{text}", f"{text}x")
            case "contains":
                yield from (f"a-{text}-b", text[:-1])
            case "regex":
                dated = re.sub(r"\\d\{(\d)\}|\\d", lambda digits: "20260131"[: int(digits[1] or 1)], text)
                yield dated.strip("^$").replace("\\", "")
            case _:
                yield from (text, text.upper(), f"{text}-20260131")


def clauses(clause: Any) -> Iterator[tuple[str, str]]:
    for part in getattr(clause, "or_", ()) or getattr(clause, "and_", ()):
        yield from clauses(part)
    for kind in ("starts_with", "ends_with", "contains", "regex", "equals"):
        if hasattr(clause, kind):
            yield kind, getattr(clause, kind)


def moments(model: source.ModelInfo) -> Iterator[datetime]:
    """Moments around each change of this model's prices."""
    constraints = [price.constraint for price in model.prices] if isinstance(model.prices, list) else []
    for constraint in [*constraints, *(variant.constraint for variant in model.price_variants or ())]:
        if isinstance(constraint, source.StartDateConstraint):
            start = datetime.combine(constraint.start_date, datetime.min.time(), UTC)
            yield from (start, start - timedelta(seconds=1))
            yield start.astimezone(timezone(timedelta(hours=9)))
            yield (start - timedelta(hours=1)).astimezone(timezone(timedelta(hours=9)))  # the next day, over there
            yield start.replace(tzinfo=None)
        elif isinstance(constraint, source.TimeOfDateConstraint):
            for edge in (constraint.start_time, constraint.end_time):
                on_edge = datetime.combine(date(2026, 11, 22), edge)
                yield from (on_edge, on_edge - timedelta(microseconds=1))
                yield on_edge.astimezone(timezone(timedelta(hours=-11)))


def compare(table: PriceTable, cases: Iterator[tuple[Any, ...]]) -> tuple[int, list[Any]]:
    priced, differences = 0, []
    for name, kind, url, tier, when in cases:
        ours = table.cost(USAGES[kind], name, base_url=url, service_tier=tier, when=when)
        theirs = expected(name, USAGES[kind], url, tier, when)
        priced += bool(theirs)
        if not same(ours, theirs):
            differences.append((name, kind, url, tier, when, ours, theirs))
    return priced, differences


def test_every_provider_is_found_by_its_url(table: PriceTable) -> None:
    assert URLS.keys() == PROVIDERS.keys() - {"openai-decisions"}
    for provider, url in URLS.items():
        assert BUNDLED.find_provider(None, None, url).id == provider
        found = table._find_provider("", url)
        assert found is not None
        assert found.id == provider


@pytest.mark.slow
def test_every_name_of_every_model(table: PriceTable) -> None:
    for provider, url in URLS.items():
        models = PROVIDERS[provider].models
        called = [(name, "cached") for name in dict.fromkeys(name for model in models for name in names(model))]
        called += product((model.id for model in models), ("cache-writes", "above-272k"))
        priced, differences = compare(table, ((name, kind, url, None, NOW) for name, kind in called))
        assert differences == [], provider
        assert priced or provider in {"elevenlabs", "typesafe", "voyageai"}  # no chat models


@pytest.mark.slow
def test_every_name_where_the_url_is_nobodys(table: PriceTable) -> None:
    called = dict.fromkeys(name for each in PROVIDERS.values() for model in each.models for name in names(model))
    priced, differences = compare(table, ((name, "cached", ELSEWHERE[1], None, NOW) for name in called))
    assert differences == []
    assert priced > 1000


@pytest.mark.slow
def test_openai_models_in_every_usage(table: PriceTable) -> None:
    rows: list[str | None] = [URLS["openai"], URLS["azure"], *ELSEWHERE]
    for url in rows:
        with row(url):
            called = [model.id for model in PROVIDERS["openai"].models]
            priced, differences = compare(
                table, ((name, kind, url, None, NOW) for name, kind in product(called, USAGES))
            )
            assert differences == []
            assert priced > 800


@pytest.mark.slow
def test_service_tiers(table: PriceTable) -> None:
    rows: list[tuple[str, set[str]]] = [
        ("openai", {"flex", "priority", "fast"}),
        ("google", {"flex", "priority"}),
        ("azure", set[str]()),
    ]
    for provider, sold in rows:
        with row(provider, sold):
            models = [*PROVIDERS["openai"].models, *PROVIDERS["google"].models]
            for tier in ("flex", "priority", "fast", "batch", "scale", "performance", "", "Flex"):
                cases = (
                    (model.id, kind, URLS[provider], tier, when)
                    for model in models
                    for kind, when in product(("audio", "above-272k"), [NOW, *moments(model)])
                )
                priced, differences = compare(table, cases)
                assert differences == [], tier
                assert bool(priced) is (tier in sold), tier


@pytest.mark.slow
def test_prices_that_change_by_date_and_hour(table: PriceTable) -> None:
    cases = [
        (model.id, kind, URLS[provider], None, when)
        for provider in URLS
        for model in PROVIDERS[provider].models
        for kind, when in product(("plain", "above-272k"), moments(model))
    ]
    priced, differences = compare(table, iter(cases))
    assert differences == []
    assert priced > 2000


def test_the_usage_is_read_as_genai_prices_reads_it(table: PriceTable) -> None:
    rows: list[tuple[str, str, str]] = [
        ("openai", "gpt-5.4", "chat"),
        ("openrouter", "openai/gpt-5.6-luna", "chat"),
        ("deepseek", "deepseek-reasoner", "chat"),
        ("google", "gemini-2.5-pro", "chat"),
        ("groq", "openai/gpt-oss-120b", "default"),
        ("x-ai", "grok-4.3", "chat"),
    ]
    for provider, model, flavor in rows:
        with row(provider, model, flavor):
            total = 2500 if provider == "x-ai" else 2300  # xAI counts the reasoning beside the completion
            body = {
                "prompt_tokens": 2000,
                "completion_tokens": 300,
                "total_tokens": total,
                "prompt_tokens_details": {"cached_tokens": 700},
                "completion_tokens_details": {"reasoning_tokens": 200},
            }
            read = genai_prices.extract_usage(
                {"model": model, "usage": body}, provider_api_url=URLS[provider], api_flavor=flavor
            )
            theirs = read.calc_price(genai_request_timestamp=NOW)
            assert theirs.total_price > 0
            tokens = Usage(
                prompt_tokens=2000,
                completion_tokens=300,
                total_tokens=total,
                prompt_tokens_details=PromptTokensDetails(cached_tokens=700),
                completion_tokens_details=CompletionTokensDetails(reasoning_tokens=200),
            )
            assert same(table.cost(tokens, model, base_url=URLS[provider], when=NOW), float(theirs.total_price))
