"""The price table of the package: model, base URL, service tier and moment -> price -> US dollars.

`prices.json` is read at the first look-up, not at import. Prices that users bring are not known here (`resolve.py`).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from functools import cache, lru_cache
from importlib.resources import files

import msgspec

from chatscope.pricing.snapshot import Model, Period, Provider, Snapshot, fits_any
from chatscope.protocol.usage import Usage

# Tiers that are charged the standard price: none named; OpenAI's `default`, and `auto`, which only a server that
# reports no tier leaves unresolved; Groq's `on_demand` (console.groq.com/docs/service-tiers); gateways' `standard`.
STANDARD_TIERS = frozenset({None, "auto", "default", "on_demand", "standard"})

# How many (model, URL, tier) are remembered. A process speaks to few models, but their names come from servers and
# may be endless; a miss costs a sweep over at most some thousand names, an entry less than 300 bytes.
MAX_LOOKUPS = 1024

# `-20251211`, as LiteLLM and OpenRouter write the `-2025-12-11` of a dated model name.
_COMPACT_DATE = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


class PriceTable:
    """Prices of chat models, by provider. Answers equal those of genai-prices, from whose data they are made.

    They cover tokens, and a fee per request where there is one. Fees that the usage doesn't show (per web search, per
    page) are not in it.
    """

    __slots__ = ("_by_id", "_find_periods", "snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._by_id = {provider.id: provider for provider in snapshot.providers}
        self._find_periods = lru_cache(maxsize=MAX_LOOKUPS)(self._periods)

    @classmethod
    def default(cls) -> PriceTable:
        """Return the table that comes with the package; it is read once."""
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
        """Return the US dollars that a request cost, `None` if they are not known: never a guess.

        Args:
            usage: The tokens, as the server counted them.
            model: The model's name, best as in the response, which names the exact one.
            base_url: Where the request went. A URL of a known provider stands for that provider's prices only; any
                other (a proxy, localhost) and none leave it to the model's name.
            service_tier: The tier that the response names. A tier without a price in the table has no cost.
            when: When the request was made (naive: UTC); now, if not given. Some prices change by date or hour.
        """
        when = when or datetime.now(UTC)
        for period in self._find_periods(model, base_url, service_tier):
            if period.holds(when):
                return period.cost(usage)
        return None

    def _periods(self, model: str, base_url: str | None, service_tier: str | None) -> tuple[Period, ...]:
        """Find the periods of a model's price, latest first; the first of them that holds is the one."""
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
        # The source has tiers of a provider's own models only: what a reseller asks for them is not known.
        return priced.tiers.get(service_tier or "", ())[::-1] if owner is provider else ()

    def _find_provider(self, name: str, base_url: str | None) -> Provider | None:
        providers = self.snapshot.providers
        if base_url is not None:
            for provider in providers:
                if re.match(provider.url, base_url):
                    return provider
        return next((provider for provider in providers if fits_any(provider.named, name)), None)

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
        except ValueError:  # a 31st of June is no date, so it is a part of the name
            return match[0]
        return f"-{day.isoformat()}"

    return _COMPACT_DATE.sub(dashed, name)
