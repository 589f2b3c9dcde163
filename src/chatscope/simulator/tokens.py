"""The simulator's token rule, so that usage adds up and can be worked out by hand.

A token is a run of word characters, or one other character, together with the whitespace before it; whitespace at the
very end is one token. Joining a text's tokens gives the text. A real tokenizer would be a dependency and a download.
"""

from __future__ import annotations

import itertools
import re

TOKEN = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")


def tokenize(text: str) -> list[str]:
    """Cut a text into its tokens."""
    return TOKEN.findall(text)


def stretch(text: str, count: int) -> str:
    """Repeat or cut a text so that it has exactly `count` tokens."""
    tokens = tokenize(" " + (text.strip() or "token"))  # the space keeps a repetition from growing onto the last word
    return "".join(itertools.islice(itertools.cycle(tokens), count)).lstrip()
