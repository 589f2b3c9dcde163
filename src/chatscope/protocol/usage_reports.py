"""Where in a response servers report token counts, and under which names. Not here: how reports are merged (`usage`).

The names are those of the endpoint, Anthropic, Gemini, Ollama, llama.cpp and Amazon, because gateways pass them on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from chatscope.protocol.coerce import choices_of, fit_struct
from chatscope.protocol.usage import Count, Usage, add_usage, merge_usage

_OBJECTS: Final = (
    "timings",  # llama.cpp, tools/server: fewer counts than its usage
    "amazonbedrockinvocationmetrics",
    "tokenusage",
    "usagemetadata",  # ai.google.dev/api/generate-content#UsageMetadata
    "usage",
)
"""The names of objects with counts; a later one takes precedence. All names here are in the form of `_plain`."""

_INNER: Final = ("tokens", "text")
"""The names of objects with counts within those: Cohere's and Spark's."""

_PROMPT: Final = ("prompttokens", "inputtokens", "prompttokencount", "inputtokencount", "promptevalcount")
_COMPLETION: Final = (
    *("completiontokens", "outputtokens", "completiontokencount", "outputtokencount", "candidatestokencount"),
    "evalcount",
)
_TOTAL: Final = ("totaltokens", "totaltokencount")
_CACHED: Final = ("cachedtokens", "promptcachehittokens", "cachedcontenttokencount")
_REASONING: Final = ("reasoningtokens", "thoughtstokencount")

_NAMES: Final = frozenset((*_OBJECTS, *_PROMPT, *_COMPLETION, *_TOTAL))
_COUNTED: Final = (*_PROMPT, *_COMPLETION, *_TOTAL, "promptn", "predictedn")
"""An object without any of these reports nothing."""

_TELLING: Final = _NAMES.union(_COUNTED)


def reports_usage(name: str) -> bool:
    """Return whether a field of a response may report usage, by its name."""
    return _plain(name) in _NAMES


def usage_in(loaded: Mapping[str, Any]) -> Usage | None:
    """Return the usage that a decoded response reports, merged from its own, its choices' (Moonshot) and Groq's."""
    usage = _merged(
        [loaded.get("x_groq")], usage_of_choices([usage_of_choice(choice) for choice in choices_of(loaded)])
    )
    return _merged([loaded.get("message"), loaded], usage)  # a response's own counts replace those of its parts


def usage_of_choice(choice: Mapping[str, Any]) -> Usage | None:
    """Return the usage that a decoded choice reports, itself or in its message or delta."""
    return _merged([choice.get("message"), choice.get("delta"), choice], None)


def usage_of_choices(usages: Iterable[Usage | None]) -> Usage | None:
    """Return the usage of a response whose choices report theirs: they share the prompt."""
    reported = [usage for usage in usages if usage is not None]
    if len(reported) < 2:
        return reported[0] if reported else None
    prompt = max(reported, key=lambda usage: usage.prompt_tokens)
    total = add_usage(*reported)
    return total and msgspec.structs.replace(
        total,
        prompt_tokens=prompt.prompt_tokens,
        prompt_tokens_details=prompt.prompt_tokens_details,
        total_tokens=prompt.prompt_tokens + total.completion_tokens,
    )


def _merged(places: Iterable[object], usage: Usage | None) -> Usage | None:
    """Return a usage merged with those that parts of a response report; later ones take precedence."""
    for place in places:
        if isinstance(place, dict):
            for counts in _reports(place):
                usage = merge_usage(usage, _usage(counts))
    return usage


def _reports(place: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the objects with counts in a part of a response, and the part itself, the most reliable last."""
    fields = {_plain(name): value for name, value in place.items()}
    if _TELLING.isdisjoint(fields):
        return  # most parts of most chunks
    yield {name: value for name, value in fields.items() if isinstance(value, int | float | str)}
    for counts in (fields[name] for name in _OBJECTS if isinstance(fields.get(name), dict)):
        yield from (counts[name] for name in _INNER if isinstance(counts.get(name), dict))
        yield counts


def _usage(counts: Mapping[str, Any]) -> Usage | None:
    """Return the usage in an object, or `None` if it has no counts."""
    fields = {_plain(name): value for name, value in counts.items()}
    if not any(_is_count(fields[name]) for name in _COUNTED if name in fields):
        return None
    prompt, completion = _first(fields, _PROMPT), _first(fields, _COMPLETION)
    cached, reasoning = _first(fields, _CACHED), _first(fields, _REASONING)
    if not _count(fields.get("prompttokens")) and "inputtokens" in fields:
        # Anthropic and Amazon count what the cache read and wrote beside the input, not in it.
        read = _count(fields.get("cachereadinputtokens"))
        prompt += read + _first(fields, ("cachecreationinputtokens", "cachewriteinputtokens"))
        cached = cached or read
    if "promptn" in fields or "predictedn" in fields:  # llama.cpp counts what it took from its cache apart
        cached = cached or _count(fields.get("cachen"))
        prompt = prompt or _count(fields.get("promptn")) + cached
        completion = completion or _count(fields.get("predictedn"))
    if "candidatestokencount" in fields or "thoughtstokencount" in fields:
        completion += reasoning  # Gemini counts the thoughts apart
    usage = fit_struct(counts, Usage)
    named = {"prompt_tokens": prompt, "completion_tokens": completion}
    named["total_tokens"] = _first(fields, _TOTAL)
    details: dict[str, Any] = {}
    if cached and usage.prompt_tokens_details is None:
        details["prompt_tokens_details"] = {"cached_tokens": cached}
    if reasoning and usage.completion_tokens_details is None:
        details["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return fit_struct(dict(counts) | named | details, Usage)


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> int:
    """Return the first count that is not 0."""
    return next((count for name in names if name in fields and (count := _count(fields[name]))), 0)


def _is_count(value: object) -> bool:
    """Return whether a value reports a number, even an implausible one. A negative number means that there is none."""
    is_digits = isinstance(value, str) and value.isascii() and value.isdecimal()
    return is_digits or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0)


def _count(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        return msgspec.convert(value, Count, strict=False)
    except msgspec.ValidationError:
        return 0


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
