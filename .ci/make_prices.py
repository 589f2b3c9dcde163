#!/usr/bin/env python3
"""Generate src/chatscope/pricing/prices.json from the installed genai-prices.

    python .ci/make_prices.py            # write the file
    python .ci/make_prices.py --check    # exit 1 if the file is out of date

The file has the prices of chat completions, one model per line. So the package does not depend on genai-prices, which
depends on pydantic and an HTTP client. The date changes only with the prices, so one version of genai-prices always
gives the same file. To update: install a newer version, run this, and commit the file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

from genai_prices import types as source
from genai_prices.data import providers

from chatscope.pricing import Price

PRICES = Path(__file__).parent.parent / "src" / "chatscope" / "pricing" / "prices.json"
NOTICE = (
    "Derived from https://github.com/pydantic/genai-prices, The MIT License (MIT), "
    "Copyright (c) Pydantic Services Inc. 2025 to present"
)

# The source's keys for the counts in a chat completion's usage: our name, and the divisor.
KEYS = {
    "input_mtok": ("input", 1),
    "output_mtok": ("output", 1),
    "cache_read_mtok": ("cached_input", 1),
    "cache_write_mtok": ("cache_write", 1),
    "input_audio_mtok": ("audio_input", 1),
    "output_audio_mtok": ("audio_output", 1),
    "output_reasoning_mtok": ("reasoning", 1),
    "requests_kcount": ("per_request", 1000),
}
# Keys that do not affect chat usage: it does not distinguish one-hour cache writes or cached audio (`Price.cost`
# returns None for it), and searches are fees of tools, which usage does not count.
IGNORED = {"cache_write_1h_mtok", "cache_audio_read_mtok", "web_searches_kcount", "storage_searches_kcount"}
# A price with any other key has a part that chat usage does not report (images, video, hours, pages, citations). A
# total without that part would be wrong, so such a model has no price here.


def render(day: date) -> str:
    """Return the text of the file, dated `day`."""
    head = {"source": "genai-prices", "version": version("genai-prices"), "date": day.isoformat(), "notice": NOTICE}
    lines = ["{", *(f"{_dump(key)}:{_dump(value)}," for key, value in head.items()), '"providers":[']
    for index, provider in enumerate(providers):
        fields = {
            "id": provider.id,
            "url": provider.api_pattern,
            "named": _terms(provider.model_match) if provider.model_match else None,
            "fallback": provider.fallback_model_providers,
        }
        opening = ",".join(f"{_dump(key)}:{_dump(value)}" for key, value in fields.items() if value)
        models = [_dump(_model(model)) for model in provider.models]
        closing = "]}" if index == len(providers) - 1 else "]},"
        lines += [f'{{{opening},"models":[', *(f"{line}," for line in models[:-1]), *models[-1:], closing]
    return "\n".join([*lines, "]}", ""])


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _model(model: source.ModelInfo) -> dict[str, Any]:
    terms = _terms(model.match)
    periods = _standard_periods(model)
    tiers = dict(_tiers(model)) if periods else {}
    fields = {"id": model.id, "match": terms if terms != [model.id] else None, "prices": periods, "tiers": tiers}
    return {key: value for key, value in fields.items() if value}


def _standard_periods(model: source.ModelInfo) -> list[dict[str, Any]]:
    """Return the periods of the standard price; none if the model never has a price."""
    conditional = model.prices
    if isinstance(conditional, source.ModelPrice):
        conditional = [source.ConditionalPrice(prices=conditional)]
    periods = [_period(model, each.prices, each.constraint) for each in conditional]
    if not any("price" in period for period in periods):
        return []
    # The first price also applies when no other does, so its own condition does not matter.
    periods[0] = _period(model, conditional[0].prices, None)
    return periods


def _tiers(model: source.ModelInfo) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the service tiers with whole prices; in the source a tier overrides parts of the standard price."""
    variants = [variant for variant in model.price_variants or () if variant.when.keys() == {"service_tier"}]
    standard = model.prices if isinstance(model.prices, list) else []
    for tier in dict.fromkeys(variant.when["service_tier"] for variant in variants):
        own = [variant for variant in variants if variant.when["service_tier"] == tier]
        if tier == "default":
            if any(_keys(variant.prices) for variant in own):
                raise NotImplementedError(f"{model.id}: a default tier that differs from the standard price")
            continue
        starts = [_start(variant.constraint) for variant in own]
        changes = {*starts, *(_start(price.constraint) for price in standard)}
        periods = []
        for day in sorted(change for change in changes if change >= min(starts)):
            moment = datetime.combine(day, time(), UTC)
            resolved = model.get_prices(moment, {"service_tier": tier})
            constraint = None if day == date.min else source.StartDateConstraint(day)
            periods.append(_period(model, resolved, constraint))
        yield tier, periods


