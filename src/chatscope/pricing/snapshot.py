"""The shape of `prices.json`: providers, their models, and the periods of their prices.

Matching follows genai-prices, the source of the data. `.ci/make_prices.py` writes the file, with one model per line and
each price as an array of `Price`'s fields in order. None of these thousands of values can be part of a reference cycle,
so the garbage collector need not look at them (`gc=False`). Not here: look-ups over several providers, and their cache
(`table.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time

import msgspec

from chatscope.pricing.price import Price
from chatscope.protocol.usage import Usage

# A pattern is `name`, `start*`, `*end`, `*part*` or `re:expression`, matched against the name in lower case.
# A term is one pattern, or several that must all match. A model matches if any of its terms does.
Term = str | tuple[str, ...]


class Period(msgspec.Struct, kw_only=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A price and its validity. Without `since` and `daily` it is always valid.

    Attributes:
        price: The price, or `None` if the source lists the model without a price that applies to chat usage.
        above: Pairs `(prompt tokens, price)`, ascending: above that number, *all* tokens cost this price.
        since: The first day, in UTC.
        daily: The start and end of the hours of each day, in UTC. They may span midnight. The end is excluded.
    """

    price: Price | None = None
    above: tuple[tuple[int, Price], ...] = ()
    since: date | None = None
    daily: tuple[time, time] | None = None

    @property
    def is_always_valid(self) -> bool:
        """Whether the price is valid at any time."""
        return self.since is None and self.daily is None

    def is_valid(self, when: datetime) -> bool:
        """Return whether the price is valid at a time. A naive one is in UTC."""
        if when.tzinfo is not None:
            when = when.astimezone(UTC)
        in_force = self.since is None or when.date() >= self.since
        return in_force and (self.daily is None or _within(when.time(), *self.daily))

    def cost(self, usage: Usage) -> float | None:
        """Return the cost of a usage in US dollars, `None` if it is unknown."""
        price = self.price
        for tokens, higher in self.above:
            if usage.prompt_tokens > tokens:
                price = higher
        return None if price is None else price.cost(usage)


class Model(msgspec.Struct, kw_only=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A model of a provider. The last valid period applies, both of the standard price and of a service tier's.

    Attributes:
        id: The source's name for it.
        match: The names that match it. If empty, its id in lower case.
        prices: The periods of the standard price. If empty, the source has no price, and no other model is tried.
        tiers: The prices of other service tiers, by the tier's name in the response.
    """

    id: str
    match: tuple[Term, ...] = ()
    prices: tuple[Period, ...] = ()
    tiers: dict[str, tuple[Period, ...]] = {}

    def matches(self, name: str) -> bool:
        """Return whether a name, in lower case, matches this model."""
        return matches_any(self.match, name) if self.match else self.id == name


class Provider(msgspec.Struct, kw_only=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A provider of models.

    Attributes:
        id: The source's name for it.
        url: A regular expression that matches the start of its base URLs.
        named: The model names that select this provider if no provider's URL matches.
        fallback: The ids of providers whose models it resells at their price, unless it has an entry of its own.
        models: Its models. The first one that matches a name applies.
    """

    id: str
    url: str
    named: tuple[Term, ...] = ()
    fallback: tuple[str, ...] = ()
    models: tuple[Model, ...] = ()

    def find(self, name: str) -> Model | None:
        """Return the model of this provider that a name, in lower case, matches."""
        return next((model for model in self.models if model.matches(name)), None)


class Snapshot(msgspec.Struct, kw_only=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """The whole file.

    Attributes:
        source: The package that the prices come from.
        version: Its version.
        date: The day on which the file was made.
        notice: Its licence.
        providers: The providers, in the order in which URLs and names are looked up.
    """

    source: str
    version: str
    date: date
    notice: str
    providers: tuple[Provider, ...]


def matches_any(terms: Sequence[Term], name: str) -> bool:
    """Return whether any of the terms matches a name in lower case."""
    return any(
        _matches(term, name) if isinstance(term, str) else all(_matches(t, name) for t in term) for term in terms
    )


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith("re:"):
        return re.search(pattern[3:], name) is not None
    if pattern.startswith("*"):
        return pattern[1:-1] in name if pattern.endswith("*") else name.endswith(pattern[1:])
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else pattern == name


def _within(now: time, start: time, end: time) -> bool:
    return now >= start or now < end if end < start else start <= now < end
