"""The price table of the package: from model, base URL, service tier and time to US dollars.

`prices.json` is read at the first look-up, not at import. Not here: the user's own prices (`resolve.py`).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from functools import cache, lru_cache
from importlib.resources import files

import msgspec

from chatscope.pricing.snapshot import Model, Period, Provider, Snapshot, matches_any
from chatscope.protocol.usage import Usage

# Tiers that cost the standard price: no tier at all; OpenAI's `default`; `auto`, which a server that reports tiers
# replaces by the actual one; Groq's `on_demand` (console.groq.com/docs/service-tiers); gateways' `standard`.
STANDARD_TIERS = frozenset({None, "auto", "default", "on_demand", "standard"})

# How many look-ups of (model, URL, tier) are cached. A process uses few models, but the names come from servers and may
# be endless. A miss searches a few thousand names at most; an entry takes less than 300 bytes.
MAX_LOOKUPS = 1024

# `-20251211`, as LiteLLM and OpenRouter write the `-2025-12-11` of a dated model name.
_COMPACT_DATE = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


class PriceTable:
    """The prices of chat models, by provider. The results equal those of genai-prices, the source of the data.

    They cover tokens, and the fee per request if there is one. Fees that the usage does not show (per web search, per
    page) are not included.
    """

    __slots__ = ("_by_id", "_find_periods", "snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._by_id = {provider.id: provider for provider in snapshot.providers}
        self._find_periods = lru_cache(maxsize=MAX_LOOKUPS)(self._periods)

    @classmethod
    def default(cls) -> PriceTable:
        """Return the table of the package. The file is read once."""
        return _packaged()

    @classmethod
    def from_json(cls, data: bytes | str) -> PriceTable:
        """Read a table in the format of `prices.json`.

        Raises:
            msgspec.ValidationError: the data is not in that format.
        """
        return cls(msgspec.json.decode(data, type=Snapshot))

    def cost(
        self,
        usage: Usage,
        model: str,
        *,
        base_url: str | None = None,
        service_tier: str | None = None,
        when: datetime | None = None,
    ) -> float | None:
        """Return the cost of a request in US dollars, or `None` if it is unknown: never a guess.

        Args:
            usage: The tokens, as counted by the server.
            model: The model's name, preferably from the response, which names the exact model.
            base_url: The base URL of the request. The URL of a known provider restricts the search to that provider.
                For any other URL (a proxy, localhost) or none, the model's name selects the provider.
            service_tier: The tier in the response. If the table has no price for it, the cost is unknown.
            when: The time of the request, by default now. A naive time is UTC. Some prices change by date or hour.
        """
        for period in self._find_periods(model, base_url, service_tier):
            if period.is_always_valid or period.is_valid(when := when or datetime.now(UTC)):
                return period.cost(usage)
        return None

    def _periods(self, model: str, base_url: str | None, service_tier: str | None) -> tuple[Period, ...]:
        """Return the periods of a model's price, latest first. The first valid one applies."""
        name = model.lower()
        provider = self._find_provider(name, base_url)
        if provider is None:
            return ()
        found = self._find_model(provider, name) or self._find_model(provider, _with_dashed_date(name))
        if found is None:
            return ()
        owner, priced = found
        if service_tier in STANDARD_TIERS:
            return priced.prices[::-1]
        # The source lists tiers for a provider's own models only. A reseller's prices for them are unknown.
        return priced.tiers.get(service_tier or "", ())[::-1] if owner is provider else ()

    def _find_provider(self, name: str, base_url: str | None) -> Provider | None:
        providers = self.snapshot.providers
        if base_url is not None:
            for provider in providers:
                if re.match(provider.url, base_url):
                    return provider
        return next((provider for provider in providers if matches_any(provider.named, name)), None)

    def _find_model(self, provider: Provider, name: str) -> tuple[Provider, Model] | None:
        for owner in (provider, *(self._by_id[other] for other in provider.fallback)):
            if model := owner.find(name):
                return owner, model
        return None


@cache
def _packaged() -> PriceTable:
    return PriceTable.from_json(files("chatscope.pricing").joinpath("prices.json").read_bytes())


def _with_dashed_date(name: str) -> str:
    def dashed(match: re.Match[str]) -> str:
        try:
            day = date(*(int(part) for part in match.groups()))
        except ValueError:  # the 31st of June is not a date, so it is a part of the name
            return match[0]
        return f"-{day.isoformat()}"

    return _COMPACT_DATE.sub(dashed, name)
