"""Keeps the key out of errors, which quote servers, which repeat keys."""

from __future__ import annotations

import html
import re
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, quote_plus

from chatscope.protocol.loading import dump

_SHORTEST_SECRET: Final = 8
"""Shorter keys are placeholders for servers that do not check keys. They occur in ordinary words: redacting them would
spoil messages and protect nothing."""

_PLACEHOLDER_WORD: Final = re.compile(
    r"""
    an?|any|anything|applicable|change|changeme|default|empty|here|in|is|me|missing|my|na|necessary|needed|no|none|not
    |notneeded|notrequired|notused|null|optional|or|placeholder|provided|random|replace|required|set|some|string|the|this
    |undefined|unset|unused|used|whatever|with|your
    |anonymous|api|auth|authentication|key|keys|noauth|nokey|sk|token
    |demo|dummy|example|fake|free|mock|sample|test|testing
    |cpp|llama|lm|lmstudio|local|localhost|ollama|open|openai|sglang|studio|vllm
    """,
    re.VERBOSE,
)
_PLACEHOLDERS: Final = frozenset(
    {
        "nokeyrequired",
        "nokeyneeded",
        "token-abc123",  # vLLM's documentation
    }
)
"""Placeholders for servers that do not check keys: `lm-studio` and `not-needed` in LM Studio's and llama-cpp-python's
examples, `sk-no-key-required` in llama.cpp's. vLLM's "EMPTY" and "ollama" are below `_SHORTEST_SECRET`."""


def is_secret(key: str) -> bool:
    """Return whether a key must be redacted."""
    return len(key) >= _SHORTEST_SECRET and not _is_placeholder(key.lower())


@lru_cache(maxsize=64)
def _is_placeholder(key: str) -> bool:
    """Return whether a key consists of placeholder words, or of one repeated character."""
    words = re.findall(r"[^\W_]+", key)
    return key in _PLACEHOLDERS or len(set(key)) == 1 or all(map(_PLACEHOLDER_WORD.fullmatch, words))


def redact(value: Any, key: str) -> Any:
    """Return a JSON value with the key replaced by `***` in every text in it, verbatim or escaped."""
    if isinstance(value, str) and len(value) < len(key):
        return value  # escaped, a key is longer still
    return _redact(value, key) if is_secret(key) else value


def shows_key(text: str, key: str) -> bool:
    """Return whether text has the key in it, verbatim or escaped."""
    return any(form in text for form in _forms(key))


@lru_cache(maxsize=64)
def _forms(key: str) -> tuple[str, ...]:
    """Return how servers repeat a key: verbatim, or as JSON, JSON within JSON, an address or a page escapes it."""
    quoted = [str(key), dump(str(key))[1:-1]]
    quoted += [dump(form)[1:-1] for form in quoted]
    quoted += [form.replace("/", "\\/") for form in quoted]
    forms = [*quoted, quote(key, safe=""), quote(key), quote_plus(key), html.escape(key), html.escape(key, quote=False)]
    return tuple(sorted(dict.fromkeys(forms), key=len, reverse=True))  # longest first: none may leave a part of another


def _replaced(text: str, forms: tuple[str, ...]) -> str:
    for form in forms:
        text = text.replace(form, "***")
    return text


def _redact(value: Any, key: str) -> Any:
    if isinstance(value, str):
        return _replaced(value, _forms(str(key)))
    if isinstance(value, list):
        return [_redact(item, key) for item in value]
    if isinstance(value, dict):
        return {_redact(name, key): _redact(item, key) for name, item in value.items()}
    return value