def _start(constraint: source.StartDateConstraint | source.TimeOfDateConstraint | None) -> date:
    if isinstance(constraint, source.TimeOfDateConstraint):
        raise NotImplementedError("a service tier with daily hours")
    return constraint.start_date if constraint else date.min


def _period(
    model: source.ModelInfo,
    price: source.ModelPrice,
    constraint: source.StartDateConstraint | source.TimeOfDateConstraint | None,
) -> dict[str, Any]:
    period: dict[str, Any] = {}
    if isinstance(constraint, source.StartDateConstraint):
        period["since"] = constraint.start_date.isoformat()
    elif constraint is not None:
        period["daily"] = [_utc(constraint.start_time), _utc(constraint.end_time)]
    keys = _keys(price)
    if not keys:
        # The source writes no zeros. A model without prices is free only if its name says so.
        if model.id.endswith(":free") or (model.name or "").endswith("(free)"):
            period["price"] = [0, 0]
    elif {"input_mtok", "output_mtok"} <= keys <= {*KEYS, *IGNORED}:
        period["price"] = _at(price, 0)
        if starts := sorted({tier.start for key in keys for tier in _long_context(getattr(price, key))}):
            period["above"] = [[start, _at(price, start + 1)] for start in starts]
    return period


def _keys(price: source.ModelPrice) -> set[str]:
    return {key for key, value in vars(price).items() if value is not None}


def _long_context(value: Decimal | source.TieredPrices) -> list[source.Tier]:
    return value.tiers if isinstance(value, source.TieredPrices) else []


def _at(price: source.ModelPrice, prompt_tokens: int) -> list[float | None]:
    """Return the price from this number of prompt tokens on, as the array that `Price` is decoded from."""
    flat: dict[str, float] = {}
    for key, (name, units) in KEYS.items():
        value = getattr(price, key)
        if value is not None:
            flat[name] = _number(source.calc_unit_price(value, 1, prompt_tokens, units))
    row = [flat.get(name) for name in Price.__struct_fields__]
    while row[-1] is None:
        row.pop()
    return row


def _number(value: Decimal) -> float:
    return int(value) if value == value.to_integral_value() else float(value)


def _utc(value: time) -> str:
    if value.utcoffset():
        value = datetime.combine(date(1970, 1, 1), value).astimezone(UTC).timetz()
    return value.replace(tzinfo=None).isoformat()


def _terms(clause: Any) -> list[str | list[str]]:
    """Return a match as terms. Any term must match; a term of several patterns needs all of them."""
    return [patterns[0] if len(patterns) == 1 else patterns for patterns in _any_of(clause)]


def _any_of(clause: Any) -> list[list[str]]:
    match clause:
        case source.ClauseOr():
            return [patterns for part in clause.or_ for patterns in _any_of(part)]
        case source.ClauseAnd():
            combinations = itertools.product(*(_any_of(part) for part in clause.and_))
            return [[pattern for patterns in each for pattern in patterns] for each in combinations]
        case source.ClauseRegex():
            return [[f"re:{clause.regex}"]]
        case source.ClauseEquals():
            return [[_literal(clause.equals)]]
        case source.ClauseStartsWith():
            return [[f"{_literal(clause.starts_with)}*"]]
        case source.ClauseEndsWith():
            return [[f"*{_literal(clause.ends_with)}"]]
        case source.ClauseContains():
            return [[f"*{_literal(clause.contains)}*"]]
    raise NotImplementedError(f"a match by {type(clause).__name__}")


def _literal(text: str) -> str:
    if "*" in text or text.startswith("re:"):
        raise NotImplementedError(f"a name that reads as a pattern: {text!r}")
    return text.lower()


def main() -> int:
    """Write or check the file; the exit code."""
    parser = argparse.ArgumentParser(description="Make prices.json from the installed genai-prices.")
    parser.add_argument("--check", action="store_true", help="exit 1 if the file is not what would be written")
    check = parser.parse_args().check
    old = PRICES.read_text(encoding="utf-8") if PRICES.exists() else ""
    if old and old == render(date.fromisoformat(json.loads(old)["date"])):
        sys.stdout.write(f"{PRICES.name} is up to date\n")
        return 0
    if check:
        sys.stdout.write(f"{PRICES.name} is not what genai-prices {version('genai-prices')} gives\n")
        return 1
    PRICES.write_text(render(datetime.now(UTC).date()), encoding="utf-8")
    sys.stdout.write(f"{PRICES.name} written, {PRICES.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
