"""The simulator's token rule, simple enough to work out usage by hand.

A token is a run of word characters, or one other character, together with the whitespace before it. Whitespace at the
very end is one token. Joined, the tokens of a text are the text. A real tokenizer would need a dependency and a
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
    tokens = tokenize(" " + (text.strip() or "token"))  # the space separates each repetition from the last word
    return "".join(itertools.islice(itertools.cycle(tokens), count)).lstrip()
