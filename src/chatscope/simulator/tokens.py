"""The simulator's token rule, by which usage can be worked out by hand.

A token is a run of word characters, or one other character, together with the whitespace before it. Whitespace at the
very end is one token. The tokens of a text, joined, are the text. A real tokenizer would be a dependency and a
download.
"""

from __future__ import annotations

import itertools
import re

TOKEN = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")


def tokenize(text: str) -> list[str]:
    """Return the tokens of a text."""
    return TOKEN.findall(text)


def stretch(text: str, count: int) -> str:
    """Return a text repeated or cut to exactly `count` tokens."""
    tokens = tokenize(" " + (text.strip() or "token"))  # the space keeps a repetition from growing onto the last word
    return "".join(itertools.islice(itertools.cycle(tokens), count)).lstrip()
